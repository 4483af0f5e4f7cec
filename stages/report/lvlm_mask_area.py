"""Accuracy against the size of the anomaly (LVLM paper, Figure 7)."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.base.errors import ImageError
from stages.base.plots import as_png, pyplot
from stages.base.threads import threads
from stages.datasets.conditions import split_condition
from stages.datasets.images import load_masks
from stages.report.figures import MARKS, shown
from stages.report.grid import Grid
from stages.report.lvlm import rule_of
from stages.results.scores import TaskScores

SIZE = 50  # images per bin; those left over are spread over the bins, so that none is small


@dataclass(frozen=True)
class Bin:
    """n anomalous images of like mask area; percent: their mean share of the picture, 0..100; accuracy: share
    that the method calls anomalous, 0..1."""

    dataset: str
    method: str
    percent: float
    accuracy: float
    n: int


def area_bins(tasks: list[TaskScores], rows: list[dict]) -> list[Bin]:
    """Bins of every data set and method whose anomalous test images, as they were taken, have masks.

    The decision is the one of the accuracy table (`rule_of`). Images without a readable mask, or with an
    empty one, are left out.
    """
    called: dict[tuple[str, str], list] = defaultdict(list)
    for task in tasks:
        rule = rule_of(tasks, rows, task.dataset, task.method)
        if rule and not split_condition(task.condition)[1]:
            called[task.dataset, task.method] += [(s, c) for s, c in task.decisions(rule) if s.image.label == 1]
    masks = {s.image.image_id: s.image.masks for group in called.values() for s, _ in group if s.image.masks}
    with threads() as pool:
        areas = dict(zip(masks, pool.map(mask_percent, masks.values()), strict=True))
    found = []
    for (dataset, method), group in called.items():
        known = [(areas[s.image.image_id], c) for s, c in group if areas.get(s.image.image_id)]
        found += [Bin(dataset, method, *b) for b in in_bins(known)]
    return found


def mask_percent(masks: Sequence[Path]) -> float | None:
    """Share of the picture that any of its masks covers, 0..100; None when one cannot be read."""
    try:
        return 100 * float(load_masks(masks).mean())
    except ImageError:
        return None


def in_bins(known: list[tuple[float, bool]], size: int = SIZE) -> Iterator[tuple[float, float, int]]:
    """(percent, called anomalous) in any order -> (mean percent, accuracy, n) of bins of `size` images or
    a few more, smallest areas first. Fewer than `size` images make one bin."""
    known = sorted(known)
    for part in np.array_split(np.array(known, float), max(len(known) // size, 1)) if known else ():
        yield float(part[:, 0].mean()), float(part[:, 1].mean()), len(part)


def correlation(bins: list[Bin], log: bool = True) -> float | None:
    """Pearson's r of log10(percent), the figure's axis, or of the percent itself, and accuracy over bins; None for
    fewer than three bins or without spread. The paper's 0.825 does not say of which."""
    if len(bins) < 3 or not np.ptp([b.accuracy for b in bins]) or not np.ptp([b.percent for b in bins]):
        return None
    areas = np.array([b.percent for b in bins])
    return float(np.corrcoef(np.log10(areas) if log else areas, [b.accuracy for b in bins])[0, 1])


def said_of_correlation(bins: list[Bin]) -> str:
    """'r = 0.83 (log area), 0.61 (area), 24 bins'; empty where there is none."""
    of_log, of_area = correlation(bins), correlation(bins, log=False)
    return "" if of_log is None else f"r = {of_log:.2f} (log area), {of_area:.2f} (area), {len(bins)} bins"


def area_table(bins: list[Bin]) -> list[Grid]:
    """The numbers of the LVLM paper's Figure 7; no table without bins."""
    lines = [(b.dataset, b.method, f"{b.percent:.3f}", f"{100 * b.accuracy:.1f}", str(b.n)) for b in bins]
    methods = {
        m: said_of_correlation([b for b in bins if b.method == m]) for m in dict.fromkeys(b.method for b in bins)
    }
    said = "".join(f" {m}: {r}." for m, r in methods.items() if r)
    said += " The LVLM paper has r = 0.825." if said else ""
    columns = ("data set", "method", "mean mask area, % of the picture", "called anomalous, %", "images")
    return (
        [
            Grid(
                "mask-area",
                "Accuracy by size of the anomaly",
                columns,
                tuple(lines),
                f"Anomalous test images in bins of {SIZE}, smallest masks first.{said}",
            )
        ]
        if lines
        else []
    )


def area_figure(bins: list[Bin]) -> bytes | None:
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
        ax.set_title("\n".join(filter(None, (shown(method), said_of_correlation(of_method)))), fontsize=9)
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
