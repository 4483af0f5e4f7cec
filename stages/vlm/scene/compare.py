"""Two images -> yes or no: does the second differ from the first? By their descriptions, word for word.

A stand-in for a vision-language model where none is at hand: it knows no object and no rule.
"""

from collections import Counter

import numpy as np

from stages.vlm.scene import attributes as look
from stages.vlm.scene.describe import things_on
from stages.vlm.scene.form import counted
from stages.vlm.scene.segment import Piece, coloured, even_light, filled, split_touching, working_size
from stages.vlm.scene.surface import NO_MARKS, describe_surface

HOLDER = 0.08  # of the picture: what is larger may hold other things
SIZES = ((0.004, "small"), (0.012, "medium"), (1.0, "large"))  # largest share of the picture


def answer_about_two(first: np.ndarray, second: np.ndarray) -> tuple[str, dict[str, float]]:
    """(text, {'yes': p, 'no': 1 - p}) for (H, W, 3) uint8 pictures; p = 1 - 1 / (1 + differing words), a
    monotone score and no probability of anything."""
    a, b = describe_freely(first), describe_freely(second)
    words_a, words_b = (Counter(t.strip(".").replace(",", "").split()) for t in (a, b))
    differing = sum(((words_a - words_b) | (words_b - words_a)).values())
    p = 1 - 1 / (1 + differing)
    if not differing:
        return f"No. Both images show {b}", {"yes": p, "no": 1 - p}
    return f"Yes. The first image shows {a} The second image shows {b}", {"yes": p, "no": 1 - p}


def describe_freely(rgb: np.ndarray) -> str:
    """'three medium round orange, two small round brown.' without any vocabulary; marks of the surface
    where nothing has colour."""
    rgb = working_size(rgb)
    even = even_light(rgb)
    things: list[Piece] = []
    for piece in split_touching(coloured(even)):
        large = filled(piece).mean() > HOLDER
        things += things_on(even, piece) if large else [piece]
    if not things:
        marks = describe_surface(rgb)
        return marks if marks != NO_MARKS else "nothing."
    return counted([_name(even, t) for t in things], [], noun_last=False) + "."


def _name(even: np.ndarray, piece: Piece) -> tuple[str, ...]:
    share = filled(piece).mean()
    size = next(name for most, name in SIZES if share <= most)
    return size, "long" if look.elongation(piece) > 2.5 else "round", look.colour_of(even, piece)
