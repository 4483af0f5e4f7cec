"""COCO's run lengths of a mask, as a list of numbers or compressed into a string: zeros and ones by turns, column by
column, zeros first.

In the string every number is written in base 32, lowest digit first, each digit as the character of 48 + digit, + 32
where another follows; the 16 of the last digit is the sign. From the fourth number on it is the difference from the
one two places before (pycocotools' maskApi.c).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np


def mask_of(segmentation: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    """`counts` of an annotation -> (H, W) bool. size: of its image, (H, W).

    Raises:
        ValueError, TypeError: `counts` is missing, broken or of another image's size.
    """
    counts, said = segmentation.get("counts"), segmentation.get("size")
    if said is not None and list(said) != list(size):
        raise ValueError(f"run lengths of {' x '.join(map(str, reversed(said)))} px for an image of {_px(size)}")
    if isinstance(counts, str):
        counts = decompressed(counts)
    if not isinstance(counts, list):
        raise ValueError("neither a polygon nor run lengths: `counts` is no list of numbers and no string")
    if any(not isinstance(n, int) or n < 0 for n in counts):
        raise ValueError("run lengths that are no numbers of pixels")
    if sum(counts) != size[0] * size[1]:
        raise ValueError(f"run lengths of {sum(counts)} px for an image of {_px(size)}")
    return np.repeat(np.arange(len(counts)) % 2 > 0, counts).reshape(size, order="F")


def decompressed(text: str) -> list[int]:
    """COCO's compressed run lengths as numbers. Raises ValueError when the string is none, or broken off."""
    counts: list[int] = []
    value = place = 0
    for character in text:
        digit = ord(character) - 48
        if not 0 <= digit < 64:
            raise ValueError(f"compressed run lengths with {character!r}, which they never hold")
        value |= (digit & 31) << place
        place += 5
        if not digit & 32:
            value -= (digit & 16) << (place - 4)
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = place = 0
    if place:
        raise ValueError("compressed run lengths that are broken off")
    return counts


def _px(size: Sequence[int]) -> str:
    return f"{size[1]} x {size[0]}"
