"""Facts about a test image -> a question and four answers, from best to worst by construction (SAGE, section 4).

1: right verdict, right kind, right place, and what follows from it. 2: right but vague or partial. 3: the form of the
first, but about the wrong kind, place or extent; about a normal image: right verdict with an invented detail. 4: the
first answer that the opposite verdict would have. Which of several wordings is used is drawn per question, so that
an answer's grade shows in what it says of the image, not in its form; tests measure how far that holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from stages.questions.geometry import CELLS, DIRECTIONS, SIZES, Geometry, ways_to_say
from stages.questions.templates import Defect, defect_in_words, filled, sections
from stages.vlm.scene.form import number

KINDS = {  # question -> level: five a group, in about the proportions of AD-PL (44, 37 and 19 %)
    "verdict": "standard",
    "difference": "standard",
    "defect": "identification",
    "extent": "identification",
    "consequence": "reasoning",
}
GENERIC = ("scratch", "contamination", "crack")  # what is invented where a task has no defect with a name
SHAPES = ("compact", "slightly elongated", *(f"elongated {d}" for d in DIRECTIONS))


class NothingWrong(Exception):
    """No third answer can be made. Becomes a row with `error`."""


@dataclass(frozen=True)
class Facts:
    """What is so, or is said to be so, of an anomalous image."""

    defect: Defect
    geometry: Geometry


def question_of(kind: str, thing: str, rng: Random) -> str:
    """One wording of a question. kind: of KINDS; thing: the object in words."""
    return filled(rng.choice(sections(kind)["question"]), {"object": thing})


def ranked_answers(kind: str, thing: str, facts: Facts | None, names: Sequence[str], rng: Random) -> list[str]:
    """Four answers, best first. facts: None for a normal image; names: of the task's defects, one per anomalous
    image, from which a wrong kind is drawn as often as it occurs."""
    lines = sections(kind)
    told = facts or invented(names, rng)
    wrong = wrong_about(told, names, kind, rng) if facts else told
    best, other = (
        _two(lines["anomalous"], rng) if facts else (rng.choice(lines["normal"]), rng.choice(lines["normal, wrong"]))
    )
    partial = rng.choice(lines["anomalous, partial" if facts else "normal, partial"])
    opposite = rng.choice(lines["normal" if facts else "anomalous"])
    return [
        _say(best, thing, told, rng),
        _say(partial, thing, told, rng),
        _say(other, thing, wrong, rng),
        _say(opposite, thing, told, rng),
    ]


def wrong_about(facts: Facts, names: Sequence[str], kind: str, rng: Random) -> Facts:
    """The facts with another kind, place or, where the question is about it, extent. A wrong place is one that holds
    no pixel of the mask; of a place that crosses the image, another that does, where there is one.

    Raises:
        NothingWrong: neither is possible.
    """
    free = [p for p in facts.geometry.free if ("all" in p) == ("all" in facts.geometry.place)]
    free = free or list(facts.geometry.free)
    kinds = _other_kinds(facts.defect, names)
    wrong: dict[str, Sequence[object]] = {"kind": kinds, "place": free, "extent": SIZES if kind == "extent" else ()}
    about = [name for name, there in wrong.items() if there]
    if not about:
        raise NothingWrong("the mask is everywhere and the defect has no name: no wrong answer can be told for sure")
    match rng.choice(about):
        case "kind":
            return replace(facts, defect=rng.choice(kinds))
        case "place":
            return replace(facts, geometry=replace(facts.geometry, place=rng.choice(free)))
    return replace(facts, geometry=replace(facts.geometry, size=_far_from(facts.geometry.size, rng)))


def _other_kinds(own: Defect, names: Sequence[str]) -> list[Defect]:
    """Kinds that `own` is not: none where either could be anything. Generic ones where the task knows no other."""
    if not own.named:
        return []
    kinds = (
        [d for d in map(defect_in_words, pool) if d.named and not set(d.parts) & set(own.parts)]
        for pool in (names, GENERIC)
    )
    return next(filter(None, kinds), [])


def invented(names: Sequence[str], rng: Random) -> Facts:
    """A defect that a normal image does not have: of a kind that the task knows, anywhere."""
    name = rng.choice(list(names) or GENERIC)
    return Facts(
        defect_in_words(name),
        Geometry(
            rng.choice(CELLS), "alone", (), rng.choice(SIZES[:4])[1], rng.choice(SHAPES), rng.choice((1, 1, 1, 2))
        ),
    )


def in_words(facts: Facts, rng: Random) -> dict[str, str]:
    """The fields of the templates, but for {object} and {consequence}."""
    g = facts.geometry
    place = rng.choice(ways_to_say(g.place))
    where = {"alone": place, "mainly": f"mainly {place}", "largest": f"in several places (the largest {place})"}
    regions = "one connected region" if g.regions == 1 else f"{number(g.regions)} separate regions"
    return {
        "defect": facts.defect.phrase,
        "where": where[g.spread],
        "size": g.size,
        "shape": g.shape,
        "regions": regions,
    }


def _say(line: str, thing: str, facts: Facts, rng: Random) -> str:
    consequence = rng.choice(sections("consequences")[facts.defect.family])
    return filled(line, in_words(facts, rng) | {"object": thing, "consequence": consequence})


def _two(lines: Sequence[str], rng: Random) -> list[str]:
    return rng.sample(list(lines), 2)


def _far_from(size: str, rng: Random) -> str:
    """A size that is at least two steps away, so that no border between them makes it right."""
    names = [name for _, name in SIZES]
    return rng.choice([n for n in names if abs(names.index(n) - names.index(size)) > 1])
