"""Images and masks as VMAD's two encoders see them.

CLIP gets the whole image, padded to a square with its mean colour as LLaVA 1.5 does; CLIP's own centre crop would
hide anomalies near the border. The visual backbone (SAM) gets it with its longest side at 1024 px, padded to the
right and below.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stages.datasets.images import load_masks

Colour = tuple[float, ...]


@dataclass(frozen=True)
class Look:
    """size: px of CLIP's square; canvas: px of SAM's; means and deviations: per channel, of values 0..1."""

    size: int
    mean: Colour
    deviation: Colour
    canvas: int
    canvas_mean: Colour
    canvas_deviation: Colour

    def square(self, rgb: np.ndarray) -> Tensor:
        """(H, W, 3) uint8 -> (3, size, size) uint8 for CLIP, bicubic; padded last, or a long strip would become an
        image of gigabytes."""
        from PIL import Image as Picture

        scale = self.size / max(rgb.shape[:2])
        h, w = (max(round(side * scale), 1) for side in rgb.shape[:2])
        padded = Picture.new("RGB", (self.size, self.size), tuple(round(255 * m) for m in self.mean))
        seen = Picture.fromarray(rgb).resize((w, h), Picture.Resampling.BICUBIC)
        padded.paste(seen, ((self.size - w) // 2, (self.size - h) // 2))
        return _tensor(padded)

    def frame(self, shape: Sequence[int]) -> tuple[int, int]:
        """(height, width) that an image of this shape takes of the canvas, px; no side is 0."""
        scale = self.canvas / max(shape[:2])
        return max(int(shape[0] * scale + 0.5), 1), max(int(shape[1] * scale + 0.5), 1)

    def framed(self, rgb: np.ndarray) -> Tensor:
        """(H, W, 3) uint8 -> (3, canvas, canvas) uint8 for SAM, bilinear; 0 outside the frame."""
        from PIL import Image as Picture

        h, w = self.frame(rgb.shape)
        canvas = torch.zeros(3, self.canvas, self.canvas, dtype=torch.uint8)
        canvas[:, :h, :w] = _tensor(Picture.fromarray(rgb).resize((w, h), Picture.Resampling.BILINEAR))
        return canvas

    def mask(self, paths: Sequence[Path], frame: tuple[int, int]) -> Tensor:
        """(canvas, canvas) uint8, 1 where at least half of the pixel is anomalous; where a thin anomaly would vanish,
        every pixel that it touches. No paths: zeros. Raises ImageError."""
        import cv2

        canvas = torch.zeros(self.canvas, self.canvas, dtype=torch.uint8)
        if paths:
            share = cv2.resize(load_masks(paths).astype(np.float32), frame[::-1], interpolation=cv2.INTER_AREA)
            drawn = share >= 0.5 if (share >= 0.5).any() else share > 0
            canvas[: frame[0], : frame[1]] = torch.from_numpy(drawn.astype(np.uint8))
        return canvas


def normalised(pixels: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """(..., 3, H, W) uint8 or float of 0..255 -> float32, by channel. mean, deviation: (3,), of values 0..1."""
    return (pixels.float() / 255 - mean[:, None, None]) / deviation[:, None, None]


def _tensor(picture) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
