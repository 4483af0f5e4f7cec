"""Every kind of file of docs/reading.md: read right, or refused with a line."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.datasets import folder
from stages.datasets.images import load_mask
from tests import reading_annotations, reading_good_and_new, reading_images, reading_masks, reading_trees
from tests.processes import called
from tests.reading import Kind, checked, indexed, photo, save

PARTS = {
    "Images": reading_images.KINDS,
    "Masks": reading_masks.KINDS,
    "Folders, labels and annotations": reading_trees.KINDS + reading_annotations.KINDS,
    "Good and new pictures": reading_good_and_new.KINDS,
}
PAGE = Path(__file__).parents[2] / "docs" / "reading.md"
COOKIES = (Path(__file__).parents[3] / "shared" / "data" / "cookies").resolve()


def table(kinds: list[Kind]) -> str:
    """As it stands in docs/reading.md; `python -m tests.datasets.test_reading` writes it there."""
    return "\n".join(["| what | what happens |", "|---|---|", *(f"| {k.name} | {k.outcome} |" for k in kinds)])


@pytest.mark.parametrize("kind", [k for kinds in PARTS.values() for k in kinds], ids=lambda k: k.name)
def test_kind(kind, tmp_path):
    kind.try_it(tmp_path)


def test_the_page_lists_these_kinds():
    text = PAGE.read_text()
    for part, kinds in PARTS.items():
        assert f"## {part}\n" in text and table(kinds) in text, "python -m tests.datasets.test_reading writes it"
        assert len({k.name for k in kinds}) == len(kinds)


# -- masks: every form x every value x any shape -----------------------------------------------------------------


def channels(value: int, which: tuple[int, ...]):
    def make(mask: np.ndarray) -> Image.Image:
        pixels = np.zeros((*mask.shape, 3), np.uint8)
        pixels[mask] = [value if c in which else 0 for c in range(3)]
        return Image.fromarray(pixels)

    return make


def see_through(value: int, mode: str):
    def make(mask: np.ndarray) -> Image.Image:
        colour = Image.new(mode[:-1], mask.shape[::-1], value if mode == "LA" else (value, 9, 200))
        colour.putalpha(Image.fromarray(mask * np.uint8(255)))
        return colour

    return make


def indices(value: int, transparency: bool):
    def make(mask: np.ndarray) -> Image.Image:
        image = Image.frombytes("P", mask.shape[::-1], (mask * np.uint8(value)).tobytes())
        image.putpalette([(7 * value) % 256, 30, 200] * 256)
        if transparency:
            image.info["transparency"] = bytes([0] + [255] * 255)
        return image

    return make


FORMS = {
    "grey.png": lambda v: lambda m: Image.fromarray(m * np.uint8(v)),
    "grey.bmp": lambda v: lambda m: Image.fromarray(m * np.uint8(v)),
    "grey.tif": lambda v: lambda m: Image.fromarray(m * np.uint8(v)),
    "16.png": lambda v: lambda m: Image.fromarray(m * np.uint16(v * 257)),
    "16-low.tif": lambda v: lambda m: Image.fromarray(m * np.uint16(v)),
    "32.tif": lambda v: lambda m: Image.fromarray(m * np.int32(v * 99)),
    "float.tif": lambda v: lambda m: Image.fromarray(m * np.float32(v / 255)),
    "one-bit.png": lambda v: lambda m: Image.fromarray(m),
    "red.png": lambda v: channels(v, (0,)),
    "green.png": lambda v: channels(v, (1,)),
    "yellow.bmp": lambda v: channels(v, (0, 1)),
    "la.png": lambda v: see_through(v, "LA"),
    "rgba.png": lambda v: see_through(v, "RGBA"),
    "palette.png": lambda v: indices(v, False),
    "palette-alpha.png": lambda v: indices(v, True),
}


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    form=st.sampled_from(sorted(FORMS)),
    value=st.integers(1, 255) | st.sampled_from([1, 20, 100, 127, 128, 255]),
    mask=arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))),
)
def test_every_form_of_mask_is_read_exactly(tmp_path, form, value, mask):
    FORMS[form](value)(mask).save(tmp_path / form)
    assert (load_mask(tmp_path / form) == mask).all()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    value=st.integers(40, 255),
    quality=st.integers(85, 100),
    top=st.integers(0, 30),
    left=st.integers(0, 30),
    size=st.integers(8, 30),
)
def test_noise_of_jpeg_does_not_count(tmp_path, value, quality, top, left, size):
    mask = np.zeros((64, 64), bool)
    mask[top : top + size, left : left + size] = True
    Image.fromarray(mask * np.uint8(value)).save(tmp_path / "m.jpg", quality=quality)
    assert (load_mask(tmp_path / "m.jpg") == mask).all()


# -- the limit of size, and masks drawn into --out ------------------------------------------------------------------


@pytest.mark.slow
def test_the_limit_reaches_the_processes_that_decode(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for n in range(3):
        save(tmp_path / f"p/{n}.png", photo(n))
    done = called("data", "index", "folder", "p", "--out", "m")
    assert done.returncode == 0, done.stderr
    caption = ("caption", "m", "--vlm", "scene", "--out", "c", "--max-errors", 0)
    done = called(*caption, "--max-megapixels", "0.0005")
    assert done.returncode == 3 and "more than --max-megapixels 0.0005 allows" in done.stderr, done.stderr
    done = called(*caption)
    assert done.returncode == 0 and "3 new" in done.stderr, done.stderr
    done = called("data", "check", "m", "--max-megapixels", "-1")
    assert (done.returncode, done.stderr) == (2, "adcli: --max-megapixels -1: expected a number above 0\n")


def test_drawn_masks_come_back_and_change_with_their_annotations(tmp_path):
    save(tmp_path / "p/b.png", photo())
    corners = [[2, 4], [8, 9]]
    for x in (2, 5):
        corners[0][0] = x
        (tmp_path / "p/b.json").write_text(
            json.dumps({"shapes": [{"label": "hole", "shape_type": "rectangle", "points": corners}]})
        )
        mask = indexed(tmp_path / "p", annotations=tmp_path / "p")[0]["b.png"].masks[0]
        assert load_mask(mask).sum() == 6 * (9 - x)
        mask.unlink()
        assert indexed(tmp_path / "p", annotations=tmp_path / "p")[0]["b.png"].masks[0].is_file(), "not whole"
    with pytest.raises(InputError, match="annotations was"):
        (tmp_path / "p/b.json").write_text((tmp_path / "p/b.json").read_text() + " ")
        folder.run(
            folder.FolderConfig(root=tmp_path / "p", out=tmp_path / "manifest.parquet", annotations=tmp_path / "p"),
            RunOptions(quiet=True),
        )


# -- real photographs ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not COOKIES.is_dir(), reason="the photographs of biscuits are not here")
def test_cookies_whole(tmp_path):
    """A map that is the true mask is a perfect map; it had a pixel AUROC of 0.47 when alpha was not read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from stages.artifacts.reader import read_table
    from stages.artifacts.tables import MAPS, METRICS, SCORES
    from stages.evaluate import images as evaluate

    out = tmp_path / "m.parquet"
    rows, said = indexed(
        COOKIES, out=out, test_normal="images/normal-*", test_anomalous="images/anomaly-*", masks="masks"
    )
    assert "31 test normal, 32 test anomalous" in said and "without a mask" not in said and not checked(out)
    areas, maps, scores = [], [], []
    for image in rows.values():
        truth = np.zeros((image.height, image.width), bool)
        if image.masks:
            truth = np.asarray(Image.open(image.masks[0]).convert("RGBA"))[:, :, 3] >= 128
            assert (load_mask(image.masks[0]) == truth).all()
            areas.append(100 * truth.mean())
        image_id = f"cookies/{image.file.relative_to(COOKIES)}"
        maps.append(
            {
                "image_id": image_id,
                "method": "true",
                "height": image.height,
                "width": image.width,
                "map": truth.astype(np.float16).tobytes(),
            }
        )
        scores.append({"image_id": image_id, "method": "true", "score": float(truth.mean())})
    assert (round(min(areas), 2), round(np.mean(areas), 2), round(max(areas), 2)) == (1.15, 2.83, 6.69)
    for name, schema, content in (("maps", MAPS, maps), ("scores", SCORES, scores)):
        pq.write_table(pa.Table.from_pylist(content, schema=schema.schema), tmp_path / f"{name}.parquet")
    evaluate.run(
        evaluate.EvaluateConfig(
            scores=tmp_path / "scores.parquet", manifest=out, out=tmp_path / "metrics", maps=tmp_path / "maps.parquet"
        ),
        RunOptions(quiet=True),
    )
    values = {r["metric"]: r["value"] for r in read_table(tmp_path / "metrics", METRICS).to_pylist()}
    assert values["pixel_auroc"] == 1.0 and values["pro@0.3"] == pytest.approx(1.0, abs=1e-9), values


def test_masks_beside_the_pictures_are_not_taken_for_pictures_without_a_word(tmp_path, save_image):
    """The shortest command on a tree as annotation tools leave it."""
    for name in ("images/0", "images/1", "Masks/0", "maskedball/0"):
        save_image(tmp_path / "d" / f"{name}.png")
    _, said = indexed(tmp_path / "d", out=tmp_path / "m")
    assert "1 image in folders called Masks, taken as pictures: Masks/0.png (--masks, if they are masks)" in said
    _, said = indexed(tmp_path / "d", out=tmp_path / "m2", test_anomalous="images", masks="Masks")
    assert "taken as pictures" not in said


if __name__ == "__main__":
    text = PAGE.read_text()
    for part, kinds in PARTS.items():
        head, _, rest = text.partition(f"## {part}\n")
        prose, _, rest = rest.partition("| what | what happens |")
        after = rest[rest.index("\n\n") :] if "\n\n" in rest else "\n"
        text = f"{head}## {part}\n{prose}{table(kinds)}{after}"
    PAGE.write_text(text)
