"""docs/tables.md is what stages/artifacts/tables.py says; `python -m tests.artifacts.test_tables_page` writes it."""

from pathlib import Path

import pyarrow as pa

from stages.artifacts import tables
from stages.artifacts.tables import Table

PAGE = Path(__file__).parents[2] / "docs" / "tables.md"
HEAD = """# Tables: every column

Made from `stages/artifacts/tables.py` by `python -m tests.artifacts.test_tables_page`. A column without `null` holds a
value in every row. Columns with * say how long a row took or what a file was like, not what the row says: they are left
out when two tables are compared. The same texts stand in the Parquet files:
`pyarrow.parquet.read_schema(part).field("score").metadata`.
"""
WRITTEN_BY = {  # table -> the commands that write it
    "manifest": "`data index`, `data augment`",
    "captions": "`caption`",
    "negatives": "`rewrite-negatives`",
    "encoders": "`train-encoder`, `train-visualad`, `finetune-mllm`",
    "scores": "`score`, `data import-scores`",
    "maps": "`score --maps`, `data import-scores --maps`",
    "features": "`score --features`, for models of anomalib with a frozen backbone",
    "thresholds": "`evaluate`",
    "metrics": "`evaluate`",
    "questions": "`data questions`, `data import-questions`",
    "answers": "`score --method vlm-qa` and `sage`",
    "judgements": "`score --method mle`",
    "truth": "`data synth vidad`, `data synth surfaces`",
}


def page() -> str:
    """The whole page."""
    found = [value for value in vars(tables).values() if isinstance(value, Table)]
    return "\n".join([HEAD, *map(section, found)])


def section(table: Table) -> str:
    """Heading, who writes it, key and columns of one table."""
    rows = [row(field, field.name in table.volatile) for field in table.schema]
    said = f"Written by {WRITTEN_BY[table.name]}. Key: {', '.join(f'`{name}`' for name in table.key)}."
    return "\n".join([f"## {table.name}\n", said, "", "| column | type | | what |", "|---|---|---|---|", *rows, ""])


def row(field: pa.Field, volatile: bool) -> str:
    text = field.metadata[b"doc"].decode().replace("|", r"\|")
    null = "| null |" if field.nullable else "| |"
    return f"| `{field.name}`{'*' * volatile} | {kind(field.type)} {null} {text} |"


def kind(type_: pa.DataType) -> str:
    """list<item: string> -> list of string; structs by their fields."""
    if pa.types.is_list(type_):
        return f"list of {kind(type_.value_type)}"
    if pa.types.is_struct(type_):
        return "{" + ", ".join(f"{f.name}: {kind(f.type)}" for f in type_) + "}"
    return str(type_)


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == page(), "python -m tests.artifacts.test_tables_page writes it"


def test_a_row_of_the_page():
    field = pa.field("words", pa.list_(pa.struct([("a", pa.int8())])), nullable=True, metadata={"doc": "one | two"})
    assert row(field, True) == r"| `words`* | list of {a: int8} | null | one \| two |"


if __name__ == "__main__":
    PAGE.write_text(page())
