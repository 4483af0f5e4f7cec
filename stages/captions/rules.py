"""The rule-based rewriter: contradict one to three attributes of a caption by other words of their group."""

from collections.abc import Collection
from random import Random

from stages.captions.constraints import Edit, Rejected, check_negative, words_of
from stages.captions.vocabulary import NUMBERS, like, meanings, named, plural, singular

EDITS = (1, 1, 1, 2, 2, 3)  # how many attributes: mostly one, the hardest kind of negative
TRIES = 40


def rewrite(text: str, normals: Collection[str], seed: int) -> tuple[str, list[Edit], int]:
    """(negative, edits, attempts) for one caption; the same for the same seed.

    Raises:
        Rejected: nothing in the caption can be contradicted.
    """
    rng = Random(seed)
    reason = "contradiction: no word of the caption names a known attribute"
    for attempt in range(1, TRIES + 1):
        words = words_of(text)
        for _ in range(rng.choice(EDITS)):
            _contradict(words, rng)
        negative = _joined(words, text)
        try:
            edits = check_negative(text, negative, normals)
            if len(edits) > max(sum(w[0].isalnum() for w in words) / 2, 2):  # near its caption: the harder to tell
                raise Rejected(f"structure: {len(edits)} of {len(words)} words replaced")
            return negative, edits, attempt
        except Rejected as e:
            reason = str(e)
    raise Rejected(reason)


def _contradict(words: list[str], rng: Random) -> None:
    """Change one attribute in place: of a random kind first, so that rare kinds get their share."""
    options: dict[str, list[tuple[int, tuple[str, ...]]]] = {}
    present = named(words)
    for i in range(len(words)):
        for attribute, group in meanings(words, i, present):
            options.setdefault(attribute, []).append((i, group))
    if not options:
        return
    at, group = rng.choice(options[rng.choice(sorted(options))])
    others = [
        i
        for places in options.values()
        for i, g in places
        if g is group and singular(words[i].lower()) != singular(words[at].lower())
    ]
    if others and group is not NUMBERS and rng.random() < 0.5:
        other = rng.choice(others)  # two things change places: contradicts order or pairing
        words[at], words[other] = (
            like(singular(words[other].lower()), words[at]),
            like(singular(words[at].lower()), words[other]),
        )
    elif group is NUMBERS:
        _recount(words, at, rng)
    else:
        word = words[at].lower()
        own = word if word in group else singular(word)
        new = rng.choice([w for w in group if w != own])
        words[at] = like(new, own if word == own else words[at])
        if words[at + 1 : at + 2] in (["to"], ["than"]):
            words[at + 1] = "to" if new == "similar" else "than"


def _recount(words: list[str], at: int, rng: Random) -> None:
    """Another number, near the old one; the noun that it counts follows in number."""
    n = NUMBERS.index(words[at].lower()) + 1
    new = rng.choice([m for m in (n - 2, n - 1, n + 1, n + 2) if 1 <= m <= len(NUMBERS)])
    words[at] = NUMBERS[new - 1].capitalize() if words[at][0].isupper() else NUMBERS[new - 1]
    end = at + 1
    while end < len(words) and words[end].isalpha() and not (end > at + 1 and _closes(words[end])):
        end += 1
    noun = end - 1
    if noun > at and (n == 1) != (new == 1):
        base = singular(words[noun])
        words[noun] = base if new == 1 else plural(base)


def _closes(word: str) -> bool:
    """Whether a word ends the noun phrase before it."""
    return word.lower() in (
        "and",
        "or",
        "in",
        "on",
        "at",
        "of",
        "is",
        "are",
        "inside",
        "outside",
        "with",
        "left",
        "right",
    )


def _joined(words: list[str], text: str) -> str:
    """Words back into the white space and punctuation of `text`."""
    result, position = [], 0
    for old, new in zip(words_of(text), words, strict=True):
        start = text.index(old, position)
        result += [text[position:start], new]
        position = start + len(old)
    return "".join(result) + text[position:]
