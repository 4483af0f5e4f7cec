"""Tiny tasks to train text encoders on, as foreign Parquet files."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stages.artifacts.tables import MANIFEST, NEGATIVES

CAPTIONS = ("three oranges , two kiwis",) * 6


def make_task(folder: Path, captions=CAPTIONS, tasks=(("d", "c", "a"),)) -> dict[str, Path]:
    """Manifest and negatives of tasks with the same captions, one after the other; image ids are `task/caption`."""
    return make_tasks(folder, dict.fromkeys(tasks, captions))


def make_tasks(folder: Path, captions: dict[tuple, tuple]) -> dict[str, Path]:
    """captions: those of each (dataset, category, condition). Returns the arguments `manifest` and `negatives`."""
    manifest, negatives = [], []
    for n, (task, texts) in enumerate(captions.items()):
        dataset, category, condition = task
        for i, text in enumerate(texts):
            manifest.append(
                {
                    "image_id": f"{n}/{i}",
                    "path": "x.jpg",
                    "dataset": dataset,
                    "category": category,
                    "condition": condition,
                    "split": "train",
                    "label": 0,
                    "mask_paths": [],
                    "width": 1,
                    "height": 1,
                }
            )
            negatives.append(
                {
                    "image_id": f"{n}/{i}",
                    "sample": 0,
                    "text": text,
                    "attempts": 1,
                    "edits": [],
                    "negative": text.replace("two", "four"),
                }
            )
    pq.write_table(pa.Table.from_pylist(manifest, schema=MANIFEST.schema), folder / "m.parquet")
    pq.write_table(pa.Table.from_pylist(negatives, schema=NEGATIVES.schema), folder / "n.parquet")
    return {"manifest": folder / "m.parquet", "negatives": folder / "n.parquet"}
