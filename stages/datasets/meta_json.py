"""`meta.json`, the index that AnomalyCLIP and its many descendants (VisualAD too) make of a data set:
`{"train": {class: [record, ...]}, "test": {...}}`, a record being `img_path`, `mask_path` ("" without),
`cls_name`, `specie_name` (the defect, `good`, or "") and `anomaly` (0 or 1).

The scripts that write it are not of one mind. Some write `Train` and `Test`; medical sets have no train part; some
paths are absolute, or start with the root as it was called then; a file of the root may have become a class;
masks are paired by sorted position, which goes wrong where one is missing. An anomalous image with an empty
`mask_path` has no mask here, and so no part in pixel metrics (the original loader takes it for free of defects).
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from stages.artifacts.writer import Summary
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.base.progress import Progress
from stages.datasets.config import MetaJsonConfig
from stages.datasets.entries import SUFFIXES, Entry, image_files, image_stem, write_manifest

FILE = "meta.json"


@dataclass(frozen=True)
class Record:
    """One image as the file describes it; `mask` is None without one."""

    split: str
    category: str
    image: PurePosixPath
    mask: PurePosixPath | None
    defect: str
    anomalous: bool


def run(config: MetaJsonConfig, options: RunOptions) -> Summary:
    """Index what meta.json lists. An image that is not there becomes a row with `error`, a missing mask is said; a mask
    with another image's name is replaced by the one with the image's own.

    Raises:
        InputError: the file is missing or no such index, lists no test images, none that is there, or one
            image twice in different ways.
    """
    path = config.root / FILE
    records = read_records(path)
    if not any(r.split == "test" for r in records):
        raise InputError(f"{path}: lists no test images")
    files = set(image_files(config.root))
    if not any(find(r.image, files) for r in records):
        raise InputError(
            f"{path}: none of its {len(records)} images lies below {config.root}, first"
            f" {records[0].image} (put {FILE} into the folder that its paths start from)"
        )
    records, paired_anew = pair_by_stem(records)
    if paired_anew:
        Progress("data index", 0, options.quiet).say(
            f"{path}: {paired_anew} masks were those of other images, and are paired by name instead"
        )
    name = config.name or config.root.resolve().name
    return write_manifest(
        name, config.root, entries_of(path, records, files), config.out, {}, options, mentioned={Path(FILE)}
    )


def read_records(path: Path) -> list[Record]:
    """The records of images, in order; those of other files are passed over. Raises InputError as `run` does."""
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; a data set without it has a command of its own, or fits `adcli data index folder`"
        )
    try:
        records = [
            _record(split.lower(), category, r)
            for split, classes in json.loads(path.read_bytes()).items()
            if split.lower() in ("train", "val", "test")
            for category, listed in classes.items()
            for r in listed
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as e:
        raise InputError(
            f"{path}: not lists of records with img_path, mask_path and anomaly (0 or 1), by class and"
            f" split ({type(e).__name__}: {e})"
        ) from None
    return [r for r in records if r.image.suffix.lower() in SUFFIXES]


def _record(split: str, category: str, r: dict) -> Record:
    if r["anomaly"] not in (0, 1):
        raise ValueError(f"anomaly {r['anomaly']!r}")
    mask = _path(r["mask_path"]) if r.get("mask_path") else None
    return Record(split, category, _path(r["img_path"]), mask, r.get("specie_name") or "", r["anomaly"] == 1)


def _path(text: str) -> PurePosixPath:
    """Also of one that was written on Windows."""
    return PurePosixPath(text.replace("\\", "/"))


def pair_by_stem(records: list[Record]) -> tuple[list[Record], int]:
    """The records with their masks paired by stem, and how many masks changed. Where an image is not in its mask's
    name, its mask is the listed one of its name in that folder; or, when the name is that of an image beside it, the
    file of its own name, listed or not. Names that have nothing in common stay as they were paired."""
    images = {(r.image.parent, r.image.stem) for r in records}
    listed = {(r.mask.parent, image_stem(r.mask)): r.mask for r in records if r.mask}
    paired = [replace(r, mask=_own_mask(r.image, r.mask, images, listed)) if r.mask else r for r in records]
    return paired, sum(r.mask != p.mask for r, p in zip(records, paired, strict=True))


def _own_mask(image: PurePosixPath, mask: PurePosixPath, images: set, listed: dict) -> PurePosixPath:
    own, named = image.stem, image_stem(mask)
    if own in (named, mask.parent.name):  # a folder of masks per image (MVTec LOCO) is named after the image
        return mask
    if (mask.parent, own) in listed:
        return listed[mask.parent, own]
    if (image.parent, named) in images:
        return mask.with_name(own + mask.name.removeprefix(named))
    return mask


def find(path: PurePosixPath, files: set[Path]) -> Path | None:
    """The file below the root that `path` means: after as many of its leading folders are left out as it takes, but
    not the last. Never by name alone: `test/good/000.png` that is missing is not `train/good/000.png`."""
    tails = (Path(*path.parts[n:]) for n in range(max(1, len(path.parts) - 1)))
    return next((tail for tail in tails if tail in files), None)


def entries_of(path: Path, records: list[Record], files: set[Path]) -> list[Entry]:
    """path: of meta.json, for messages; files: below the root. An image that is listed twice in the same way counts
    once; a file that is not there keeps the path that is written, so that its row says so."""

    def below_root(written: PurePosixPath) -> Path:
        return find(written, files) or Path(written.relative_to(written.anchor))

    entries: dict[Path, Entry] = {}
    for r in records:
        image = below_root(r.image)
        if r.anomalous:
            masks = (below_root(r.mask),) if r.mask else ()
            entry = Entry(image, r.category, r.split, 1, defect=r.defect or "anomaly", masks=masks)
        else:
            entry = Entry(image, r.category, r.split, 0)
        if entries.setdefault(image, entry) != entry:
            raise InputError(f"{path}: lists {image} twice, as {_said(entries[image])} and as {_said(entry)}")
    return list(entries.values())


def _said(entry: Entry) -> str:
    return f"{entry.split} {entry.category} {entry.defect or 'normal'}"
