"""Reading tables: our artifacts, a directory of them, or any Parquet file that fits the schema."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from stages.artifacts.parquet import opened
from stages.artifacts.parts import KEY, UNREADABLE, of_record
from stages.artifacts.record import COMPLETE, EITHER, MEND, PARTIAL, Damaged, load_record
from stages.artifacts.sound import sound
from stages.artifacts.tables import Table
from stages.base.errors import InputError, first_line


def read_table(path: Path, table: Table, partial: bool = False) -> pa.Table:
    """Read and validate one table; columns as in `table.schema`, rows sorted by key.

    path: an artifact, a directory of artifacts (read as one table), or a Parquet file or directory
    made by other tools. Their nullable columns may be missing, further columns are left out, and
    types are cast where no value changes. partial=True reads the rows that are there so far of an
    artifact that is still being made.

    Raises:
        InputError: nothing there, not Parquet, an artifact that is not complete or damaged, a missing column, a
            column of the wrong type, a null where none may be, two rows with one key, or (see `sound`) a key that
            is not UTF-8.
    """
    path = Path(path)
    parts = [_fit(_read_part(part), table, part) for part in part_files(path, table, partial)]
    _require_complete(path, partial)  # nobody began to overwrite it meanwhile
    rows = pa.concat_tables(parts) if parts else table.schema.empty_table()
    rows = rows.sort_by([(name, "ascending") for name in table.key]).combine_chunks()
    _require_unique(rows, table, path)
    return rows


def scan(path: Path, table: Table, columns: tuple[str, ...] | None = None, rows: int = 1000) -> Iterator[pa.Table]:
    """As `read_table`, `rows` at a time in the order of the files, for tables that memory does not hold.

    columns: only these. Keys are not checked for repetition. Raises InputError as `read_table` does.
    """
    path = Path(path)
    wanted = pa.schema([f for f in table.schema if columns is None or f.name in columns])
    narrow = Table(table.name, table.key, wanted)
    for part in part_files(path, table):
        try:
            file = opened(part)
            there = [name for name in wanted.names if name in file.schema_arrow.names]
            for batch in file.iter_batches(rows, columns=there):
                yield _fit(pa.Table.from_batches([batch]), narrow, part)
        except UNREADABLE as e:
            raise _unreadable(part, e) from e
    _require_complete(path)  # nobody began to overwrite it meanwhile


def content_key(path: Path, table: Table) -> str:
    """What a table of large values says, without hashing them twice: the cache keys of the artifacts below `path`,
    or a hash of the files where other tools made them."""
    if key := made_key(path):
        return key
    digest = hashlib.sha256()
    for part in part_files(path, table):
        with part.open("rb") as f:
            digest.update(hashlib.file_digest(f, "sha256").digest())
    return digest.hexdigest()[:32]


def made_key(path: Path) -> str:
    """The cache keys of the artifacts below `path`: how they were made, whichever of their rows failed. Empty where
    other tools made them."""
    return ",".join(record["key"] for record in read_provenance(path))


def part_files(path: Path, table: Table, partial: bool = False) -> list[Path]:
    """The Parquet files that hold a table, in name order. Raises InputError as `read_table` does."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"{path}: no such file or directory (expected {_a(table)})")
    parts = [p for p in sorted(path.rglob("*.parquet")) if p.is_file() and not _hidden(p, path)]
    _require_complete(path, partial)  # after the listing, or parts that remain of an old artifact could be in it
    records = read_provenance(path)
    for record in records:
        parts = sorted({*parts, *of_record(Path(record["artifact"]), record)})
        _require_its_parts(record, parts)
    if partial:
        parts = [p for p in parts if _belongs(p)]
    if not parts and not records:
        raise InputError(f"{path}: holds no Parquet files (expected {_a(table)})")
    return parts


def read_provenance(path: Path) -> list[dict]:
    """`_adcli.json` of an artifact, or of every artifact below a directory, each with its own place
    under `artifact`. Empty for tables made by other tools. Raises InputError for a damaged one."""
    if not path.is_dir():
        return []
    files = [f for f in _records(path, COMPLETE) if not f.with_name(PARTIAL).exists()]
    return [load_record(f) | {"artifact": str(f.parent)} for f in files]


def _require_complete(path: Path, partial: bool = False) -> None:
    for unfinished in [] if partial else _records(path, PARTIAL):
        try:
            stage = load_record(unfinished)["stage"]
        except FileNotFoundError:  # completed just now
            continue
        except Damaged:
            raise Damaged(f"{unfinished}: damaged, and the artifact not complete; {MEND}") from None
        raise InputError(
            f"{unfinished.parent}: not complete (`{stage}` was interrupted, stopped at its --limit, or another shard"
            " is still to be run); run that command again first, without --limit"
        )


