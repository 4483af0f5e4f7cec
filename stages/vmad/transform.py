"""Images and masks as VMAD's two encoders see them.

CLIP gets the whole image, padded to a square with its mean colour as LLaVA 1.5 does; CLIP's own centre crop would
hide anomalies near the border. The visual backbone (SAM) gets it with its longest side at 1024 px, padded to the
right and below.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image as Picture
from torch import Tensor

from stages.datasets.images import load_masks

Colour = tuple[float, ...]


@dataclass(frozen=True)
class ClipSamTransform:
    """clip_size, sam_size: px of the square input of each; means and standard deviations: per channel, of values
    0..1."""

    clip_size: int
    clip_mean: Colour
    clip_std: Colour
    sam_size: int
    sam_mean: Colour
    sam_std: Colour

    def clip_input(self, rgb: np.ndarray) -> Tensor:
        """(H, W, 3) uint8 -> (3, clip_size, clip_size) uint8, bicubic; padded last, or a long strip would become an
        image of gigabytes."""
        scale = self.clip_size / max(rgb.shape[:2])
        h, w = (max(round(side * scale), 1) for side in rgb.shape[:2])
        colour = tuple(round(255 * m) for m in self.clip_mean)
        padded = Picture.new("RGB", (self.clip_size, self.clip_size), colour)
        resized = Picture.fromarray(rgb).resize((w, h), Picture.Resampling.BICUBIC)
        padded.paste(resized, ((self.clip_size - w) // 2, (self.clip_size - h) // 2))
        return _tensor(padded)

    def content_size(self, shape: Sequence[int]) -> tuple[int, int]:
        """(height, width) that an image of this shape takes of SAM's input, px; no side is 0."""
        scale = self.sam_size / max(shape[:2])
        return max(int(shape[0] * scale + 0.5), 1), max(int(shape[1] * scale + 0.5), 1)

    def sam_input(self, rgb: np.ndarray) -> Tensor:
        """(H, W, 3) uint8 -> (3, sam_size, sam_size) uint8, bilinear; 0 outside the content."""
        h, w = self.content_size(rgb.shape)
        padded = torch.zeros(3, self.sam_size, self.sam_size, dtype=torch.uint8)
        padded[:, :h, :w] = _tensor(Picture.fromarray(rgb).resize((w, h), Picture.Resampling.BILINEAR))
        return padded

    def mask(self, paths: Sequence[Path], content_size: tuple[int, int]) -> Tensor:
        """(sam_size, sam_size) uint8, 1 where at least half of the pixel is anomalous; where a thin anomaly would
        vanish, every pixel that it touches. No paths: zeros. Raises ImageError."""
        padded = torch.zeros(self.sam_size, self.sam_size, dtype=torch.uint8)
        if paths:
            mask = load_masks(paths).astype(np.float32)
            share = cv2.resize(mask, content_size[::-1], interpolation=cv2.INTER_AREA)
            anomalous = share >= 0.5 if (share >= 0.5).any() else share > 0
            padded[: content_size[0], : content_size[1]] = torch.from_numpy(anomalous.astype(np.uint8))
        return padded


def normalised(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(..., 3, H, W) uint8 or float of 0..255 -> float32, by channel. mean, std: (3,), of values 0..1."""
    return (pixels.float() / 255 - mean[:, None, None]) / std[:, None, None]


def _tensor(picture: Picture.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
