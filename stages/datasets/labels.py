"""Labels, splits, categories and masks from a CSV file."""

import csv
import io
import os
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from stages.base.errors import InputError
from stages.base.regular import regular
from stages.base.texts import separator_of
from stages.datasets.entries import Entry, first, many

NORMAL = ("normal", "good", "ok", "0")
ANOMALOUS = ("anomalous", "anomaly", "defect", "defective", "bad", "ng", "nok", "ko", "1")
NUMBERS = {"0.0": 0, "false": 0, "1.0": 1, "true": 1}  # as pandas and Excel write 0 and 1
SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
COLUMNS = ("image", "label", "split", "category", "mask", "defect")


@dataclass(frozen=True)
class Labels:
    """entries: one per image that the file lists, also of those that are not there; said: what was not as expected;
    unused: masks of images that are not anomalous."""

    entries: tuple[Entry, ...]
    said: tuple[str, ...]
    unused: tuple[Path, ...]


def read_labels(path: Path, root: Path, images: Iterable[Path], category: Callable[[Path], str]) -> Labels:
    """The rows of a CSV with the columns image, label and, if wanted, split, category, mask and defect.

    An image or a mask is named by its path below `root`, or by its name alone where only one file has it. Labels:
    NORMAL, ANOMALOUS, or nothing (unknown), whatever their case. Without a split an image is a test image, without a
    category it is of `category(image)`. Separators may be commas, semicolons or tabs, the text UTF-8, UTF-16 or
    Latin-1; a first line `sep=;` (Excel) names the separator.

    Raises:
        InputError: no such file, a column that is missing or there twice, a line with too few or too many cells, a
            label or split that is none, an image that is listed twice or lies outside of `root`.
    """
    text, encoding = _text(path)
    head, _, rest = text.partition("\n")
    named = head.strip().lower()
    skipped = named[:4] == "sep=" and len(named) == 5
    if skipped:
        text, head = rest, rest.partition("\n")[0]
    separator = named[4] if skipped else separator_of(text)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    written = [(n or "").strip().lower() for n in reader.fieldnames or ()]
    names = dict(zip(written, reader.fieldnames or (), strict=True))
    if double := [c for c in COLUMNS if written.count(c) > 1]:
        raise InputError(f"{path}: the column `{double[0]}` is there twice; remove one")
    if lacks := [c for c in ("image", "label") if c not in names]:
        raise InputError(
            f"{path}: no column `{lacks[0]}`; its first line is {head.strip()[:80]!r}, expected"
            f" image,label and, if wanted, {','.join(COLUMNS[2:])}"
        )
    find = _Files(root, images)
    unused: list[Path] = []
    entries: dict[Path, tuple[int, Entry]] = {}
    for row in reader:
        line = reader.line_num + skipped
        _require_whole(row, len(written), f"{path}: line {line}")
        cells = {c: (row.get(names[c]) or "").strip() if c in names else "" for c in COLUMNS}
        if any(cells.values()):
            entry = _entry(path, line, cells, find, category)
            if cells["mask"] and entry.label != 1:
                unused.append(find(cells["mask"], f"{path}: line {line}"))
            if entry.path in entries:
                raise InputError(
                    f"{path}: lines {entries[entry.path][0]} and {line} are about one image, {entry.path}; remove one"
                )
            entries[entry.path] = line, entry
    if not entries:
        raise InputError(f"{path}: lists no image")
    said = [f"{path}: read as {encoding}"] if encoding != "UTF-8" else []
    if separator != ",":
        said.append(f"{path}: columns are separated by {'semicolons' if separator == ';' else 'tabs'}")
    if gone := [str(e.path) for _, e in entries.values() if not (root / e.path).exists()]:
        said.append(f"{path}: {len(gone)} of its {many(entries, 'image')} not below {root}: {first(gone)}")
    if unused:
        said.append(f"{many(unused, 'mask')} of images that are not anomalous, left out: {first(unused)}")
    if "split" not in names:
        said.append(f"{path}: no column `split`, so that every image is a test image")
    return Labels(tuple(e for _, e in entries.values()), tuple(said), tuple(unused))


