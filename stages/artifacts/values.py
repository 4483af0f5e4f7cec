"""What a row must be before Arrow can encode it."""

from typing import Any

import pyarrow as pa

from stages.artifacts.tables import Table
from stages.base.errors import InputError


def encodable(row: dict, table: Table) -> dict:
    """The row itself, its error's text made valid Unicode; or, when text of another column cannot be written as UTF-8
    (half of a surrogate pair, as in a server's answer), a failed row in its place that names the column.

    The bad text is not kept. Raises InputError where the table has no column `error`.
    """
    if isinstance(row.get("error"), str):
        row = row | {"error": escaped(row["error"])}
    bad = [field for field in table.schema if not _fits(row[field.name], field.type)]
    if not bad:
        return row
    name = bad[0].name
    error = f"column `{name}`: the text is not valid Unicode and cannot be kept"
    if "error" not in table.schema.names:
        raise InputError(f"{table.name} table, {error} ({_key(row, table)})")
    return {f.name: _without(f, row[f.name], table) for f in table.schema} | {
        "error": "; ".join(filter(None, (row["error"], error)))
    }


def require_encodable_keys(keys: list[tuple], table: Table) -> None:
    """Raises InputError for a key that cannot be written: nothing could say which row failed."""
    for key in keys:
        for name, value in zip(table.key, key, strict=True):
            if isinstance(value, str) and not _valid(value):
                raise InputError(
                    f"{table.name} table, column `{name}`: {escaped(value)} is not valid Unicode; rename what it names"
                )


def escaped(text: str) -> str:
    """Halves of surrogate pairs as \\udcXX."""
    return text.encode(errors="backslashreplace").decode()


def _without(field: pa.Field, value: Any, table: Table) -> Any:
    """What a failed row keeps of a column."""
    if field.name in table.key or (not field.nullable and _fits(value, field.type)):
        return value
    if field.nullable:
        return None
    return [] if pa.types.is_list(field.type) else escaped(str(value))


def _fits(value: Any, kind: pa.DataType) -> bool:
    if value is None:
        return True
    if pa.types.is_string(kind):
        return isinstance(value, str) and _valid(value)
    if pa.types.is_list(kind):
        return (not pa.types.is_nested(kind.value_type) and not pa.types.is_string(kind.value_type)) or all(
            _fits(v, kind.value_type) for v in value
        )
    if pa.types.is_struct(kind):
        return all(_fits(value.get(f.name), f.type) for f in kind)
    return True


def _valid(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _key(row: dict, table: Table) -> str:
    return " / ".join(escaped(str(row[name])) for name in table.key)
