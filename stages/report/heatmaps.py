"""Anomaly maps to look at: image, mask, heat map and overlay side by side."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from stages.artifacts.files import make_folder, write_bytes
from stages.artifacts.maps import Key, read_maps
from stages.artifacts.outputs import exactly, overwritten
from stages.artifacts.paths import below, for_image
from stages.base.errors import ImageError, InputError
from stages.base.progress import Progress
from stages.datasets.images import load_masks, load_rgb
from stages.datasets.manifest import Image
from stages.results.pixels import PixelResult, PixelTask
from stages.results.scores import TaskScores

SIDE = 240  # px, longer side of each of the four pictures in the report
WITHOUT_MASK = 480  # px, longer side of each of the three pictures of an image that has no mask
MOST = 200  # images without masks of a task that are drawn, those with the highest scores
Scales = dict[tuple, tuple[float, float]]  # name of a task by a method -> scores of the first and the last colour
Draw = Callable[[dict[Key, TaskScores], int], Iterator[tuple[Key, np.ndarray]]]  # `overlays` of given maps and scales
MASK, CONTOUR = (60, 220, 90), (255, 255, 255)  # RGB of the two outlines


@dataclass(frozen=True)
class Panel:
    """One row of pictures. title: where it stands among its category; picture: WebP of image, mask, heat map and
    overlay."""

    method: str
    category: str
    title: str
    image_id: str
    picture: bytes


def panel(
    rgb: np.ndarray, mask: np.ndarray, anomaly_map: np.ndarray, threshold: float, scale: tuple[float, float]
) -> np.ndarray:
    """(H, W, 3) uint8, (H, W) bool, (h, w) float -> (H, 4 W, 3) uint8: image, mask, heat map, overlay.

    scale: scores that become the first and the last colour, the same for a whole category. On the overlay the
    mask is outlined in green and what lies at or above the threshold in white.
    """
    import cv2

    height, width = rgb.shape[:2]
    scores, heat, over = blended(rgb, anomaly_map, scale)
    mask = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    line = max(round(max(height, width) / 240), 1)
    for area, colour in (((scores >= threshold).astype(np.uint8), CONTOUR), (mask, MASK)):
        outline, _ = cv2.findContours(area, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(over, outline, -1, colour, line)
    return np.hstack([rgb, np.repeat(mask[:, :, None] * 255, 3, 2), heat, over])


def blended(
    rgb: np.ndarray, anomaly_map: np.ndarray, scale: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(H, W, 3) uint8, (h, w) float -> the scores (H, W) float32, their colours and these over the image, both
    (H, W, 3) uint8."""
    import cv2

    height, width = rgb.shape[:2]
    scores = cv2.resize(anomaly_map.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    heat = coloured(scores, scale)
    return scores, heat, np.ascontiguousarray((rgb.astype(np.float32) * 0.55 + heat * 0.45).astype(np.uint8))


def coloured(scores: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    """(H, W) float32 -> (H, W, 3) uint8, blue to red between the two scores of the scale."""
    import cv2

    low, high = scale
    grey = np.clip((scores - low) / max(high - low, 1e-12) * 255, 0, 255).astype(np.uint8)
    return cv2.applyColorMap(grey, cv2.COLORMAP_TURBO)[:, :, ::-1]


def example_panels(pixels: Sequence[PixelResult], maps: Path | None) -> list[Panel]:
    """Best, median and worst anomalous image of each category by F1 at the category's threshold."""
    if maps is None:
        return []
    wanted: dict[tuple[str, str], tuple[PixelResult, str]] = {}
    for r in pixels:
        f1 = r.f1 or {}
        ranked = sorted(f1, key=lambda i: (-f1[i], i))
        places = {"best": 0, "median": len(ranked) // 2, "worst": len(ranked) - 1} if ranked else {}
        for name, place in places.items():
            wanted.setdefault((ranked[place], r.task.method), (r, f"{name}: F1 {f1[ranked[place]]:.2f}"))
    made = {
        key: Panel(key[1], wanted[key][0].task.category, wanted[key][1], key[0], picture)
        for key, picture in _drawn({k: r for k, (r, _) in wanted.items()}, maps, SIDE, ".webp")
    }
    return [made[key] for key in wanted if key in made]


def heatmap_path(folder: Path, method: str, image_id: str, ending: str = ".png") -> Path:
    """FOLDER/<method>/<image_id>.png, see stages/artifacts/paths.py."""
    return for_image(below(folder, method), image_id, ending)


def require_no_input(tasks: Sequence[PixelTask], others: Sequence[TaskScores], folder: Path) -> None:
    """Raises InputError when a picture would take the place of an image or a mask."""
    named = [(t.method, i, ".png") for t in tasks for i in t.images]
    named += [(t.method, s.image, ".jpg") for t in others for s in t.test]
    targets = [heatmap_path(folder, method, image.image_id, ending) for method, image, ending in named]
    if found := overwritten(targets, (f for _, i, _ in named for f in (i.file, *i.masks))):
        raise InputError(
            f"--heatmaps {folder}: {found} is an image of the manifest, and would be overwritten; give a"
            " folder outside the data set"
        )


def write_heatmaps(
    pixels: Sequence[PixelResult],
    tasks: Sequence[TaskScores],
    maps: Path,
    draw: Draw,
    folder: Path,
    quiet: bool,
) -> None:
    """A picture of every map that was evaluated, at the image's size; of the MOST highest scores of each task also
    where there is no mask: image, heat map and overlay, at most WITHOUT_MASK px. Those of an earlier run go."""
    wanted = _with_mask(pixels)
    others = {k: t for k, t in highest(tasks).items() if k not in wanted}
    names = named_heatmaps(pixels, tasks)
    progress = Progress("heat maps", len(names), quiet)
    with exactly(folder, list(names.values())):
        try:
            for key, picture in chain(_drawn(wanted, maps, 0), _without_mask(others, draw)):
                path = folder / names[key]
                make_folder(path.parent)
                write_bytes(path, picture)
                progress.advance()
        finally:
            progress.stop()


def named_heatmaps(pixels: Sequence[PixelResult], tasks: Sequence[TaskScores]) -> dict[Key, str]:
    """(image_id, method) -> the file that `write_heatmaps` writes, relative to its folder."""
    wanted = _with_mask(pixels)
    ending = dict.fromkeys(wanted, ".png") | {key: ".jpg" for key in highest(tasks) if key not in wanted}
    return {key: heatmap_path(Path(), key[1], key[0], e).as_posix() for key, e in ending.items()}


def _with_mask(pixels: Sequence[PixelResult]) -> dict[Key, PixelResult]:
    return {(i.image_id, r.task.method): r for r in pixels if r.threshold is not None for i in r.task.images}


def highest(tasks: Sequence[TaskScores]) -> dict[Key, TaskScores]:
    """(image_id, method) of the MOST test images with the highest scores of each task."""
    ranked = [(t, s) for t in tasks for s in sorted(t.test, key=lambda s: (-s.number, s.image.image_id))[:MOST]]
    return {(s.image.image_id, t.method): t for t, s in ranked}


def overlays(
    maps: Path, scales: Callable[[], Scales], wanted: dict[Key, TaskScores], side: int
) -> Iterator[tuple[Key, np.ndarray]]:
    """(key, (H, 3 W, 3) uint8: image, heat map and overlay in a row) of each wanted image that can be read and whose
    map is finite. scales: the `colour_scales`, asked for where there is something to draw; side: of each picture, px,
    the longer one at most."""
    import cv2

    files = {(s.image.image_id, t.method): s.image.file for t in wanted.values() for s in t.test}
    for key, anomaly_map in read_maps(maps, set(wanted)) if wanted else ():
        try:
            rgb = load_rgb(files[key])
        except ImageError:
            continue
        if np.isfinite(anomaly_map).all():
            factor = min(side / max(rgb.shape[:2]), 1)
            width, height = (max(round(x * factor), 1) for x in rgb.shape[1::-1])
            rgb = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
            _, heat, over = blended(rgb, anomaly_map, scales()[named(wanted[key])])
            yield key, np.hstack([rgb, heat, over])


def colour_scales(tasks: Sequence[TaskScores], maps: Path) -> Scales:
    """For each task by each method the scores that become the first and the last colour: the median of the lowest
    values of its test images' maps, and what all but 2 % of the highest values stay below, so that one outlier does
    not pale the rest. Reads all of these maps."""
    of_image = {(s.image.image_id, t.method): named(t) for t in tasks for s in t.test}
    ends: dict[tuple, list[tuple[float, float]]] = defaultdict(list)
    for key, anomaly_map in read_maps(maps, set(of_image)) if of_image else ():
        if np.isfinite(anomaly_map).all():
            ends[of_image[key]].append((float(anomaly_map.min()), float(anomaly_map.max())))
    arrays = {name: np.array(found) for name, found in ends.items()}
    return {n: (float(np.median(a[:, 0])), float(np.quantile(a[:, 1], 0.98))) for n, a in arrays.items()}


def named(task: TaskScores) -> tuple:
    return task.dataset, task.category, task.condition, task.method


def _without_mask(wanted: dict[Key, TaskScores], draw: Draw) -> Iterator[tuple[Key, bytes]]:
    import cv2

    for key, row in draw(wanted, WITHOUT_MASK):
        yield key, cv2.imencode(".jpg", row[:, :, ::-1])[1].tobytes()


def _drawn(wanted: dict[tuple[str, str], PixelResult], maps: Path, side: int, ending: str = ".png") -> Iterator[tuple]:
    """(key, the panel as a PNG or WebP); images that cannot be read are left out. side: px, 0 = as they are."""
    import cv2

    images: dict[str, Image] = {i.image_id: i for r in wanted.values() for i in r.task.images}
    for key, anomaly_map in read_maps(maps, set(wanted)) if wanted else ():
        image, result = images[key[0]], wanted[key]
        assert result.threshold is not None  # without one there is nothing to outline, and nobody wants it
        try:
            rgb = load_rgb(image.file)
            mask = load_masks(image.masks) if image.masks else np.zeros(rgb.shape[:2], bool)
        except ImageError:
            continue
        factor = min(side / max(rgb.shape[:2]), 1) if side else 1
        rgb = cv2.resize(rgb, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA) if factor < 1 else rgb
        picture = panel(rgb, mask, anomaly_map, result.threshold, result.scale)
        options = [cv2.IMWRITE_WEBP_QUALITY, 80] if ending == ".webp" else []
        yield key, cv2.imencode(ending, picture[:, :, ::-1], options)[1].tobytes()
