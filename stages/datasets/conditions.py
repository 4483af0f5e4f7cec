"""Capture conditions, and what `data augment` makes of them."""

from collections import Counter
from collections.abc import Iterable

from stages.datasets.config import AUGMENTATIONS


def split_condition(condition: str | None) -> tuple[str | None, tuple[str, ...]]:
    """'white_bg+rotate90' -> ('white_bg', ('rotate90',)); what `data augment` made of a condition, undone."""
    parts = condition.split("+") if condition else []
    kinds = tuple(p for p in parts if p in AUGMENTATIONS)
    return "+".join(p for p in parts if p not in AUGMENTATIONS) or None, kinds


def some_without(conditions: Iterable[tuple[str, str | None]]) -> tuple[str, int, str] | None:
    """(data set, condition) of images -> the first data set where some have a capture condition and some have none, how
    many have none, and a condition that others have. Means over conditions would be called as the images without."""
    counts = Counter((dataset, split_condition(condition)[0]) for dataset, condition in conditions)
    for (dataset, base), n in counts.items():
        if base is None and (other := next((c for d, c in counts if d == dataset and c), None)):
            return dataset, n, other
    return None
