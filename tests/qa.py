"""Images, a manifest and questions about them, for the tests of answering, judging and evaluating."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stages.artifacts.tables import MANIFEST, QUESTIONS

RANKED = ("Yes, the cable is cut and it will overheat.", "Yes, it is cut.", "Perhaps it is worn.", "No, it is whole.")


def write_manifest(folder: Path, save_image, rows) -> Path:
    """rows: (image_id, category, split, label); an image of its own for each."""
    records = []
    for n, (image_id, category, split, label) in enumerate(rows):
        save_image(folder / f"{image_id}.png", n)
        records.append(
            {
                "image_id": image_id,
                "path": f"{image_id}.png",
                "dataset": image_id.split("/")[0],
                "category": category,
                "split": split,
                "label": label,
                "mask_paths": [],
            }
        )
    pq.write_table(pa.Table.from_pylist(records, schema=MANIFEST.schema), folder / "m.parquet")
    return folder / "m.parquet"


def question(question_id, image_id="d/cable/bad", **columns):
    """A row of QUESTIONS: a ranked set, unless `columns` say otherwise."""
    row = {
        "question_id": question_id,
        "image_id": image_id,
        "reference_id": "d/cable/ref",
        "group": image_id,
        "level": "standard",
        "question": f"Is it cut? ({question_id})",
        "choices": list(RANKED),
        "answer": RANKED[0],
        "ranked": True,
        "error": None,
    }
    return row | columns


def write(path: Path, table, rows) -> Path:
    """Any table of the pipeline as a foreign Parquet file."""
    pq.write_table(
        pa.Table.from_pylist([{n: r.get(n) for n in table.schema.names} for r in rows], schema=table.schema), path
    )
    return path


def cables(folder: Path, save_image) -> dict[str, Path]:
    """Two categories; `alone` has no normal training image. Paths of the manifest and of nine questions."""
    rows = [
        ("d/cable/ref", "cable", "train", 0),
        ("d/cable/bad", "cable", "test", 1),
        ("d/cable/good", "cable", "test", 0),
        ("d/alone/bad", "alone", "test", 1),
    ]
    manifest = write_manifest(folder, save_image, rows)
    mmad = {"choices": ["scratch", "dent", "hole"], "answer": "dent", "ranked": False, "level": "Defect Classification"}
    questions = [
        *(question(f"r{n}") for n in range(5)),
        question("m", "d/cable/good", reference_id=None, **mmad),
        question("open", choices=[], answer="It is cut at the left end.", ranked=None, level="reasoning"),
        question("lonely", "d/alone/bad", reference_id=None),
        question("lost", question=None, choices=[], answer=None, ranked=None, error="its image is not there"),
    ]
    return {"manifest": manifest, "questions": write(folder / "q.parquet", QUESTIONS, questions)}
