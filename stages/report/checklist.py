"""A CSV of captions that a person fills: is what the caption says of the image right?"""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from stages.artifacts.outputs import write_page
from stages.base.errors import InputError
from stages.base.texts import read_text, separator_of, without_controls
from stages.report.grid import Grid, as_csv

COLUMNS = ("image", "caption", "right", "remark")
YES, NO = ("yes", "y", "1", "true"), ("no", "n", "0", "false")
Answers = dict[tuple[str, str], bool | None]  # `key_of` -> right, wrong, or not answered


def key_of(image: str, caption: str) -> tuple[str, str]:
    """As both are written in the file."""
    return without_controls(image), without_controls(caption)


def write_checklist(path: Path, captions: Iterable[tuple[str, str]]) -> None:
    """A line for each (image_id, caption), once, nothing answered."""
    rows = [(*line, "", "") for line in dict.fromkeys(captions)]
    write_page(path, as_csv(Grid("", "", COLUMNS, tuple(rows), "")))


def read_checklist(path: Path) -> Answers:
    """What a person has answered so far; remarks are theirs alone.

    Raises:
        InputError: no such columns, or an answer that is neither yes nor no; names the line.
    """
    text = read_text(path)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator_of(text))
    names = [(n or "").strip().lower() for n in reader.fieldnames or ()]
    if lacks := [c for c in COLUMNS[:3] if c not in names]:
        raise InputError(f"--checklist {path}: no column `{lacks[0]}`; expected {', '.join(COLUMNS)}")
    reader.fieldnames = names
    answers: Answers = {}
    for row in reader:
        image, caption, right = ((row[c] or "").removeprefix("'") for c in COLUMNS[:3])
        answers[key_of(image, caption)] = _answer(right, f"--checklist {path}: line {reader.line_num}")
    return answers


def _answer(text: str, where: str) -> bool | None:
    word = text.strip().lower()
    if word and word not in (*YES, *NO):
        raise InputError(f"{where}: `right` holds {text.strip()[:40]!r}; expected yes, no, or nothing yet")
    return word in YES if word else None
