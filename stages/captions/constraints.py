"""The paper's three constraints on a negative text (section 4.2), checked word by word."""

import re
from collections.abc import Collection, Set
from functools import lru_cache

from stages.captions.vocabulary import meanings, named, singular

LONGEST = 20_000  # characters of a caption that is rewritten: some 4,000 words
Edit = dict[str, str]  # attribute, before, after: a row of the `edits` column


class Rejected(ValueError):
    """The rewrite breaks a constraint; the message says which."""


def words_of(text: str) -> list[str]:
    """Words and punctuation marks, in order."""
    return re.findall(r"[A-Za-z0-9'-]+|[^\sA-Za-z0-9]", text)


def check_negative(text: str, negative: str, normals: Collection[str]) -> list[Edit]:
    """Return the edits that turn `text` into `negative`, or raise Rejected:

    (i) structure and length: as many sentences, clauses and words, at most half of them (or two, for a
    swap in a short caption) replaced;
    (ii) replacements only: every other word stays in its place;
    (iii) at least one word that names an attribute gives way to one that excludes it; and the result is
    none of `normals`, the captions of the task's normal images.
    """
    before, after = words_of(text), words_of(negative)
    if [w for w in before if not w[0].isalnum()] != [w for w in after if not w[0].isalnum()]:
        raise Rejected("structure: the sentences or clauses differ")
    if len(before) != len(after):
        raise Rejected(f"replacement only: {len(before)} words became {len(after)}")
    changed = [i for i, (b, a) in enumerate(zip(before, after, strict=True)) if b.lower() != a.lower()]
    words = sum(w[0].isalnum() for w in before)
    if len(changed) > max(words / 2, 2):
        raise Rejected(f"structure: {len(changed)} of {words} words replaced")
    present = named(before), named(after)
    edits = [
        {"attribute": _attribute(before, after, i, *present), "before": before[i], "after": after[i]} for i in changed
    ]
    if not any(e["attribute"] != "other" for e in edits):
        raise Rejected("contradiction: no attribute changed")
    if _form(negative) in _forms(frozenset(normals)):
        raise Rejected("contradiction: it is the caption of another normal image")
    return edits


@lru_cache(256)
def _forms(texts: frozenset[str]) -> frozenset[str]:
    """Of the captions of a task, once for all its rows."""
    return frozenset(map(_form, texts))


def _form(text: str) -> str:
    return " ".join(words_of(text)).lower()


def _attribute(before: list[str], after: list[str], at: int, old_words: Set[str], new_words: Set[str]) -> str:
    """The attribute that a replacement contradicts; 'other' for agreement (kiwi -> kiwis) and the rest. old_words,
    new_words: `named` of both texts."""
    old, new = singular(before[at].lower()), singular(after[at].lower())
    if old == new:
        return "other"
    readings = meanings(before, at, old_words)
    for attribute, group in readings:
        if new in group or after[at].lower() in group:
            return attribute
    common = {a for a, _ in readings} & {a for a, _ in meanings(after, at, new_words)}
    return min(common) if common else "other"