def _require_whole(row: dict, columns: int, where: str) -> None:
    """Raises InputError for a line of a CSV with fewer cells than columns, or more that are not empty."""
    surplus, has = row.get(None) or [], sum(v is not None for k, v in row.items() if k is not None)
    if any(cell.strip() for cell in surplus):
        raise InputError(
            f"{where}: {columns + len(surplus)} cells, the first line has {columns} columns; put cells that hold the"
            " separator in quotes"
        )
    if has < columns and any(v and v.strip() for k, v in row.items() if k is not None):
        raise InputError(
            f"{where}: {has} cell{'s' * (has != 1)}, the first line has {columns} columns; an unknown label is an empty"
            " cell"
        )


def _text(path: Path) -> tuple[str, str]:
    try:
        raw = regular(path).read_bytes()
    except OSError as e:
        raise InputError(f"--labels {path}: cannot be read ({e.strerror}); expected a CSV file") from None
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw.decode("utf-16"), "UTF-16"
    if b"\0" in raw:
        raise InputError(
            f"--labels {path}: holds NUL bytes (UTF-16 without a byte order mark, or no text); save it as CSV in UTF-8"
        )
    try:
        return raw.decode("utf-8-sig"), "UTF-8"
    except UnicodeDecodeError:
        return raw.decode("latin-1"), "Latin-1, as it is no UTF-8"


class _Files:
    """Files by what a row may call them."""

    def __init__(self, root: Path, files: Iterable[Path]) -> None:
        self.roots = tuple(dict.fromkeys((Path(os.path.abspath(root)), root.resolve())))
        self.by_path: dict[str, Path] = {}
        self.by_name: dict[str, list[Path]] = {}
        for file in files:
            self.by_path[_plain(file.as_posix())] = file
            self.by_name.setdefault(_plain(file.name), []).append(file)

    def __call__(self, written: str, where: str) -> Path:
        """The file below the root; the path as it is written where there is none. Raises InputError for a name alone
        that several files have."""
        path = Path(os.path.normpath(written.replace("\\", "/")))
        base = next((r for r in self.roots if path.is_relative_to(r)), None)
        written = (path.relative_to(base) if base else path).as_posix()
        if exact := self.by_path.get(_plain(written)):
            return exact
        named = self.by_name.get(_plain(written), [])
        if len(named) > 1:
            raise InputError(f"{where}: {written} may be {named[0]} or {named[1]}; write its folders, too")
        return named[0] if named else Path(written)


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _entry(path: Path, line: int, cells: dict[str, str], find: _Files, category: Callable[[Path], str]) -> Entry:
    where = f"{path}: line {line}"
    if not cells["image"]:
        raise InputError(f"{where}: names no image")
    label = _label(cells["label"], where)
    split = SPLITS.get(cells["split"].lower() or "test")
    if split is None:
        raise InputError(f"{where}: the split {cells['split']!r} is none of train, val, test")
    image = find(cells["image"], where)
    if image.is_absolute() or image.parts[:1] == ("..",):
        raise InputError(f"{where}: {cells['image']} lies outside of {find.roots[0]}; give the folder that holds all")
    masks = (find(cells["mask"], where),) if cells["mask"] and label else ()
    defect = (cells["defect"] or "anomaly") if label else None
    return Entry(image, cells["category"] or category(image), split, label, defect=defect, masks=masks)


def _label(word: str, where: str) -> int | None:
    if not word:
        return None
    if word.lower() in NORMAL:
        return 0
    if word.lower() in ANOMALOUS:
        return 1
    if word.lower() in NUMBERS:
        return NUMBERS[word.lower()]
    raise InputError(
        f"{where}: the label {word!r} is neither normal ({', '.join(NORMAL)}) nor anomalous"
        f" ({', '.join(ANOMALOUS)}); kinds of defects go into a column `defect`"
    )
