"""A mask in words: where, how large, of which shape, how many regions."""

from dataclasses import dataclass

import numpy as np

ROWS, COLUMNS = ("upper", "middle", "lower"), ("left", "middle", "right")
CELLS = tuple((row, column) for row in ROWS for column in COLUMNS)
SIZES = ((0.001, "tiny"), (0.01, "small"), (0.05, "medium-sized"), (0.2, "large"), (1.0, "very large"))
SPAN = 2 / 3  # of the height or width: what is longer runs across the cells of a row or column
RAGGED = 0.05  # of the largest region: what is smaller is taken for its ragged edge, not for a region
OVAL, LONG = 1.6, 3.0  # ratio of the axes
DIRECTIONS = (
    "horizontally",
    "along a diagonal that rises to the right",
    "vertically",
    "along a diagonal that falls to the right",
)

Place = tuple[str, str]  # (row, column); `all` for one that is crossed from end to end


@dataclass(frozen=True)
class Geometry:
    """place: of the largest region; spread: alone, mainly (the others lie elsewhere, but it is more than half of
    the mask) or largest (it is not); free: places without any pixel of the mask; size: of the whole mask; shape: of
    the largest region, `scattered` where no region is half of the mask."""

    place: Place
    spread: str
    free: tuple[Place, ...]
    size: str
    shape: str
    regions: int


def geometry_of(mask: np.ndarray) -> Geometry:
    """mask: (H, W) bool, at least one True. The place is that of the largest 8-connected region's centroid in a grid
    of 3 x 3, because the centroid of several regions may lie where nothing is."""
    import cv2

    _, labels, stats, centroids = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    kept = [n + 1 for n in np.flatnonzero(areas >= RAGGED * areas.max())]
    largest = int(areas.argmax()) + 1
    half = areas.max() > mask.sum() / 2
    cells = {_cell(centroids[n], mask.shape) for n in kept}
    spread = "alone" if len(cells) == 1 else "mainly" if half else "largest"
    region = labels == largest
    return Geometry(
        _place(region, centroids[largest]),
        spread,
        _free(mask),
        next(name for most, name in SIZES if mask.mean() <= most),
        shape_of(region) if half else "scattered",
        len(kept),
    )


def shape_of(region: np.ndarray) -> str:
    """Elongation and direction of a (H, W) bool region, from its second moments. With a pixel's own extent of 1/12
    added, the ratio of the axes is exactly length to width for a rectangle."""
    y, x = np.nonzero(region)
    covariance = np.cov(np.stack([x, y]), bias=True) if len(x) > 1 else np.zeros((2, 2))
    values, vectors = np.linalg.eigh(covariance + np.eye(2) / 12)
    ratio = float(np.sqrt(values[1] / values[0]))
    if ratio < OVAL:
        return "compact"
    if ratio < LONG:
        return "slightly elongated"
    angle = np.degrees(np.arctan2(-vectors[1, 1], vectors[0, 1])) % 180  # counter-clockwise from the x axis
    return f"elongated {DIRECTIONS[int((angle + 22.5) // 45) % 4]}"


def _cell(centroid: np.ndarray, shape: tuple[int, int]) -> Place:
    """centroid: (x, y) in pixels."""
    (height, width), (x, y) = shape, centroid
    return ROWS[int(3 * (y + 0.5) / height)], COLUMNS[int(3 * (x + 0.5) / width)]


def _place(region: np.ndarray, centroid: np.ndarray) -> Place:
    row, column = _cell(centroid, region.shape)
    high = np.ptp(np.flatnonzero(region.any(1))) + 1 >= SPAN * region.shape[0]
    wide = np.ptp(np.flatnonzero(region.any(0))) + 1 >= SPAN * region.shape[1]
    return "all" if high else row, "all" if wide else column


def _free(mask: np.ndarray) -> tuple[Place, ...]:
    """Cells, rows and columns of cells that hold no pixel of the mask."""
    height, width = mask.shape
    y, x = np.nonzero(mask)
    hit = set(
        zip((3 * (y + 0.5) / height).astype(int).tolist(), (3 * (x + 0.5) / width).astype(int).tolist(), strict=True)
    )
    free = {(ROWS[r], COLUMNS[c]) for r in range(3) for c in range(3) if (r, c) not in hit}
    whole = [(row, "all") for row in ROWS if all((row, c) in free for c in COLUMNS)]
    whole += [("all", column) for column in COLUMNS if all((r, column) in free for r in ROWS)]
    return (*(cell for cell in CELLS if cell in free), *whole)


def ways_to_say(place: Place) -> tuple[str, ...]:
    """Phrases that name a place, each fit to follow a noun."""
    row, column = place
    if place == ("all", "all"):
        return "across most of the image", "over most of the image"
    if row == "all":
        side = "down the middle" if column == "middle" else f"down the {column} side"
        return f"{side} over most of the height", f"{side} of the image for most of its height"
    if column == "all":
        band = {"upper": "upper part", "middle": "middle", "lower": "lower part"}[row]
        return f"across the {band} over most of the width", f"across the {band} of the image for most of its width"
    if place == ("middle", "middle"):
        return "in the centre", "in the central part of the image", "near the middle of the image"
    if row == "middle":
        return f"on the {column} about halfway down", f"in the {column} part of the image at mid-height"
    if column == "middle":
        return f"in the middle of the {row} part", f"in the {row} middle part of the image"
    return f"in the {row} {column}", f"in the {row} {column} part of the image", f"in the {row} {column} area"
