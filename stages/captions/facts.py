"""What a caption says, so that two captions that say the same are known to."""

import re

from stages.captions.vocabulary import NUMBERS

FUNCTION_WORDS = {
    *(
        "the",
        "of",
        "and",
        "or",
        "in",
        "on",
        "to",
        "than",
        "with",
        "at",
        "by",
        "from",
        "for",
        "as",
        "while",
        "but",
        "not",
    ),
    *("is", "are", "was", "were", "be", "has", "have", "there", "it", "its", "this", "these", "that", "which"),
    *("each", "every", "both"),
}
COUNTS = frozenset(NUMBERS) | {"no", "empty"}
SAME = {
    "object": "item thing piece element",
    "image": "picture photo photograph",
    "total": "overall altogether sum",
    "similar": "same equal identical alike",
    "one": "a an single",
    "two": "pair",
    "no": "zero none 0",
    "grey": "gray",
    "colour": "color",
    "centre": "center",
    "large": "big huge",
    "larger": "bigger",
    "small": "little tiny",
    "count": "number amount",
    "visible": "shown",
    "rectangle": "rectangular",
    "circle": "circular",
    "triangle": "triangular",
}
SYNONYMS = {word: one for one, words in SAME.items() for word in words.split()}
SYNONYMS |= {str(n): word for n, word in enumerate(NUMBERS, 1)}
AS_THEY_ARE = ("this", "axis", "matches", "contradicts")
OPPOSITES = {"shorter": "longer", "smaller": "larger", "darker": "brighter", "below": "above", "after": "before"}
TURNED = re.compile(r"(.+?) (?:is )?(?:(shorter|smaller|darker) (than)|(below|after)) (.+)")
RELATIONS = frozenset(("than", "above", "before", "similar", "beside", "next", "matches", "contradicts"))
ALIKE = re.compile(r"(.+?) (similar to|beside|next to) (.+)")
LEAD = re.compile(r"(?:(?:there|it|this|the image|image) )?(?:is|has|show|contain)\b ?|in the image ?|the ")


def plain(word: str) -> str:
    """One form for a word's letter case, number (kiwi, kiwis), digits and synonyms."""
    word = word.lower()
    if word in SYNONYMS:
        return SYNONYMS[word]
    if word in ("are", "was", "were"):
        return "is"
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us")) and word not in AS_THEY_ARE:
        word = word[:-2] if word.endswith(("ches", "shes", "xes", "sses")) else word[:-1]
    return SYNONYMS.get(word, word)


def facts(text: str) -> tuple[str, ...]:
    """What a caption says, clause by clause, each in one form and with the place that it belongs to ("top: two
    circles"). Sorted, since the order of what is counted or compared means nothing; as they stand where all clauses are
    bare names ("fork, plate, spoon"), whose order is what such a caption says."""
    found: list[str] = []
    bare = True
    for sentence in re.split(r"[.;!?](?:\s|$)", text):
        place, colon, rest = sentence.rpartition(":")
        place = _plain(place)
        for clause in re.split(r",| and | while ", rest):
            if words := _clause(_plain(clause)):
                bare = bare and not colon and not COUNTS & set(words.split()) and not RELATIONS & set(words.split())
                found.append(f"{place}: {words}" if colon else words)
    return tuple(found if bare else sorted(found))


def _plain(text: str) -> str:
    return " ".join(map(plain, re.findall(r"[A-Za-z0-9'-]+", text)))


def _clause(words: str) -> str:
    """A clause without what leads up to it ("there are"), comparisons the one way round."""
    while lead := LEAD.match(words):
        if not lead.end():
            break
        words = words[lead.end() :]
    if turned := TURNED.fullmatch(words):
        first, comparative, than, place, last = turned.groups()
        return _without(f"{last} {OPPOSITES[comparative or place]} {than or ''} {first}")
    if alike := ALIKE.fullmatch(words):
        first, last = sorted(map(_without, (alike[1], alike[3])))
        return f"{first} {alike[2]} {last}"
    return _without(words)


def _without(words: str) -> str:
    return " ".join(w for w in words.split() if w not in ("the", "is"))
