"""Multiscale Logical Evaluation (SAGE, sections 3.3 and 5.1): three marks for an answer, and their mean."""

import re
from collections.abc import Mapping

AXES = ("category", "location", "logic")

FORMS = ("strict", "released")
_RELEASED = (("accuracy", "category"), ("localization", "location"), ("logic", "logic"), ("average", None))
_DRESS = re.compile(r"[*_`]+")  # Markdown around words
_FORM = re.compile(r"\s*category: ?([1-5])[,;]?\s+location: ?([1-5])[,;]?\s+logic: ?([1-5])\.?\s*", re.IGNORECASE)


def mle_score(row: Mapping) -> float | None:
    """Eq. 3: S = (category + location + logic) / 3, in 1..5, of a row of JUDGEMENTS; None when a mark is missing."""
    marks = [row[axis] for axis in AXES]
    return None if None in marks else sum(marks) / 3


def parse_marks(reply: str) -> dict[str, int] | None:
    """The three marks of a reply that has the form that prompts/judge/mle.txt asks for, Markdown aside; None for any
    other: a mark outside 1..5, a fraction, a missing axis, anything before or behind."""
    match = _FORM.fullmatch(_DRESS.sub("", reply))
    return {axis: int(mark) for axis, mark in zip(AXES, match.groups(), strict=True)} if match else None


def parse_released(reply: str) -> dict[str, float]:
    """The three marks as the released code reads them: of each line in lower case that is exactly two parts around a
    colon, the key that holds accuracy, else localization, else logic, else average; a later line wins, what is no
    number is passed over, no range is checked, and what is not found is 0. The average is read and not used."""
    found = dict.fromkeys(AXES, 0.0)
    for line in reply.lower().splitlines():
        key, *rest = line.split(":")
        axis = next((axis for word, axis in _RELEASED if word in key), None)
        if len(rest) == 1 and axis:
            try:
                found[axis] = float(rest[0])
            except ValueError:
                continue
    return found
