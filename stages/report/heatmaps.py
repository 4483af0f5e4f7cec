"""Anomaly maps to look at: image, mask, heat map and overlay side by side."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.artifacts.files import make_folder, write_bytes
from stages.artifacts.maps import read_maps
from stages.artifacts.outputs import exactly, overwritten
from stages.artifacts.paths import below, for_image
from stages.base.errors import ImageError, InputError
from stages.datasets.images import load_masks, load_rgb
from stages.datasets.manifest import Image
from stages.results.pixels import PixelResult, PixelTask

SIDE = 240  # px, longer side of each of the four pictures in the report
MASK, CONTOUR = (60, 220, 90), (255, 255, 255)  # RGB of the two outlines


@dataclass(frozen=True)
class Panel:
    """One row of pictures. title: where it stands among its category; png: image, mask, heat map, overlay."""

    method: str
    category: str
    title: str
    image_id: str
    png: bytes


def panel(
    rgb: np.ndarray, mask: np.ndarray, anomaly_map: np.ndarray, threshold: float, scale: tuple[float, float]
) -> np.ndarray:
    """(H, W, 3) uint8, (H, W) bool, (h, w) float -> (H, 4 W, 3) uint8: image, mask, heat map, overlay.

    scale: scores that become the first and the last colour, the same for a whole category. On the overlay the
    mask is outlined in green and what lies at or above the threshold in white.
    """
    import cv2

    height, width = rgb.shape[:2]
    scores = cv2.resize(anomaly_map.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    mask = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    low, high = scale
    grey = np.clip((scores - low) / max(high - low, 1e-12) * 255, 0, 255).astype(np.uint8)
    heat = cv2.applyColorMap(grey, cv2.COLORMAP_TURBO)[:, :, ::-1]
    over = np.ascontiguousarray((rgb.astype(np.float32) * 0.55 + heat * 0.45).astype(np.uint8))
    line = max(round(max(height, width) / 240), 1)
    for area, colour in (((scores >= threshold).astype(np.uint8), CONTOUR), (mask, MASK)):
        outline, _ = cv2.findContours(area, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(over, outline, -1, colour, line)
    return np.hstack([rgb, np.repeat(mask[:, :, None] * 255, 3, 2), heat, over])


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
        key: Panel(key[1], wanted[key][0].task.category, wanted[key][1], key[0], png)
        for key, png in _drawn({k: r for k, (r, _) in wanted.items()}, maps, SIDE)
    }
    return [made[key] for key in wanted if key in made]


def heatmap_path(folder: Path, method: str, image_id: str) -> Path:
    """FOLDER/<method>/<image_id>.png, see stages/artifacts/paths.py."""
    return for_image(below(folder, method), image_id, ".png")


def require_no_input(tasks: Sequence[PixelTask], folder: Path) -> None:
    """Raises InputError when a picture would take the place of an image or a mask."""
    targets = [heatmap_path(folder, t.method, i.image_id) for t in tasks for i in t.images]
    if found := overwritten(targets, (f for t in tasks for i in t.images for f in (i.file, *i.masks))):
        raise InputError(
            f"--heatmaps {folder}: {found} is an image of the manifest, and would be overwritten; give a"
            " folder outside the data set"
        )


def write_heatmaps(pixels: Sequence[PixelResult], maps: Path, folder: Path) -> None:
    """A picture of every map that was evaluated, at the image's size; those of an earlier run are taken away."""
    wanted = {(i.image_id, r.task.method): r for r in pixels if r.threshold is not None for i in r.task.images}
    names = {key: heatmap_path(Path(), key[1], key[0]).as_posix() for key in wanted}
    with exactly(folder, list(names.values())):
        for key, png in _drawn(wanted, maps, 0):
            path = folder / names[key]
            make_folder(path.parent)
            write_bytes(path, png)


def _drawn(wanted: dict[tuple[str, str], PixelResult], maps: Path, side: int) -> Iterator[tuple]:
    """(key, PNG of the panel); images that cannot be read are left out. side: px, 0 = as they are."""
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
        yield key, cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes()
