"""Texts of foreign tables that are none: bytes in a text column that are not UTF-8."""

from pathlib import Path

import pyarrow as pa

from stages.artifacts.tables import Table
from stages.base.errors import InputError


def sound(rows: pa.Table, table: Table, part: Path) -> pa.Table:
    """`rows`, with every text that is not UTF-8 (half a character, another encoding) taken out: its column is null, and
    `error` names the column and what stood there, so that one bad value is one failed row.

    Raises:
        InputError: such a text in a column that may not be null, or the table has no `error`.
    """
    bad = {
        name: wrong
        for name in rows.column_names
        if pa.types.is_string(rows.schema.field(name).type) and (wrong := _undecodable(rows[name]))
    }
    if not bad:
        return rows
    for name, wrong in bad.items():
        if not table.schema.field(name).nullable or name == "error" or "error" not in table.schema.names:
            row, said = next(iter(wrong.items()))
            raise InputError(
                f"{part}: column `{name}`, row {row}: not UTF-8 text ({said}); write the table again with"
                " this column in UTF-8"
            )
        values = [
            None if i in wrong else v.decode() if v is not None else None
            for i, v in enumerate(rows[name].cast(pa.binary()).to_pylist())
        ]
        errors = [
            e or (f"column `{name}` is not UTF-8 text ({wrong[i]})" if i in wrong else None)
            for i, e in enumerate(rows["error"].to_pylist())
        ]
        for column, new in ((name, values), ("error", errors)):
            at = rows.column_names.index(column)
            rows = rows.set_column(at, rows.schema.field(at), pa.array(new, pa.string()))
    return rows


def _undecodable(column: pa.ChunkedArray) -> dict[int, str]:
    """Row -> the bytes of each text that is not UTF-8, escaped, at most 80 characters of them."""
    try:
        column.validate(full=True)
        return {}
    except pa.ArrowInvalid:
        wrong = {}
    for row, value in enumerate(column.cast(pa.binary()).to_pylist()):
        try:
            (value or b"").decode()
        except UnicodeDecodeError:
            wrong[row] = value.decode(errors="backslashreplace")[:80]
    return wrong
