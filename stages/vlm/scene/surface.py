"""Surface marks of any photograph: how many, how large, dark or bright, of which shape, where.

A mark stands out from the mean of its surroundings *and* from that of its own row or column, so that
grain, grinding streaks and slow shading do not count. Thresholds are in units of the picture's own
noise, hence the same for dark and bright exposures.
"""

from collections import Counter

import cv2
import numpy as np

from stages.vlm.scene.attributes import elongation
from stages.vlm.scene.form import number
from stages.vlm.scene.segment import Piece, pieces, working_size

NO_MARKS = "no marks."
DARK, BRIGHT = 7.0, 5.0  # noise units; chips glint less than holes are deep
SIZES = (("small", 0.0003), ("medium", 0.0012), ("large", 0.005))  # least share of the picture
MOST = 4  # kinds of marks told; more would drown the conspicuous ones
MARGIN = 0.035  # of the longer side: what lies within is at the border


def describe_surface(rgb: np.ndarray) -> str:
    """Caption of (H, W, 3) uint8: 'one small dark round mark inside, two ... at the border.'"""
    residual = stand_out(working_size(rgb))
    marks = Counter(_name(p, "dark") for p in _marks(residual < -DARK))
    marks += Counter(_name(p, "bright") for p in _marks(residual > BRIGHT))
    said = [
        f"{_how_many(n)} {size} {tone} {shape} mark{'s' * (n > 1)} {region}"
        for (tone, size, shape, region), n in sorted(marks.items(), key=_rank)[:MOST]
    ]
    return ", ".join(said) + "." if said else NO_MARKS


def stand_out(rgb: np.ndarray) -> np.ndarray:
    """(H, W) float: by how many noise units a pixel differs from its surroundings and from its own row
    and column; 0 where they disagree on the sign."""
    log = np.log(cv2.GaussianBlur(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1.2) + 8)
    differences = np.stack(
        [log - cv2.blur(log, size, borderType=cv2.BORDER_REFLECT) for size in ((1, 61), (61, 1), (41, 41))]
    )
    streaks = differences[:2].std(axis=(1, 2)).argmin()  # along them a picture varies least
    pair = differences[[streaks, 2]]
    nearest = np.where(pair.min(axis=0) > 0, pair.min(axis=0), np.where(pair.max(axis=0) < 0, pair.max(axis=0), 0))
    noise = 1.4826 * np.median(np.abs(pair[0] - np.median(pair[0])))
    return nearest / max(noise, 0.02)


def _marks(mask: np.ndarray) -> list[Piece]:
    mask = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
    return pieces(mask.astype(bool), SIZES[0][1])


def _name(piece: Piece, tone: str) -> tuple[str, str, str, str]:
    size = [name for name, least in SIZES if piece.area >= least * piece.mask.size][-1]
    x, y = piece.centre
    height, width = piece.mask.shape
    margin = MARGIN * max(height, width)
    inside = margin < x < width - margin and margin < y < height - margin
    return tone, size, "long" if elongation(piece) > 2.5 else "round", "inside" if inside else "at the border"


def _how_many(n: int) -> str:
    return number(n) if n < 3 else "several"


def _rank(item: tuple) -> tuple:
    (tone, size, shape, region), _ = item
    return -[s for s, _ in SIZES].index(size), tone != "dark", shape, region
