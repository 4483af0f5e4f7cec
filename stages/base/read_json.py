"""JSON files that people or other tools wrote: what cannot be read is named with its line."""

import json
from collections.abc import Iterator
from pathlib import Path

from stages.base.errors import InputError
from stages.base.texts import read_text


def read_json(file: Path) -> object:
    """Raises InputError that names the line when the file is no JSON, or as `read_text` does."""
    return _parse(read_text(file), file, 1)


def read_json_lines(file: Path) -> Iterator[tuple[int, object]]:
    """(number from 1, value) of every line that is not blank, or of every element where the file is one JSON array.
    Raises InputError that names the line when one is no JSON."""
    text = read_text(file)
    if text.lstrip().startswith("["):
        yield from enumerate(_parse(text, file, 1), 1)
        return
    for number, line in enumerate(text.split("\n"), 1):  # splitlines would also split at U+2028 inside a string
        if line.strip():
            yield number, _parse(line, file, number)


def _parse(text: str, file: Path, first_line: int) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as e:
        raise InputError(f"{file}, line {first_line + e.lineno - 1}, column {e.colno}: not JSON ({e.msg})") from None
