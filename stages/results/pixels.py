"""Anomaly maps and masks -> pixel metrics of every task, one process per task if wanted."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from stages.artifacts.maps import map_keys, read_maps
from stages.base.errors import ImageError, InputError
from stages.base.worker_pool import worker_pool
from stages.datasets.images import load_mask, union
from stages.datasets.loco import saturation_of
from stages.datasets.manifest import Image
from stages.datasets.masks import at_size
from stages.datasets.opening import allow_megapixels, allowed_megapixels
from stages.datasets.sizes import require_size
from stages.results.metrics.image import Value
from stages.results.metrics.pixel import (
    Curve,
    Picture,
    curve,
    f1,
    metrics,
    picture,
    pro,
    saturated_picture,
    sorted_pixels,
)

NO_MASK = "anomalous, but without a mask"
LOCO = "mvtec-loco"
LOCO_LIMIT = 0.05  # false positive rate, MVTec LOCO's convention
POINTS = 400  # of a curve that is drawn


@dataclass(frozen=True)
class PixelOptions:
    """maps: artifact or Parquet file; limit: of PRO, 0..1; size: 0 = evaluate at the masks' own size, otherwise at
    size x size; approximate: `pro_200` too."""

    maps: Path
    limit: float = 0.3
    size: int = 0
    approximate: bool = False
    resamples: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class PixelTask:
    """One task by one method. images: labelled test images that have a map; left_out: others, and why."""

    dataset: str
    category: str
    condition: str | None
    method: str
    images: tuple[Image, ...]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class PixelResult:
    """values: by metric; threshold: F1-max; scale: lowest and highest score; points: (N, 3) false positive rate,
    recall, overlap; f1: image_id -> F1 at the threshold, anomalous images only."""

    task: PixelTask
    values: dict[str, Value]
    threshold: float | None = None
    scale: tuple[float, float] = (0.0, 1.0)
    points: np.ndarray | None = None
    f1: dict[str, float] | None = None


def pixel_tasks(images: Iterable[Image], maps: Path) -> list[PixelTask]:
    """Tasks in the order of their names, one per method that has maps of it."""
    known = {i.image_id: i for i in images if i.split == "test" and i.label is not None}
    groups: dict[tuple[str, str, str | None, str], list[Image]] = defaultdict(list)
    failed: dict[tuple[str, str, str | None, str], list[str]] = defaultdict(list)
    keys = map_keys(maps)
    methods = {method for _, method in keys}
    for (image_id, method), error in keys.items():
        image = known.get(image_id)
        if image is None:
            continue
        if error:
            failed[*image.task, method].append(f"{image_id}: {error}")
        elif image.label == 1 and not image.masks:
            failed[*image.task, method].append(f"{image_id}: {NO_MASK}")
        else:
            groups[*image.task, method].append(image)
    for image in known.values():
        for method in methods:
            if (image.image_id, method) not in keys and (*image.task, method) in groups:
                failed[*image.task, method].append(f"{image.image_id}: no map")
    order = sorted({*groups, *failed}, key=lambda k: tuple(map(str, k)))
    return [PixelTask(*k, tuple(sorted(groups[k], key=lambda i: i.image_id)), tuple(failed[k])) for k in order]


def evaluate_pixels(tasks: Sequence[PixelTask], options: PixelOptions, workers: int) -> Iterator[PixelResult]:
    """One result per task, in order; `workers` processes, each with one task in memory."""
    jobs = [(task, options) for task in tasks]
    if workers <= 1 or len(jobs) < 2:
        yield from map(evaluate_task, jobs)
        return
    with worker_pool(min(workers, len(jobs)), partial(allow_megapixels, allowed_megapixels())) as pool:
        yield from pool.imap(evaluate_task, jobs)


def evaluate_task(job: tuple[PixelTask, PixelOptions]) -> PixelResult:
    """Read one task's maps and masks and compute its metrics. A map with NaN or infinity leaves the whole task
    without values, and the reason names the image: leaving it out would flatter the method."""
    task, options = job
    images = {i.image_id: i for i in task.images}
    pictures: dict[str, Picture] = {}
    saturated: dict[str, Picture] = {}
    left_out = list(task.left_out)
    for (image_id, _), anomaly_map in read_maps(options.maps, {(i, task.method) for i in images}):
        try:
            mask, regions = masks_of(images[image_id], anomaly_map.shape, options.size)
            scores = fitted(anomaly_map, mask.shape)
            pictures[image_id] = picture(scores, mask)
            if regions is not None:
                saturated[image_id] = saturated_picture(scores, [m for m, _ in regions], [s for _, s in regions])
        except ImageError as e:
            left_out.append(f"{image_id}: {e}")
        except ValueError as e:
            counted = len(images), sum(i.label == 1 for i in images.values())
            none = Value(None, *counted, reason=f"{image_id}: {e}")
            names, _ = metrics([], options.limit, 0, 0, options.approximate)
            return PixelResult(replace(task, left_out=tuple(left_out)), dict.fromkeys(names, none))
    order = sorted(pictures)
    values, c = metrics(
        [pictures[i] for i in order], options.limit, options.resamples, options.seed, options.approximate
    )
    if saturated:
        values |= loco_values({i: (images[i], saturated[i]) for i in order if i in saturated})
    task = replace(task, images=tuple(i for i in task.images if i.image_id in pictures), left_out=tuple(left_out))
    if c is None:
        return PixelResult(task, values)
    best = float(c.thresholds[f1(c).argmax()])
    ends = [(p.min(), p.max()) for q in pictures.values() for p in (q.normal, q.anomalous) if len(p)]
    scale = float(min(low for low, _ in ends)), float(max(high for _, high in ends))
    return PixelResult(
        task, values, best, scale, drawn(c), {i: f1_of(pictures[i], best) for i in order if images[i].label == 1}
    )


def masks_of(
    image: Image, map_shape: tuple[int, int], size: int
) -> tuple[np.ndarray, list[tuple[np.ndarray, float]] | None]:
    """(union of the masks (H, W) bool, [(mask, saturation)] where the data set defines it).

    H, W: `size` if given (masks by `at_size`), else the masks'; for a normal image those of the
    image, or of the map where the manifest does not know it. Raises ImageError for masks that cannot be read,
    differ in size, or are of another size than the image.
    """
    loco = image.dataset == LOCO and not size
    paths = image.masks if image.label else ()  # a normal image is normal whatever lies beside it
    regions = [saturation_of(m) for m in paths] if loco else [(load_mask(m), 0.0) for m in paths]
    for path, (mask, _) in zip(paths, regions, strict=True):
        require_size(path, mask.shape, image)
    own = (image.height, image.width) if image.height and image.width else map_shape
    mask = union([m for m, _ in regions], paths[0]) if regions else np.zeros(own, bool)
    if size:
        mask = np.logical_or.reduce([at_size(m, size) for m, _ in regions] or [np.zeros((size, size), bool)])
    return mask, regions if loco else None


def fitted(anomaly_map: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The map at the size of its mask: bilinear, pixel centres aligned (torch's align_corners=False)."""
    if anomaly_map.shape == tuple(shape):
        return anomaly_map
    import cv2

    wide = anomaly_map if anomaly_map.dtype == np.float64 else anomaly_map.astype(np.float32)
    return cv2.resize(wide, shape[::-1], interpolation=cv2.INTER_LINEAR)


