"""How test images score beside the good ones of their task: what can be said without any label."""

from dataclasses import dataclass

import numpy as np

from stages.results.metrics.image import Value, curve_metrics
from stages.results.scores import Scored, TaskScores


@dataclass(frozen=True)
class BesideGood:
    """One task by one method. line: the threshold that lies above 90 % of the good images; None where no good one has
    a score. above: test images above it; auroc: test images against the good ones, whatever their labels."""

    task: TaskScores
    line: float | None
    above: int
    auroc: Value

    @property
    def told_apart(self) -> bool:
        """Whether test images score higher than good ones by more than chance: the 95 % interval of the AUROC lies
        above one half. A few anomalous images among many normal ones need not do that."""
        return self.auroc.ci_low is not None and self.auroc.ci_low > 0.5


def beside_good(task: TaskScores, resamples: int = 1000, seed: int = 0) -> BesideGood:
    """Compare the test images of a task with its good ones."""
    test, good = numbers(task.test), numbers(task.good)
    line = task.thresholds.get(task.line)
    above = 0 if line is None else int((test > line).sum())
    labels = np.repeat([1, 0], [len(test), len(good)])
    return BesideGood(task, line, above, curve_metrics(np.concatenate([test, good]), labels, resamples, seed)["auroc"])


def percentiles(task: TaskScores) -> list[float | None]:
    """For each of `task.test` the share of good images, in percent, that score lower; None where no good one has a
    score."""
    good = np.sort(numbers(task.good))
    if not len(good):
        return [None] * len(task.test)
    return (100 * np.searchsorted(good, numbers(task.test)) / len(good)).tolist()


def heights(task: TaskScores) -> np.ndarray:
    """(N,) how far each of `task.test` lies above the median of the good images, in units of the distance from there to
    the line: what makes a ranking of several tasks, whose scores have no common unit. The raw scores where there is
    no such distance."""
    zero, unit = scale_of(task)
    return (numbers(task.test) - zero) / unit


def scale_of(task: TaskScores) -> tuple[float, float]:
    """(score of height 0, its distance to the score of height 1): the median of the good images and the line above it;
    0 and 1 where there is no such distance."""
    good, line = numbers(task.good), task.thresholds.get(task.line)
    if line is None or not line > (middle := float(np.median(good))):
        return 0.0, 1.0
    return middle, line - middle


def numbers(images: tuple[Scored, ...]) -> np.ndarray:
    """(N,) their scores."""
    return np.array([s.number for s in images], float)
