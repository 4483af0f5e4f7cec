"""Which words tell two captions apart: for people, in scores and in the report."""

from difflib import SequenceMatcher


def differing_words(text: str, neighbour: str) -> tuple[list[str], list[str]]:
    """(missing, extra): words of `neighbour` that `text` lacks at their place, and words of `text` that
    `neighbour` lacks, each in order. Punctuation at a word's end is ignored."""
    a, b = _words(text), _words(neighbour)
    same = _aligned(a, b)
    in_a, in_b = {i for i, _ in same}, {j for _, j in same}
    return [w for j, w in enumerate(b) if j not in in_b], [w for i, w in enumerate(a) if i not in in_a]


def differing_places(text: str, neighbour: str) -> list[bool]:
    """For each blank-separated word of `text`: whether it differs from `neighbour` at that place."""
    a = _words(text)
    same = {i for i, _ in _aligned(a, _words(neighbour))}
    return [i not in same for i in range(len(a))]


def _aligned(a: list[str], b: list[str]) -> list[tuple[int, int]]:
    """Places (in a, in b) of equal words: one by one for texts of one form and length, otherwise along the
    longest runs that they share."""
    if len(a) == len(b):
        return [(i, i) for i, (x, y) in enumerate(zip(a, b, strict=True)) if x == y]
    blocks = SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks()
    return [(k.a + n, k.b + n) for k in blocks for n in range(k.size)]


def _words(text: str) -> list[str]:
    return [w.strip(".,;:").lower() for w in text.split()]
