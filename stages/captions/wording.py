"""Which words tell two captions apart: for people, in scores and in the report."""

from difflib import SequenceMatcher

MOST_PAIRS = 500**2  # of words, between which common runs are searched for: that takes more than linear time


def differing_words(text: str, neighbour: str) -> tuple[list[str], list[str]]:
    """(missing, extra): words of `neighbour` that `text` lacks at their place, and words of `text` that
    `neighbour` lacks, each in order. Punctuation at a word's end is ignored."""
    a, b = _words(text), _words(neighbour)
    same = _aligned(a, b)
    in_a, in_b = {i for i, _ in same}, {j for _, j in same}
    return [w for j, w in enumerate(b) if j not in in_b], [w for i, w in enumerate(a) if i not in in_a]


def both_differ(text: str, neighbour: str) -> tuple[list[bool], list[bool]]:
    """`differing_places` of either text beside the other."""
    a, b = _words(text), _words(neighbour)
    same = _aligned(a, b)
    in_a, in_b = {i for i, _ in same}, {j for _, j in same}
    return [i not in in_a for i in range(len(a))], [j not in in_b for j in range(len(b))]


def differing_places(text: str, neighbour: str) -> list[bool]:
    """For each blank-separated word of `text`: whether it differs from `neighbour` at that place."""
    a = _words(text)
    same = {i for i, _ in _aligned(a, _words(neighbour))}
    return [i not in same for i in range(len(a))]


def _aligned(a: list[str], b: list[str]) -> list[tuple[int, int]]:
    """Places (in a, in b) of equal words: one by one for texts of one form and length, otherwise along the
    longest runs that they share; very long texts from both ends."""
    if len(a) == len(b):
        return [(i, i) for i, (x, y) in enumerate(zip(a, b, strict=True)) if x == y]
    if len(a) * len(b) > MOST_PAIRS:
        return _from_both_ends(a, b)
    blocks = SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks()
    return [(k.a + n, k.b + n) for k in blocks for n in range(k.size)]


def _from_both_ends(a: list[str], b: list[str]) -> list[tuple[int, int]]:
    """What two texts begin and end with alike, without a search for anything between: linear."""
    n = min(len(a), len(b))
    begun = next((i for i in range(n) if a[i] != b[i]), n)
    ended = next((i for i in range(n - begun) if a[-1 - i] != b[-1 - i]), n - begun)
    return [(i, i) for i in range(begun)] + [(len(a) - i, len(b) - i) for i in range(ended, 0, -1)]


def _words(text: str) -> list[str]:
    return [w.strip(".,;:").lower() for w in text.split()]
