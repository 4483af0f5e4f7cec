"""A table for people, and its forms: text, CSV, Markdown, LaTeX. Published figures to stand beside ours."""

import csv
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import pandas as pd

from stages.artifacts import outputs
from stages.artifacts.files import write_bytes
from stages.artifacts.outputs import exactly
from stages.artifacts.paths import below
from stages.base.texts import without_controls

LINE_BREAKS = re.compile(r"[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+")
FORMULA = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
    "\n",
    "＝",
    "＋",
    "－",
    "＠",
    "'",
)  # so that whoever reads the file may take one ' off
LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "[": "{[}"}  # `\\ [` is a length
)
NUMBER = r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?"
FIGURE = re.compile(
    rf"-( / (-|{NUMBER}))*|{NUMBER}(±{NUMBER})?( \[{NUMBER}, {NUMBER}\])?( %)?", re.IGNORECASE | re.ASCII
)


@dataclass(frozen=True)
class Grid:
    """name: of its files; note: the definition, printed with the numbers; printed: on the terminal, too."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str
    printed: bool = False


def published(name: str) -> list[dict[str, str]]:
    """Rows of one of the CSV files with the papers' figures."""
    text = files("stages.report.published").joinpath(f"{name}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text)))


def as_text(grid: Grid) -> str:
    """Aligned columns for a terminal or a log; characters that would steer the terminal are written out."""
    lines = [[_printable(c) for c in line] for line in (grid.columns, *grid.rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(grid.columns))]
    text = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join(
        [_printable(grid.title), text[0], "-" * sum(w + 2 for w in widths), *text[1:], _printable(grid.note)]
    )


def as_markdown(grid: Grid) -> str:
    """A pipe table under its title, the definition below. Cells are text: what Markdown or HTML would read as a sign
    is escaped, and control characters are written as \\xNN."""
    table = _frame(grid, _markdown).to_markdown(index=False, tablefmt="github", disable_numparse=True)
    return f"## {_markdown(grid.title)}\n\n{table}\n\n{_markdown(grid.note)}\n"


def as_latex(grid: Grid) -> str:
    """A `table` for a paper (LaTeX with the package booktabs): the title is its caption, the definition stands below.
    Characters that mean something to LaTeX are escaped."""
    tabular = _frame(grid, _latex).to_latex(index=False, escape=False, column_format="l" * len(grid.columns))
    lines = ("\\begin{table}", "\\centering", f"\\caption{{{_latex(grid.title)}}}", tabular.rstrip())
    return "\n".join([*lines, "", f"\\footnotesize {_latex(grid.note)}", "\\end{table}", ""])


def as_csv(grid: Grid) -> str:
    """Comma-separated, header first. A cell that a spreadsheet would take for a formula gets one `'` in front; figures
    and the dash of an empty cell stay as they are. Control characters but tab and line ends are written as \\xNN."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([map(_csv, line) for line in (grid.columns, *grid.rows)])
    return text.getvalue()


def named_files(grids: list[Grid]) -> dict[str, str]:
    """File name -> content of the tables: <name>.csv, <name>.md and <name>.tex of each."""
    return {
        below(Path(), grid.name, suffix=f".{ending}").name: text(grid)
        for grid in grids
        for ending, text in (("csv", as_csv), ("md", as_markdown), ("tex", as_latex))
    }


def write(grids: list[Grid], folder: Path, pictures: dict[str, bytes | None] | None = None) -> None:
    """FOLDER/<name>.csv, .md and .tex for each table, <name>.png for each picture; tables of an earlier run that this
    one does not have are taken away."""
    files = _files(grids, pictures)
    with exactly(folder, list(files)):
        for name, content in files.items():
            write_bytes(folder / name, content)


def require_free(grids: list[Grid], folder: Path, pictures: dict[str, bytes | None] | None = None) -> None:
    """Raises InputError where `write` would take the place of files of others."""
    outputs.require_free(folder, _files(grids, pictures))


def _files(grids: list[Grid], pictures: dict[str, bytes | None] | None) -> dict[str, bytes]:
    files = {name: text.encode(errors="replace") for name, text in named_files(grids).items()}
    return files | {f"{name}.png": png for name, png in (pictures or {}).items() if png}


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _frame(grid: Grid, cell: Callable[[str], str]) -> pd.DataFrame:
    """The table with every cell put through `cell`."""
    rows = [[cell(c) for c in row] for row in grid.rows]
    return pd.DataFrame(rows, columns=[cell(c) for c in grid.columns], dtype=object)


def _markdown(text: str) -> str:
    text = without_controls(LINE_BREAKS.sub(" ", text))
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*|~]|\](?=[(\[:]))", r"\\\1", text)
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)  # within a word it is a sign of nothing
    return re.sub(r"^(\s*)(#|[-+]\s|=)", r"\1\\\2", text)


def _latex(text: str) -> str:
    return _printable(LINE_BREAKS.sub(" ", text)).translate(LATEX)


def _csv(text: str) -> str:
    text = without_controls(text)
    if FIGURE.fullmatch(text) or not text.startswith(FORMULA):
        return text
    return "'" + text
