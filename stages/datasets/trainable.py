"""Which images can be learned from: those that, and with whose masks, can be decoded. One way for all trainings."""

from collections.abc import Iterable
from pathlib import Path

from stages.base.errors import ImageError, InputError
from stages.base.progress import Progress
from stages.base.threads import threads
from stages.datasets.images import load_masks, load_rgb
from stages.datasets.manifest import Image
from stages.datasets.sizes import require_size


def usable(
    images: Iterable[Image], where: Path, masks: bool, quiet: bool = True
) -> tuple[tuple[Image, ...], list[str]]:
    """(images to train on, why the others are left out, see `unreadable`). where: the manifest, for the message.

    Raises:
        InputError: an image without a label that has no `error`.
    """
    images = tuple(images)
    if unlabelled := next((i for i in images if i.label is None and not i.error), None):
        raise InputError(f"{where}: {unlabelled.image_id} has no label; training needs them all")
    why = unreadable(images, masks, quiet)
    return tuple(i for i in images if i.image_id not in why), [f"{name}: {lack}" for name, lack in why.items()]


def unreadable(images: Iterable[Image], masks: bool = False, quiet: bool = True) -> dict[str, str]:
    """image_id -> why an image cannot be learned from: its row has an `error`, or its file is missing or broken; with
    `masks` also an anomalous image without a mask, or with one that is missing, broken or of another size than it.
    Every file is decoded once, in full, so that none ends a training that has begun."""
    images = tuple(images)
    progress = Progress("decoding images before training", len(images), quiet)
    why = {}
    try:
        with threads() as pool:
            for image, lack in zip(images, pool.map(lambda i: _lacks(i, masks), images), strict=True):
                progress.advance(failed=lack is not None)
                if lack is not None:
                    why[image.image_id] = lack
    finally:
        progress.stop()
    return why


def _lacks(image: Image, masks: bool) -> str | None:
    if image.error:
        return image.error
    try:
        load_rgb(image.file)
        if masks:
            return _lacks_masks(image)
    except ImageError as e:
        return str(e)
    return None


def _lacks_masks(image: Image) -> str | None:
    """Raises ImageError."""
    if not image.masks:
        return "anomalous, but has no mask" if image.label == 1 else None
    require_size(image.masks[0], load_masks(image.masks).shape, image)
    return None
