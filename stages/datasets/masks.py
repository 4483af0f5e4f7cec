"""Masks as people and tools write them, read as {normal, anomalous} from the file alone."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stages.base.errors import ImageError
from stages.datasets.opening import has_alpha, opened, upright, wide_colour

if TYPE_CHECKING:
    from PIL import Image

INDEX_VALUES = 16  # no data set numbers that many kinds of defects, and no drawn mask is that faint
FEW = 16  # levels: classes drawn as greys or colours; noise and soft edges have more
FLAT = 0.9  # share of the levels below half of white that are flat where all of them are classes
VOID = (224, 224, 192)  # the colour of Pascal VOC's index 255: the border of an object, neither nor
FULL_SCALES = (1, 255, 65535)


def load_mask(path: Path) -> np.ndarray:
    """Decode one mask to (H, W) bool, True = anomalous. The first of these rules that applies:

    1. Some pixels are transparent: what is opaque is anomalous, by rule 4 on alpha; colours do not count.
    2. A palette (VOC, labelme): every index but 0, whatever the colours. Index 255 in VOC's own colour (224, 224, 192)
       beside other indices is its `void` border and does not count. Read by colour are palettes whose order is the
       encoder's (of GIF files; of quantised ones, where one other index than 0 is black and 0 is not) and ramps of
       greys.
    3. Otherwise a pixel's value is the largest of its channels; 16 and 32 bits as they are stored.
    4. Values that are 0 and one other, or whole numbers below 16 (VisA: 1..9): every value but 0. Otherwise from half
       of white on, since JPEG noise and soft edges must not count: white is 1, 255 or 65535 where the largest value
       reaches three quarters of it, else the largest value itself. JPEG files are read by the half alone. In others
       levels below the half may be classes: all of them where nearly all are drawn flat, that is, most of their pixels
       lie in 2 x 2 equal ones, or on a thin line beside which nothing is brighter (the pixels of a soft
       edge lie between a darker and a brighter one, and noise has no two alike); else, of at most 16 levels, those
       that fill some 3 x 3 square.

    Background is 0, black, transparent or the palette's first: a mask drawn the other way round cannot be told from
    one of a large defect, and is reported by `data check`, not guessed.

    Raises:
        ImageError: as `stages.datasets.opening.opened`, or values that are negative or no numbers.
    """
    with opened(path) as image:
        lossy = image.format in ("JPEG", "MPO")
        by_index = image.mode == "P" and image.format != "GIF"
        wide = wide_colour(path, image)
        image = upright(image)
        if wide is not None and not (has_alpha(image) and np.asarray(image.getchannel("A")).min() == 0):
            return foreground(wide.max(axis=2))
        return _drawn(image, by_index, lossy, path)


def at_size(mask: np.ndarray, size: int) -> np.ndarray:
    """(H, W) bool -> (size, size) bool: Pillow's bilinear, which averages where it shrinks, then above one half: as
    VisualAD's released code resizes masks, for training and for test."""
    if mask.shape == (size, size):
        return mask
    from PIL import Image

    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR)) > 127


def mask_values(path: Path) -> np.ndarray:
    """(H, W) uint8 that `load_mask` reads as it reads the file: the grey values, which may name the defect, of an 8-bit
    image; 255 where the mask is, of any other. Raises ImageError as `load_mask` does."""
    mask = load_mask(path)
    with opened(path) as image:
        if image.mode != "L" or has_alpha(image) or image.format in ("JPEG", "MPO"):
            return mask.astype(np.uint8) * 255
        return np.asarray(upright(image))


def _drawn(image: "Image.Image", by_index: bool, lossy: bool, path: Path) -> np.ndarray:
    if has_alpha(image):
        alpha = np.asarray(image.convert("RGBA").getchannel("A"))
        if alpha.min() == 0:
            return foreground(alpha)
    if by_index and (mask := _indexed(image)) is not None:
        return mask
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        if not np.isfinite(values).all() or values.min() < 0:
            raise ImageError(
                f"{path}: a mask with values that are negative or no numbers; expected 0 for normal, more for anomalous"
            )
        return foreground(values)
    if image.mode in ("1", "L", "LA"):
        return foreground(np.asarray(image.convert("LA"))[:, :, 0], lossy)
    return foreground(np.asarray(image.convert("RGB")).max(axis=2), lossy)


