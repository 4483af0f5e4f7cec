"""Reading a printed colour word: normalised cross-correlation with the words as they look in print."""

from functools import cache

import cv2
import numpy as np

from stages.vlm.scene.segment import coloured

HEIGHTS = (0.050, 0.056, 0.062)  # of capital letters, in units of the picture's longer side
TURNS = (-4.0, 0.0, 4.0)  # degrees, clockwise


def read_word(even: np.ndarray, words: tuple[str, ...]) -> str:
    """The one of `words` that is printed in black on white in (H, W, 3) float (white = 1), nearly level.

    What has colour is taken for white, since the edge of a stick looks much like a line of print.
    Searched coarsely at half size, then word against word at full size around the best place.
    """
    grey = (sum(cv2.split(even)) / 3).clip(0, 1)
    grey[cv2.dilate(coloured(even).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0] = 0.9
    side = max(grey.shape)
    half = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    place = max((_best(half, _template(w, HEIGHTS[1] * side / 2, 0.0)) for w in words), key=lambda b: b[0])[1]
    reach_x, reach_y = int(0.26 * side), int(0.10 * side)
    x, y = 2 * place[0], 2 * place[1]
    window = grey[max(y - reach_y, 0) : y + reach_y, max(x - reach_x, 0) : x + reach_x]
    found = {w: max(_best(window, _template(w, h * side, t))[0] for h in HEIGHTS for t in TURNS) for w in words}
    return max(found, key=found.__getitem__)


@cache
def _template(word: str, height: float, turn: float) -> np.ndarray:
    """Dark letters on light with a margin; height of the capitals in px."""
    scale, thick = height * 4 / 22, max(round(height * 4 / 5), 1)
    (w, h), _ = cv2.getTextSize(word.upper(), cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
    pad = h // 3
    big = np.full((h + 2 * pad, w + 2 * pad), 255, np.uint8)
    cv2.putText(big, word.upper(), (pad, pad + h), cv2.FONT_HERSHEY_SIMPLEX, scale, 20, thick, cv2.LINE_AA)
    if turn:
        centre = (big.shape[1] / 2, big.shape[0] / 2)
        big = cv2.warpAffine(big, cv2.getRotationMatrix2D(centre, -turn, 1), big.shape[::-1], borderValue=255)
    big = cv2.GaussianBlur(big, (0, 0), 4)
    return cv2.resize(big, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA).astype(np.float32)


def _best(picture: np.ndarray, template: np.ndarray) -> tuple[float, tuple[int, int]]:
    """Highest correlation and the centre (x, y) of its place; -1 when the template does not fit in."""
    if any(t > p for t, p in zip(template.shape, picture.shape, strict=True)):
        return -1.0, (picture.shape[1] // 2, picture.shape[0] // 2)
    scores = cv2.matchTemplate(picture, template, cv2.TM_CCOEFF_NORMED)
    h, w = template.shape
    mean = cv2.boxFilter(picture, -1, (w, h))
    spread = cv2.boxFilter(picture * picture, -1, (w, h)) - mean * mean
    top, left = h // 2, w // 2
    spread = spread[top : top + scores.shape[0], left : left + scores.shape[1]]
    scores[spread < 0.15 * spread.max()] = -1  # a bare surface correlates with anything
    _, best, _, (x, y) = cv2.minMaxLoc(scores)
    return best, (x + template.shape[1] // 2, y + template.shape[0] // 2)
