"""From a list of files to a manifest artifact: what every data set family shares."""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path, PurePath
from typing import TypeVar

import pyarrow as pa

from stages.artifacts.digests import FileState, states_of
from stages.artifacts.reader import COMPLETE, PARTIAL, fingerprint, read_provenance, read_table
from stages.artifacts.tables import MANIFEST
from stages.artifacts.writer import Artifact, Spec, Summary
from stages.base.config import RunOptions
from stages.base.errors import ImageError, InputError
from stages.base.threads import threads
from stages.datasets.known import other_categories
from stages.datasets.manifest import recorded_states, state_columns
from stages.datasets.opening import opened, pages, upright_size

Key = TypeVar("Key", bound=Hashable)
SUFFIXES = {
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".bmp",
    ".tif",
    ".tiff",
    ".webp",
    ".gif",
    ".jp2",
    ".pbm",
    ".pgm",
    ".pnm",
    ".ppm",
}
JUNK = {"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin"}  # nobody's data, like .*
NAMED = 3  # files that a line names; the others are counted


@dataclass(frozen=True)
class Entry:
    """One image as a data set's layout describes it; paths are relative to the root. error: why the
    layout does not say what the image is."""

    path: Path
    category: str
    split: str  # train, val or test
    label: int | None
    condition: str | None = None
    defect: str | None = None
    masks: tuple[Path, ...] = ()
    error: str | None = None


@dataclass
class Tree:
    """What lies below a root, relative to it, in sorted order. images: by their ending; others: all other files."""

    images: list[Path]
    others: list[Path]


def walk(root: Path) -> Tree:
    """Every file below `root`, but for hidden ones, what systems leave in folders, and outputs of adcli; links are
    followed, into each folder once (a link to a folder above itself would never end).

    Raises:
        InputError: `root` is not a directory.
    """
    if not root.is_dir():
        what = "a file, not a directory" if root.exists() else "no such directory"
        raise InputError(f"{root}: {what} (expected the root of a data set)")
    tree, entered = Tree([], []), set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        place = os.path.realpath(folder)
        if place in entered or COMPLETE in names or PARTIAL in names:
            subfolders.clear()
            continue
        entered.add(place)
        subfolders[:] = sorted(d for d in subfolders if not _is_junk(d))
        for name in sorted(n for n in names if not _is_junk(n)):
            kind = tree.images if Path(name).suffix.lower() in SUFFIXES else tree.others
            kind.append((Path(folder) / name).relative_to(root))
    return tree


def _is_junk(name: str) -> bool:
    return name[0] == "." or name.lower() in JUNK


def image_files(root: Path) -> list[Path]:
    """The images of `walk`. Raises InputError as it does, and when there are none."""
    tree = walk(root)
    if not tree.images:
        kinds = f"; the files here are {by_ending(tree.others)}" if tree.others else ""
        raise InputError(f"{root}: no images here ({', '.join(sorted(SUFFIXES))}){kinds}")
    return tree.images


def by_ending(files: Iterable[Path]) -> str:
    """'4 .txt, 2 .pdf', the most frequent first."""
    kinds = Counter(f.suffix.lower() or "without ending" for f in files).most_common()
    more = f", {sum(n for _, n in kinds[6:])} others" if len(kinds) > 6 else ""
    return ", ".join(f"{n} {kind}" for kind, n in kinds[:6]) + more


def many(things: Collection, word: str) -> str:
    """'1 mask', '2 masks', '2 categories'."""
    several = f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"
    return f"{len(things)} {word if len(things) == 1 else several}"


def first(names: Iterable[object]) -> str:
    """'a, b, c, ...': the first few of many."""
    texts = list(map(str, names))
    return ", ".join(texts[:NAMED]) + ", ..." * (len(texts) > NAMED)


def passed_over(
    root: Path, entries: Iterable[Entry], mentioned: Collection[Path | None] = (), inside: Path = Path()
) -> list[str]:
    """A line about the images below `root` that are neither in an entry nor `mentioned`, one about other files. inside:
    a folder below the root that is looked at instead of all of it."""
    used = {p for e in entries for p in (e.path, *e.masks)} | set(mentioned)
    root, tree = root / inside, walk(root / inside)
    images = [f for f in tree.images if inside / f not in used]
    others = [f for f in tree.others if inside / f not in used]
    lines = []
    if images:
        lines.append(f"passed over: {len(images)} of the {len(tree.images)} images below {root}: {first(images)}")
    if others:
        lines.append(f"not images: {many(others, 'file')} ({by_ending(others)}): {first(others)}")
    return lines


