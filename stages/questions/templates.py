"""Text files of wordings under prompts/sage/questions: sections, fields, and the kinds of defects in words."""

import re
from dataclasses import dataclass
from functools import cache

from stages.base.errors import InputError
from stages.base.prompts import load_prompt

FOLDER = "sage/questions"


@dataclass(frozen=True)
class Defect:
    """phrase: with its article, fit to follow `there is`; family: which consequences it may have; parts: the phrases
    of the single defects."""

    phrase: str
    family: str
    parts: tuple[str, ...]

    @property
    def named(self) -> bool:
        """Whether the name says a kind: `bad` and `combined` may be any, so that no other kind is wrong."""
        return self.family != "general"


@cache
def sections(name: str) -> dict[str, tuple[str, ...]]:
    """`[title]` -> the lines below it, each a wording. Raises InputError for a line above the first title."""
    wordings: dict[str, list[str]] = {}
    title: str | None = None
    for line in load_prompt(f"{FOLDER}/{name}").text.splitlines():
        line = line.strip()
        if match := re.fullmatch(r"\[(.+)\]", line):
            title = str(match[1])
            wordings[title] = []
        elif line and title is None:
            raise InputError(f"prompt {FOLDER}/{name}: `{line}` stands above the first [section]")
        elif line and title is not None:
            wordings[title].append(line)
    return {title: tuple(lines) for title, lines in wordings.items()}


@cache
def _defects() -> dict[str, Defect]:
    return {
        name: Defect(phrase, family, (phrase,))
        for family, lines in sections("defects").items()
        for name, _, phrase in (map(str.strip, line.partition("=")) for line in lines)
    }


def defect_in_words(name: str | None) -> Defect:
    """'broken_large' -> a large breakage; several names, comma-separated (VisA), are joined. A name that the file of
    defects does not have is quoted as it stands."""
    by_name, names = _defects(), [re.sub(r"[\s_-]+", " ", n).strip().lower() for n in (name or "").split(",")]
    defects = [by_name.get(n) or _unknown(n) for n in names]
    phrases = tuple(dict.fromkeys(d.phrase for d in defects))
    return Defect(" and ".join(phrases), defects[0].family, phrases)


def _unknown(name: str) -> Defect:
    phrase = f'a defect of the kind "{name}"' if name else "a defect"
    return Defect(phrase, "other" if name else "general", (phrase,))


def object_in_words(category: str) -> str:
    """'metal_nut' -> metal nut, 'pcb1' -> pcb; where there is only a number, as in BTAD and DAGM: product."""
    words = re.sub(r"[\s_-]+", " ", re.sub(r"\d+$", "", category)).strip().lower()
    return "product" if words in ("", "class") else words


def filled(line: str, fields: dict[str, str]) -> str:
    """A wording with its `{fields}` filled and every sentence begun with a capital letter.

    Raises:
        InputError: it has a field that does not exist.
    """
    try:
        text = re.sub(r"\{(\w+)\}", lambda m: fields[m[1]], line)
    except KeyError as e:
        raise InputError(
            f"prompts below {FOLDER}: no field {{{e.args[0]}}} ({line}); there are {', '.join(fields)}"
        ) from None
    return re.sub(r"(^|[.?!] )([a-z])", lambda m: m[1] + m[2].upper(), text)
