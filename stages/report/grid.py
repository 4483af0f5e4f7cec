"""A table for people, and its forms: text, CSV, Markdown. Published figures to stand beside ours."""

import csv
import io
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from stages.artifacts.files import make_folder, write_atomically


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
    """Aligned columns for a terminal or a log."""
    lines = [grid.columns, *grid.rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(grid.columns))]
    text = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
            for line in lines]
    return "\n".join([grid.title, text[0], "-" * sum(w + 2 for w in widths), *text[1:], grid.note])


def as_markdown(grid: Grid) -> str:
    """A pipe table under its title, the definition below."""
    lines = ["| " + " | ".join(line) + " |" for line in (grid.columns, ("---",) * len(grid.columns), *grid.rows)]
    return "\n".join([f"## {grid.title}", "", *lines, "", grid.note, ""])


def as_csv(grid: Grid) -> str:
    """Comma-separated, header first."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([grid.columns, *grid.rows])
    return text.getvalue()


def write(grids: list[Grid], folder: Path) -> None:
    """FOLDER/<name>.csv and .md for each table."""
    make_folder(folder)
    for grid in grids:
        for ending, text in (("csv", as_csv(grid)), ("md", as_markdown(grid))):
            write_atomically(folder / f"{grid.name}.{ending}", lambda f, t=text: f.write(t.encode()))