def image_stem(mask: PurePath) -> str:
    """'000_mask.png' -> '000': the stem of the image that a mask belongs to, as data sets write it."""
    return re.sub(r"_(mask|gt|label|segmentation)$", "", mask.stem, flags=re.IGNORECASE)


def masks_by(masks: Iterable[Path], key: Callable[[Path], Key]) -> dict[Key, Path]:
    """What `key` says of a mask's image -> the mask. Raises InputError when two masks fit one image."""
    found: dict[Key, Path] = {}
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
        raise InputError(
            f"{root}: {what} lies in {' and in '.join(map(str, places))}; give the folder that holds one of them"
        )


def require_both_splits(root: Path, entries: Iterable[Entry]) -> None:
    """Raises InputError for a category without normal training images or without test images."""
    found = {(e.category, e.split, e.label) for e in entries}
    for category in sorted({category for category, _, _ in found}):
        if (category, "train", 0) not in found:
            raise InputError(f"{root}: {category} has no normal train images")
        if not any((category, "test", label) in found for label in (0, 1)):
            raise InputError(f"{root}: {category} has no test images")


@dataclass
class Notes:
    """What the headers of the images show besides their size. Appended to by several threads."""

    no_mask: list[Path] = field(default_factory=list)  # named by a row, and not there
    pages: list[Path] = field(default_factory=list)  # more than one

    def lines(self) -> list[str]:
        """What is worth a line."""
        lines = []
        if self.no_mask:
            lines.append(
                f"{many(self.no_mask, 'mask')} not there, so that pixel metrics are impossible for these"
                f" images: {first(sorted(self.no_mask))}"
            )
        if self.pages:
            lines.append(
                f"{many(self.pages, 'file')} with several pages, of which the first is read:"
                f" {first(sorted(self.pages))}"
            )
        return lines


def write_manifest(
    dataset: str,
    root: Path,
    entries: Iterable[Entry],
    out: Path,
    parameters: dict,
    options: RunOptions,
    seed: int = 0,
    draw: Callable[[], None] | None = None,
    said: Iterable[str] = (),
    mentioned: Collection[Path | None] = (),
    inside: Iterable[Path] = (Path(),),
    paths: dict[str, str] | None = None,
) -> Summary:
    """Write the manifest of `entries`, sizes read from the images' headers, upright as the EXIF orientation says.

    Only headers are read: a file that is no image, or is empty, becomes a row with `error` here; one that is truncated
    becomes one in the stage that decodes it. A mask that is not there is said, and its row has no `error`: captions and
    image scores do not need it. What lies below the root and is in no row is counted and named.
    draw: makes the masks below `out` that are not there, once that folder is this artifact's. said: lines of the
    layout's own; mentioned: files that these lines are about, or that were read; inside: folders below the root that
    are looked through for what is passed over; paths: what else is recorded of places, as in Spec.
    """
    require_utf8(root)
    entries, notes = list(entries), Notes()
    states = states_of(dict(_seen_before(out, root, entries)), options.quiet)
    rows = [
        row | state_columns(states[root / e.path], (states.get(root / m) for m in e.masks))
        for e, row in zip(entries, _rows(dataset, root, entries, out, notes), strict=True)
    ]
    keys = [(row["image_id"],) for row in rows]
    table = pa.Table.from_pylist(rows, schema=MANIFEST.schema)
    inputs = {"list of files": fingerprint(table, MANIFEST), "content of the files": _contents(rows)}
    spec = Spec(
        "data index",
        {"dataset": dataset, **parameters},
        inputs,
        seed,
        {"root": str(root.resolve())},
        {"root": str(root.resolve()), **(paths or {})},
    )
    with Artifact(out, MANIFEST, spec, keys, options, flush_rows=100_000) as artifact:
        if draw:
            draw()
        artifact.write_all(rows)
        over = [line for folder in inside for line in passed_over(root, entries, mentioned, folder)]
        for line in (_overview(dataset, entries), *_categories(dataset, entries), *said, *notes.lines(), *over):
            artifact.progress.say(line)
    return artifact.summary


