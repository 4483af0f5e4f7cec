"""The paper's three constraints on a negative text (section 4.2), checked word by word."""

import re
from collections import Counter
from collections.abc import Collection, Set
from functools import lru_cache

from stages.captions.facts import FUNCTION_WORDS, facts, plain
from stages.captions.vocabulary import meanings, named

LONGEST = 20_000  # characters of a caption that is rewritten: some 4,000 words
Edit = dict[str, str]  # attribute, before, after: a row of the `edits` column
LABEL = re.compile(
    r"[\s*_#]*(?:(?:here is|this is|the|a|my|rewritten|revised|new|negative|modified|contradict\w*)\s+)*"
    r"(?:description|caption|rewrite|answer|output|text|form)[*_]*\s*:[\s*_]*",
    re.IGNORECASE,
)
QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "`": "`", "*": "*"}


class Rejected(ValueError):
    """The rewrite breaks a constraint; the message says which."""


def words_of(text: str) -> list[str]:
    """Words and punctuation marks, in order."""
    return re.findall(r"[A-Za-z0-9'-]+|[^\sA-Za-z0-9]", text)


def mended(text: str, answer: str) -> str:
    """A model's rewrite of `text` without what is form alone: an echoed label in front ("Description:"), quotes around
    it; with the full stop that the caption ends with."""
    answer = answer.strip()
    for _ in range(3):  # a label in quotes, quotes after a label
        if not LABEL.match(text) and (label := LABEL.match(answer)):
            answer = answer[label.end() :]
        while len(answer) > 1 and QUOTES.get(answer[0]) == answer[-1] and text[:1] != answer[0]:
            answer = answer[1:-1].strip()
    return answer + text.rstrip()[-1:] if text.rstrip().endswith((".", "!")) and answer[-1:].isalnum() else answer


def check_negative(text: str, negative: str, normals: Collection[str]) -> list[Edit]:
    """Return the edits that turn `text` into `negative`, or raise Rejected:

    (i) structure and length: as many sentences, clauses and words; words that carry no attribute (the, of, is) stand
    where they stood;
    (ii) replacements only: nothing is inserted or left out;
    (iii) contradiction: what is said differs from `text`, by more than letter case, number, digits for words, synonyms
    or an order that means nothing ("two kiwis, three oranges"), and is not what one of `normals` says, the captions of
    the task's normal images. Words that no list of ours has count, too (bolt -> hammer), and so does pure order
    ("spoon, fork" for "fork, spoon").
    """
    before, after = words_of(text), words_of(negative)
    if [w for w in before if not w[0].isalnum()] != [w for w in after if not w[0].isalnum()]:
        raise Rejected("structure: the sentences or clauses differ")
    if len(before) != len(after):
        raise Rejected(f"replacement only: {len(before)} words became {len(after)}")
    pairs = list(zip(before, after, strict=True))
    for old, new in pairs:
        if (old.lower() in FUNCTION_WORDS) != (new.lower() in FUNCTION_WORDS) or old.isalnum() != new.isalnum():
            raise Rejected(f"structure: `{old}` became `{new}`")
    said = facts(negative)
    if said == facts(text):
        raise Rejected("contradiction: no attribute changed")
    if said in _said_by(frozenset(normals)):
        raise Rejected("contradiction: it is the caption of another normal image")
    present = named(before), named(after)
    moved = Counter(map(plain, before)) == Counter(map(plain, after))
    edits = [
        {"attribute": _attribute(before, after, i, *present, moved), "before": old, "after": new}
        for i, (old, new) in enumerate(pairs)
        if old.lower() != new.lower()
    ]
    if not any(e["attribute"] != "other" for e in edits):
        raise Rejected("contradiction: no attribute changed")
    return edits


@lru_cache(256)
def _said_by(texts: frozenset[str]) -> frozenset[tuple]:
    """What the captions of a task say, once for all its rows."""
    return frozenset(map(facts, texts))


def _attribute(
    before: list[str], after: list[str], at: int, old_words: Set[str], new_words: Set[str], moved: bool
) -> str:
    """The attribute that a replacement contradicts; 'other' for agreement (kiwi -> kiwis), synonyms and words without
    an attribute. old_words, new_words: `named` of both texts; moved: the texts consist of the same words."""
    old, new = plain(before[at]), plain(after[at])
    if old == new or before[at].lower() in FUNCTION_WORDS:
        return "other"
    readings, others = meanings(before, at, old_words), meanings(after, at, new_words)
    for attribute, group in readings:
        if new in group or after[at].lower() in group:
            return attribute
    common = {a for a, _ in readings} & {a for a, _ in others}
    if common:
        return min(common)
    if moved:
        return "order"
    return readings[0][0] if readings else others[0][0] if others else "unlisted"
