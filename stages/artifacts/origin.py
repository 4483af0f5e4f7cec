"""Where a table comes from: its own record, and the records of what it was made from, up the chain."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stages.artifacts import parts, tables
from stages.artifacts.checks import ARTIFACTS, FILES, FOLDERS
from stages.artifacts.files import OWN_FOLDERS
from stages.artifacts.parquet import opened
from stages.artifacts.parts import UNREADABLE
from stages.artifacts.reader import content_key, fingerprint, made_key, read_table
from stages.artifacts.record import COMPLETE, PARTIAL, Damaged, find_record
from stages.artifacts.tables import Table
from stages.base.errors import InputError, first_line

TABLES: dict[str, Table] = {t.name: t for t in vars(tables).values() if isinstance(t, Table)}
TABLES["facts"] = tables.CAPTIONS  # an input's name in a record -> its table
OUTPUTS = (*ARTIFACTS, *FILES, *FOLDERS)  # paths of a record that are none of its inputs, where none has that name
PUBLISHED = (*FILES, *FOLDERS)  # what commands write for people, beside their table
ABOVE = 6  # folders: a heat map lies as deep as its picture's id
UNCHANGED, CHANGED, GONE = "unchanged", "changed since", "no longer there"
THERE = "still there"  # nothing in the record says what it held


@dataclass(frozen=True)
class Input:
    """A path that a record names. name: of the setting that gave it; state: UNCHANGED, CHANGED, GONE, THERE, or why
    nobody can tell; tables: the paths of what lies there, keys of `chain`."""

    name: str
    path: str
    state: str
    tables: tuple[str, ...] = ()


@dataclass(frozen=True)
class Made:
    """A table on disk. path: absolute; record: None where other tools wrote it; rows, errors: None where nobody knows;
    complete: every row is there; columns: (name, type), where there is no record; key: of an artifact whose record is
    gone, as its part has it; inputs: in the record's order."""

    path: str
    record: dict | None
    rows: int | None
    errors: int | None
    complete: bool = True
    columns: tuple[tuple[str, str], ...] = ()
    key: str | None = None
    inputs: tuple[Input, ...] = ()


