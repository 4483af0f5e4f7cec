"""Colonoscopy pictures with a polyp in each: CVC-ClinicDB, CVC-ColonDB, Endo (EndoTect 2020) and Kvasir-SEG.

`images/NAME` with the mask of the same stem in `masks`; CVC-ClinicDB as published says `Original/N.tif` and
`Ground Truth/N.tif`, both are read. All pictures are anomalous test images: there is no split, and no image
metric can be computed. Masks of Kvasir-SEG are JPEG files, whose noise `load_mask` takes care of.
"""

from collections.abc import Iterable
from pathlib import Path

from stages.artifacts.writer import Summary
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.datasets.config import IndexConfig
from stages.datasets.entries import (
    Entry,
    image_files,
    image_stem,
    masks_by,
    require_one_place,
    write_manifest,
)
from stages.datasets.vidad import plain

CATEGORY, DEFECT = "colon", "polyp"
IMAGE_FOLDERS = {"images", "original"}
MASK_FOLDERS = {"masks", "groundtruth"}


def cvc_clinicdb(config: IndexConfig, options: RunOptions) -> Summary:
    """Index CVC-ClinicDB. Raises InputError as `_index` does."""
    return _index("cvc-clinicdb", config, options)


def cvc_colondb(config: IndexConfig, options: RunOptions) -> Summary:
    """Index CVC-ColonDB. Raises InputError as `_index` does."""
    return _index("cvc-colondb", config, options)


def endo(config: IndexConfig, options: RunOptions) -> Summary:
    """Index the test set of EndoTect 2020. Raises InputError as `_index` does."""
    return _index("endo", config, options)


def kvasir(config: IndexConfig, options: RunOptions) -> Summary:
    """Index Kvasir-SEG. Raises InputError as `_index` does."""
    return _index("kvasir", config, options)


def _index(dataset: str, config: IndexConfig, options: RunOptions) -> Summary:
    """A missing mask is said (`write_manifest`). Raises InputError when pictures or masks are not
    there, or lie in two places (CVC-ClinicDB is often packed as TIF and as PNG)."""
    entries = entries_of(config.root, image_files(config.root))
    require_one_place(config.root, dataset, (e.path.parents[1] for e in entries))
    return write_manifest(dataset, config.root, entries, config.out, {}, options)


def entries_of(root: Path, files: Iterable[Path]) -> list[Entry]:
    """The pictures of a tree in this layout; other files are passed over. files: relative to `root`, which
    is for messages."""
    files = list(files)
    images = [f for f in files if plain(f.parent.name) in IMAGE_FOLDERS]
    masks = masks_by(
        (f for f in files if plain(f.parent.name) in MASK_FOLDERS), lambda m: (m.parents[1], image_stem(m).lower())
    )
    if not images or not masks:
        lacks = "masks or Ground Truth" if images else "images or Original"
        raise InputError(f"{root}: no image lies in a folder {lacks} (give the folder that holds images and masks)")
    folder_of = {base: mask.parent for (base, _), mask in masks.items()}
    entries = []
    for path in images:
        base = path.parents[1]
        expected = folder_of.get(base, base / "masks") / path.name
        mask = masks.get((base, path.stem.lower()), expected)
        entries.append(Entry(path, CATEGORY, "test", 1, defect=DEFECT, masks=(mask,)))
    return entries
