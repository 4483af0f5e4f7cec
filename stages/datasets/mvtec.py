"""MVTec AD: `<category>/train/good/NNN.png`, `<category>/test/<good or a defect>/NNN.png` and the masks
`<category>/ground_truth/<defect>/NNN_mask.png`.

Other data sets are published in the same layout, some without `_mask` in the names: both are read. Case of
folder names and endings does not matter, and the categories may lie some folders below the root.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from stages.artifacts.writer import Summary
from stages.datasets.entries import Entry, image_files, write_manifest
from stages.datasets.vidad import chosen
from stages.errors import InputError
from stages.settings import RunOptions, argument, option


@dataclass(frozen=True, kw_only=True)
class MvtecConfig:
    root: Path = argument("folder that holds bottle, cable, ...")
    out: Path = option("the manifest to write")
    categories: str = option("only these, comma-separated", "")


def run(config: MvtecConfig, options: RunOptions) -> Summary:
    """Index an MVTec AD tree. An anomalous image without its mask becomes a row with `error`.

    Raises:
        InputError: no image fits the layout, a category is not there, lies in two places, or lacks
            normal training images or test images.
    """
    entries = entries_of(image_files(config.root))
    if not entries:
        raise InputError(f"{config.root}: no image lies below <category>/train/good or <category>/test/<defect>"
                         " (give the folder that holds the categories)")
    names = chosen(config.categories, tuple(sorted({e.category for e in entries})), "--categories")
    entries = [e for e in entries if e.category in names]
    require_both_splits(entries, config.root)
    parameters = {"categories": list(names) if config.categories else []}     # [] = whatever is there
    return write_manifest("mvtec-ad", config.root, entries, config.out, parameters, options)


def entries_of(files: Iterable[Path]) -> list[Entry]:
    """The images of a tree in this layout; other files are passed over. files: relative to the root.

    Masks are paired by category, defect and stem. Where there is none, the entry names the path at which
    it is expected, so that its row says so. Raises InputError when two masks fit one image.
    """
    files = [f for f in files if len(f.parts) > 3]         # category, split, kind, name
    masks = _masks_by_image(files)
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


def _masks_by_image(files: list[Path]) -> dict[tuple[Path, str, str], Path]:
    """(category folder, defect, stem of the image) -> mask; names in lower case."""
    masks: dict[tuple[Path, str, str], Path] = {}
    for path in files:
        if path.parts[-3].lower() != "ground_truth":
            continue
        key = (path.parents[2], path.parent.name.lower(), re.sub(r"_mask$", "", path.stem.lower()))
        if key in masks:
            raise InputError(f"{path}: {masks[key].name} is a mask of the same image; remove one of them")
        masks[key] = path
    return masks


def require_both_splits(entries: list[Entry], root: Path) -> None:
    """Raises InputError for a category in two places, or without train normals or test images."""
    places: dict[str, set[Path]] = {}
    for e in entries:
        places.setdefault(e.category, set()).add(e.path.parents[2])
    for category, folders in places.items():
        if len(folders) > 1:
            raise InputError(f"{root}: category {category} lies in {' and in '.join(map(str, sorted(folders)))};"
                             " give the folder that holds one of them")
    found = {(e.category, e.split, e.label) for e in entries}
    for category in places:
        if (category, "train", 0) not in found:
            raise InputError(f"{root}: {category} has no normal train images")
        if not found & {(category, "test", 0), (category, "test", 1)}:
            raise InputError(f"{root}: {category} has no test images")