def require_utf8(root: Path) -> None:
    """Raises InputError for a root whose name a table and its record cannot hold."""
    place = str(root.resolve())
    if place != printable(place):
        raise InputError(f"{printable(place)}: this folder's path is not UTF-8; rename the folder")


def printable(name: str) -> str:
    """A name as a table can hold it: bytes that are not UTF-8 become \\xNN."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _contents(rows: list[dict]) -> str:
    """Of the digests of all files."""
    said = [(r["image_id"], r["file_digest"], r["mask_file_digests"]) for r in rows]
    return hashlib.sha256(json.dumps(sorted(said, key=itemgetter(0))).encode()).hexdigest()[:32]


def _seen_before(out: Path, root: Path, entries: list[Entry]) -> Iterator[tuple[Path, tuple[FileState, ...]]]:
    """Every file of the entries but masks that this run draws, with what the manifest that it repeats says of it."""
    seen: dict[Path, FileState | None] = {}
    try:
        here = [record for record in read_provenance(out) if record["notes"].get("root") == str(root.resolve())]
        for row in read_table(out, MANIFEST).to_pylist() if here else ():
            files = [root / p for p in (row["path"], *row["mask_paths"])]
            seen |= dict(zip(files, recorded_states(row), strict=False))
    except (InputError, ValueError, KeyError, TypeError, AttributeError):
        pass  # no manifest yet, or a damaged one: opening it says so, if it matters
    for entry in entries:
        drawn = {m for m in entry.masks if m.is_relative_to(out.resolve())}  # made from what the parameters name
        for file in (f for f in (entry.path, *entry.masks) if f not in drawn):
            yield root / file, tuple(filter(None, (seen.get(root / file),)))


def _rows(dataset: str, root: Path, entries: list[Entry], out: Path, notes: Notes) -> Iterator[dict]:
    with threads(16) as pool:  # network file systems answer slowly, but in parallel
        headers = pool.map(lambda e: _header(root, e, out, notes), entries)
        for entry, (width, height, error) in zip(entries, headers, strict=True):
            paths = [file.as_posix() for file in (entry.path, *entry.masks)]
            path, *masks = map(printable, paths)
            if [path, *masks] != paths:
                error = f"{printable(str(root / entry.path))}: its name, or its mask's, is not UTF-8; rename the file"
            yield {
                "image_id": f"{dataset}/{path}",
                "path": path,
                "dataset": dataset,
                "category": printable(entry.category),
                "condition": entry.condition and printable(entry.condition),
                "split": entry.split,
                "label": entry.label,
                "defect": entry.defect and printable(entry.defect),
                "mask_paths": masks,
                "width": width,
                "height": height,
                "error": error or entry.error,
            }


def _header(root: Path, entry: Entry, out: Path, notes: Notes) -> tuple[int | None, int | None, str | None]:
    notes.no_mask += [m for m in entry.masks if not (root / m).is_file() and not m.is_relative_to(out.resolve())]
    path = root / entry.path
    if not path.exists():
        return None, None, f"{path}: not an image (No such file or directory)"
    try:
        with opened(path, "not an image") as image:
            if pages(image) > 1:
                notes.pages.append(entry.path)
            return *upright_size(image), None
    except ImageError as e:
        return None, None, str(e)


def _categories(dataset: str, entries: list[Entry]) -> list[str]:
    """What a known data set lacks, and what it never had: means are compared with published ones."""
    lacking, strange = other_categories(dataset, {e.category for e in entries})
    lines = []
    if strange:
        lines.append(f"{dataset} is known without: {first(strange)} (is this the root of another data set?)")
    if lacking:
        lines.append(f"{many(lacking, 'category')} of {dataset} not there: {first(lacking)}")
    return lines


def _overview(dataset: str, entries: list[Entry]) -> str:
    tasks = {(e.category, e.condition) for e in entries}
    kinds = Counter((e.split, {0: "normal", 1: "anomalous", None: "unlabelled"}[e.label]) for e in entries)
    said = ", ".join(f"{n} {split} {kind}" for (split, kind), n in sorted(kinds.items(), reverse=True))
    return f"{dataset}: {len(tasks)} task{'s' * (len(tasks) != 1)}, {said}"
