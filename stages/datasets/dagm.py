"""DAGM 2007: `ClassK/{Train,Test}/NNNN.PNG`, the masks `ClassK/{Train,Test}/Label/NNNN_label.PNG` of the
defective images, and `Label/Labels.txt`; K = 1 to 10.

A line of Labels.txt reads `number, 0 or 1, image, another number, mask or 0`, apart from a header of one word;
1 is defective. Where the file is missing or silent about an image, the image is defective if it has a mask.
Defective images lie in `Train` too, and keep their label there. The masks are coarse ellipses.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from stages.artifacts.writer import Summary
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.datasets.config import MvtecConfig
from stages.datasets.entries import Entry, image_files, image_stem, masks_by
from stages.datasets.mvtec import index_categories


def run(config: MvtecConfig, options: RunOptions) -> Summary:
    """Index DAGM. A missing mask is said (`write_manifest`).

    Raises:
        InputError: as `index_categories` does, or for a Labels.txt that says nothing.
    """
    entries = entries_of(config.root, image_files(config.root))
    return index_categories("dagm", entries, config, options, "Class<K>/Train or Class<K>/Test")


def entries_of(root: Path, files: Iterable[Path]) -> list[Entry]:
    """The images of a tree in this layout; other files are passed over. files: relative to `root`."""
    files = list(files)
    masks = masks_by(
        (f for f in files if f.parent.name.lower() == "label"), lambda m: (m.parent.parent, image_stem(m).lower())
    )
    images = [
        f
        for f in files
        if f.parent.name.lower() in ("train", "test") and re.fullmatch(r"class\d+", f.parent.parent.name, re.IGNORECASE)
    ]
    defective = {folder: _labels(root / folder / "Label" / "Labels.txt") for folder in {f.parent for f in images}}
    entries = []
    for path in images:
        folder, stem = path.parent, path.stem.lower()
        category, split = folder.parent.name, folder.name.lower()
        mask = masks.get((folder, stem))
        if defective[folder].get(stem, mask is not None):
            mask = mask or folder / "Label" / f"{path.stem}_label.PNG"
            entries.append(Entry(path, category, split, 1, defect="defect", masks=(mask,)))
        else:
            entries.append(Entry(path, category, split, 0))
    return entries


def _labels(path: Path) -> dict[str, bool]:
    """Stem of an image -> whether Labels.txt calls it defective; empty without the file."""
    if not path.is_file():
        return {}
    labels = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        fields = line.split()
        if len(fields) > 2 and fields[1] in ("0", "1"):
            labels[Path(fields[2]).stem.lower()] = fields[1] == "1"
    if not labels:
        raise InputError(
            f"{path}: no line reads `number, 0 or 1, image, ...`; if the file is removed, the images that"
            " have a mask count as defective"
        )
    return labels
