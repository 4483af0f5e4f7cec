"""Which images can be learned from by their masks."""

from collections.abc import Sequence

from stages.base.errors import ImageError
from stages.base.threads import threads
from stages.datasets.images import load_masks
from stages.datasets.manifest import Image
from stages.datasets.sizes import require_size


def with_masks(images: Sequence[Image]) -> tuple[tuple[Image, ...], list[str]]:
    """(images whose masks can be read, why the others are left out): of anomalous images without a mask, or with one
    that is missing, broken or of another size than its image. Every mask is decoded once, so that none ends a training
    that has begun."""
    with threads() as pool:
        lacks = list(pool.map(_lacks, images))
    good = tuple(i for i, lack in zip(images, lacks, strict=True) if lack is None)
    return good, [f"{i.image_id}: {lack}" for i, lack in zip(images, lacks, strict=True) if lack is not None]


def _lacks(image: Image) -> str | None:
    if not image.masks:
        return "anomalous, but has no mask" if image.label == 1 else None
    try:
        require_size(image.masks[0], load_masks(image.masks).shape, image)
    except ImageError as e:
        return str(e)
    return None
