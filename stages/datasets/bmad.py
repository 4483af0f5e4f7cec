"""BMAD: Brain-AD, OCT17 and HIS, three of its six medical data sets, as `<split>/<label>/NNN.png`.

The split is `train`, `valid` or `val`, or `test`; the label `good` or `Ungood`. Archives differ in what lies
between and around these: `<split>/<label>/img/NNN.png` with the masks in `<split>/<label>/anomaly_mask` or
`<split>/<label>/label`, `<split>/img/<label>/NNN.png` with `<split>/label/<label>`, or no such folder at all. So
the rule looks at folder names only, and pairs masks by split and stem. Only Brain-AD (slices of BraTS2021) has
masks of use; those of `good` are empty. OCT17 is also read as its authors published it, with the folders NORMAL,
CNV, DME and DRUSEN below train, val and test: it then has anomalous training images, which BMAD left out.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from stages.artifacts.writer import Summary
from stages.base.config import RunOptions
from stages.base.errors import InputError
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

SPLITS = {"train": "train", "valid": "val", "val": "val", "test": "test"}
LABELS = {"good": 0, "ungood": 1, "normal": 0, "cnv": 1, "dme": 1, "drusen": 1}
MASK_FOLDERS = {"anomaly_mask", "label"}


class Place(NamedTuple):
    """What the folders on the way to a file say. base: the folders before the split; kind: of LABELS."""

    base: Path
    split: str
    kind: str
    is_mask: bool


def brain_ad(config: IndexConfig, options: RunOptions) -> Summary:
    """Index Brain-AD (BraTS2021_slice). A missing mask is said (`write_manifest`).
    Raises InputError as `_index` does."""
    return _index("brain-ad", "brain", True, config, options)


def oct17(config: IndexConfig, options: RunOptions) -> Summary:
    """Index OCT17, which has no masks. Raises InputError as `_index` does."""
    return _index("oct17", "retina", False, config, options)


def his(config: IndexConfig, options: RunOptions) -> Summary:
    """Index HIS (camelyon16_256), which has no masks. Raises InputError as `_index` does."""
    return _index("his", "histopathology", False, config, options)


def _index(dataset: str, category: str, with_masks: bool, config: IndexConfig, options: RunOptions) -> Summary:
    """Raises InputError when no image fits the layout, when more than one data set lies below the root, or when
    normal training images or test images are missing."""
    places = {f: p for f in image_files(config.root) if (p := place_of(f))}
    if not places:
        raise InputError(
            f"{config.root}: no image lies below <split>/good or <split>/Ungood (give the folder that"
            " holds train, valid or val, and test)"
        )
    require_one_place(config.root, dataset, (p.base for p in places.values()))
    entries = entries_of(places, category, with_masks)
    require_both_splits(config.root, entries)
    return write_manifest(dataset, config.root, entries, config.out, {}, options)


def place_of(path: Path) -> Place | None:
    """None for a file that is not below a split and a label. Of several folders named after a split
    (`Valid/hist/valid/good`), the innermost is meant."""
    folders = [p.lower() for p in path.parts[:-1]]
    at = max((n for n, name in enumerate(folders) if name in SPLITS), default=None)
    if at is None:
        return None
    below = folders[at + 1 :]
    kind = next((name for name in below if name in LABELS), None)
    if kind is None:
        return None
    base = Path(*(name for name in path.parts[:at] if name.lower() not in SPLITS))
    return Place(base, SPLITS[folders[at]], kind, any(name in MASK_FOLDERS for name in below))


def entries_of(places: dict[Path, Place], category: str, with_masks: bool) -> list[Entry]:
    """The images among the files. Without masks, all mask lists are empty."""
    masks: dict = {}
    if with_masks:
        masks = masks_by(_anomalous_masks(places), lambda m: (places[m].split, image_stem(m).lower()))
    entries = []
    for path, place in places.items():
        if place.is_mask:
            continue
        if not LABELS[place.kind]:
            entries.append(Entry(path, category, place.split, 0))
            continue
        mask = masks.get((place.split, path.stem.lower()), _expected_mask(path))
        entries.append(Entry(path, category, place.split, 1, defect=place.kind, masks=(mask,) if with_masks else ()))
    return entries


def _anomalous_masks(places: dict[Path, Place]) -> Iterable[Path]:
    return (path for path, place in places.items() if place.is_mask and LABELS[place.kind])


def _expected_mask(image: Path) -> Path:
    folder = image.parent.parent if image.parent.name.lower() == "img" else image.parent
    return folder / "anomaly_mask" / image.name
