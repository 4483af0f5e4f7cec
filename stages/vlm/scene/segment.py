"""Finding things: even out the light, take what has colour off a neutral ground, split into pieces."""

from dataclasses import dataclass

import cv2
import numpy as np

WORKING_SIDE = 360  # px; thresholds below in px are meant at this size
CHROMA_FLOOR = 0.10  # of white: desks, cables and meshes stay below, shaded kiwis above
SMALLEST = 0.0009  # of the picture's area; smaller pieces are noise


@dataclass(frozen=True)
class Piece:
    """A connected region. mask: (H, W) bool in the whole picture; box: x, y, w, h; contour: outer, (N, 2)."""

    mask: np.ndarray
    box: tuple[int, int, int, int]
    area: int
    contour: np.ndarray

    @property
    def centre(self) -> tuple[float, float]:
        """Centre of mass, (x, y) px."""
        m = cv2.moments(self.contour)
        return m["m10"] / m["m00"], m["m01"] / m["m00"]


def working_size(rgb: np.ndarray) -> np.ndarray:
    """Scale (H, W, 3) uint8 so that its longer side is WORKING_SIDE."""
    scale = WORKING_SIDE / max(rgb.shape[:2])
    if scale == 1:
        return rgb
    size = max(round(rgb.shape[1] * scale), 1), max(round(rgb.shape[0] * scale), 1)
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def even_light(rgb: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> float32 with the ground's white at 1, whatever lamp and exposure.

    The ground is what the picture's margin shows; wires and cables are darker than it, so the upper
    quartile of the margin is its white.
    """
    smooth = cv2.GaussianBlur(rgb.astype(np.float32), (0, 0), 1.2)
    margin = max(rgb.shape[0] // 24, 2)
    edge = np.concatenate(
        [
            smooth[:margin].reshape(-1, 3),
            smooth[-margin:].reshape(-1, 3),
            smooth[:, :margin].reshape(-1, 3),
            smooth[:, -margin:].reshape(-1, 3),
        ]
    )
    brightness = edge.sum(1)
    bright = edge[brightness >= np.quantile(brightness, 0.75)]
    white = np.maximum(np.median(bright, axis=0), 1.0)
    even = smooth / white
    if white.max() < 120:  # few photons: trade sharpness for less noise
        even = cv2.GaussianBlur(even, (0, 0), 1.0)
    return np.clip(even, 0, 1.5)


def coloured(even: np.ndarray) -> np.ndarray:
    """(H, W) bool: what has more colour than a neutral ground, holes and specks closed."""
    r, g, b = cv2.split(even)  # planes: numpy's max over an axis of three is ten times slower
    chroma = cv2.max(cv2.max(r, g), b) - cv2.min(cv2.min(r, g), b)
    mask = (chroma > CHROMA_FLOOR).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    return cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)).astype(bool)


def unlike(even: np.ndarray, ground: np.ndarray, within: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels inside `within` that are no shade of the colour `ground` (3,).

    The distance is that to the nearest shade k * ground, k in 0.45..1.7, so that walls, folds and soft
    shadows of a tray do not count, but a black pencil does.
    """
    k = np.clip((even @ ground) / (ground @ ground), 0.45, 1.7)
    squares = sum((even[..., c] - k * ground[c]) ** 2 for c in range(3))
    mask = ((squares > 0.14**2) & within).astype(np.uint8)
    return cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)).astype(bool)


def pieces(mask: np.ndarray, smallest: float = SMALLEST) -> list[Piece]:
    """Connected regions (8-neighbours) of at least `smallest` of the picture, largest first."""
    n, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    found = []
    for i in range(1, n):
        x, y, w, h, area = (int(v) for v in stats[i])
        if area < smallest * mask.size:
            continue
        part = labels[y : y + h, x : x + w] == i
        contours, _ = cv2.findContours(part.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=(x, y))
        contour = max(contours, key=len)
        if cv2.contourArea(contour) <= 0:
            continue
        whole = np.zeros_like(mask)
        whole[y : y + h, x : x + w] = part
        found.append(Piece(whole, (x, y, w, h), area, contour[:, 0]))
    return sorted(found, key=lambda p: -p.area)


def filled(piece: Piece, shrink: int = 0) -> np.ndarray:
    """(H, W) bool: the piece without its holes, its edge drawn in by `shrink` px."""
    mask = np.zeros(piece.mask.shape, np.uint8)
    cv2.drawContours(mask, [piece.contour[:, None]], -1, 1, cv2.FILLED)
    if shrink:
        mask = cv2.erode(mask, np.ones((2 * shrink + 1, 2 * shrink + 1), np.uint8))
    return mask.astype(bool)


def split_touching(mask: np.ndarray, smallest: float = SMALLEST) -> list[Piece]:
    """Pieces; two round things that touch are taken apart at the waist, when the parts are round too."""
    found = []
    for piece in pieces(mask, smallest):
        inside = cv2.distanceTransform(filled(piece).astype(np.uint8), cv2.DIST_L2, 5)
        cores = pieces(inside > 0.72 * inside.max(), smallest / 40)
        parts = _nearest_parts(piece, cores, smallest) if len(cores) > 1 else []
        found += parts if len(parts) > 1 and all(map(_round, parts)) else [piece]
    return found


def _nearest_parts(piece: Piece, cores: list[Piece], smallest: float) -> list[Piece]:
    """The piece divided by which core is nearest."""
    seeds = np.stack([c.centre for c in cores])
    y, x = np.nonzero(piece.mask)
    nearest = np.argmin((x[:, None] - seeds[:, 0]) ** 2 + (y[:, None] - seeds[:, 1]) ** 2, axis=1)
    parts = []
    for i in range(len(cores)):
        part = np.zeros_like(piece.mask)
        part[y[nearest == i], x[nearest == i]] = True
        parts += pieces(part, smallest)[:1]
    return parts


def _round(piece: Piece) -> bool:
    (_, _), (w, h), _ = cv2.minAreaRect(piece.contour)
    hull = cv2.contourArea(cv2.convexHull(piece.contour))
    return max(w, h) < 1.4 * max(min(w, h), 1) and cv2.contourArea(piece.contour) > 0.88 * hull
