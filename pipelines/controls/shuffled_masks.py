"""A control for any training on masks: the training images keep their pictures and get each other's masks.

    python -m pipelines.controls.shuffled_masks MANIFEST OUT

OUT is the manifest with labels, defects and masks of the training images shuffled among them. Masks are drawn anew at
the size of their new image, in a folder beside OUT: no training takes masks of another size.
"""

import random
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from stages.artifacts.files import make_folder
from stages.artifacts.reader import read_provenance, read_table
from stages.artifacts.tables import MANIFEST
from stages.datasets.images import load_masks

SHUFFLED = ("label", "defect", "mask_paths")
STATES = ("mask_file_sizes", "mask_file_mtimes_ns", "mask_file_digests")


def shuffled(rows: list[dict], seed: int = 0) -> list[dict]:
    """The rows of a manifest, what is known of its training images shuffled among them."""
    training = [r for r in rows if r["split"] == "train"]
    order = random.Random(seed).sample(training, len(training))
    new = {r["image_id"]: r | {k: other[k] for k in SHUFFLED} for r, other in zip(training, order, strict=True)}
    return [new.get(r["image_id"], r) for r in rows]


def at_own_size(rows: list[dict], root: Path, folder: Path) -> list[dict]:
    """The rows, each training image's masks as one file of its size in `folder`: every pixel that the mask touches when
    it is stretched onto the image, or a thin crack would be lost. root: of the manifest. Raises ImageError."""
    make_folder(folder)
    fitted = []
    for n, row in enumerate(rows):
        if row["split"] == "train" and row["mask_paths"]:
            mask = Image.fromarray(load_masks([root / m for m in row["mask_paths"]]).astype(np.uint8) * 255)
            touched = np.asarray(mask.resize((row["width"], row["height"]), Image.Resampling.BOX)) > 0
            file = folder.absolute() / f"{n}.png"
            Image.fromarray(touched.astype(np.uint8) * 255).save(file)
            row = row | {"mask_paths": [str(file)]} | {key: [] for key in STATES}
        fitted.append(row)
    return fitted


def main(manifest: Path, out: Path) -> Path:
    """Write a foreign Parquet file with the columns of a manifest; the root of its images."""
    (record,) = read_provenance(manifest)
    root = Path(record["notes"]["root"])
    rows = at_own_size(shuffled(read_table(manifest, MANIFEST).to_pylist()), root, out.parent / f"{out.stem}-masks")
    pq.write_table(pa.Table.from_pylist(rows, schema=MANIFEST.schema), out)
    return root


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