def chain(path: Path) -> dict[str, Made]:
    """Absolute path -> table: what lies at `path` (of a folder of artifacts, all of them; of a page or a folder of
    pictures the table that it was written with), each followed by what it was made from. Everything is there once.

    Raises:
        InputError: there is nothing, or nothing that adcli knows; or the record at `path` is damaged. Further up the
            chain both are the state of an input.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or directory")
    found: dict[str, Made] = {}
    at_path = _beginnings(path)
    for place in at_path:
        _follow(place, found)
    if not at_path:
        raise InputError(
            f"{path}: neither an artifact of adcli nor a Parquet file, nor what an artifact beside it, or up to"
            f" {ABOVE} folders above, says that its command wrote"
        )
    return found


def tops(path: Path, found: dict[str, Made]) -> Iterator[Made]:
    """Of a chain, the tables that lie at its beginning."""
    yield from (found[str(place)] for place in _beginnings(path))


def _beginnings(path: Path) -> list[Path]:
    return places(path, within=True) or written_with(path)


def written_with(path: Path) -> list[Path]:
    """Artifacts beside `path`, or up to ABOVE folders above it, whose commands wrote it for people: the report, a table
    for a paper, a heat map."""
    path = Path(os.path.abspath(path))
    found = []
    for folder in path.parents[: ABOVE + 1]:
        with suppress(OSError):
            for place in sorted(Path(e.path) for e in os.scandir(folder) if e.is_dir() and _is_artifact(Path(e.path))):
                with suppress(InputError):
                    record, _ = find_record(place) or ({}, False)
                    said = record.get("paths", {})
                    if any(path.is_relative_to(said[n]) for n in PUBLISHED if isinstance(said.get(n), str)):
                        found.append(place)
    return found


def places(path: Path, within: bool) -> list[Path]:
    """The tables that a path stands for: an artifact, also named by one of its parts or anything in its folders of
    weights; a Parquet file or a folder of such; within: or the artifacts in it. Empty for anything else."""
    path = Path(os.path.abspath(path))
    if parts.NAME.fullmatch(path.name) and _is_artifact(path.parent):
        path = path.parent
    for place in (path, *path.parents):  # within an artifact's weights
        if place.name in OWN_FOLDERS and _is_artifact(place.parent):
            path = place.parent
    if path.is_file():
        return [path] if path.suffix == ".parquet" else []
    if _is_artifact(path) or not within:
        return [path] if _is_artifact(path) else []
    inside = sorted({f.parent for name in (COMPLETE, PARTIAL) for f in path.rglob(name)})
    return inside or ([path] if any(path.glob("*.parquet")) else [])


def _is_artifact(path: Path) -> bool:
    return any((path / name).exists() for name in (COMPLETE, PARTIAL))


def _follow(path: Path, found: dict[str, Made]) -> None:
    """Add the table at `path`, and then what it was made from, to `found`. Raises InputError where it is damaged."""
    if str(path) in found:
        return
    made = found[str(path)] = _look(path)
    for place in (t for i in made.inputs for t in i.tables):
        _follow(Path(place), found)


def _look(path: Path) -> Made:
    """One table with the state of its inputs. Raises InputError where it is damaged."""
    said, complete = (find_record(path) if path.is_dir() else None) or (None, True)
    if said is None:
        return _foreign(path)
    rows, errors = (said.get("rows"), said.get("errors")) if complete else _counted(path)
    named = {n: p for n, p in said.get("paths", {}).items() if isinstance(p, str) and "\0" not in p}
    named = {n: p for n, p in named.items() if n in said["inputs"] or n not in OUTPUTS}
    inputs = (_input(n, p, said["inputs"].get(n), said.get("date")) for n, p in named.items())
    return Made(str(path), said, rows, errors, complete, inputs=tuple(inputs))


def _input(name: str, place: str, recorded: str | None, date: object) -> Input:
    """recorded: its fingerprint when it was used; None where there is none under its name. date: of the record that
    names it; a table without fingerprint, that of a training, is another one when its own date is later."""
    found: list[str] = []
    dates: list[str] = []
    for table in places(Path(place), within=name in TABLES):
        try:
            record = (find_record(table) if table.is_dir() else None) or (_foreign(table).record, True)
        except InputError as e:
            return Input(name, place, f"cannot be read: {e}")
        found.append(str(table))
        dates.append(str((record[0] or {}).get("date", "")))
    state = _state(name, Path(place), recorded)
    if state == THERE and isinstance(date, str) and max(dates, default="") > date:
        state = CHANGED
    return Input(name, place, state, tuple(found))


def _state(name: str, path: Path, recorded: str | None) -> str:
    if not path.exists():
        return GONE
    if not recorded or name not in TABLES:
        return THERE
    table = TABLES[name]
    try:
        if name == "maps" or recorded == made_key(path):
            now = content_key(path, table)
        else:
            now = fingerprint(read_table(path, table), table)
    except InputError as e:
        return f"cannot be compared: {e}"
    return UNCHANGED if now == recorded else CHANGED


def _counted(path: Path) -> tuple[int | None, int | None]:
    """Rows and failed rows that are there of an artifact that is not complete; None where a part is damaged."""
    rows = errors = 0
    try:
        for part in parts.names(path):
            file = opened(part)
            rows += file.metadata.num_rows
            if "error" in file.schema_arrow.names:
                column = file.read(["error"])["error"]
                errors += len(column) - column.null_count
    except UNREADABLE:
        return None, None
    return rows, errors


def _foreign(path: Path) -> Made:
    """A table of other tools. Raises InputError where it is not Parquet."""
    files = [path] if path.is_file() else sorted(path.glob("*.parquet"))
    try:
        schema = opened(files[0]).schema_arrow
        rows = sum(opened(f).metadata.num_rows for f in files)
    except UNREADABLE as e:
        raise Damaged(f"{path}: cannot be read as Parquet ({first_line(e)})") from e
    columns = tuple((f.name, str(f.type)) for f in schema)
    key = (schema.metadata or {}).get(parts.KEY)
    return Made(str(path), None, rows, None, columns=columns, key=key and key.decode(errors="replace"))
