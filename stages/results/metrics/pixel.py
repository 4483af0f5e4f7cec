"""Pixel-level metrics of one category, exact over all distinct thresholds.

Between two scores of anomalous pixels neither recall nor region overlap changes, only the number of false
positives does. All areas therefore follow from the normal pixels above, and at or above, each distinct score
of an anomalous pixel: two sorts and a merge. Pixels of equal score enter together.

PRO: mean over regions of the share of a region that is found, against the false positive rate of all normal
pixels of the category, normal images included; area up to a limit, divided by the limit, with linear
interpolation at it. A region is a connected component (8-connectivity) of a mask, and all count alike.
Saturated PRO (MVTec LOCO) differs in the region, one mask file, and in that finding `saturation` pixels of
it is as good as finding all.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stages.results.metrics.image import Value, interval, resampled

GRID = 1000  # thresholds of the intervals; the values themselves use all
STEPS = 200  # of the approximation `pro_200`
REASONS = ("no images", "no anomalous pixels", "no normal pixels")


@dataclass(frozen=True)
class Picture:
    """The pixels of one image. normal: (n,) scores outside the masks, anomalous: (p,) inside; region: (m,)
    scores of the pixels of its `regions` regions and weight: (m,) what each adds to its region's overlap."""

    normal: np.ndarray
    anomalous: np.ndarray
    region: np.ndarray
    weight: np.ndarray
    regions: int


@dataclass(frozen=True)
class Curve:
    """Counts at each distinct score of an anomalous pixel, strictest first; (..., K) arrays, one row per resample.

    tp, fp: anomalous and normal pixels at or above it; fp_above: normal pixels above it; overlap: mean over
    regions of the share found, 0..1. n_normal, n_anomalous: (...), all pixels.
    """

    thresholds: np.ndarray
    tp: np.ndarray
    fp: np.ndarray
    fp_above: np.ndarray
    overlap: np.ndarray
    n_normal: np.ndarray
    n_anomalous: np.ndarray


def picture(anomaly_map: np.ndarray, mask: np.ndarray) -> Picture:
    """anomaly_map: (H, W) float, higher = more anomalous, any range; mask: (H, W) bool, True = anomalous.

    Raises:
        ValueError: NaN or infinity in the map, or sizes that differ.
    """
    import cv2

    scores = _checked(anomaly_map, mask.shape)
    inside = scores[mask]
    if not len(inside):
        return Picture(scores.ravel(), inside, inside, np.zeros(0), 0)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    weight = 1 / stats[:, cv2.CC_STAT_AREA][labels[mask]]
    return Picture(scores[~mask], inside, inside, weight, count - 1)


def saturated_picture(anomaly_map: np.ndarray, masks: Sequence[np.ndarray], saturation: Sequence[float]) -> Picture:
    """As `picture`, for masks of (H, W) bool that may overlap, each one region; saturation: pixels of it whose
    finding counts as finding all (at most its area). An empty mask is no region.

    The pixels of a region add 1 / saturation each, in falling order of their scores, until 1 is reached.
    """
    shape = masks[0].shape if masks else anomaly_map.shape
    scores = _checked(anomaly_map, shape)
    union = np.logical_or.reduce(masks) if masks else np.zeros(shape, bool)
    found = [np.sort(scores[m])[::-1] for m in masks]
    weights = [
        np.clip(min(s, len(f)) - np.arange(len(f)), 0, 1) / min(s, len(f))
        for f, s in zip(found, saturation, strict=True)
        if len(f)
    ]
    return Picture(
        scores[~union],
        scores[union],
        np.concatenate([scores[:0, 0], *found]),
        np.concatenate([np.zeros(0), *weights]),
        len(weights),
    )


