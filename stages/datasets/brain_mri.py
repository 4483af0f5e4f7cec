"""BrainMRI: `brain_tumor_dataset/no/*` and `brain_tumor_dataset/yes/*`, endings of every kind.

`yes` shows a tumour. There are no masks and no split: all are test images, as the zero-shot papers use them.
The archive repeats `no` and `yes` beside `brain_tumor_dataset`; only the latter is read.
"""

from pathlib import Path

from stages.artifacts.writer import Summary
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.datasets.config import IndexConfig
from stages.datasets.entries import Entry, image_files, require_one_place, write_manifest

DATASET, CATEGORY = "brain-mri", "brain"
ORIGINAL = "brain_tumor_dataset"


def run(config: IndexConfig, options: RunOptions) -> Summary:
    """Index BrainMRI. Raises InputError when `no` or `yes` is missing or empty, or lies in two places."""
    images = [f for f in image_files(config.root) if _kind(f) in ("no", "yes")]
    if any(f.parts[-3:-2] == (ORIGINAL,) for f in images):
        images = [f for f in images if f.parts[-3:-2] == (ORIGINAL,)]
    for kind in ("no", "yes"):
        if not any(_kind(f) == kind for f in images):
            raise InputError(
                f"{config.root}: no images in a folder `{kind}`; give the folder that holds {ORIGINAL},"
                " or `no` and `yes`"
            )
    require_one_place(config.root, DATASET, (f.parents[1] for f in images))
    entries = [
        Entry(f, CATEGORY, "test", 1, defect="tumor") if _kind(f) == "yes" else Entry(f, CATEGORY, "test", 0)
        for f in images
    ]
    return write_manifest(DATASET, config.root, entries, config.out, {}, options)


def _kind(path: Path) -> str:
    return path.parent.name.lower()
