"""Tables of several seeds as one: mean and standard deviation of every cell that is a number."""

from collections.abc import Sequence

import numpy as np

from stages.report.cells import Cell
from stages.report.grid import Grid

NAMED_BY = {"accuracy": 2, "drop": 2, "cost": 2, "ablation": 3, "thresholds": 3}  # table -> its first columns, the key
NOTE = (
    " Mean±standard deviation (n - 1) over {n} seeds, of the numbers before rounding; `seeds`: those that have the row."
    " Decisions are drawn at the temperature; AUROC and thresholds come from p(yes) before temperature, which the seed"
    " does not change."
)


def merged(seeds: Sequence[Sequence[Grid]]) -> list[Grid]:
    """The tables of NAMED_BY that some seed has; seeds: the tables of each."""
    names = dict.fromkeys(g.name for grids in seeds for g in grids if g.name in NAMED_BY)
    return [_merged([g for grids in seeds for g in grids if g.name == name], len(seeds)) for name in names]


def _merged(grids: Sequence[Grid], n: int) -> Grid:
    first = max(grids, key=lambda g: len(g.columns))
    rows: dict[tuple, list[dict[str, str]]] = {}
    for grid in grids:
        for row in grid.rows:
            named = dict(zip(grid.columns, row, strict=True))
            rows.setdefault(row[: NAMED_BY[grid.name]], []).append(named)
    lines = []
    for key, found in rows.items():
        cells = (over([row[c] for row in found if c in row]) for c in first.columns)
        lines.append((*cells, "" if any("(published)" in k for k in key) else str(len(found))))
    note = first.note + NOTE.format(n=n)
    return Grid(first.name, f"{first.title}, over seeds", (*first.columns, "seeds"), tuple(lines), note, first.printed)


def over(cells: Sequence[str]) -> str:
    """'91.8', '90.0' -> '90.9±1.3'; texts: the one, or all that differ."""
    numbers = [c for c in cells if isinstance(c, Cell)]
    if len(numbers) < 2:
        return " / ".join(dict.fromkeys(numbers or cells)) or "-"
    places = len(numbers[0].partition(".")[2])
    values = np.array([c.value for c in numbers])
    return f"{values.mean():.{places}f}±{values.std(ddof=1):.{places}f}"
