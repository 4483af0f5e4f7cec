"""MVTec AD: `<category>/train/good/NNN.png`, `<category>/test/<good or a defect>/NNN.png` and the masks
`<category>/ground_truth/<defect>/NNN_mask.png`.

Other data sets are published in the same layout, some without `_mask` in the names: both are read. Case of
folder names and endings does not matter, and the categories may lie some folders below the root. DTD-Synthetic
is one of them: 12 woven, meshed, ... textures, often in two folders of its own name; so is WFDD: the woven fabrics
grey_cloth, grid_cloth, yellow_cloth and pink_flower, 4101 images. What the two call their defects is read from the
disk, since no description of them says.
"""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from stages.artifacts.writer import Summary
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.datasets.config import MvtecConfig
from stages.datasets.entries import (
    Entry,
    image_files,
    image_stem,
    masks_by,
    require_both_splits,
    require_one_place,
    write_manifest,
)
from stages.datasets.vidad import chosen


def run(config: MvtecConfig, options: RunOptions) -> Summary:
    """Index an MVTec AD tree. A missing mask is said (`write_manifest`). Raises
    InputError as `index_categories` does."""
    return index_categories("mvtec-ad", entries_of(image_files(config.root)), config, options)


def dtd_synthetic(config: MvtecConfig, options: RunOptions) -> Summary:
    """Index DTD-Synthetic, as `run` does MVTec AD."""
    return index_categories("dtd-synthetic", entries_of(image_files(config.root)), config, options)


def wfdd(config: MvtecConfig, options: RunOptions) -> Summary:
    """Index WFDD, as `run` does MVTec AD."""
    return index_categories("wfdd", entries_of(image_files(config.root)), config, options)


def mpdd(config: MvtecConfig, options: RunOptions) -> Summary:
    """Index MPDD, as `run` does MVTec AD."""
    return index_categories("mpdd", entries_of(image_files(config.root)), config, options)


def index_categories(
    dataset: str,
    entries: list[Entry],
    config: MvtecConfig,
    options: RunOptions,
    layout: str = "<category>/train/good or <category>/test/<defect>",
) -> Summary:
    """Write the manifest of the categories that the user wants. layout: for people, where images lie.

    Raises:
        InputError: no image fits the layout, a category is not there, lies in two places, or lacks
            normal training images or test images.
    """
    if not entries:
        raise InputError(f"{config.root}: no image lies below {layout} (give the folder that holds the categories)")
    names = chosen(config.categories, tuple(sorted({e.category for e in entries})), "--categories")
    entries = [e for e in entries if e.category in names]
    require_whole_categories(config.root, entries)
    parameters = {"categories": list(names) if config.categories else []}  # [] = whatever is there
    return write_manifest(dataset, config.root, entries, config.out, parameters, options)


def require_whole_categories(root: Path, entries: list[Entry]) -> None:
    """Raises InputError for a category in two places, or without train normals or test images."""
    folders: dict[str, set[Path]] = defaultdict(set)
    for e in entries:
        folders[e.category].add(e.path.parents[2])
    for category, places in folders.items():
        require_one_place(root, f"category {category}", places)
    require_both_splits(root, entries)


def entries_of(files: Iterable[Path]) -> list[Entry]:
    """The images of a tree in this layout; other files are passed over. files: relative to the root.

    Masks are paired by category, defect and stem. Where there is none, the entry names the path at which
    it is expected, so that its row says so. Raises InputError when two masks fit one image.
    """
    files = [f for f in files if len(f.parts) > 3]  # category, split, kind, name
    masks = masks_by(
        (f for f in files if f.parts[-3].lower() == "ground_truth"),
        lambda m: (m.parents[2], m.parent.name.lower(), image_stem(m).lower()),
    )
    entries = []
    for path in files:
        base, split, kind = path.parents[2], path.parts[-3].lower(), path.parent.name
        if split not in ("train", "test"):
            continue
        if kind.lower() == "good":
            entries.append(Entry(path, base.name, split, 0))
            continue
        expected = base / "ground_truth" / kind / f"{path.stem}_mask.png"
        mask = masks.get((base, kind.lower(), path.stem.lower()), expected)
        entries.append(Entry(path, base.name, split, 1, defect=kind, masks=(mask,)))
    return entries
