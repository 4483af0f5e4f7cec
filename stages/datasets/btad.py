"""BTAD (beanTech): `<category>/train/ok/NNNN.bmp`, `<category>/test/{ok,ko}/NNNN.bmp` and the masks
`<category>/ground_truth/ko/NNNN.png`; the categories are 01, 02 and 03.

`ok` is normal, and the only kind of defect is `ko`. Endings differ (01 has .bmp images and .png masks, 03 has
.bmp masks), so masks are paired by stem. Some copies are said to keep them in another folder below
`ground_truth`: where there is no `ground_truth/ko`, whatever lies there is taken.
"""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from stages.artifacts.writer import Summary
from stages.base.config import RunOptions
from stages.datasets.config import MvtecConfig
from stages.datasets.entries import Entry, image_files, image_stem, masks_by
from stages.datasets.mvtec import index_categories


def run(config: MvtecConfig, options: RunOptions) -> Summary:
    """Index BTAD. A missing mask is said (`write_manifest`). Raises InputError as
    `index_categories` does."""
    return index_categories(
        "btad", entries_of(image_files(config.root)), config, options, "<category>/train/ok or <category>/test/{ok,ko}"
    )


def entries_of(files: Iterable[Path]) -> list[Entry]:
    """The images of a tree in this layout; other files are passed over. files: relative to the root."""
    files = [f for f in files if len(f.parts) > 3]  # category, split, kind, name
    masks = _masks(f for f in files if f.parts[-3].lower() == "ground_truth")
    entries = []
    for path in files:
        base, split, kind = path.parents[2], path.parts[-3].lower(), path.parent.name.lower()
        if split not in ("train", "test") or kind not in ("ok", "ko"):
            continue
        if kind == "ok":
            entries.append(Entry(path, base.name, split, 0))
            continue
        mask = masks.get((base, path.stem.lower()), base / "ground_truth" / "ko" / f"{path.stem}.png")
        entries.append(Entry(path, base.name, split, 1, defect="ko", masks=(mask,)))
    return entries


def _masks(files: Iterable[Path]) -> dict:
    """(category folder, stem of the image) -> mask."""
    by_category = defaultdict(list)
    for path in files:
        by_category[path.parents[2]].append(path)
    masks: dict[tuple[Path, str], Path] = {}
    for base, found in by_category.items():
        of_ko = [m for m in found if m.parent.name.lower() == "ko"]
        by_stem = masks_by(of_ko or found, lambda m: image_stem(m).lower())
        masks |= {(base, stem): mask for stem, mask in by_stem.items()}
    return masks
