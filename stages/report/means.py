"""What the papers' tables share: values over the categories of a data set, in %."""

from collections.abc import Sequence


def percent(value: float | None) -> str:
    """0.918 -> '91.8'."""
    return "-" if value is None else f"{100 * value:.1f}"


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
