"""A judge without a model, for machines without weights: it compares an answer's words with the expert's.

It is no substitute for a model. It sees no image, knows no synonyms, takes `no crack` for a mention of a crack, and
cannot tell good reasoning from the expert's words in disorder. What it gives is a number in 1..5 that is 5 for the
expert's own words and falls as an answer departs from them, so that the pipeline runs.
"""

import re

from stages.questions.mle import AXES
from stages.questions.yes_or_no import yes_or_no

NAME = "words"  # of this judge, in options and records
PLACES = (
    "left right top bottom upper lower centre center central middle edge corner side surface inner outer"
    " inside outside end tip rim front back base neck head body above below near between across"
    " horizontal vertical diagonal"
)
DEFECTS = (
    "crack scratch dent hole cut chip break broken burr stain contamination contaminated spot discolouration"
    " discoloration bend bent missing misplaced misaligned deformation deformed scrape fray fracture corrosion"
    " rust tear torn peel leak swap flip fold pit blowhole porosity damage wear worn poke squeeze melt burn"
)
COMMON = frozenset(
    [
        "a",
        "an",
        "the",
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "it",
        "its",
        "this",
        "that",
        "these",
        "those",
        "of",
        "in",
        "on",
        "at",
        "to",
        "for",
        "with",
        "and",
        "or",
        "as",
        "by",
        "from",
        "has",
        "have",
        "had",
        "do",
        "does",
        "can",
        "could",
        "may",
        "might",
        "will",
        "would",
        "not",
        "no",
        "yes",
        "true",
        "false",
        "there",
        "which",
        "because",
        "so",
        "but",
        "than",
    ]
)


def marks(answer: str, expert: str) -> tuple[dict[str, int], str]:
    """(the three marks, how they came about). A share in 0..1 becomes 1 + 4 * share, rounded, halves up.

    category: mean of the agreement in verdict (yes, no or none: 1 the same, 0.5 where only one of the two gives one,
    0 opposite) and of the overlap of defect names. location: overlap of place words. logic: overlap of content words.
    Overlap is intersection over union (Jaccard) of the two sets of stems; where neither answer has any, they agree.
    """
    verdict = _same_verdict(_verdict(answer), _verdict(expert))
    said, wanted = _stems(answer), _stems(expert)
    defects, places, words = (overlap(said & among, wanted & among) for among in (_DEFECTS, _PLACES, (said | wanted)))
    shares = ((verdict + defects) / 2, places, words)
    raw = f"words: verdict {verdict:g}, defects {defects:.2f}, places {places:.2f}, content {words:.2f}"
    return dict(zip(AXES, map(mark, shares), strict=True)), raw


def mark(share: float) -> int:
    """0..1 -> 1..5."""
    return int(1 + 4 * share + 0.5)


def overlap(a: set[str], b: set[str]) -> float:
    """Jaccard; 1 for two empty sets."""
    return len(a & b) / len(a | b) if a | b else 1.0


def _verdict(text: str) -> bool | None:
    if first := re.match(r"\W*(true|false)\b", text, re.IGNORECASE):
        return first[1].lower() == "true"
    return yes_or_no(text)[0]


def _same_verdict(a: bool | None, b: bool | None) -> float:
    return 1.0 if a == b else 0.5 if None in (a, b) else 0.0


def stem(word: str) -> str:
    """scratches, scratched -> scratch: endings off words that stay three letters long."""
    return next(
        (word[: -len(e)] for e in ("ing", "ed", "es", "s") if word.endswith(e) and len(word) > len(e) + 2), word
    )


def _stems(text: str) -> set[str]:
    return {stem(w) for w in re.findall(r"[a-z]+", text.lower()) if w not in COMMON}


_PLACES, _DEFECTS = {stem(w) for w in PLACES.split()}, {stem(w) for w in DEFECTS.split()}
