"""Which words tell two captions apart: for people, in scores and in the report."""

from difflib import SequenceMatcher


def differing_words(text: str, neighbour: str) -> tuple[list[str], list[str]]:
    """(missing, extra): words of `neighbour` that `text` lacks, and words of `text` that `neighbour`
    lacks, each in order. Punctuation at a word's end is ignored."""
    a, b = _words(text), _words(neighbour)
    missing, extra = [], []
    for kind, a0, a1, b0, b1 in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if kind != "equal":
            extra += a[a0:a1]
            missing += b[b0:b1]
    return missing, extra


def differing_places(text: str, neighbour: str) -> list[bool]:
    """For each blank-separated word of `text`: whether it differs from `neighbour` at that place."""
    a, b = _words(text), _words(neighbour)
    same = [False] * len(a)
    for block in SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks():
        same[block.a:block.a + block.size] = [True] * block.size
    return [not s for s in same]


def _words(text: str) -> list[str]:
    return [w.strip(".,;:").lower() for w in text.split()]
