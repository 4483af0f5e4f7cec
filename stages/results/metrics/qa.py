"""Metrics of answers to questions, with bootstrap intervals that resample images. NumPy only.

Questions about one image are dependent, so that an interval over questions would be too narrow: whole images are
drawn, with all their questions.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from stages.results.metrics.image import Value, interval, resampled

MARGINS = ("margin_pairs", "margin_first_last", "margin_first_others")  # of ranked choices
ORDER = ("pair_accuracy", "kendall_tau")  # of ranked choices by likelihood
GROWN = "margin_pairs_grown"  # by E-DPO, over its SFE model


def in_order(values: Sequence[float]) -> dict[str, float]:
    """Metric of ORDER -> how far the likelihoods of ranked choices, best first, keep their order: the share of pairs
    whose better one is the likelier (0..1, equal ones half), and Kendall's tau-b (-1..1; 0 where all are equal)."""
    from scipy.stats import kendalltau

    signs = [np.sign(a - b) for a, b in combinations(values, 2)]
    tau = float(kendalltau(-np.arange(len(values)), values).statistic)
    return dict(zip(ORDER, (float(np.mean(signs) + 1) / 2, tau if np.isfinite(tau) else 0.0), strict=True))


def mean(
    values: Sequence[float],
    images: Sequence[str],
    resamples: int,
    seed: int,
    positive: int = 0,
    reason: str = "no questions",
) -> Value:
    """Mean over questions (accuracy for values of 0 and 1), and its 95% interval.

    values, images: one per question; images: the name of the image that it is about. positive: questions about
    anomalous images, for the record. Without values: no value, but `reason`.
    """
    return level_mean(values, ["all"] * len(values), images, resamples, seed, positive, reason)


def level_mean(
    values: Sequence[float],
    levels: Sequence[str],
    images: Sequence[str],
    resamples: int,
    seed: int,
    positive: int = 0,
    reason: str = "no questions",
) -> Value:
    """Mean over levels of the mean over each level's questions. A resample that misses a level has no value."""
    if not len(values):
        return Value(None, 0, 0, reason=reason)
    sums, counts = _per_image(np.asarray(values, float), levels, images)
    spread = []
    if len(sums) > 1:  # one image says nothing of the spread over images
        for weights in resampled(np.zeros(len(sums)), resamples, seed):
            with np.errstate(invalid="ignore"):
                means = ((weights @ sums) / (weights @ counts)).mean(axis=1)
            spread.append(means[np.isfinite(means)])
    value = float((sums.sum(axis=0) / counts.sum(axis=0)).mean())
    return Value(value, len(values), positive, *interval(spread))


def _per_image(values: np.ndarray, levels: Sequence[str], images: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(I, L) sums of values and numbers of questions, per image and level."""
    _, image = np.unique(np.asarray(images), return_inverse=True)
    _, level = np.unique(np.asarray(levels), return_inverse=True)
    sums, counts = (np.zeros((image.max() + 1, level.max() + 1)) for _ in range(2))
    np.add.at(sums, (image, level), values)
    np.add.at(counts, (image, level), 1)
    return sums, counts


def whole_groups(
    right: Sequence[bool | None], groups: Sequence[str | None], images: Sequence[str]
) -> tuple[list[float], list[str]]:
    """Accuracy-for-group (SAGE, section 5.1): (1 where all questions of a group are right, else 0; the group's
    image), per group.

    right: None where there is no answer: such a group cannot be judged as a whole and is left out, whatever the
    others say. Questions without a group are left out.
    """
    members: dict[str, list[int]] = {}
    for i, group in enumerate(groups):
        if group is not None:
            members.setdefault(group, []).append(i)
    whole = [at for at in members.values() if all(right[i] is not None for i in at)]
    return [float(all(right[i] for i in at)) for at in whole], [images[at[0]] for at in whole]
