"""Opening image files with Pillow: one limit of size, and nothing of Pillow's own on the terminal."""

import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stages.base.errors import ImageError, InputError, first_line
from stages.base.regular import NotRegular, regular

if TYPE_CHECKING:
    from PIL import Image

MEGAPIXELS = 179.0  # Pillow's own limit: beyond it a small file may be made to fill the memory
LARGE = 50_000_000  # pixels; images from here on are decoded one at a time
BROKEN = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    IndexError,
    KeyError,
    OverflowError,
    ZeroDivisionError,
    MemoryError,
)  # what Pillow's decoders raise for files that are damaged

PILLOW = r"PIL\."  # the modules whose warnings are for programmers, not for users

_allowed = MEGAPIXELS
_large = threading.Lock()


def allow_megapixels(limit: float) -> None:
    """Set the largest image that this process opens, 10^6 pixels. Raises InputError for a limit that allows none."""
    global _allowed
    if not limit > 0:
        raise InputError(f"--max-megapixels {limit:g}: expected a number above 0")
    _allowed = limit


def allowed_megapixels() -> float:
    """What `allow_megapixels` set, for processes that this one starts."""
    return _allowed


@contextmanager
def opened(path: Path, failure: str = "cannot be decoded") -> Iterator["Image.Image"]:
    """The image at `path`, header read, pixels not yet. failure: what the message says when Pillow gives up.

    Raises:
        ImageError: missing, empty, no image, larger than allowed, or broken while the block decodes it; the message
            names the path.
    """
    Image = _pillow()
    try:
        if path.is_dir():
            raise ImageError(f"{path}: a directory, not an image")
        if regular(path).stat().st_size == 0:
            raise ImageError(f"{path}: the file is empty")
        # Given a name, Pillow maps plain grey TIFFs into memory and turns them before it has read them: scrambled
        with path.open("rb") as file, Image.open(file) as image:
            megapixels = image.width * image.height / 1e6
            if megapixels > _allowed:
                raise ImageError(f"{path}: {megapixels:.0f} megapixels, more than --max-megapixels {_allowed:g} allows")
            yield image
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{path}: no such image") from None
    except NotRegular as e:
        raise ImageError(f"{path}: {e.strerror}") from None
    except Image.UnidentifiedImageError:
        raise ImageError(f"{path}: {failure} ({_why_unknown(path)})") from None
    except BROKEN as e:
        raise ImageError(f"{path}: {failure} ({first_line(e)})") from e


def upright(image: "Image.Image") -> "Image.Image":
    """Decode, and turn as the EXIF orientation says. Of several pages the first.

    Decoding takes up to 8 bytes a pixel for a moment, so large images are decoded one after the other, however many
    threads ask.
    """
    from PIL import ImageOps

    if image.width * image.height < LARGE:
        image.load()
        return ImageOps.exif_transpose(image)
    with _large:
        image.load()
        return ImageOps.exif_transpose(image)


def upright_size(image: "Image.Image") -> tuple[int, int]:
    """(width, height) as `upright` will give them, from the header alone."""
    width, height = image.size
    turned = image.format != "TIFF" and image.getexif().get(0x0112) in (5, 6, 7, 8)  # Pillow turns TIFFs itself
    return (height, width) if turned else (width, height)


def wide_colour(path: Path, image: "Image.Image") -> np.ndarray | None:
    """(H, W, 3) uint16, upright, of a colour PNG or TIFF with 16 bits a channel, whose lower eight Pillow drops; None
    for others. Transparency is left out. image: as `opened` gives it, not yet decoded."""
    import cv2

    if image.mode not in ("RGB", "RGBA") or not any("16" in str(tile.args) for tile in image.tile):
        return None
    values = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.ndim != 3:
        return None
    colours = values[:, :, 2::-1]
    return colours if image.format == "TIFF" else _turned(colours, image.getexif().get(0x0112, 1))  # as cv2 does TIFFs


def _turned(values: np.ndarray, orientation: int) -> np.ndarray:
    """values: (H, W, C) as stored -> upright, by the EXIF orientation (1 to 8; others mean 1)."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return values[:, ::-1] if orientation in (2, 3, 6, 7) else values


def _why_unknown(path: Path) -> str:
    """What is wrong with a file that Pillow does not recognise, and the way out."""
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    try:
        with path.open("rb") as file:
            tags = ImageFileDirectory_v2(file.read(8))
            file.seek(tags.next)
            tags.load(file)
        bits, kinds = tags.get(258, (0,))[0], tags.get(339, (1,))
        if 3 in kinds and bits != 32:
            return f"a TIFF of {bits}-bit floats, which are not read; save it with 32-bit floats"
    except BROKEN:
        pass
    return "its content is no known image format; save it as PNG, TIFF or JPEG"


def pages(image: "Image.Image") -> int:
    """How many pictures the file holds; the preview beside a photograph (MPO) is none."""
    return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)


def has_alpha(image: "Image.Image") -> bool:
    """Whether some pixels may be transparent: an alpha channel, or an entry of the header that names colours."""
    return image.mode in ("RGBA", "LA", "PA") or ("transparency" in image.info and image.mode in ("1", "L", "P", "RGB"))


def _pillow():
    """PIL.Image, silent. The filter is looked for every time because libraries and test runners replace the list."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # the limit is ours
    if not any(f[0] == "ignore" and f[3] is not None and f[3].pattern == PILLOW for f in list(warnings.filters)):
        warnings.filterwarnings("ignore", module=PILLOW)
    return Image
