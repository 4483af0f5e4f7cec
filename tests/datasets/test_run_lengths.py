"""COCO's run lengths against strings that pycocotools wrote, an encoder of the format's description, and bad input."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.datasets.masks import load_mask
from stages.datasets.run_lengths import decompressed, mask_of
from tests.datasets.test_riad import coco, index


def square(height, width, *boxes):
    mask = np.zeros((height, width), bool)
    for top, bottom, left, right in boxes:
        mask[top:bottom, left:right] = True
    return mask


WRITTEN = [  # by pycocotools 2.0's encode
    ("5220003", square(4, 5, (1, 3, 1, 4))),
    ("06", square(3, 2, (0, 3, 0, 2))),
    ("S18[2J", square(40, 3, (35, 40, 0, 1), (0, 3, 1, 2), (38, 40, 2, 3))),
]


@pytest.mark.parametrize(("text", "mask"), WRITTEN, ids=lambda v: v if isinstance(v, str) else "")
def test_what_pycocotools_wrote(text, mask):
    assert (mask_of({"size": list(mask.shape), "counts": text}, mask.shape) == mask).all()
    assert compressed(counts_of(mask)) == text, "the encoder of these tests writes the same"


def counts_of(mask):
    """Zeros and ones by turns, column by column."""
    counts, last = [0], False
    for value in mask.T.ravel().tolist():
        if value != last:
            counts.append(0)
        counts[-1] += 1
        last = value
    return counts


def compressed(counts):
    """As maskApi.c's rleToString, digit by digit."""
    text = ""
    for n, count in enumerate(counts):
        x = count - (counts[n - 2] if n > 2 else 0)
        while True:
            digit, x = x & 31, x >> 5
            more = x != (-1 if digit & 16 else 0)
            text += chr(48 + digit + 32 * more)
            if not more:
                break
    return text


@given(st.lists(st.integers(0, 10**7), max_size=30))
def test_every_list_of_numbers_comes_back(counts):
    assert decompressed(compressed(counts)) == counts


@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_every_mask_comes_back(height, width, data):
    pixels = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    mask = np.array(pixels).reshape(height, width)
    for counts in (counts_of(mask), compressed(counts_of(mask))):
        assert (mask_of({"counts": counts}, mask.shape) == mask).all()


@pytest.mark.parametrize(
    ("segmentation", "said"),
    [
        ({"counts": "52200"}, "run lengths of 13 px for an image of 5 x 4"),
        ({"counts": "5220003", "size": [5, 4]}, "run lengths of 4 x 5 px for an image of 5 x 4"),
        ({"counts": "522000b"}, "broken off"),
        ({"counts": "5220 003"}, "with ' '"),
        ({"counts": "522B"}, "no numbers of pixels"),
        ({"counts": [10**12, 1]}, "run lengths of 1000000000001 px"),
        ({"counts": [21, -1]}, "no numbers of pixels"),
        ({"counts": None}, "no list of numbers and no string"),
        ({}, "no list of numbers and no string"),
    ],
)
def test_broken_run_lengths_are_said(segmentation, said):
    with pytest.raises(ValueError, match=said):
        mask_of(segmentation, (4, 5))


def test_riad_is_indexed_with_compressed_run_lengths(tmp_path, save_image):
    mask = square(40, 60, (10, 30, 20, 50), (12, 14, 3, 9))
    for name in ("toy", "bread"):
        save_image(tmp_path / "riad" / name / "0.png", 1)
        runs = {"counts": compressed(counts_of(mask)), "size": [40, 60]}
        (tmp_path / "riad" / name / "c.json").write_text(json.dumps(coco(["0.png"], [(0, 7, runs)])))
    for image in index(tmp_path / "riad", tmp_path).values():
        assert image.error is None and (load_mask(image.masks[0]) == mask).all()
