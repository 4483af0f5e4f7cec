"""Images as cameras, converters and scripts write them."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.base.errors import ImageError
from stages.datasets.images import load_rgb
from stages.datasets.opening import allow_megapixels
from tests.reading import Kind, checked, indexed, photo, save

P = photo()
GREY = P[:, :, 0]
ENDINGS = ("jpg", "jpeg", "jpe", "jfif", "png", "bmp", "tif", "tiff", "webp", "gif", "jp2", "ppm", "pnm")


def shows(path: Path, expected: np.ndarray, tolerance: int = 0) -> None:
    """The file is read as these colours, or as this grey in all three channels."""
    expected = expected if expected.ndim == 3 else np.repeat(expected[:, :, None], 3, 2)
    rgb = load_rgb(path)
    assert rgb.dtype == np.uint8 and rgb.shape == expected.shape
    assert np.abs(rgb.astype(int) - expected).max() <= tolerance


def scaled(white: float, dtype, name: str = "x.tif"):
    """Grey values in 0..white, the picture's own maximum below it."""
    return lambda folder: shows(save(folder / name, (GREY * (white / 255)).astype(dtype)), GREY, 1)


def refused(values: np.ndarray, why: str):
    def try_it(folder: Path) -> None:
        with pytest.raises(ImageError, match=f"x.tif: .*{why}"):
            load_rgb(save(folder / "x.tif", values))

    return try_it


def small(white: int):
    """12-bit data: a picture that is darker than another of the same camera stays darker."""

    def try_it(folder: Path) -> None:
        for share in (1, 0.5):
            shows(save(folder / "x.png", (GREY * share * (white / 255)).astype(np.uint16)), GREY * share, 1)

    return try_it


def colour_of_12_bits(folder: Path) -> None:
    import cv2

    cv2.imwrite(str(folder / "x.png"), (P[:, :, ::-1] * (4095 / 255)).astype(np.uint16))
    shows(folder / "x.png", P, 1)
    cv2.imwrite(str(folder / "x.png"), P[:, :, ::-1] * np.uint16(257))
    shows(folder / "x.png", P, 0)


def two_whites(folder: Path) -> None:
    for n, white in enumerate((4095, 65535)):
        save(folder / f"p/{n}.png", (GREY * (white / 255)).astype(np.uint16))
    indexed(folder / "p")
    assert "all: images of more than 8 bits that are read differently, 1 with white at 4095" in checked(
        folder / "manifest.parquet"
    )


