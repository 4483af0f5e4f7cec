"""Decoding images, the same way everywhere."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stages.base.errors import ImageError
from stages.datasets.masks import load_mask
from stages.datasets.opening import has_alpha, opened, upright, wide_colour

WHITES = (255, 4095, 65535)  # of grey images with more than 8 bits; floats have 1, too
SIGNED_WHITES = (255, 4095, 32767)  # of signed 16 bits, which cannot hold 65535
OVERSHOOT = 1.5  # by how much resampled floats may exceed white


def load_rgb(path: Path) -> np.ndarray:
    """Decode one image file to (H, W, 3) uint8 sRGB, upright as its EXIF orientation says.

    Greyscale, palette, CMYK and transparent images are converted (transparency over white; where every pixel is
    transparent, the colours as they are). Of several pages the first is read. More than 8 bits: see `load_scaled`.

    Raises:
        ImageError: missing, empty, truncated, not an image, too large (--max-megapixels), or of a range of values that
            has no white; the message names the path.
    """
    return load_scaled(path)[0]


def load_scaled(path: Path) -> tuple[np.ndarray, int | None]:
    """(what `load_rgb` gives, the value that was taken for white; None for images of 8 bits).

    White of 16- and 32-bit integers is the smallest of 255, 4095 (12-bit cameras) and 65535 (signed 16 bits: 32767)
    that no value exceeds, but never 1023, since 10 bits and a dark picture of 12 bits look alike; of
    floats the smallest of 1, 255, 4095 and 65535, which resampling may exceed by half. White is never the image's own
    maximum: a darker photograph of the same camera must stay darker. Where one data set needs two whites, `data check`
    says so. PGM files state their white. Raises ImageError as `load_rgb` does.
    """
    with opened(path) as image:
        stated = 65535 if image.format == "PPM" else None  # Pillow has scaled the values to it
        wide, whites = wide_colour(path, image), _whites_of(image)
        image = upright(image)
        if wide is not None and (white := _white(wide, path, whites)) < 65535:
            return _eight_bits(wide, white), white  # Pillow keeps the high byte alone: nearly black
        if image.mode.startswith("I") or image.mode == "F":
            values = np.asarray(image)
            white = stated or _white(values, path, whites)
            return np.repeat(_eight_bits(values, white)[:, :, None], 3, axis=2), white
        if has_alpha(image):
            return _over_white(image), None
        return np.asarray(image.convert("RGB")), 65535 if wide is not None else None


def _whites_of(image) -> tuple[int, ...]:
    """The whites that the stored type can hold. image: as `opened` gives it."""
    tags = getattr(image, "tag_v2", {})
    signed = tags.get(258, (0,))[0] == 16 and 2 in tags.get(339, (1,))
    return SIGNED_WHITES if signed else WHITES


def _white(values: np.ndarray, path: Path, whites: tuple[int, ...]) -> int:
    """The value that is white, by the rule of `load_scaled`. Raises ImageError where none fits."""
    floats = values.dtype.kind == "f"
    room = OVERSHOOT if floats else 1.0
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError(f"{path}: holds values that are no numbers (NaN or infinity); replace them")
    white = next((w for w in ((1, *whites) if floats else whites) if high <= room * w), None)
    if white is None or low < (1 - room) * white:
        raise ImageError(
            f"{path}: grey values from {low:g} to {high:g}; expected 0 to {'1, ' * floats}{whites[0]}, {whites[1]} or"
            f" {whites[2]} (save it with 8 or 16 bits)"
        )
    return white


def _eight_bits(values: np.ndarray, white: int) -> np.ndarray:
    return np.clip(values * (255 / white), 0, 255).round().astype(np.uint8)


def _over_white(image) -> np.ndarray:
    from PIL import Image

    image = image.convert("RGBA")
    if image.getchannel("A").getextrema()[1] > 0:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def load_masks(paths: Sequence[Path]) -> np.ndarray:
    """The union of an image's masks, (H, W) bool. Raises ImageError as `load_mask` and `union` do."""
    return union([load_mask(path) for path in paths], paths[0])


def union(masks: Sequence[np.ndarray], where: Path) -> np.ndarray:
    """(H, W) bool of what any of the masks covers. Raises ImageError that names `where` when they differ in size."""
    if len(shapes := {m.shape for m in masks}) > 1:
        raise ImageError(f"{where}: its masks differ in size ({', '.join(map(str, sorted(shapes)))})")
    return np.logical_or.reduce(masks)