def _records(path: Path, name: str) -> list[Path]:
    """The records of this name below a directory. Network file systems may list a folder as it was a minute ago: each
    is looked up by its name wherever a record is listed."""
    folders = {path} | {file.parent for file in path.rglob(EITHER)}
    return sorted(file for folder in folders if (file := folder / name).exists())


def _require_its_parts(record: dict, parts: list[Path]) -> None:
    """The parts that a record names, and no others, are there. Older records name none."""
    folder, listed = Path(record["artifact"]), record.get("parts")
    if listed is None:
        return
    there = {p.name for p in parts if p.parent == folder}
    if gone := sorted(set(listed) - there):
        raise Damaged(f"{folder / gone[0]}: this part of the artifact is gone; {MEND}")
    if more := sorted(there - set(listed)):
        raise Damaged(
            f"{folder / more[0]}: the artifact's record does not name this file; run the command that made it"
            " again, or take the file away"
        )


def _belongs(part: Path) -> bool:
    """Whether a part of an unfinished artifact is one of its own, not what --overwrite has still to remove."""
    try:
        record = load_record(part.parent / PARTIAL)
        said = (opened(part).schema_arrow.metadata or {}).get(KEY)
    except (FileNotFoundError, Damaged):
        return True
    except UNREADABLE as e:
        raise _unreadable(part, e) from e
    return not record.get("replacing") and said in (None, record["key"].encode())


def fingerprint(rows: pa.Table, table: Table) -> str:
    """Hash of what a table says: not of file names, row order, part sizes or `volatile` columns."""
    rows = rows.drop_columns([c for c in table.volatile if c in rows.column_names])
    rows = rows.sort_by([(name, "ascending") for name in table.key]).combine_chunks()
    digest = hashlib.sha256()
    for batch in rows.to_batches(max_chunksize=10_000):
        digest.update(json.dumps(batch.to_pylist(), default=_as_text, ensure_ascii=False).encode())
    return digest.hexdigest()[:32]


def _as_text(value: object) -> str:
    return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else str(value)


def _hidden(part: Path, base: Path) -> bool:
    return any(name[0] in "._" for name in part.relative_to(base).parts)


def _read_part(part: Path) -> pa.Table:
    try:
        return opened(part).read()
    except UNREADABLE as e:
        raise _unreadable(part, e) from e


def _unreadable(part: Path, e: Exception) -> InputError:
    ours = any((part.parent / name).exists() for name in (COMPLETE, PARTIAL))
    return InputError(f"{part}: cannot be read as Parquet ({first_line(e)}){f'; {MEND}' if ours else ''}")


def _fit(rows: pa.Table, table: Table, part: Path) -> pa.Table:
    columns = []
    for field in table.schema:
        if field.name not in rows.column_names:
            columns.append(_absent(field, len(rows), table, part))
            continue
        column = rows[field.name]
        try:
            column = column.cast(field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as e:
            raise InputError(
                f"{part}: column `{field.name}` is {column.type}, {_a(table)} has {field.type} there ({first_line(e)})"
            ) from None
        if not field.nullable and (n := column.null_count):
            raise InputError(
                f"{part}: column `{field.name}` has {n} null{'s' * (n > 1)}; {_a(table)} allows none there"
            )
        columns.append(column)
    return sound(pa.table(columns, schema=table.schema), table, part)


def _absent(field: pa.Field, n: int, table: Table, part: Path) -> pa.Array:
    if field.nullable:
        return pa.nulls(n, field.type)
    if pa.types.is_list(field.type):
        return pa.array([[]] * n, field.type)
    raise InputError(
        f"{part}: no column `{field.name}`; {_a(table)} needs"
        f" {', '.join(f.name for f in table.schema if not f.nullable)}"
    )


def _a(table: Table) -> str:
    return f"{'an' if table.name[0] in 'aeiou' else 'a'} {table.name} table"


def _require_unique(rows: pa.Table, table: Table, path: Path) -> None:
    keys = rows.select(list(table.key))
    counts = keys.group_by(list(table.key)).aggregate([([], "count_all")])
    if len(counts) < len(keys):
        twice = next(r for r in counts.to_pylist() if r["count_all"] > 1)
        name = ", ".join(f"{k}={twice[k]}" for k in table.key)
        raise InputError(f"{path}: {twice['count_all']} rows with one key ({name})")