def loco_values(pictures: dict[str, tuple[Image, Picture]]) -> dict[str, Value]:
    """spro@0.05 for each kind of anomaly with all normal images, and their mean."""
    name, found = f"spro@{LOCO_LIMIT:g}", {}
    for kind in sorted({i.defect for i, _ in pictures.values() if i.label == 1}, key=str):
        of_kind = [p for i, p in pictures.values() if i.label == 0 or i.defect == kind]
        counted = len(of_kind), sum(i.label == 1 and i.defect == kind for i, _ in pictures.values())
        normal, anomalous = sorted_pixels(of_kind)
        lacks = "no anomalous pixels" if not len(anomalous) else "no normal pixels" if not len(normal) else None
        value = None if lacks else float(pro(curve(of_kind, normal, anomalous), LOCO_LIMIT))
        found[f"{name}/{kind}"] = Value(value, *counted, reason=lacks)
    known = [v.value for v in found.values() if v.value is not None]
    counted = len(pictures), sum(i.label == 1 for i, _ in pictures.values())
    found[name] = (
        Value(float(np.mean(known)), *counted) if known else Value(None, *counted, reason="no anomalous pixels")
    )
    return found


def drawn(c: Curve) -> np.ndarray:
    """(N, 3) false positive rate, recall, overlap at N <= POINTS places, from (0, 0, 0)."""
    at = np.unique(np.linspace(0, len(c.thresholds) - 1, POINTS).astype(int))
    wanted = np.unique(
        np.concatenate(
            [at, np.minimum(np.searchsorted(c.fp, np.linspace(0, c.n_normal, POINTS // 2)), len(c.thresholds) - 1)]
        )
    )
    points = np.stack([c.fp / c.n_normal, c.tp / c.n_anomalous, c.overlap], 1)[wanted]
    return np.vstack([np.zeros(3), points])


def f1_of(p: Picture, threshold: float) -> float:
    """F1 of one image's pixels at or above the threshold."""
    tp, fp = int((p.anomalous >= threshold).sum()), int((p.normal >= threshold).sum())
    return 2 * tp / max(tp + fp + len(p.anomalous), 1)


def options_checked(options: PixelOptions) -> PixelOptions:
    """Raises InputError for a limit or a size that cannot be."""
    if not 0 < options.limit <= 1:
        raise InputError(f"--pro-limit {options.limit}: expected more than 0, at most 1")
    if options.size < 0:
        raise InputError(f"--pixel-size {options.size}: expected 0 or pixels")
    return options
