"""Image-level metrics, exact over all distinct thresholds, with bootstrap intervals. NumPy only.

AUROC and AP are our own because the intervals need them of a thousand weighted resamples: here they are matrix
operations over all resamples at once, where scikit-learn's would sort the scores anew for each. The tests compare the
two on data with many ties.

Scores are anomaly-oriented: higher = more anomalous. Labels: 1 anomalous, 0 normal. Images of equal
score enter together, so that the order of rows never matters.
"""

from dataclasses import dataclass

import numpy as np

CHUNK = 4_000_000  # resamples x images held at once


@dataclass(frozen=True)
class Value:
    """A metric of n images, n_positive of them anomalous; `reason` when it has no value."""

    value: float | None
    n: int
    n_positive: int
    ci_low: float | None = None
    ci_high: float | None = None
    reason: str | None = None


def counts(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True and false positives at every distinct threshold, strictest first, starting with (0, 0).

    scores, labels: (N,); weights: (R, N), how often each image counts. Returns two (R, T + 1) arrays.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    sorted_weights, positive = weights[:, order], labels[order] == 1
    tp = np.cumsum(sorted_weights * positive, axis=1)[:, ends]
    fp = np.cumsum(sorted_weights * ~positive, axis=1)[:, ends]
    zero = np.zeros((len(weights), 1))
    return np.hstack([zero, tp]), np.hstack([zero, fp])


def auroc(tp: np.ndarray, fp: np.ndarray) -> np.ndarray:
    """(R,) area under the ROC curve, ties counted half (trapezoids)."""
    area = (np.diff(fp, axis=1) * (tp[:, 1:] + tp[:, :-1]) / 2).sum(axis=1)
    return area / (tp[:, -1] * fp[:, -1])


def average_precision(tp: np.ndarray, fp: np.ndarray) -> np.ndarray:
    """(R,) sum over thresholds of precision times the recall gained (a step curve, not interpolated)."""
    with np.errstate(invalid="ignore"):
        precision = np.nan_to_num(tp / (tp + fp))
    return (np.diff(tp, axis=1) * precision[:, 1:]).sum(axis=1) / tp[:, -1]


def f1(tp: np.ndarray, fp: np.ndarray) -> np.ndarray:
    """(R, T + 1) F1 at every threshold."""
    return 2 * tp / (tp + fp + tp[:, -1:])


def f1_max(tp: np.ndarray, fp: np.ndarray) -> np.ndarray:
    """(R,) the best F1 over all thresholds: an upper bound, since it looks at the test labels."""
    return f1(tp, fp).max(axis=1)


def f1_threshold(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """The score at or above which images are called anomalous for the best F1; None without anomalous images."""
    if not (labels == 1).any():
        return None
    tp, fp = counts(scores, labels, np.ones((1, len(scores))))
    best = int(f1(tp, fp)[0, 1:].argmax())
    return float(np.unique(scores)[::-1][best])


CURVES = {"auroc": auroc, "ap": average_precision, "f1_max": f1_max}


def curve_metrics(scores: np.ndarray, labels: np.ndarray, resamples: int, seed: int) -> dict[str, Value]:
    """AUROC, AP and F1-max with 95% intervals: percentiles over stratified resamples of the images.

    Without a value, and with a reason: no images, one class only.
    """
    n, positive = len(scores), int((labels == 1).sum())
    reason = (
        "no images"
        if not n
        else "normal images only"
        if not positive
        else "anomalous images only"
        if positive == n
        else None
    )
    if reason:
        return {name: Value(None, n, positive, reason=reason) for name in CURVES}
    tp, fp = counts(scores, labels, np.ones((1, n)))
    values = {name: float(curve(tp, fp)[0]) for name, curve in CURVES.items()}
    spread: dict[str, list[np.ndarray]] = {name: [] for name in CURVES}
    for weights in resampled(labels, resamples, seed):
        tp, fp = counts(scores, labels, weights)
        for name, curve in CURVES.items():
            spread[name].append(curve(tp, fp))
    return {name: Value(v, n, positive, *interval(spread[name])) for name, v in values.items()}


def accuracy(predicted: np.ndarray, labels: np.ndarray, resamples: int, seed: int) -> Value:
    """Share of right decisions with its interval. predicted: (N,) bool, True = called anomalous."""
    n, positive = len(labels), int((labels == 1).sum())
    if not n:
        return Value(None, 0, 0, reason="no images")
    right = (predicted == (labels == 1)).astype(float)
    spread = [weights @ right / n for weights in resampled(labels, resamples, seed)]
    return Value(float(right.mean()), n, positive, *interval(spread))


def resampled(labels: np.ndarray, resamples: int, seed: int):
    """Yields (chunk, N) multiplicities; each class keeps its size (stratified)."""
    rng = np.random.default_rng(seed)
    step = max(CHUNK // max(len(labels), 1), 1)
    for start in range(0, resamples, step):
        weights = np.zeros((min(step, resamples - start), len(labels)))
        for value in (0, 1):
            members = np.flatnonzero(labels == value)
            if len(members):
                weights[:, members] = rng.multinomial(
                    len(members), np.full(len(members), 1 / len(members)), len(weights)
                )
        yield weights


def interval(spread: list[np.ndarray]) -> tuple[float | None, float | None]:
    if not spread:
        return None, None
    low, high = np.quantile(np.concatenate(spread), [0.025, 0.975])
    return float(low), float(high)


def train_thresholds(scores: np.ndarray, split: str = "train") -> dict[str, float]:
    """Thresholds from the scores of a split's normals alone; an image is anomalous above, not at it."""
    if not len(scores):
        return {}
    return {
        f"{split}-max": float(scores.max()),
        f"{split}-q90": float(np.quantile(scores, 0.9)),
        f"{split}-q80": float(np.quantile(scores, 0.8)),
    }