def pgm(folder: Path) -> None:
    values = (GREY * (4095 / 255)).astype(">u2")
    (folder / "x.pgm").write_bytes(b"P5 32 24 4095\n" + values.tobytes())
    shows(folder / "x.pgm", GREY, 1)
    (folder / "x.pgm").write_bytes(b"P5 32 24 65535\n" + (values // 64).astype(">u2").tobytes())
    assert load_rgb(folder / "x.pgm").max() <= 1, "white is stated, and this is black"


def clear(folder: Path) -> None:
    shows(save(folder / "x.png", np.dstack([P, np.zeros((24, 32), np.uint8)])), P)


def partly_clear(folder: Path) -> None:
    alpha = np.where(GREY > 90, 255, 0).astype(np.uint8)
    shows(save(folder / "x.png", np.dstack([P, alpha])), np.where(alpha[:, :, None] > 0, P, 255))


def turned(name: str, **options):
    """An EXIF orientation: pixels, and the manifest's size, are those of the upright picture."""

    def try_it(folder: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        save(folder / "p" / name, P, exif=exif, **options)
        shows(folder / "p" / name, np.rot90(P, -1), 3)
        rows, _ = indexed(folder / "p")
        assert (rows[name].width, rows[name].height) == (24, 32)
        assert not checked(folder / "manifest.parquet")

    return try_it


def turned_grey_tiffs(folder: Path) -> None:
    """Uncompressed grey was scrambled by Pillow where width and height change places."""
    for values in (GREY, GREY * np.uint16(257)):
        turns = ((5, GREY.T), (6, np.rot90(GREY, -1)), (7, GREY[::-1, ::-1].T), (8, np.rot90(GREY)))
        for orientation, upright in turns:
            exif = Image.Exif()
            exif[0x0112] = orientation
            save(folder / "p/x.tif", values, exif=exif)
            shows(folder / "p/x.tif", upright)
            rows, _ = indexed(folder / "p")
            assert (rows["x.tif"].width, rows["x.tif"].height) == upright.shape[::-1]


def turned_wide_colour(folder: Path) -> None:
    import cv2

    exif = Image.Exif()
    for orientation, upright in enumerate(
        (P, P[:, ::-1], P[::-1, ::-1], P[::-1], P.swapaxes(0, 1), np.rot90(P, -1), P[::-1, ::-1].swapaxes(0, 1),
         np.rot90(P)), 1,
    ):  # fmt: skip
        exif[0x0112] = orientation
        said = exif.tobytes().removeprefix(b"Exif\0\0")
        chunk = struct.pack(">I", len(said)) + b"eXIf" + said + struct.pack(">I", zlib.crc32(b"eXIf" + said))
        raw = cv2.imencode(".png", (P[:, :, ::-1] * (4095 / 255)).astype(np.uint16))[1].tobytes()
        (folder / "x.png").write_bytes(raw[:33] + chunk + raw[33:])
        shows(folder / "x.png", upright, 1)


def written_by_scripts(dtype):
    """Writes a TIFF of this type, which Pillow does not write; returns its path."""

    def write(folder: Path) -> Path:
        import cv2

        cv2.imwrite(str(folder / "x.tif"), (GREY * (32767 / 255)).astype(dtype))
        return folder / "x.tif"

    return write


def signed(folder: Path) -> None:
    shows(written_by_scripts(np.int16)(folder), GREY, 1)


def doubles(folder: Path) -> None:
    with pytest.raises(ImageError, match="x.tif: .*a TIFF of 64-bit floats, .*save it with 32-bit floats"):
        load_rgb(written_by_scripts(np.float64)(folder))


def pages(name: str):
    def try_it(folder: Path) -> None:
        save(folder / "p" / name, GREY, save_all=True, append_images=[Image.fromarray(255 - GREY)])
        shows(folder / "p" / name, GREY)
        _, said = indexed(folder / "p")
        assert f"1 file with several pages, of which the first is read: {name}" in said

    return try_it


def too_large(folder: Path) -> None:
    Image.new("1", (20000, 10000)).save(folder / "p.png")  # 200 megapixels in a few kB
    with pytest.raises(ImageError, match="p.png: 200 megapixels, more than --max-megapixels 179 allows"):
        load_rgb(folder / "p.png")


def large_on_request(folder: Path) -> None:
    save(folder / "p/x.png", P)
    try:
        allow_megapixels(0.0005)
        rows, _ = indexed(folder / "p")
        assert "0 megapixels, more than --max-megapixels 0.0005 allows" in rows["x.png"].error
        allow_megapixels(0.001)
        assert not indexed(folder / "p")[0]["x.png"].error
    finally:
        allow_megapixels(179)


def damaged_metadata(folder: Path) -> None:
    save(folder / "x.jpg", P, exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\xee" * 40)
    code = "import sys, pathlib; from stages.datasets.images import load_rgb; load_rgb(pathlib.Path(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", code, folder / "x.jpg"], capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr


def converted(mode: str, name: str, tolerance: int = 0):
    def try_it(folder: Path) -> None:
        image = Image.fromarray(P).convert(mode)
        image.save(folder / name)
        shows(folder / name, np.asarray(image.convert("RGB")), tolerance)

    return try_it


def every_ending(folder: Path) -> None:
    for ending in ENDINGS:
        kind = {"jfif": "JPEG", "jpe": "JPEG", "pnm": "PPM"}.get(ending)
        save(folder / f"p/x.{ending}", P, **({"format": kind} if kind else {}))
    save(folder / "p/x.pgm", GREY)
    Image.fromarray(GREY > 90).save(folder / "p/x.pbm")
    save(folder / "p/X.JPG", P)
    rows, said = indexed(folder / "p")
    assert len(rows) == len(ENDINGS) + 3 and not any(i.error for i in rows.values()) and "passed" not in said


def failed(content, why: str, header: bool = True):
    """A row with `error`, of `data index` where the header shows it, else of the stage that decodes."""

    def try_it(folder: Path) -> None:
        whole = save(folder / "p/a.jpg", photo(0, (200, 300))).read_bytes()
        (folder / "p/x.jpg").write_bytes(content(whole))
        rows, _ = indexed(folder / "p")
        assert bool(rows["x.jpg"].error) == header and not rows["a.jpg"].error
        assert not header or why in rows["x.jpg"].error
        with pytest.raises(ImageError, match=r"p/x.jpg: .*"):
            load_rgb(folder / "p/x.jpg")
        assert "all: unreadable 1" in checked(folder / "manifest.parquet")

    return try_it


KINDS = [
    Kind("floats from 0 to 1 (TIFF)", "white is 1", scaled(1, np.float32)),
    Kind("floats from 0 to 255 (TIFF)", "white is 255", scaled(255, np.float32)),
    Kind("floats from 0 to 65535 (TIFF)", "white is 65535", scaled(65535, np.float32)),
    Kind(
        "floats a little outside of 0 to 1 (resampled)",
        "white is 1, the rest is cut off",
        lambda f: shows(save(f / "x.tif", np.float32([[-0.02, 0, 0.5, 1, 1.03]])), np.uint8([[0, 0, 128, 255, 255]])),
    ),
    Kind("floats with NaN", "failed row", refused(np.float32([[0, np.nan]]), "no numbers")),
    Kind(
        "floats up to a million",
        "failed row, with the range",
        refused(np.float32([[0, 1e6]]), "from 0 to 1e.06; expected 0 to 1, 255"),
    ),
    Kind("negative floats", "failed row, with the range", refused(np.float32([[-3, 1]]), "grey values from -3 to 1")),
    Kind("32-bit integers up to 255 (TIFF)", "white is 255", scaled(255, np.int32)),
    Kind("32-bit integers up to 65535 (TIFF)", "white is 65535", scaled(65535, np.int32)),
    Kind(
        "32-bit integers up to a million",
        "failed row, with the range",
        refused(np.int32([[0, 10**6]]), "from 0 to 1e.06; expected"),
    ),
    Kind("16 bits, the whole range", "white is 65535", scaled(65535, np.uint16, "x.png")),
    Kind("12-bit data in 16 bits", "white is 4095, whatever the picture's own maximum", small(4095)),
    Kind("8-bit data in 16 bits", "white is 255", lambda f: shows(save(f / "x.png", GREY.astype(np.uint16)), GREY)),
    Kind("12-bit data in 16 bits, in colour (PNG)", "white is 4095", colour_of_12_bits),
    Kind("12-bit and 16-bit pictures in one data set", "`data check` names both", two_whites),
    Kind("PGM with 16 bits", "white is what the file states", pgm),
    Kind("alpha 0 everywhere", "the colours as they are", clear),
    Kind("partly transparent", "over white", partly_clear),
    Kind(
        "EXIF orientation, JPEG",
        "upright; width and height in the manifest, too",
        turned("x.jpg", quality=100, subsampling=0),
    ),
    Kind("EXIF orientation, PNG", "upright", turned("x.png")),
    Kind("EXIF orientation, TIFF", "upright", turned("x.tif")),
    Kind("EXIF orientation, uncompressed grey TIFF, 8 and 16 bits", "upright", turned_grey_tiffs),
    Kind("EXIF orientation, 12-bit colour in 16 bits (PNG)", "upright, white is 4095", turned_wide_colour),
    Kind("signed 16 bits (TIFF)", "white is 32767, as they cannot hold 65535", signed),
    Kind("64-bit floats (TIFF)", "failed row that says to save 32 bits", doubles),
    Kind("several pages (TIFF)", "the first; `data index` names the file", pages("x.tif")),
    Kind("animation (GIF)", "the first picture; `data index` names the file", pages("x.gif")),
    Kind("more than 179 megapixels", "a failed row that names --max-megapixels", too_large),
    Kind("within a larger or smaller --max-megapixels", "read, or a failed row", large_on_request),
    Kind("damaged metadata", "read, without warnings", damaged_metadata),
    Kind("CMYK (JPEG)", "read", converted("CMYK", "x.jpg", 12)),
    Kind("palette (PNG)", "read", converted("P", "x.png")),
    Kind("1 bit (PNG)", "read", converted("1", "x.png")),
    Kind("grey with alpha (PNG)", "read", converted("LA", "x.png")),
    Kind(f"endings {', '.join(ENDINGS)}, pgm, pbm, in any case", "images", every_ending),
    Kind("truncated", "failed row where it is decoded", failed(lambda w: w[: len(w) * 9 // 10], "", header=False)),
    Kind("empty file", "failed row", failed(lambda w: b"", "the file is empty")),
    Kind("text named .jpg", "failed row", failed(lambda w: b"no image", "not an image (its content is no known")),
    Kind(
        "HEIC named .jpg (telephones)",
        "failed row that says what to save it as",
        failed(lambda w: b"\0\0\0\x18ftypheic" + b"\0" * 99, "save it as PNG, TIFF or JPEG"),
    ),
]
