"""Decoding images, the same way everywhere."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from stages.errors import ImageError

Item, Loaded = TypeVar("Item"), TypeVar("Loaded")

INDEX_VALUES = 16     # no data set numbers that many kinds of defects, and no drawn mask is that faint


def load_rgb(path: Path) -> np.ndarray:
    """Decode one image file to (H, W, 3) uint8 sRGB, upright as its EXIF orientation says.

    Greyscale, palette, CMYK and transparent images are converted (transparency over white); 16-bit
    values are divided by 257, so that 0..65535 maps to 0..255 whatever the image's own maximum.

    Raises:
        ImageError: missing, empty, truncated or not an image; the message names the path.
    """
    from PIL import Image, ImageOps

    try:
        if path.is_dir():
            raise ImageError(f"{path}: a directory, not an image")
        if path.stat().st_size == 0:
            raise ImageError(f"{path}: the file is empty")
        with Image.open(path) as image:
            image.load()
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I") or image.mode == "F":
                grey = np.clip(np.asarray(image, np.float64) / 257, 0, 255).round().astype(np.uint8)
                return np.repeat(grey[:, :, None], 3, axis=2)
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                image = image.convert("RGBA")
                white = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(white, image)
            return np.asarray(image.convert("RGB"))
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{path}: no such image") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
        raise ImageError(f"{path}: cannot be decoded ({e})") from e


def load_masks(paths: Sequence[Path]) -> np.ndarray:
    """The union of an image's masks, (H, W) bool. Raises ImageError as `load_mask` and `union` do."""
    return union([load_mask(path) for path in paths], paths[0])


def union(masks: Sequence[np.ndarray], where: Path) -> np.ndarray:
    """(H, W) bool of what any of the masks covers. Raises ImageError that names `where` when they differ in size."""
    if len(shapes := {m.shape for m in masks}) > 1:
        raise ImageError(f"{where}: its masks differ in size ({', '.join(map(str, sorted(shapes)))})")
    return np.logical_or.reduce(masks)


def load_mask(path: Path) -> np.ndarray:
    """Decode one mask to (H, W) bool, True = anomalous.

    Drawn masks count from half of 0..255 on: those saved as JPEG or with soft edges are not clean 0/255
    (magnetic-tile has such), and `> 0` would grow every region by their noise. Index masks number the
    kinds of defects from 1 (VisA: 1..9) and count from 1 on. The largest value tells the two apart; a mask
    of zeros is empty either way. Raises ImageError as `load_rgb` does.
    """
    values = load_rgb(path)[:, :, 0]
    return values > 0 if values.max() < INDEX_VALUES else values >= 128


def ahead(load: Callable[[Item], Loaded], items: Iterable[Item], workers: int,
          waiting: int) -> Iterator[tuple[Item, Loaded | ImageError]]:
    """(item, load(item) or the ImageError that it raised) in order; `workers` threads, `waiting` in advance at most."""
    items, queue = iter(items), deque[tuple[Item, Future]]()
    with ThreadPoolExecutor(workers) as pool:
        while True:
            queue.extend((i, pool.submit(load, i)) for i in islice(items, waiting - len(queue)))
            if not queue:
                return
            item, future = queue.popleft()
            try:
                yield item, future.result()
            except ImageError as e:
                yield item, e
