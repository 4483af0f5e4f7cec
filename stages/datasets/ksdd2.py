"""KolektorSDD2: `train/NNNNN.png` and `test/NNNNN.png`, the mask `NNNNN_GT.png` beside every image.

An image is anomalous when its mask has a pixel that is not zero. There are no categories (ours is `surface`)
and no kinds of defects. Defective images lie in `train` too, and keep their label there: the one-class
methods train on the normal ones, and a method that learns from masks has both.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from stages.artifacts.writer import Summary
from stages.base.config import RunOptions
from stages.base.errors import ImageError, InputError
from stages.base.threads import threads
from stages.datasets.config import IndexConfig
from stages.datasets.entries import (
    Entry,
    image_files,
    image_stem,
    masks_by,
    require_both_splits,
    require_one_place,
    write_manifest,
)
from stages.datasets.images import load_rgb

DATASET, CATEGORY = "ksdd2", "surface"


def run(config: IndexConfig, options: RunOptions) -> Summary:
    """Index KolektorSDD2; every mask is decoded, as it is the label. An image whose mask is missing or
    cannot be read becomes a row with `error`.

    Raises:
        InputError: no image fits the layout, or a split is missing or lies in two places.
    """
    entries = list(entries_of(config.root, image_files(config.root)))
    if not entries:
        raise InputError(f"{config.root}: no image lies directly in train or test (give the folder that holds both)")
    require_one_place(config.root, DATASET, (e.path.parents[1] for e in entries))
    require_both_splits(config.root, entries)
    return write_manifest(DATASET, config.root, entries, config.out, {}, options)


def entries_of(root: Path, files: Iterable[Path]) -> Iterator[Entry]:
    """The images of a tree in this layout; other files are passed over. files: relative to `root`."""
    files = [f for f in files if f.parent.name.lower() in ("train", "test")]
    masks = masks_by(filter(_is_mask, files), lambda m: (m.parent, image_stem(m).lower()))
    images = [f for f in files if not _is_mask(f)]
    with threads(16) as pool:
        yield from pool.map(lambda f: _entry(root, f, masks.get((f.parent, f.stem.lower()))), images)


def _is_mask(path: Path) -> bool:
    return path.stem.lower().endswith("_gt")


def _entry(root: Path, image: Path, mask: Path | None) -> Entry:
    split = image.parent.name.lower()
    if mask is None:
        expected = image.with_name(f"{image.stem}_GT.png")  # without it there is no label either
        return Entry(image, CATEGORY, split, None, masks=(expected,), error=f"{root / expected}: no such mask")
    try:
        defective = bool(load_rgb(root / mask).any())
    except ImageError as e:
        return Entry(image, CATEGORY, split, None, masks=(mask,), error=str(e))
    if defective:
        return Entry(image, CATEGORY, split, 1, defect="defect", masks=(mask,))
    return Entry(image, CATEGORY, split, 0)
