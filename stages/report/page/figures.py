"""Figures of a page as numbers: its script draws them when they come into view, with values to point at."""

from collections.abc import Sequence

import numpy as np

from stages.datasets.vidad import CONDITIONS
from stages.report.lvlm_mask_area import Bin, said_of_correlation
from stages.report.names import condition_name
from stages.report.sage import split_name
from stages.report.sage_figures import AXES, HEIGHTS, SHOTS, Curve
from stages.report.vidad import of_figure5
from stages.results.answers import ALL
from stages.results.pixels import PixelResult

Figure = dict  # title, x, y: texts; xlim, ylim; log; ticks: names along x; series: name, mark, points (x, y, note)


def sensitivity(rows: list[dict]) -> list[Figure]:
    """VID-AD's Figure 5: AUROC of each scenario under each condition, and their mean."""
    values = of_figure5(rows)
    if not values:
        return []
    names = list(values)
    seen = [c for c in CONDITIONS if any(c in v for v in values.values())]
    series = [
        {
            "name": condition_name(c),
            "mark": "dots",
            "points": [[x + (i - 2) * 0.1, values[n][c], n] for x, n in enumerate(names) if c in values[n]],
        }
        for i, c in enumerate(seen)
    ]
    mean = [[x, float(np.mean(list(values[n].values()))), n] for x, n in enumerate(names)]
    spans = [[x, min(values[n].values()), max(values[n].values())] for x, n in enumerate(names)]
    low = min(lowest for _, lowest, _ in spans)
    return [
        {
            "title": "AUROC per scenario and capture condition",
            "y": "AUROC",
            "ylim": [min(0.45, low - 0.05), 1.02],
            "xlim": [-0.6, len(names) - 0.4],
            "ticks": names,
            "spans": spans,
            "series": [*series, {"name": "mean", "mark": "diamonds", "points": mean}],
        }
    ]


def area(bins: list[Bin]) -> list[Figure]:
    """The LVLM paper's Figure 7, one figure per method."""
    found = []
    for method in dict.fromkeys(b.method for b in bins):
        of_method = [b for b in bins if b.method == method]
        found.append(
            {
                "title": ", ".join(filter(None, (method, said_of_correlation(of_method)))),
                "x": "mean mask area, % of the picture",
                "y": "called anomalous, %",
                "log": True,
                "ylim": [-3, 103],
                "series": [
                    {
                        "name": d,
                        "mark": "dots",
                        "points": [[b.percent, 100 * b.accuracy, f"{b.n} images"] for b in of_method if b.dataset == d],
                    }
                    for d in dict.fromkeys(b.dataset for b in of_method)
                ],
            }
        )
    return found


def curves(pixels: Sequence[PixelResult], limit: float) -> list[Figure]:
    """ROC and PRO of the pixels, a line per category, two figures per data set, method and condition."""
    groups: dict[tuple, list[PixelResult]] = {}
    for r in pixels:
        if r.points is not None:
            groups.setdefault((r.task.dataset, r.task.method, r.task.condition), []).append(r)
    found = []
    for key, results in groups.items():
        title = " · ".join(filter(None, key))
        for what, column, end in (("pixels found", 1, 1.0), ("overlap, mean over regions", 2, limit)):
            series = [
                {
                    "name": r.task.category,
                    "mark": "line",
                    "points": [[round(float(p[0]), 5), round(float(p[column]), 4)] for p in _thinned(r, end)],
                }
                for r in results
            ]
            kind = "ROC" if column == 1 else f"PRO, to the limit {limit:g}"
            found.append(
                {
                    "title": f"{kind} · {title}",
                    "x": "false positive rate",
                    "y": what,
                    "xlim": [0, end],
                    "ylim": [0, 1.02],
                    "series": series,
                }
            )
    return found


def _thinned(result: PixelResult, end: float, most: int = 150) -> np.ndarray:
    """At most so many points of the part that is shown, and the first one beyond it."""
    assert result.points is not None
    points = result.points[: int(np.searchsorted(result.points[:, 0], end, "right")) + 1]
    return points[np.unique(np.linspace(0, len(points) - 1, most).round().astype(int))]


def groups_right(rows: list[dict]) -> list[Figure]:
    """SAGE's Figure 5: Acc-G of every method with its interval, a figure per data set."""
    found = [r for r in rows if (r["category"], r["metric"]) == (ALL, "acc_g") and r["value"] is not None]
    if len(found) < 2:
        return []
    figures = []
    for place in dict.fromkeys((r["dataset"], r["condition"]) for r in found):
        bars = []
        for r in (r for r in found if (r["dataset"], r["condition"]) == place):
            name, shots = split_name(r["method"])
            ends = [None if r[c] is None else 100 * r[c] for c in ("ci_low", "ci_high")]
            bars.append({"name": name, "kind": SHOTS[shots][0], "value": 100 * r["value"], "ends": ends})
        title = f"Groups with all questions right, % · {' · '.join(filter(None, place))}"
        figures.append({"title": title, "bars": sorted(bars, key=lambda b: b["name"])})
    return figures


def by_setting(curves: list[Curve]) -> list[Figure]:
    """SAGE's Figure 7: a figure per setting and metric, settings evenly spaced."""
    found = []
    for metric in dict.fromkeys(c.metric for c in curves):
        for axis in dict.fromkeys(c.axis for c in curves if c.metric == metric):
            of_both = [c for c in curves if (c.axis, c.metric) == (axis, metric)]
            places = sorted({x for c in of_both for x, _ in c.points}, key=lambda x: x or 10**9)
            series = [
                {"name": c.name, "mark": "line dots", "points": [[places.index(x), y] for x, y in c.points]}
                for c in of_both
            ]
            ticks = [str(x or "all") for x in places]
            found.append(
                {
                    "title": f"{HEIGHTS[metric]} by {AXES[axis]}",
                    "x": AXES[axis],
                    "y": HEIGHTS[metric],
                    "xlim": [-0.3, len(ticks) - 0.7],
                    "ticks": ticks,
                    "series": series,
                }
            )
    return found
