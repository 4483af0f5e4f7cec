"""Cells of the tables: the row of METRICS that belongs there, and its value as it is printed."""

from collections.abc import Iterable, Sequence

import pandas as pd

KEY = ["dataset", "method", "category"]
REASON = 60  # characters of a reason that a cell holds


class Cell(str):
    """The text of a number in a table, and the value that it was rounded from, in the text's unit."""

    value: float

    def __new__(cls, value: float, places: int) -> "Cell":
        """places: decimals."""
        cell = super().__new__(cls, f"{value:.{places}f}")
        cell.value = value
        return cell


def percent(value: float | None) -> str:
    """0.918 -> '91.8'."""
    return "-" if value is None else Cell(100 * value, 1)


def digits(values: Sequence[float]) -> int:
    """6, 9 or 17 significant digits: the fewest that tell nine tenths of the different values apart."""
    different = set(values)
    return next((n for n in (6, 9) if len({f"{v:.{n}g}" for v in different}) >= 0.9 * len(different)), 17)


def over_categories(rows: Sequence[dict], dataset: str, method: str, metric: str) -> float | None:
    """The mean over categories, or the only category's value; of data without capture conditions."""
    found = {
        r["category"]: r["value"]
        for r in rows
        if (r["dataset"], r["method"], r["metric"], r["condition"]) == (dataset, method, metric, None)
    }
    return found.get("mean", next(iter(found.values())) if len(found) == 1 else None)


def pro_name(rows: Sequence[dict]) -> str:
    """PRO as METRICS calls it, with its limit."""
    return next((r["metric"] for r in rows if r["metric"].startswith("pro@")), "pro@0.3")


def pivot(rows: Sequence[dict], metric: str, interval: bool = False) -> pd.DataFrame:
    """The values of a metric as they are printed: data set, method and category down, conditions across ('' where
    there is none)."""
    values = pd.DataFrame(
        [(*(r[k] for k in KEY), r["condition"] or "", number(r, interval)) for r in rows if r["metric"] == metric],
        columns=[*KEY, "condition", "value"],
        dtype=object,
    )
    return values.pivot(index=KEY, columns="condition", values="value")


def pick(rows: Sequence[dict], **wanted: object) -> dict | None:
    """The first row with these values."""
    return next((r for r in rows if all(r[k] == v for k, v in wanted.items())), None)


def ranked(values: Iterable, order: Iterable) -> list:
    """In the given order; what it does not have comes last, by name."""
    order = list(order)
    return sorted(values, key=lambda v: (order.index(v) if v in order else len(order), str(v)))


def shortened(text: str, longest: int) -> str:
    """At most `longest` characters of it, dots for the rest."""
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def number(row: dict | None, interval: bool = False) -> str:
    """'0.918', with `interval` '0.918 [0.871, 0.952]'; where a row has no value the reason, cut to what a cell holds
    (METRICS have it whole), '-' without a row."""
    if row is None:
        return "-"
    if row["value"] is None:
        return shortened(row["reason"], REASON)
    if interval and row["ci_low"] is not None:
        return f"{row['value']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
    return f"{row['value']:.3f}"
