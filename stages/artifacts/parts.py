"""The part files of an artifact: reading their keys, writing them, replacing rows in them.

Every part carries its artifact's cache key, so that a part of other settings is known for what it is.
"""

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stages.artifacts.files import put_in_place, write_atomically, write_temporary
from stages.artifacts.parquet import opened
from stages.artifacts.record import MEND, Damaged
from stages.artifacts.tables import Table
from stages.base.errors import first_line

NAME = re.compile(r"part-\d{5}-of-\d{5}-\d{6}\.parquet")
KEY = b"adcli_key"  # in the metadata of a part's schema
UNREADABLE = (pa.ArrowException, OSError, ValueError)


@dataclass(frozen=True)
class Written:
    """A row that is there: its key, how it ended, and the part that holds it."""

    key: tuple
    error: str | None
    final: bool  # its failure is fixed by its seed (column `retry`)
    part: Path


def names(folder: Path) -> list[Path]:
    """The parts of an artifact, in name order."""
    return sorted(p for p in folder.glob("part-*.parquet") if NAME.fullmatch(p.name))


def of_record(folder: Path, record: dict) -> list[Path]:
    """The parts that a complete artifact's record names and that are there. Looked up by name, since a network file
    system may list a folder as it was a minute ago."""
    listed = record.get("parts")
    names = [name for name in listed if NAME.fullmatch(name)] if isinstance(listed, dict) else []
    return sorted(path for name in names if (path := folder / name).is_file())


def read_keys(part: Path, table: Table, known: set[tuple], key: str) -> list[Written] | None:
    """The rows of a part; None when it belongs to other settings.

    known: the keys that the artifact can hold. key: its cache key.

    Raises:
        Damaged: not readable as Parquet, or with columns or keys of something else.
    """
    columns = [c for c in (*table.key, "error", "retry") if c in table.schema.names]
    try:
        file = opened(part)
        if (file.schema_arrow.metadata or {}).get(KEY, key.encode()) != key.encode():
            return None
        rows = [
            Written(tuple(r[k] for k in table.key), r.get("error"), r.get("retry") is False, part)
            for r in file.read(columns=columns).to_pylist()
        ]
    except KeyError as e:
        raise Damaged(f"{part}: damaged (no column {e}); {MEND}") from None
    except UNREADABLE as e:
        raise Damaged(f"{part}: damaged ({first_line(e)}); {MEND}") from e
    if strange := next((row.key for row in rows if row.key not in known), None):
        raise Damaged(f"{part}: holds a row that is none of this command's ({' / '.join(map(str, strange))}); {MEND}")
    return rows


def prepare(path: Path, rows: list[dict], table: Table, key: str) -> Path:
    """Write rows beside `path` under a temporary name, which `put_in_place` makes a part."""
    return write_temporary(path, lambda f: _write(_table(rows, table), f, key))


def add(temporary: Path, folder: Path, prefix: str) -> None:
    """Make what was prepared the shard's next part."""
    numbers = [int(p.stem.rsplit("-", 1)[1]) + 1 for p in folder.glob(f"{prefix}-*.parquet")]
    put_in_place(temporary, folder / f"{prefix}-{max(numbers, default=0):06d}.parquet")


def replace_rows(part: Path, rows: dict[tuple, dict], table: Table, key: str) -> None:
    """Put new rows in place of those with the same keys. One rename: a reader sees the old ones or the new ones."""
    old = _read(part)
    kept = old.filter(pa.array([k not in rows for k in _keys(old, table)]))
    new = pa.concat_tables([_shaped(kept, table), _table(list(rows.values()), table)])
    write_atomically(part, lambda f: _write(new, f, key))


def drop_doubles(rows: list[Written], table: Table, key: str) -> list[Written]:
    """Leave each key once, rather a row without error, then the first one. Needed where a file system has no locks, and
    shards of different counts can meet."""
    best: dict[tuple, Written] = {}
    for row in sorted(rows, key=lambda row: row.error is not None):  # stable: name order among equals
        best.setdefault(row.key, row)
    if len(best) == len(rows):
        return rows
    for part in sorted({row.part for row in rows if row is not best[row.key]}):
        old = _read(part)
        mine = [row for row in rows if row.part == part]
        keep = [row is best[row.key] for row in mine]
        if any(keep):
            rest = old.filter(pa.array(keep))
            write_atomically(part, partial(_write, rest, key=key))
        else:
            part.unlink()
    return [row for row in rows if row is best[row.key]]


def _table(rows: list[dict], table: Table) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=table.schema)


def _shaped(rows: pa.Table, table: Table) -> pa.Table:
    """As the table's schema is today: columns that an earlier adcli did not write are null."""
    columns = [
        rows[f.name].cast(f.type) if f.name in rows.column_names else pa.nulls(len(rows), f.type) for f in table.schema
    ]
    return pa.table(columns, schema=table.schema)


def _write(rows: pa.Table, file, key: str) -> None:
    rows = rows.replace_schema_metadata({**(rows.schema.metadata or {}), KEY: key.encode()})
    pq.write_table(rows, file, compression="zstd")


def _read(part: Path) -> pa.Table:
    try:
        return opened(part).read()
    except UNREADABLE as e:
        raise Damaged(f"{part}: damaged ({first_line(e)}); {MEND}") from e


def _keys(rows: pa.Table, table: Table) -> list[tuple]:
    return list(zip(*(rows[name].to_pylist() for name in table.key), strict=True))
