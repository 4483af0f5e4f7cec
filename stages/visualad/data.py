"""Images and masks as VisualAD sees them: squashed to a square, normalised as the backbone wants them."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Picture
from torch import Tensor
from torch.utils.data import Dataset

from stages.datasets.images import load_mask, load_rgb
from stages.datasets.manifest import Image
from stages.datasets.masks import at_size


@dataclass(frozen=True)
class ImageTransform:
    """size: px of the square; mean, std: per channel, of values 0..1."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def pixels(self, path: Path) -> Tensor:
        """(3, S, S) float32: bicubic, aspect ratio not kept, as the released code. Raises ImageError."""
        picture = Picture.fromarray(load_rgb(path)).resize((self.size, self.size), Picture.Resampling.BICUBIC)
        values = torch.from_numpy(np.asarray(picture, np.float32) / 255)
        return ((values - torch.tensor(self.mean)) / torch.tensor(self.std)).permute(2, 0, 1)

    def mask(self, paths: Iterable[Path]) -> Tensor:
        """(S, S) float32 of 0 and 1: the union of the masks at that size. Raises ImageError."""
        union = np.zeros((self.size, self.size), bool)
        for path in paths:
            union |= at_size(load_mask(path), self.size)
        return torch.from_numpy(union.astype(np.float32))


@dataclass(frozen=True)
class TrainingSet(Dataset):
    """images: labelled, the anomalous ones with masks."""

    images: tuple[Image, ...]
    transform: ImageTransform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, n: int) -> dict[str, Tensor]:
        image = self.images[n]
        return {
            "pixels": self.transform.pixels(image.file),
            "masks": self.transform.mask(image.masks),
            "labels": torch.tensor(float(image.label)),
        }
