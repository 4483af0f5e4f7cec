"""From a list of files to a manifest artifact: what every data set family shares."""

import os
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from stages.artifacts.reader import fingerprint
from stages.artifacts.tables import MANIFEST
from stages.artifacts.writer import Artifact, Spec, Summary
from stages.errors import InputError
from stages.settings import RunOptions, argument, option

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
JUNK = {"__macosx", ".ipynb_checkpoints", "thumbs.db", ".ds_store"}


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """For a data set without categories of its own: there is nothing to choose."""

    root: Path = argument("folder that holds the data set")
    out: Path = option("the manifest to write")


@dataclass(frozen=True)
class Entry:
    """One image as a data set's layout describes it; paths are relative to the root. error: why the
    layout does not say what the image is."""

    path: Path
    category: str
    split: str                        # train, val or test
    label: int | None
    condition: str | None = None
    defect: str | None = None
    masks: tuple[Path, ...] = ()
    error: str | None = None


def image_files(root: Path) -> Iterator[Path]:
    """Every image file below `root`, relative to it, in sorted order; links are followed, into each
    folder once (a link to a folder above itself would never end).

    Raises:
        InputError: `root` is not a directory, or no image lies below it.
    """
    if not root.is_dir():
        what = "a file, not a directory" if root.exists() else "no such directory"
        raise InputError(f"{root}: {what} (expected the root of a data set)")
    found, entered = False, set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        place = os.path.realpath(folder)
        if place in entered:
            subfolders.clear()
            continue
        entered.add(place)
        subfolders[:] = sorted(d for d in subfolders if d.lower() not in JUNK and d[0] not in "._")
        for name in sorted(names):
            if Path(name).suffix.lower() in SUFFIXES and name[0] not in "._":
                found = True
                yield (Path(folder) / name).relative_to(root)
    if not found:
        raise InputError(f"{root}: no images here ({', '.join(sorted(SUFFIXES))})")


def image_stem(mask: Path) -> str:
    """'000_mask.png' -> '000': the stem of the image that a mask belongs to, as data sets write it."""
    return re.sub(r"_(mask|gt|label|segmentation)$", "", mask.stem, flags=re.IGNORECASE)


def masks_by(masks: Iterable[Path], key: Callable[[Path], Hashable]) -> dict[Hashable, Path]:
    """What `key` says of a mask's image -> the mask. Raises InputError when two masks fit one image."""
    found: dict[Hashable, Path] = {}
    for mask in masks:
        image = key(mask)
        if image in found:
            raise InputError(f"{mask}: {found[image].name} is a mask of the same image; remove one of them")
        found[image] = mask
    return found


def require_one_place(root: Path, what: str, folders: Iterable[Path]) -> None:
    """Raises InputError when a data set lies below `root` twice: its images would count twice."""
    places = sorted(set(folders))
    if len(places) > 1:
        raise InputError(f"{root}: {what} lies in {' and in '.join(map(str, places))}; give the folder that holds"
                         " one of them")


def require_both_splits(root: Path, entries: Iterable[Entry]) -> None:
    """Raises InputError for a category without normal training images or without test images."""
    found = {(e.category, e.split, e.label) for e in entries}
    for category in sorted({category for category, _, _ in found}):
        if (category, "train", 0) not in found:
            raise InputError(f"{root}: {category} has no normal train images")
        if not any((category, "test", label) in found for label in (0, 1)):
            raise InputError(f"{root}: {category} has no test images")


def write_manifest(dataset: str, root: Path, entries: Iterable[Entry], out: Path, parameters: dict,
                   options: RunOptions, seed: int = 0) -> Summary:
    """Write the manifest of `entries`, sizes read from the images' headers.

    Only headers are read: a file that is no image, or is empty, becomes a row with `error` here; one
    that is truncated becomes one in the stage that decodes it.
    """
    entries = list(entries)
    rows = list(_rows(dataset, root, entries))
    keys = [(row["image_id"],) for row in rows]
    table = pa.Table.from_pylist(rows, schema=MANIFEST.schema)
    spec = Spec("data index", {"dataset": dataset, **parameters},
                {"list of files": fingerprint(table, MANIFEST)}, seed, {"root": str(root.resolve())},
                {"root": str(root.resolve())})
    with Artifact(out, MANIFEST, spec, keys, options, flush_rows=100_000) as artifact:
        artifact.write_all(rows)
        artifact.progress.say(_overview(dataset, entries))
    return artifact.summary


def _rows(dataset: str, root: Path, entries: list[Entry]) -> Iterator[dict]:
    with ThreadPoolExecutor(16) as pool:      # network file systems answer slowly, but in parallel
        headers = pool.map(lambda e: _header(root, e), entries)
        for entry, (width, height, error) in zip(entries, headers, strict=True):
            yield {"image_id": f"{dataset}/{entry.path.as_posix()}", "path": entry.path.as_posix(),
                   "dataset": dataset, "category": entry.category, "condition": entry.condition,
                   "split": entry.split, "label": entry.label, "defect": entry.defect,
                   "mask_paths": [m.as_posix() for m in entry.masks], "width": width,
                   "height": height, "error": error or entry.error}


def _header(root: Path, entry: Entry) -> tuple[int | None, int | None, str | None]:
    from PIL import Image

    path = root / entry.path
    try:
        if path.stat().st_size == 0:
            return None, None, f"{path}: the file is empty"
        with Image.open(path) as image:
            width, height = image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
        return None, None, f"{path}: not an image ({str(e).splitlines()[0]})"
    for mask in entry.masks:
        if not (root / mask).is_file():
            return width, height, f"{root / mask}: no such mask"
    return width, height, None


def _overview(dataset: str, entries: list[Entry]) -> str:
    tasks = {(e.category, e.condition) for e in entries}
    kinds = Counter((e.split, {0: "normal", 1: "anomalous", None: "unlabelled"}[e.label])
                    for e in entries)
    said = ", ".join(f"{n} {split} {kind}" for (split, kind), n in sorted(kinds.items(), reverse=True))
    return f"{dataset}: {len(tasks)} task{'s' * (len(tasks) != 1)}, {said}"
