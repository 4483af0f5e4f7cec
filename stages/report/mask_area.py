"""Accuracy against the size of the anomaly (LVLM paper, Figure 7)."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.base.errors import ImageError
from stages.base.threads import threads
from stages.datasets.augment import split_condition
from stages.datasets.images import load_masks
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


def correlation(bins: list[Bin]) -> float | None:
    """Pearson's r of log10(percent), the figure's axis, and accuracy over bins; None for fewer than three bins
    or without spread."""
    if len(bins) < 3 or not np.ptp([b.accuracy for b in bins]) or not np.ptp([b.percent for b in bins]):
        return None
    return float(np.corrcoef(np.log10([b.percent for b in bins]), [b.accuracy for b in bins])[0, 1])