def _checked(anomaly_map: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    if anomaly_map.shape != shape:
        raise ValueError(f"map of {anomaly_map.shape}, mask of {shape}")
    if not np.isfinite(anomaly_map).all():
        raise ValueError("NaN or infinity in the anomaly map")
    return anomaly_map if anomaly_map.dtype == np.float64 else anomaly_map.astype(np.float32, copy=False)


def sorted_pixels(pictures: Sequence[Picture]) -> tuple[np.ndarray, np.ndarray]:
    """Scores of all normal and of all anomalous pixels, ascending."""
    normal = np.concatenate([p.normal for p in pictures])
    anomalous = np.concatenate([p.anomalous for p in pictures])
    normal.sort()
    anomalous.sort()
    return normal, anomalous


def curve(pictures: Sequence[Picture], normal: np.ndarray, anomalous: np.ndarray) -> Curve:
    """The exact curve. normal, anomalous: as `sorted_pixels` gives them."""
    distinct = anomalous[np.append(np.diff(anomalous) != 0, True)][::-1] if len(anomalous) else anomalous
    n, p = len(normal), len(anomalous)
    return Curve(
        distinct,
        p - np.searchsorted(anomalous, distinct),
        n - np.searchsorted(normal, distinct),
        n - np.searchsorted(normal, distinct, "right"),
        overlap_at(pictures, distinct),
        np.array(n),
        np.array(p),
    )


def overlap_at(
    pictures: Sequence[Picture], thresholds: np.ndarray, side: Literal["left", "right"] = "left"
) -> np.ndarray:
    """(K,) mean over regions of the share at or above each threshold; above it with side='right'."""
    scores = np.concatenate([p.region for p in pictures])
    order = np.argsort(scores)
    below = np.append(0, np.cumsum(np.concatenate([p.weight for p in pictures])[order]))
    regions = max(sum(p.regions for p in pictures), 1)
    return (below[-1] - below[np.searchsorted(scores[order], thresholds, side)]) / regions


def auroc(c: Curve) -> np.ndarray:
    """(...) area under the ROC curve of all pixels, ties counted half."""
    gained = np.diff(c.tp, prepend=0)
    below = c.n_normal[..., None] - (c.fp + c.fp_above) / 2
    return (gained * below).sum(-1) / (c.n_normal * c.n_anomalous)


def average_precision(c: Curve) -> np.ndarray:
    """(...) sum over thresholds of precision times the recall gained."""
    with np.errstate(invalid="ignore"):
        precision = np.nan_to_num(c.tp / (c.tp + c.fp))
    return (np.diff(c.tp, prepend=0) * precision).sum(-1) / c.n_anomalous


def f1(c: Curve) -> np.ndarray:
    """(..., K) F1 at each threshold. The best of all thresholds is among them."""
    return 2 * c.tp / (c.tp + c.fp + c.n_anomalous[..., None])


def pro(c: Curve, limit: float) -> np.ndarray:
    """(...) area under overlap against false positive rate up to `limit` (0..1), divided by it."""
    end = limit * c.n_normal[..., None]
    last, before = np.roll(c.fp, 1, axis=-1), np.roll(c.overlap, 1, axis=-1)
    last[..., 0], before[..., 0] = 0, 0
    level = (np.minimum(c.fp_above, end) - np.minimum(last, end)) * before  # only normal pixels enter
    run = c.fp - c.fp_above  # pixels that are tied
    part = np.clip(end - c.fp_above, 0, run)
    with np.errstate(invalid="ignore"):
        reached = before + np.nan_to_num(part / run) * (c.overlap - before)
    rest = np.maximum(end[..., 0] - c.fp[..., -1], 0) * c.overlap[..., -1]
    return (level.sum(-1) + (part * (before + reached) / 2).sum(-1) + rest) / end[..., 0]


def pro_200(pictures: Sequence[Picture], normal: np.ndarray, anomalous: np.ndarray, limit: float = 0.3) -> float:
    """The approximation of most published code: 200 equal threshold steps over the range of the maps, strict
    comparison, the false positive rates below `limit` stretched to 0..1, trapezoids. nan where fewer than two
    thresholds lie below the limit, or all at one rate."""
    low, high = min(normal[0], anomalous[0]), max(normal[-1], anomalous[-1])
    if low == high:
        return float("nan")
    thresholds = np.arange(low, high, (high - low) / STEPS)
    overlap = overlap_at(pictures, thresholds, "right")
    rate = 1 - np.searchsorted(normal, thresholds, "right") / len(normal)
    overlap, rate = overlap[rate < limit], rate[rate < limit]
    if len(rate) < 2 or rate[0] == rate[-1]:
        return float("nan")
    rate = (rate - rate.min()) / (rate.max() - rate.min())
    return float(np.trapezoid(overlap[::-1], rate[::-1]))


def metrics(
    pictures: Sequence[Picture], limit: float, resamples: int, seed: int, approximate: bool = False
) -> tuple[dict[str, Value], Curve | None]:
    """pixel_auroc, pixel_ap, pixel_f1_max, pro@<limit> and, if asked for, pro_200; and the curve. n of a Value:
    images, n_positive: those with anomalous pixels. Without a value, and with a reason: one class only."""
    name = f"pro@{limit:g}"
    names = ["pixel_auroc", "pixel_ap", "pixel_f1_max", name, *(["pro_200"] if approximate else [])]
    counted = len(pictures), sum(len(p.anomalous) > 0 for p in pictures)
    lacks = (not pictures, not counted[1], not any(len(p.normal) for p in pictures))
    if any(lacks):
        return {n: Value(None, *counted, reason=REASONS[lacks.index(True)]) for n in names}, None
    normal, anomalous = sorted_pixels(pictures)
    c = curve(pictures, normal, anomalous)
    spread: dict[str, list] = {n: [] for n in names}
    exact = {n: float(v) for n, v in _areas(c, limit).items()}
    if resamples:
        sample = _GridCounts(pictures, _grid(c))
        shift = {n: exact[n] - float(v[0]) for n, v in _areas(sample.curve(np.ones((1, len(pictures)))), limit).items()}
        labels = np.array([len(p.anomalous) > 0 for p in pictures], int)
        for weights in resampled(labels, resamples, seed):
            for n, v in _areas(sample.curve(weights), limit).items():
                spread[n].append(v + shift[n])
    values = {n: Value(v, *counted, *interval(spread[n])) for n, v in exact.items()}
    if approximate:
        approximation = pro_200(pictures, normal, anomalous)
        values["pro_200"] = (
            Value(approximation, *counted)
            if np.isfinite(approximation)
            else Value(None, *counted, reason="fewer than two of its 200 thresholds lie below the limit")
        )
    return values, c


def _areas(c: Curve, limit: float) -> dict[str, np.ndarray]:
    return {
        "pixel_auroc": auroc(c),
        "pixel_ap": average_precision(c),
        "pixel_f1_max": f1(c).max(-1),
        f"pro@{limit:g}": pro(c, limit),
    }


def _grid(c: Curve) -> np.ndarray:
    """At most 2 * GRID of the curve's thresholds: even steps of recall, and of the logarithm of the false
    positives, so that both ends of the curves are seen."""
    if len(c.thresholds) <= 2 * GRID:
        return c.thresholds
    recall = np.searchsorted(c.tp, np.linspace(1, c.tp[-1], GRID))
    rate = np.searchsorted(c.fp, np.geomspace(1, max(c.fp[-1], 2), GRID))
    return c.thresholds[np.unique(np.minimum(np.concatenate([recall, rate]), len(c.thresholds) - 1))]


class _GridCounts:
    """Each image's counts at some thresholds: a resample of images is then a product of matrices."""

    def __init__(self, pictures: Sequence[Picture], thresholds: np.ndarray) -> None:
        """thresholds: (T,), strictest first."""
        self.thresholds = thresholds
        counts = [tuple(self._of(p)) for p in pictures]
        self.tp, self.fp, self.fp_above, self.overlap = (np.array(c, float) for c in zip(*counts, strict=True))
        self.sizes = np.array([(len(p.normal), len(p.anomalous), p.regions) for p in pictures], float)

    def _of(self, p: Picture) -> Iterator[np.ndarray]:
        normal = np.sort(p.normal)
        yield len(p.anomalous) - np.searchsorted(np.sort(p.anomalous), self.thresholds)
        yield len(normal) - np.searchsorted(normal, self.thresholds)
        yield len(normal) - np.searchsorted(normal, self.thresholds, "right")
        yield overlap_at([p], self.thresholds) * p.regions

    def curve(self, weights: np.ndarray) -> Curve:
        """weights: (R, N), how often each image counts."""
        normal, anomalous, regions = (weights @ self.sizes).T
        return Curve(
            self.thresholds,
            weights @ self.tp,
            weights @ self.fp,
            weights @ self.fp_above,
            weights @ self.overlap / np.maximum(regions, 1)[:, None],
            normal,
            anomalous,
        )
