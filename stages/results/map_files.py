"""Anomaly maps that other programs saved: NumPy arrays and grey images, read as the numbers that they hold."""

from pathlib import Path

import numpy as np

from stages.artifacts.maps import Key, to_row
from stages.base.errors import ImageError, first_line
from stages.base.regular import regular
from stages.datasets.opening import opened

IMAGES = ("PNG", "TIFF")  # JPEG changes values
GREY = ("1", "L", "I", "F")  # Pillow's modes of one channel: `I;16` and the like begin so, too


def read_map(path: Path) -> np.ndarray:
    """(H, W) of the type that the file has, nothing scaled. (1, H, W) and (H, W, 1) arrays are maps of one channel.

    Raises:
        ImageError: no such file, another format, several channels or pages, or no numbers; names the path.
    """
    array = _array(path) if path.suffix.lower() == ".npy" else _image(path)
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[2]):
        array = array[0] if array.shape[0] == 1 else array[:, :, 0]
    if array.ndim != 2 or not array.size:
        raise ImageError(f"{path}: an array of shape {array.shape}; a map is (height, width)")
    if array.dtype.kind not in "fiub":
        raise ImageError(f"{path}: holds {array.dtype}, not numbers")
    return array


def as_row(key: Key, path: Path) -> dict:
    """A row of MAPS: in float16 where that changes no value, else in float32. Raises ImageError as `read_map` does, or
    for values that are not finite."""
    found = read_map(path)
    with np.errstate(over="ignore", invalid="ignore"):
        exact = bool((found.astype("<f2").astype(np.float64) == found).all())
    try:
        return to_row(key, found, "<f2" if exact else "<f4")
    except ValueError as e:
        raise ImageError(f"{path}: {first_line(e)}") from None


def _array(path: Path) -> np.ndarray:
    try:
        return np.load(regular(path), allow_pickle=False)
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except (OSError, ValueError, EOFError) as e:
        raise ImageError(f"{path}: cannot be read as a NumPy array ({first_line(e)})") from None


def _image(path: Path) -> np.ndarray:
    with opened(path) as image:
        if image.format not in IMAGES:
            raise ImageError(f"{path}: a {image.format} file; maps are read from .npy, PNG and TIFF")
        if image.mode.partition(";")[0] not in GREY:
            raise ImageError(f"{path}: a picture of mode {image.mode}; a map has one channel with raw numbers")
        if (pages := getattr(image, "n_frames", 1)) > 1:
            raise ImageError(f"{path}: {pages} pages; a map has one")
        return np.asarray(image)
