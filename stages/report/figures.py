"""Figures of the report, as PNG bytes."""

import numpy as np

from stages.base.plots import as_png, pyplot
from stages.datasets.vidad import CONDITIONS, SCENARIOS
from stages.report.mask_area import Bin, correlation
from stages.report.vidad import NAMES, condition_name
from stages.results.pixels import PixelResult
from stages.results.scores import TaskScores

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


def sensitivity(rows: list[dict]) -> bytes | None:
    """The paper's Figure 5: AUROC of each scenario under each condition as dots, range as bar, mean as
    diamond. None when no category has two conditions."""
    values: dict[str, dict[str, float]] = {}
    for r in rows:
        of_task = r["condition"] in CONDITIONS and r["category"] != "mean"
        if of_task and r["metric"] == "auroc" and r["value"] is not None:
            values.setdefault(r["category"], {})[r["condition"]] = r["value"]
    values = {c: v for c, v in values.items() if len(v) > 1}
    if not values:
        return None
    plt = pyplot()
    names = [s for s in SCENARIOS if s in values] + sorted(set(values) - set(SCENARIOS))
    figure, axes = plt.subplots(figsize=(9, 3.4))
    seen = [c for c in CONDITIONS if any(c in v for v in values.values())]
    for x, name in enumerate(names):
        v = values[name]
        axes.vlines(x, min(v.values()), max(v.values()), color="#999999", lw=2, zorder=1)
        for i, c in enumerate(seen):
            if c in v:  # side by side, so that equal values stay visible
                axes.plot(
                    x + (i - 2) * 0.09,
                    v[c],
                    "o",
                    ms=6,
                    color=MARKS.get(c, UNKNOWN),
                    zorder=2,
                    label=NAMES.get(c, c) if x == 0 else None,
                )
        axes.plot(x, np.mean(list(v.values())), "D", ms=7, mfc="white", mec="black", zorder=1.5)
    axes.axhline(0.5, color="#cccccc", lw=1, ls="--")
    axes.set_xticks(range(len(names)), [shown(n) for n in names])
    axes.set_ylabel("AUROC")
    low = min(min(v.values()) for v in values.values())
    axes.set_ylim(min(0.45, low - 0.05), 1.03)
    axes.legend(ncol=5, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return as_png(figure)


def histograms(tasks: list[TaskScores]) -> bytes | None:
    """Score histograms of one category's tasks, side by side; dashed: the train-q90 threshold."""
    order = list(CONDITIONS)
    tasks = sorted(
        (t for t in tasks if t.test), key=lambda t: order.index(t.condition) if t.condition in order else len(order)
    )
    if not tasks:
        return None
    plt = pyplot()
    figure, axes = plt.subplots(1, len(tasks), figsize=(max(2.1 * len(tasks), 3.6), 1.9), sharey=True, squeeze=False)
    for ax, task in zip(axes[0], tasks, strict=True):
        scores = np.array([s.score for s in task.test])
        labels = [s.image.label for s in task.test]
        bins = np.linspace(min(scores.min(), 0), max(scores.max(), 1e-3) * 1.02, 26)
        for label, colour in ((0, NORMAL), (1, ANOMALOUS), (None, UNKNOWN)):
            part = scores[[v == label for v in labels]]
            if len(part):
                ax.hist(part, bins, color=colour, alpha=0.65)
        if "train-q90" in task.thresholds:
            ax.axvline(task.thresholds["train-q90"], color="black", lw=1, ls="--")
        ax.set_title(shown(condition_name(task.condition, task.category)), fontsize=9)
        ax.tick_params(labelsize=7)
    axes[0][0].set_ylabel("images")
    return as_png(figure)


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


def mask_area(bins: list[Bin]) -> bytes | None:
    """The LVLM paper's Figure 7: accuracy of each bin of anomalous images against its mean mask area (log
    axis), one panel per method, with the correlation over all bins of the method."""
    methods = list(dict.fromkeys(b.method for b in bins))
    if not methods:
        return None
    plt = pyplot()
    from matplotlib.ticker import LogLocator, NullFormatter

    columns = min(len(methods), 3)
    rows = -(-len(methods) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(4.2 * columns + 0.6, 2.9 * rows),
        squeeze=False,
        sharex=True,
        sharey=True,
        layout="constrained",
    )
    datasets = list(dict.fromkeys(b.dataset for b in bins))
    for ax, method in zip(axes.flat, methods, strict=False):
        of_method = [b for b in bins if b.method == method]
        for i, dataset in enumerate(datasets):
            found = [b for b in of_method if b.dataset == dataset]
            ax.plot(
                [b.percent for b in found],
                [100 * b.accuracy for b in found],
                "o",
                ms=5,
                alpha=0.8,
                color=list(MARKS.values())[i % len(MARKS)],
                label=shown(dataset),
            )
        r = correlation(of_method)
        ax.set_title(shown(method) + (f"\nr = {r:.2f} over {len(of_method)} bins" if r is not None else ""), fontsize=9)
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_ylim(-3, 103)
    for ax in list(axes.flat)[len(methods) :]:
        ax.axis("off")
    figure.supxlabel("mean mask area, % of the picture", fontsize=9)
    figure.supylabel("called anomalous, %", fontsize=9)
    handles = {h.get_label(): h for ax in axes.flat for h in ax.lines}
    figure.legend(
        handles=list(handles.values()), loc="outside upper left", ncol=len(datasets), frameon=False, fontsize=8
    )
    return as_png(figure)
