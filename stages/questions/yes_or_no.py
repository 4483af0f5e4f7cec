"""From a model's words to yes or no, without guessing."""

import re

STRICT, FALLBACK, REFUSED, UNPARSABLE = "strict", "fallback", "refused", "unparsable"

_WORD = r"(yes|no)\b(?!\W*(?:(?:and|or)\W*)?(?:yes|no)\b)"  # not the `yes` of `yes or no`
_SURE = r"(?! (?:doubt|question|wonder|only)\b)"  # `no doubt` denies nothing
_FIRST = re.compile(rf"\W*{_WORD}{_SURE}", re.IGNORECASE)
_SAID = re.compile(rf"\b(?:answer|reply|verdict)\W{{0,6}}(?:is\W{{0,4}})?{_WORD}{_SURE}", re.IGNORECASE)
_TROUBLE = r"\b(?:anomal\w+|defect\w*|damage\w*|flaw\w*|abnormal\w*|irregularit\w+)"
_NAMES = re.compile(_TROUBLE, re.IGNORECASE)
# The trouble has to follow its negation within six words: `no signs of any damage`.
_DENIES = re.compile(
    rf"(?:\b(?:no|not|cannot|without|free of|free from|neither|nor|none|lacks?)\b|n't\b){_SURE}"
    rf"(?: [\w-]+){{0,5}} (?:{_TROUBLE}|differences?\b)(?:,? (?:or |and )?(?:[\w-]+ )?{_TROUBLE})*",
    re.IGNORECASE,
)
_STATES = re.compile(r"(?:\b(?:has|have|is|are|shows?|contains?|exhibits?|see|appears?)|there's)\b", re.IGNORECASE)
# Clauses that decide nothing: doubts, and what is said of the reference image.
_IDLE = re.compile(
    r"\b(?:whether|if|unclear|not (?:clear|sure|certain)|may|might|could|perhaps|possibl\w+|difficult|"
    r"hard|(?:cannot|can't) (?:determine|tell|say|confirm|rule)) |^\W*(?:in )?the (?:first|reference) ",
    re.IGNORECASE,
)
_CLAUSES = re.compile(r"(?<=[.!?;])\s+|\n+|;|\b(?:but|however|although|while|whereas)\b", re.IGNORECASE)
REFUSES = re.compile(r"\b(?:i'm sorry|i am sorry|i cannot|i can't|unable to|i am not able)\b", re.IGNORECASE)


def yes_or_no(text: str) -> tuple[bool | None, str]:
    """(True for yes, False for no, None; how it was found).

    strict: the first word, case and punctuation aside. fallback: `answer: yes`, or clauses about an
    anomaly that all say the same. Clauses that contradict each other are unparsable; so is everything
    else, but for refusals, which are named as such.
    """
    text = text.replace("’", "'")
    if first := _FIRST.match(text):
        return first[1].lower() == "yes", STRICT
    said = {m.lower() == "yes" for m in _SAID.findall(text)}
    found = said or {v for c in _CLAUSES.split(text) if not _IDLE.search(c) for v in _verdicts(c)}
    if len(found) == 1:
        return found.pop(), FALLBACK
    return None, REFUSED if REFUSES.search(text) and not found else UNPARSABLE


def _verdicts(clause: str) -> set[bool]:
    """What one clause says; both where it denies one trouble and names another."""
    denied, rest = _DENIES.search(clause), _DENIES.sub("", clause)
    stated = _STATES.search(rest)  # the trouble has to follow: `is damaged`, not `damage is`
    named = None
    if denied or stated:
        named = _NAMES.search(rest, stated.end() if stated and not denied else 0)
    return ({False} if denied else set()) | ({True} if named else set())
