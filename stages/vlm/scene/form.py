"""What a prompt asks for, and the fixed sentences that answer it.

Like a model that follows instructions, `scene` takes from the prompt what to describe and in which form:
the lines `Types:` and `Colours:` give the vocabulary, the line `Form:` the sentence. In it, `name:` opens
a region, `<count>` asks for numbers, `<length>`, `<colour>` and `<type>` for attributes, `longer than` for
a comparison, `<label>` for a printed word, `<tone>` for surface marks; the words `from left to right` in
the prompt ask for the things one by one, in that order.
"""

import re
from collections import Counter
from dataclasses import dataclass

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True)
class Form:
    """regions: ('left bin', ...); counted, ordered, compared, label, surface: which sentence it is."""

    regions: tuple[str, ...]
    attributes: tuple[str, ...]  # of length, colour, type; as far as asked for
    types: tuple[str, ...]
    colours: tuple[str, ...]
    ordered: bool
    compared: bool
    label: bool
    surface: bool


def parse_form(prompt: str) -> Form:
    """Read the three lines; a prompt without a form is answered as one that asks for surface marks."""
    line = _line(prompt, "Form")
    regions = tuple(re.findall(r"(?:^|\. )([a-z ]+):", line))
    attributes = tuple(a for a in ("length", "colour", "type") if f"<{a}>" in line)
    return Form(
        regions,
        attributes,
        _words(prompt, "Types"),
        _words(prompt, "Colours"),
        ordered="from left to right" in prompt,
        compared="longer than" in line,
        label="<label>" in line,
        surface="<tone>" in line or not line,
    )


def _line(prompt: str, name: str) -> str:
    match = re.search(rf"^{name}: *(.*)$", prompt, re.MULTILINE)
    return match[1].strip() if match else ""


def _words(prompt: str, name: str) -> tuple[str, ...]:
    return tuple(w.strip() for w in _line(prompt, name).split(",") if w.strip())


def number(n: int) -> str:
    """3 -> 'three'; figures above ten."""
    return NUMBERS[n] if n < len(NUMBERS) else str(n)


def plural(noun: str, n: int) -> str:
    """'box', 2 -> 'boxes'."""
    if n == 1:
        return noun
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


def counted(names: list[tuple[str, ...]], order: list[tuple[str, ...]], noun_last: bool = True) -> str:
    """[('long', 'blue', 'stick')] * 2 -> 'two long blue sticks'; groups in `order`, then by name. The last
    word takes the plural unless it is a colour ('two orange')."""
    groups = Counter(names)
    rank = {name: i for i, name in enumerate(order)}
    said = [
        " ".join([number(n), *name[:-1], plural(name[-1], n) if noun_last else name[-1]])
        for name, n in sorted(groups.items(), key=lambda g: (rank.get(g[0], len(rank)), g[0]))
    ]
    return ", ".join(said)
