"""A control for any training on masks: the training images keep their pictures and get each other's masks.

    python -m pipelines.controls.shuffled_masks MANIFEST OUT

OUT is the manifest with labels, defects and masks of the training images shuffled among them.
"""

import random
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stages.artifacts.reader import read_table
from stages.artifacts.tables import MANIFEST

SHUFFLED = ("label", "defect", "mask_paths")


def shuffled(rows: list[dict], seed: int = 0) -> list[dict]:
    """The rows of a manifest, what is known of its training images shuffled among them."""
    training = [r for r in rows if r["split"] == "train"]
    order = random.Random(seed).sample(training, len(training))
    new = {r["image_id"]: r | {k: other[k] for k in SHUFFLED} for r, other in zip(training, order, strict=True)}
    return [new.get(r["image_id"], r) for r in rows]


def main(manifest: Path, out: Path) -> None:
    """Write a foreign Parquet file with the columns of a manifest."""
    rows = shuffled(read_table(manifest, MANIFEST).to_pylist())
    pq.write_table(pa.Table.from_pylist(rows, schema=MANIFEST.schema), out)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
