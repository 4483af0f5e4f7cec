"""Image sizes: what a model is shown, decided before the model's own processor, in the decoding threads.

A processor that resizes on the main thread starves the GPU; handed images that have the right size
already, it has nothing left to do. The rule is the one of Qwen2-VL and its successors.
"""

from dataclasses import dataclass
from math import ceil, floor, sqrt
from typing import Any

import numpy as np


@dataclass(frozen=True)
class PixelLimits:
    """least, most: pixels per image, 0 = no limit; multiple: of both sides, 1 = any size."""

    least: int = 0
    most: int = 0
    multiple: int = 1


def limits_for(image_processor: Any, min_pixels: int = 0, max_pixels: int = 0) -> PixelLimits:
    """The limits of a checkpoint's image processor, the options' where given. Processors that cut images
    to patches of any number (Qwen2-VL, 2.5, 3) have a merge size; others resize to what they need."""
    merge = getattr(image_processor, "merge_size", None)
    if merge is None:
        return PixelLimits(min_pixels, max_pixels)
    size = dict(image_processor.size or {})
    least = min_pixels or size.get("shortest_edge") or getattr(image_processor, "min_pixels", 0) or 0
    most = max_pixels or size.get("longest_edge") or getattr(image_processor, "max_pixels", 0) or 0
    return PixelLimits(least, most, image_processor.patch_size * merge)


def fitted_size(height: int, width: int, limits: PixelLimits) -> tuple[int, int]:
    """(height, width) in px after fitting: sides rounded to the multiple, then scaled into the limits, the
    proportions kept as far as the multiple lets them."""
    m = limits.multiple
    h, w = max(m, round(height / m) * m), max(m, round(width / m) * m)
    if limits.most and h * w > limits.most:
        scale = sqrt(height * width / limits.most)
        return max(m, floor(height / scale / m) * m), max(m, floor(width / scale / m) * m)
    if limits.least and h * w < limits.least:
        scale = sqrt(limits.least / (height * width))
        return ceil(height * scale / m) * m, ceil(width * scale / m) * m
    return h, w


def fit(rgb: np.ndarray, limits: PixelLimits) -> np.ndarray:
    """(H, W, 3) uint8 -> the same at its fitted size; unchanged when it fits already. Bicubic: where the
    rule is that of a model's processor, by the very operation that the processor would use, so that the
    model sees the same pixels whoever resizes."""
    height, width = fitted_size(*rgb.shape[:2], limits)
    if (height, width) == rgb.shape[:2]:
        return rgb
    if limits.multiple > 1:
        import torch
        from torchvision.transforms.v2 import InterpolationMode
        from torchvision.transforms.v2.functional import resize

        planes = torch.from_numpy(np.array(rgb)).permute(2, 0, 1)
        return resize(planes, [height, width], InterpolationMode.BICUBIC, antialias=True).permute(1, 2, 0).numpy()
    from PIL import Image

    return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BICUBIC))
