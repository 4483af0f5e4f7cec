"""From a model's words to yes or no, without guessing."""

import re

STRICT, FALLBACK, REFUSED, UNPARSABLE = "strict", "fallback", "refused", "unparsable"

_TROUBLE = r"(?:anomal\w+|defect\w*|damage\w*|flaw\w*|abnormal\w*|irregularit\w+|difference\w*)"
_NEGATION = r"(?:no|not|n't|without|free of|free from|neither|nor|none|lacks?)\b"
_DENIES = re.compile(rf"\b{_NEGATION}[^.;]*\b{_TROUBLE}|n't\b[^.;]*\b{_TROUBLE}", re.IGNORECASE)
_AFFIRMS = re.compile(rf"\b(?:has|have|is|are|there's|shows?|contains?|exhibits?|see|appears?)\b[^.;]*\b{_TROUBLE}",
                      re.IGNORECASE)
_SAID = re.compile(r"\b(?:answer|reply|verdict)\W{0,3}(?:is\W{0,3})?(yes|no)\b", re.IGNORECASE)
_REFUSES = re.compile(r"\b(?:i'm sorry|i am sorry|i cannot|i can't|unable to|i am not able)\b", re.IGNORECASE)


def yes_or_no(text: str) -> tuple[bool | None, str]:
    """(True for yes, False for no, None; how it was found).

    strict: the first word, case and punctuation aside. fallback: `answer: yes`, or sentences about an
    anomaly that all say the same. Sentences that contradict each other are unparsable; so is everything
    else, but for refusals, which are named as such.
    """
    first = re.match(r"\W*(\w+)", text)
    if first and first[1].lower() in ("yes", "no"):
        return first[1].lower() == "yes", STRICT
    said = {m.lower() for m in _SAID.findall(text)}
    if len(said) == 1:
        return said == {"yes"}, FALLBACK
    found = set()
    for sentence in re.split(r"(?<=[.!?;])\s+|\n+", text):
        if _DENIES.search(sentence):
            found.add(False)
        elif _AFFIRMS.search(sentence):
            found.add(True)
    if not said and len(found) == 1:
        return found.pop(), FALLBACK
    return None, REFUSED if _REFUSES.search(text) and not found else UNPARSABLE
