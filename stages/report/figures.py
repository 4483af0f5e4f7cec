"""Figures of the report, as PNG bytes."""

from stages.base.plots import as_png, pyplot
from stages.results.pixels import PixelResult

NORMAL, ANOMALOUS, UNKNOWN = "#4c78a8", "#e45756", "#888888"
MARKS = {
    "white_bg": "#f2b134",
    "cable_bg": "#4c78a8",
    "mesh_bg": "#54a24b",
    "low_light": "#555555",
    "blurry": "#b279a2",
}


def shown(name: str) -> str:
    """A name as a figure's label: legends leave out labels that begin with an underscore."""
    name = "".join(c if c.isprintable() else " " for c in name)
    return f" {name}" if name.startswith("_") else name


def curves(pixels: list[PixelResult], limit: float) -> bytes | None:
    """ROC of the pixels (left) and PRO up to its limit (right), a line per category, a row per method."""
    groups: dict[tuple, list] = {}
    for r in pixels:
        if r.points is not None:
            groups.setdefault((r.task.dataset, r.task.method, r.task.condition), []).append(r)
    if not groups:
        return None
    plt = pyplot()
    figure, axes = plt.subplots(len(groups), 2, figsize=(9, 3.4 * len(groups)), squeeze=False, layout="constrained")
    for (left, right), (key, results) in zip(axes, groups.items(), strict=True):
        colours = plt.get_cmap("tab20")
        for n, r in enumerate(results):
            rate, recall, overlap = r.points.T
            left.plot(rate, recall, lw=1.2, color=colours(n % 20), label=shown(r.task.category))
            right.plot(rate, overlap, lw=1.2, color=colours(n % 20))
        left.plot([0, 1], [0, 1], ls="--", lw=1, color="#cccccc")
        left.set(title=shown(" · ".join(filter(None, key))), xlabel="false positive rate", ylabel="pixels found")
        right.set(
            xlim=(0, limit),
            ylim=(0, 1.02),
            xlabel=f"false positive rate, to the limit {limit:g}",
            ylabel="overlap, mean over regions",
        )
        left.legend(fontsize=6.5, ncol=2 if len(results) > 8 else 1, frameon=False, loc="lower right")
    return as_png(figure)
