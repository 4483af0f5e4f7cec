"""Which normal training images an image is compared with."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random

import numpy as np

from stages.base.errors import ImageError, InputError
from stages.base.seeds import row_seed
from stages.datasets.config import RULES
from stages.datasets.images import load_rgb
from stages.datasets.manifest import Image, reference_images

SIDE = 32  # px of the thumbnails that `nearest` compares


def references_for(image: Image, task_images: Sequence[Image], shots: int, rule: str, seed: int) -> list[Image]:
    """`shots` reference images of one image, never itself.

    first: in order of image_id, the same for the whole task (the paper's choice); random: drawn once per
    task; nearest: the most similar ones, by the mean squared difference of 32 x 32 grey thumbnails, nearest
    first. Fewer when the task has fewer readable ones.

    Raises:
        InputError: an unknown rule.
    """
    if rule not in RULES:
        raise InputError(f"--reference {rule}: expected {', '.join(RULES)}")
    pool = [
        i
        for i in sorted(reference_images(task_images), key=lambda i: i.image_id)
        if not i.error and i.image_id != image.image_id
    ]
    if rule == "random":
        pool = Random(row_seed(seed, *map(str, image.task))).sample(pool, len(pool))
    if rule == "nearest" and pool:
        own = thumbnail(image.file)
        distance = {i.image_id: _distance(own, i.file) for i in pool}
        pool.sort(key=lambda i: distance[i.image_id])
    return pool[:shots]


@cache
def thumbnail(path: Path) -> np.ndarray:
    """(32, 32) float32 grey, 0..1. Raises ImageError when the image cannot be read."""
    return grey(load_rgb(path))


def grey(rgb: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> its thumbnail, (32, 32) float32, 0..1."""
    from PIL import Image as Pil

    small = Pil.fromarray(rgb).convert("L").resize((SIDE, SIDE), Pil.Resampling.BOX)
    return np.asarray(small, np.float32) / 255


def _distance(own: np.ndarray, path: Path) -> float:
    try:
        return float(((own - thumbnail(path)) ** 2).mean())
    except ImageError:
        return float("inf")
