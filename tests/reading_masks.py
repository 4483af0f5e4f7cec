"""Masks as annotation tools, data sets and scripts write them: all mean tests.reading.truth."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.base.errors import ImageError
from stages.datasets.images import load_mask
from stages.datasets.manifest import read_manifest
from stages.datasets.trainable import unreadable
from stages.results.pixels import masks_of
from tests.reading import Kind, checked, indexed, photo, save, truth

T = truth()
CLASSES = T.astype(np.uint8)
CLASSES[15:20, 20:24] = 2


def read(path: Path) -> None:
    """The file means the truth."""
    assert load_mask(path).dtype == bool and (load_mask(path) == T).all()


def grey(value: int, name: str = "m.png", dtype=np.uint8, **options):
    return lambda folder: read(save(folder / name, T.astype(dtype) * dtype(value), **options))


def soft_edges() -> np.ndarray:
    """255 inside, ever darker outside: half of white runs along the edge of the truth."""
    import cv2

    distance = cv2.distanceTransform((~T).astype(np.uint8), cv2.DIST_L2, 5)
    return np.where(T, 255, np.clip(120 - 30 * distance, 0, 255)).astype(np.uint8)


def palette(index: np.ndarray, colours: list[int], path: Path, **options) -> Path:
    image = Image.fromarray(index)
    image = Image.frombytes("P", image.size, index.tobytes())
    image.putpalette(colours)
    image.save(path, **options)
    return path


def voc_colours() -> list[int]:
    """The colour map of Pascal VOC: 256 x (r, g, b)."""
    colours = []
    for index in range(256):
        bits = [(index >> n) & 1 for n in range(8)]
        colours += [sum(bits[c + 3 * k] << (7 - k) for k in range(3) if c + 3 * k < 8) for c in range(3)]
    return colours


def palette_with_alpha(folder: Path) -> None:
    alpha = bytes(min(255, 2 * n) for n in range(256))
    read(palette(soft_edges() // 2, [35, 164, 54] * 256, folder / "m.png", transparency=alpha))


def rgba(colour: tuple, alpha: np.ndarray, folder: Path) -> None:
    pixels = np.dstack([np.full((*T.shape, 3), colour, np.uint8), alpha.astype(np.uint8)])
    read(save(folder / "m.png", pixels))


def nothing_drawn(folder: Path) -> None:
    assert not load_mask(save(folder / "m.png", np.zeros((24, 32, 4), np.uint8) + np.uint8([9, 99, 9, 0]))).any()


def opaque(folder: Path) -> None:
    read(save(folder / "m.png", np.dstack([T * np.uint8(255)] * 3 + [np.full(T.shape, 255, np.uint8)])))


def grey_and_alpha(folder: Path) -> None:
    read(save(folder / "m.png", np.dstack([np.full(T.shape, 90, np.uint8), T * np.uint8(255)])))


def colour_key(folder: Path) -> None:
    save(folder / "m.png", T * np.uint8(200), transparency=0)
    read(folder / "m.png")


def voc(folder: Path) -> None:
    index = CLASSES.copy()
    index[2, 4:12] = index[9, 4:12] = 255
    read(palette(index, voc_colours(), folder / "m.png"))


def any_palette(folder: Path) -> None:
    for colours in ([0] * 768, [255, 255, 255] + [0, 0, 0] * 255, list(range(200, 203)) + [10, 20, 30] * 255):
        read(palette(CLASSES, colours, folder / "m.png"))
    read(palette(T * np.uint8(255), voc_colours(), folder / "m.png"))  # 255 alone is a class


def grey_palette(folder: Path) -> None:
    read(palette(soft_edges(), [v for n in range(256) for v in (n, n, n)], folder / "m.png"))


def colours(folder: Path) -> None:
    for first, second in (((0, 255, 0), (0, 255, 0)), ((255, 0, 0), (0, 0, 90)), ((1, 0, 0), (0, 2, 0))):
        pixels = np.zeros((24, 32, 3), np.uint8)
        pixels[T], pixels[15:20, 20:24] = first, second
        read(save(folder / "m.png", pixels))


def faint_classes(folder: Path) -> None:
    read(save(folder / "m.png", np.select([CLASSES == 1, CLASSES == 2], [np.uint8(255), np.uint8(85)], np.uint8(0))))


def many_classes(folder: Path) -> None:
    for ids in (range(1, 18), (1, *range(4, 59, 3))):
        for dtype in (np.uint8, np.uint16):
            index = np.zeros((40, 60), dtype)
            for n, value in enumerate(ids):
                index[5 * (n // 10) + 1 : 5 * (n // 10) + 5, 6 * (n % 10) + 1 : 6 * (n % 10) + 5] = value
            assert (load_mask(save(folder / "m.png", index)) == (index > 0)).all()


def thin_classes(folder: Path) -> None:
    pixels = np.zeros((60, 60), np.uint8)
    pixels[40:55, 5:20] = 255
    pixels[np.arange(30), np.arange(30)] = 100
    assert (load_mask(save(folder / "m.png", pixels)) == (pixels > 0)).all()
    strips = np.zeros((60, 60, 3), np.uint8)
    for n, colour in enumerate(np.random.default_rng(0).integers(1, 256, (20, 3))):
        strips[3 * n : 3 * n + 2, 5:50] = colour
    assert (load_mask(save(folder / "m.png", strips)) == strips.any(axis=2)).all()


def jpeg_noise_kept(folder: Path) -> None:
    for quality in (60, 90, 100):
        save(folder / "m.jpg", np.kron(T, np.ones((3, 3), bool)) * np.uint8(255), quality=quality)
        Image.open(folder / "m.jpg").save(folder / "m.png")
        assert (load_mask(folder / "m.png") == np.kron(T, np.ones((3, 3), bool))).all()


def colour_of_16_bits(folder: Path) -> None:
    import cv2

    for low in (1, 200, 65535):
        cv2.imwrite(str(folder / "m.png"), np.repeat(T[:, :, None] * np.uint16(low), 3, 2))
        read(folder / "m.png")


def quantised(folder: Path) -> None:
    pixels = np.zeros((24, 32, 3), np.uint8)
    pixels[T] = (255, 0, 0)
    read(palette((~T).astype(np.uint8), [255, 0, 0, 0, 0, 0], folder / "m.png"))


def one_bit(name: str):
    def try_it(folder: Path) -> None:
        Image.fromarray(T).save(folder / name)
        read(folder / name)

    return try_it


def gif(folder: Path) -> None:
    pixels = np.zeros((24, 32, 3), np.uint8)
    pixels[T] = (250, 40, 40)
    read(save(folder / "m.gif", pixels))


def jpeg_colour(folder: Path) -> None:
    pixels = np.zeros((24, 32, 3), np.uint8)
    pixels[T] = (0, 255, 0)
    read(save(folder / "m.jpg", pixels, quality=95, subsampling=0))


def turned(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    save(folder / "m.png", np.rot90(T * np.uint8(255)), exif=exif)
    read(folder / "m.png")


def refused(values: np.ndarray, why: str):
    def try_it(folder: Path) -> None:
        with pytest.raises(ImageError, match=f"m.tif: .*{why}"):
            load_mask(save(folder / "m.tif", values))

    return try_it


def no_image(folder: Path) -> None:
    (folder / "m.png").write_text("<svg/>")
    with pytest.raises(ImageError, match="m.png: cannot be decoded .*no known image format"):
        load_mask(folder / "m.png")


def reported(sentence: str, mask: np.ndarray, name: str = "x.png"):
    def try_it(folder: Path) -> None:
        save(folder / "p/ng/x.png", photo())
        save(folder / "p/gt" / name, mask)
        if name != "x.png":
            save(folder / "p/gt/x.png", T)
        indexed(folder / "p", test_anomalous="ng", masks="gt")
        assert sentence in checked(folder / "manifest.parquet")

    return try_it


def of_another_size(sentence: str, mask: np.ndarray):
    def try_it(folder: Path) -> None:
        reported(sentence, mask)(folder)
        wrong = [i for i in read_manifest(folder / "manifest.parquet").images if i.masks]
        lacks = unreadable(wrong, masks=True)
        assert len(lacks) == len(wrong) and all("x.png: 32 x 23 px, its image 32 x 24" in why for why in lacks.values())
        with pytest.raises(ImageError, match="x.png: 32 x 23 px, its image 32 x 24"):
            masks_of(wrong[0], (24, 32), 0)

    return try_it


KINDS = [
    Kind("palette with an alpha per index, edges anti-aliased", "anomalous from alpha 128 on", palette_with_alpha),
    Kind("RGBA, transparent background", "what is opaque", lambda f: rgba((35, 164, 54), T * 255, f)),
    Kind("RGBA, black strokes on transparent", "what is opaque", lambda f: rgba((0, 0, 0), T * 255, f)),
    Kind(
        "RGBA, half transparent strokes (alpha 90)", "what is not transparent", lambda f: rgba((9, 9, 200), T * 90, f)
    ),
    Kind("RGBA, alpha 0 everywhere", "empty", nothing_drawn),
    Kind("RGBA, opaque everywhere, white on black", "by colour", opaque),
    Kind("grey with alpha (LA)", "what is opaque", grey_and_alpha),
    Kind("grey with a transparent value (tRNS)", "what is opaque", colour_key),
    Kind("palette of Pascal VOC, `void` border (255)", "classes 1, 2, ...; void does not count", voc),
    Kind("palette of any colours (labelme)", "every index but 0", any_palette),
    Kind("palette that is a ramp of greys, soft edges", "by colour, from half of white on", grey_palette),
    Kind("one colour or several on black", "every colour", colours),
    *(Kind(f"grey {v} on 0", "every value but 0", grey(v)) for v in (1, 20, 100, 255)),
    Kind("class numbers 1 to 9 (VisA)", "every value but 0", lambda f: read(save(f / "m.png", CLASSES * np.uint8(4)))),
    Kind("classes as greys, 85 and 255", "both", faint_classes),
    Kind("17 or 20 classes of small numbers, 8 and 16 bits", "every value but 0", many_classes),
    Kind("thin lines and strips in darker tones", "every value but 0", thin_classes),
    Kind("PNG saved from a JPEG", "from half of white on", jpeg_noise_kept),
    Kind("16 bits a channel in colour, 1 to 65535", "every value but 0", colour_of_16_bits),
    Kind("quantised palette, black at another index than 0", "by colour", quantised),
    Kind("16 bits, 0 and 1", "every value but 0", grey(1, dtype=np.uint16)),
    Kind("16 bits, 0 and 65535", "every value but 0", grey(65535, dtype=np.uint16)),
    Kind("32-bit integers (TIFF), 0 and 1", "every value but 0", grey(1, "m.tif", np.int32)),
    Kind("32-bit integers (TIFF), 0 and 65535", "every value but 0", grey(65535, "m.tif", np.int32)),
    Kind("floats (TIFF), 0 and 1", "every value but 0", grey(1, "m.tif", np.float32)),
    Kind("1 bit, PNG", "white", one_bit("m.png")),
    Kind("1 bit, BMP", "white", one_bit("m.bmp")),
    Kind("1 bit, PBM", "white", one_bit("m.pbm")),
    Kind("BMP, 0 and 255", "white", grey(255, "m.bmp")),
    Kind("GIF, in colour", "every colour but black", gif),
    Kind(
        "WebP without loss, 0 and 100",
        "every value but 0",
        lambda f: read(save(f / "m.webp", np.repeat((T * np.uint8(100))[:, :, None], 3, 2), lossless=True)),
    ),
    Kind("JPEG, white on black", "from half of white on", grey(255, "m.jpg", quality=85)),
    Kind("JPEG, grey 60 on black", "from half of the largest value on", grey(60, "m.jpg", quality=95)),
    Kind("JPEG, green on black", "from half of white on", jpeg_colour),
    Kind("soft edges in grey", "from half of white on", lambda f: read(save(f / "m.png", soft_edges()))),
    Kind("mask with an EXIF orientation", "upright, as images are", turned),
    Kind(
        "mask with negative values",
        "cannot be read: `data check` and `evaluate` name it",
        refused(T.astype(np.int32) * -1, "negative or no numbers"),
    ),
    Kind(
        "mask with NaN",
        "cannot be read: `data check` and `evaluate` name it",
        refused(np.where(T, np.nan, 0).astype(np.float32), "negative or no numbers"),
    ),
    Kind("mask that is no image (SVG)", "cannot be read: `data check` and `evaluate` name it", no_image),
    Kind(
        "mask drawn the other way round",
        "`data check` names it",
        reported("all: masks of more than half of the image (drawn the other way round?) 1", ~T),
    ),
    Kind(
        "empty mask of an anomalous image",
        "`data check` names it",
        reported("all: empty masks of anomalous images 1", T & False),
    ),
    Kind(
        "mask of another size than its image",
        "never resized: `data check` names it; trainings and `evaluate` leave the image out, and say so",
        of_another_size("all: masks of another size than their image 1", T[:-1]),
    ),
    Kind(
        "mask of an image that is not there",
        "`data check` names it",
        reported("masks that belong to no anomalous image 1", T, "y.png"),
    ),
]
