"""Which words name an attribute, and which words contradict them."""

from collections.abc import Set

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

# attribute -> groups of words that exclude each other. A word contradicts every other of its group.
GROUPS: dict[str, tuple[tuple[str, ...], ...]] = {
    "count": (NUMBERS, ("no", "several"), ("empty", "full")),
    "colour": (("red", "blue", "green", "yellow", "black", "white", "orange", "brown", "grey", "purple"),),
    "type": (
        ("orange", "kiwi", "apple", "lemon", "banana"),
        ("bolt", "washer", "nut", "screw"),
        ("circle", "triangle", "square", "star", "cross", "hexagon"),
        ("fork", "knife", "spoon"),
        ("plate", "cup", "bowl"),
        ("pencil", "eraser", "pen", "ruler"),
        ("cookie", "cracker"),
        ("ball", "cube"),
        ("stick", "tube"),
        ("tape", "ribbon"),
        ("rope", "wire"),
        ("cylinder", "rectangle", "cone"),
        ("mark", "hole"),
        ("spot", "line", "chip", "scratch"),
    ),
    "length": (("long", "short"), ("longer", "shorter", "similar")),
    "size": (("small", "medium", "large"), ("smaller", "larger")),
    "region": (
        ("left", "middle", "right"),
        ("top", "middle", "bottom"),
        ("inside", "outside"),
        ("border", "centre"),
        ("square", "round"),
    ),
    "order": (("before", "after"), ("above", "below"), ("first", "last")),
    "relation": (("matches", "contradicts"), ("same", "different")),
    "tone": (("dark", "bright"), ("darker", "brighter")),
}
FILLERS = {
    "of",
    "and",
    "or",
    "in",
    "on",
    "is",
    "are",
    "to",
    "than",
    "the",
    "a",
    "an",
    "with",
    "at",
    "left",
    "right",
    "matches",
    "contradicts",
    "longer",
    "shorter",
    "similar",
    "bin",
    "dish",
}


MEANINGS: dict[str, list[tuple[str, tuple[str, ...]]]] = {}  # word -> (attribute, group) of each that holds it
for _attribute, _groups in GROUPS.items():
    for _group in _groups:
        for _word in _group:
            MEANINGS.setdefault(_word, []).append((_attribute, _group))


def singular(word: str) -> str:
    """'dishes' -> 'dish', 'bolts' -> 'bolt'; other words as they are."""
    if word.endswith(("ches", "shes", "xes", "sses")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us")) and len(word) > 4 else word


def plural(word: str) -> str:
    """'cross' -> 'crosses', 'bolt' -> 'bolts'."""
    return word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")


def like(word: str, model: str) -> str:
    """`word` (singular) in the number and case of `model`."""
    word = plural(word) if model.lower() != singular(model.lower()) else word
    return word.capitalize() if model[:1].isupper() else word


def named(words: list[str]) -> set[str]:
    """The words of a text, lower case and singular: what `meanings` looks the company of a word up in."""
    return {singular(w.lower()) for w in words}


def meanings(words: list[str], at: int, present: Set[str]) -> list[tuple[str, tuple[str, ...]]]:
    """(attribute, group) for every group that holds the word at position `at`, best reading first. present: `named` of
    the words, which is given so that a long text is not gone through for each of its words.

    Of two readings the one counts whose group has other members in the caption; then what follows tells:
    a colour or a kind of dish stands before a noun ('two orange balls', 'square dish'), a type does not.
    """
    word = words[at].lower()
    if word != "matches":
        word = singular(word)
    readings = MEANINGS.get(word, [])
    following = words[at + 1].lower() if at + 1 < len(words) else "."
    noun_follows = following.isalpha() and (following not in FILLERS or following in ("bin", "dish"))
    if len(readings) > 1:  # `middle` of left and right or of top and bottom? orange beside kiwi or white?
        readings = [r for r in readings if any(w != word and w in present for w in r[1])] or readings
    if len(readings) > 1:
        readings = [r for r in readings if (r[0] != "type") == noun_follows] or readings
    if following == "of" and word in ("left", "right"):
        readings = [("order", ("left", "right"))]
    return readings
