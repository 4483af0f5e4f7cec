"""Images on their way to a model: decoded ahead of it, in batches, or why they cannot be read."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from stages.training.prepared import torch

from torch import Tensor

from stages.base.errors import ImageError
from stages.base.prefetch import Prefetch
from stages.baselines.backbone import Backbone
from stages.baselines.config import BaselineConfig
from stages.datasets.images import load_rgb
from stages.datasets.manifest import Image

Batch = list[tuple[Image, Tensor | ImageError]]  # (3, S, S), normalised, or what stands for it
Load = Callable[[Image], Tensor]  # raises ImageError


def pixels(config: BaselineConfig, backbone: Backbone) -> Load:
    """Reads an image's file to (3, S, S), normalised."""
    transform = backbone.transform(config.size)

    def load(image: Image) -> Tensor:
        if image.error:
            raise ImageError(image.error)
        return transform(torch.tensor(load_rgb(image.file)).permute(2, 0, 1).float() / 255)

    return load


def batches(images: Sequence[Image], load: Load, config: BaselineConfig, at_once: int | None = None) -> Iterator[Batch]:
    """The images, loaded ahead, or why they cannot be. at_once: images of a batch; by default --batch-size."""
    at_once = at_once or config.batch_size
    with Prefetch(load, images, config.workers, at_once) as loaded:
        while batch := list(islice(loaded, at_once)):
            yield batch