def _indexed(image: "Image.Image") -> np.ndarray | None:
    """(H, W) bool by rule 2; None for a palette in an encoder's order, and for a ramp of greys, whose indices are no
    classes: one that gives each index its own value, or many."""
    index = np.asarray(image)
    colours = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    used = np.flatnonzero(np.bincount(index.ravel(), minlength=256))
    shown = colours[used[used < len(colours)]]
    black = used[: len(shown)][(shown == 0).all(axis=1)]
    if len(black) == 1 and black[0] != 0 and colours[0].any():
        return None
    if (shown == shown[:, :1]).all() and (len(used) > FEW or (shown[:, 0] == used[: len(shown)]).all()):
        return None
    mask = index != 0
    if len(colours) == 256 and tuple(colours[255]) == VOID and set(used.tolist()) - {0, 255}:
        mask &= index != 255
    return mask


def foreground(values: np.ndarray, lossy: bool = False) -> np.ndarray:
    """values: (H, W), not negative -> (H, W) bool by rule 4 of `load_mask`."""
    of_bytes = values.dtype == np.uint8  # counting is many times as fast as sorting
    levels = np.flatnonzero(np.bincount(values.ravel())) if of_bytes else np.unique(values)
    low, high = float(levels[0]), float(levels[-1])
    whole = bool((levels == np.round(levels)).all())
    if high == 0:
        return np.zeros(values.shape, bool)
    if not lossy and ((low == 0 and len(levels) == 2) or (whole and high < INDEX_VALUES)):
        return values > 0
    white = next((full for full in FULL_SCALES if 0.75 * full <= high <= full), high)
    mask = values >= white / 2
    faint = levels[(levels > 0) & (levels < white / 2)]
    if lossy or not len(faint):
        return mask
    if _are_flat(values, faint, white / 32):
        return values > 0
    if len(levels) <= FEW:
        for level in faint:
            if _fills_a_square(same := values == level):
                mask |= same
    return mask


def _are_flat(values: np.ndarray, faint: np.ndarray, noise: float) -> bool:
    """Whether nearly all of the levels `faint` are drawn flat, as rule 4 of `load_mask` has it. values: (H, W); noise:
    below it thin lines are what JPEG has left."""
    of_level = [np.count_nonzero(flat) * 2 > len(flat) for flat in _flat_pixels(values, faint, noise)]
    return bool(sum(of_level) >= FLAT * len(faint))


def _flat_pixels(values: np.ndarray, faint: np.ndarray, noise: float) -> list[np.ndarray]:
    """For each level of `faint` a bool per pixel of that level: part of a 2 x 2 square of equal ones; or none of its
    eight neighbours is brighter, and one is equal (a thin line)."""
    padded = np.pad(values, 1)
    rows, columns = np.nonzero((values > 0) & (values <= faint[-1]))
    own = values[rows, columns]
    around = {(y, x): padded[rows + 1 + y, columns + 1 + x] for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)}
    square = np.zeros(len(own), bool)
    for y in (-1, 1):
        for x in (-1, 1):
            square |= (around[y, 0] == own) & (around[0, x] == own) & (around[y, x] == own)
    every = np.stack(list(around.values()))
    thin = (own >= noise) & (every <= own).all(axis=0) & (every == own).any(axis=0)
    flat, level = square | thin, np.searchsorted(faint, own)
    order = np.argsort(level, kind="stable")
    return np.split(flat[order], np.cumsum(np.bincount(level, minlength=len(faint)))[:-1])


def _fills_a_square(mask: np.ndarray) -> bool:
    """Whether some 3 x 3 pixels are all True."""
    if min(mask.shape) < 3:
        return False
    rows = mask[:-2] & mask[1:-1] & mask[2:]
    return bool((rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:]).any())
