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
    "contain": "hold include",
    "kiwi": "kiwifruit",
    "below": "under beneath underneath",
    "above": "over",
}
SYNONYMS = {word: one for one, words in SAME.items() for word in words.split()}
SYNONYMS |= {str(n): word for n, word in enumerate(NUMBERS, 1)}
AS_THEY_ARE = ("this", "axis", "matches", "contradicts")
OPPOSITES = {"shorter than": "longer than", "smaller than": "larger than", "darker than": "brighter than"}
OPPOSITES |= {"below": "above", "after": "before", "right of": "left of"}
SIDE = re.compile(r"(?:(?:on|to) the )?(left|right)(?: side)? of\b")
STANDS = r"(?:(?:is|lie|sit|stand|rest|located|placed|positioned) )*"
COMPARED = re.compile(rf"(.+?) {STANDS}({'|'.join(sorted({*OPPOSITES, *OPPOSITES.values()}))}) (.+)")
RELATIONS = frozenset(("than", "above", "before", "similar", "beside", "next", "matches", "contradicts"))
ALIKE = re.compile(r"(.+?) (?:is )?(similar (?:in \w+ )?to|as \w+ as|beside|next to) (.+)")
BETWEEN = re.compile(r"\bbetween (.+?) and (?:the )?([\w-]+)")
DIRECTION = re.compile(r"\b(?:from )?(?:(left to right|top to bottom)|right to left|bottom to top)\b", re.IGNORECASE)
ORDER = re.compile(r"\b(?:this|following) order\b", re.IGNORECASE)
PLACE = re.compile(r"(?:in|on|at|from|within|inside) (?!.*\b(?:is|has|contain|show|lie|sit|stand)\b).+")
HEAD = re.compile(r".*?\b(?:has|contain)\b|.+?\b(?:is|lie|sit|stand)\b(?= )")
CONTAINER = re.compile(r".*\b(?:has|contain)")
ELLIPSIS = re.compile(
    r"(?:left|right|above|below|before|after|beside|next|longer|shorter|similar|larger|smaller|in|on)\b"
)
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
    circles", "In the top bin, there are two circles", "The top bin holds one star and two circles"). Sorted, since the
    order of what is counted or compared means nothing; as they stand within a sentence that says so ("from left to
    right"), and where all clauses are bare names ("fork, plate, spoon"), whose order is what such a caption says."""
    found: list[str] = []
    bare = True
    for sentence in re.split(r"[.;!?](?:\s|$)", text):
        directions = list(DIRECTION.finditer(sentence))
        place, colon, rest = DIRECTION.sub(" ", sentence).rpartition(":")
        clauses = _clauses(rest)
        for clause in clauses:
            words = set(clause.split())
            bare = bare and not (colon or COUNTS & words or RELATIONS & words or COMPARED.fullmatch(clause))
        if colon:
            clauses = [f"{_plain(place)}: {clause}" for clause in clauses]
        if directions and not directions[0][1]:
            clauses.reverse()
        found += [", ".join(clauses)] if (directions or ORDER.search(sentence)) and clauses else clauses
    return tuple(found if bare else sorted(found))


def _clauses(sentence: str) -> list[str]:
    """The clauses of a sentence. A place in front holds for all up to the next one; a clause without a verb belongs to
    what came before it: "The bin holds a nut and a bolt", "It is red and longer than the stick"."""
    found: list[str] = []
    place = head = ""
    waiting = False  # a place that no clause has followed yet
    together = BETWEEN.sub(lambda m: "between " + " with ".join(sorted(map(_without, m.groups()))), sentence)
    for words in map(_plain, re.split(r",| and | while ", together)):
        if not _clause(words):
            continue
        if PLACE.fullmatch(words):
            place, waiting = _without(words), True
            continue
        lead = LEAD.match(words)
        stated = HEAD.match(words)
        if stated:
            head = "" if lead and lead.end() and stated.end() <= lead.end() else stated[0]
        elif head and (CONTAINER.match(head) or ELLIPSIS.match(words)):
            words = f"{head} {words}"
        found.append(f"{place}: {_clause(words)}" if place else _clause(words))
        waiting = False
    if waiting:
        found.append(place)
    return found


def _plain(text: str) -> str:
    return SIDE.sub(r"\1 of", " ".join(map(plain, re.findall(r"[A-Za-z0-9'-]+", text))))


def _clause(words: str) -> str:
    """A clause without what leads up to it ("there are"), comparisons the one way round."""
    while lead := LEAD.match(words):
        if not lead.end():
            break
        words = words[lead.end() :]
    if compared := COMPARED.fullmatch(words):
        first, relation, last = compared.groups()
        if relation in OPPOSITES:
            first, relation, last = last, OPPOSITES[relation], first
        return _without(f"{first} {relation} {last}")
    if alike := ALIKE.fullmatch(words):
        first, last = sorted(map(_without, (alike[1], alike[3])))
        return f"{first} {alike[2]} {last}"
    return _without(words)


def _without(words: str) -> str:
    return " ".join(w for w in words.split() if w not in ("the", "is"))
