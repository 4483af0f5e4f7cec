"""Whether masks have the size of their image. One that has not is never resized: nobody knows how it lies there."""

from pathlib import Path

from stages.base.errors import ImageError
from stages.datasets.manifest import Image
from stages.datasets.opening import opened, upright_size

Size = tuple[int, ...]  # (height, width)


def other_size(mask: Path, size: Size, image: Size) -> str:
    """'' or what is wrong with a mask of this size, naming both."""
    return "" if tuple(size) == tuple(image) else f"{mask}: {size[1]} x {size[0]} px, its image {image[1]} x {image[0]}"


def require_size(mask: Path, size: Size, image: Image) -> None:
    """Raises ImageError that names both sizes when the mask is of another size than its image. Where the manifest does
    not know the image's size and its file is not there, nothing is compared."""
    own = size_of(image)
    if own and (said := other_size(mask, size, own)):
        raise ImageError(f"{said}; a mask is never resized to its image, so make it anew at the image's size")


def size_of(image: Image) -> Size | None:
    """As the manifest says it, else from the file's header, upright; None where there is neither."""
    if image.height and image.width:
        return image.height, image.width
    try:
        with opened(image.file) as file:
            return upright_size(file)[::-1]
    except ImageError:
        return None
