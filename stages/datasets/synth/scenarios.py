"""The ten scenarios of VID-AD's Table 2 as logical states: what is there, where, and which rule it breaks.

A state knows nothing of pixels. `sample_state` draws one; `violated` checks the rule from the state
alone, independently of how it was drawn.
"""

from collections import Counter
from dataclasses import dataclass, replace
from random import Random

from stages.datasets.vidad import ASPECTS

COUNTS = {  # Table 3, per capture condition: train normal, test normal, single A, single B, dual
    "sticks": (50, 50, 48, 48, 8),
    "fruits": (50, 50, 48, 44, 8),
    "tools": (50, 50, 52, 50, 8),
    "cookies": (50, 50, 50, 50, 6),
    "tapes": (50, 50, 50, 50, 10),
    "stationery": (50, 50, 50, 50, 10),
    "ropes": (50, 50, 48, 50, 12),
    "blocks": (50, 50, 52, 50, 8),
    "dishes": (50, 50, 48, 48, 15),
    "balls": (50, 50, 48, 48, 12),
}


@dataclass(frozen=True)
class Thing:
    """One object. length: long or short (similar and longer for ropes, relative to the stick); place:
    bin, dish or compartment; order within a place and across a row is left to right."""

    kind: str
    colour: str = ""
    length: str = ""
    place: str = ""


@dataclass(frozen=True)
class State:
    """The logical state of a scene; `label` is the word printed on the label (ropes)."""

    scenario: str
    things: tuple[Thing, ...]
    label: str = ""


def normal_state(scenario: str, rng: Random) -> State:
    """A state that obeys Table 2; random only where the rule leaves room (the rope's colour)."""
    if scenario == "ropes":
        colour = rng.choice(ROPE_COLOURS)
        return State(scenario, (Thing("rope", colour, "similar"),), colour)
    return State(scenario, NORMAL[scenario])


def sample_state(scenario: str, broken: tuple[str, ...], rng: Random) -> State:
    """A state that breaks exactly the aspects in `broken` (none, one or both of the scenario's)."""
    for _ in range(1000):
        state = normal_state(scenario, rng)
        for aspect in broken:
            state = BREAK[scenario, aspect](state, rng)
        if violated(state) == set(broken):
            return state
    raise RuntimeError(f"no state of {scenario} breaks exactly {broken}")


def violated(state: State) -> set[str]:
    """The aspects of Table 2 that a state breaks."""
    return {aspect for aspect in ASPECTS[state.scenario] if RULES[state.scenario, aspect](state)}


# -- normal states -----------------------------------------------------------------------------------

ROPE_COLOURS = ("red", "blue", "green", "yellow")
TOOL_BINS = {"bolt": "left", "washer": "middle", "nut": "right"}
BLOCK_BINS = {"circle": "top", "triangle": "middle", "square": "bottom"}
COMPARTMENTS = ("top left", "top right", "bottom left", "bottom right")
SHELF = {"yellow": "square", "black": "round"}  # cookie colour -> dish

NORMAL = {
    "sticks": (Thing("stick", "blue", "long"),) * 2 + (Thing("stick", "red", "short"),),
    "fruits": (Thing("orange"),) * 3 + (Thing("kiwi"),) * 2,
    "tools": tuple(Thing(kind, place=place) for kind, place in TOOL_BINS.items() for _ in range(2)),
    "cookies": (Thing("cookie", "yellow", place="square"),) * 2 + (Thing("cookie", "black", place="round"),),
    "tapes": (Thing("tape", "green", "long"), Thing("tape", "red", "short")),
    "stationery": (
        Thing("eraser", "blue", "long", "left"),
        Thing("pencil", "black", "long", "left"),
        Thing("eraser", "red", "short", "right"),
        Thing("pencil", "red", "short", "right"),
    ),
    "blocks": tuple(Thing(kind, place=place) for kind, place in BLOCK_BINS.items() for _ in range(2)),
    "dishes": (Thing("fork"), Thing("plate"), Thing("spoon")),
    "balls": tuple(Thing("ball", "orange" if p.startswith("top") else "white", place=p) for p in COMPARTMENTS),
}


# -- the rules, from the state alone -----------------------------------------------------------------


def _counts(state: State, *names: str) -> Counter:
    return Counter(tuple(getattr(t, n) for n in names) for t in state.things)


def _fruit_quantity(state: State) -> bool:
    counts = Counter(t.kind for t in state.things)
    foreign = set(counts) - {"orange", "kiwi"}
    wrong_split = not foreign and (counts["orange"], counts["kiwi"]) != (3, 2)
    return len(state.things) != 5 or wrong_split


def _tape_length(state: State) -> bool:
    return [t.length for t in state.things] != ["long", "short"]


def _stationery_length(state: State) -> bool:
    natural = {"black": "long", "blue": "long", "red": "short"}
    return any(t.length != natural[t.colour] for t in state.things)


def _stationery_placement(state: State) -> bool:
    return [(t.kind, t.colour, t.place) for t in state.things] != [
        (t.kind, t.colour, t.place) for t in NORMAL["stationery"]
    ]


def _block_placement(state: State) -> bool:
    return any(t.place != BLOCK_BINS[t.kind] for t in state.things if t.kind in BLOCK_BINS)


def _dish_order(state: State) -> bool:
    natural = {"fork": 0, "plate": 1, "spoon": 2}
    known = [natural[t.kind] for t in state.things if t.kind in natural]
    at = [i for i, t in enumerate(state.things) if t.kind in natural]
    if len(known) == 3:
        return known != [0, 1, 2]
    return any(
        (a < b) != (i < j) for a, i in zip(known, at, strict=True) for b, j in zip(known, at, strict=True) if a != b
    )


RULES = {
    ("sticks", "quantity"): lambda s: _counts(s, "colour") != {("blue",): 2, ("red",): 1},
    ("sticks", "length"): lambda s: any(t.length != {"blue": "long", "red": "short"}[t.colour] for t in s.things),
    ("fruits", "quantity"): _fruit_quantity,
    ("fruits", "type"): lambda s: any(t.kind not in ("orange", "kiwi") for t in s.things),
    ("tools", "quantity"): lambda s: _counts(s, "kind") != {("bolt",): 2, ("washer",): 2, ("nut",): 2},
    ("tools", "placement"): lambda s: any(t.place != TOOL_BINS[t.kind] for t in s.things),
    ("cookies", "quantity"): lambda s: _counts(s, "colour") != {("yellow",): 2, ("black",): 1},
    ("cookies", "relation"): lambda s: any(t.place != SHELF[t.colour] for t in s.things),
    ("tapes", "length"): _tape_length,
    ("tapes", "type"): lambda s: [t.colour for t in s.things] != ["green", "red"],
    ("stationery", "length"): _stationery_length,
    ("stationery", "placement"): _stationery_placement,
    ("ropes", "length"): lambda s: s.things[0].length != "similar",
    ("ropes", "relation"): lambda s: s.things[0].colour != s.label,
    ("blocks", "type"): lambda s: any(t.kind not in BLOCK_BINS for t in s.things),
    ("blocks", "placement"): _block_placement,
    ("dishes", "type"): lambda s: Counter(t.kind for t in s.things) != {"fork": 1, "plate": 1, "spoon": 1},
    ("dishes", "relation"): _dish_order,
    ("balls", "placement"): lambda s: _counts(s, "place") != {(p,): 1 for p in COMPARTMENTS},
    ("balls", "relation"): lambda s: any(
        t.place.split()[0] != {"orange": "top", "white": "bottom"}[t.colour] for t in s.things
    ),
}


# -- breaking a rule, in the patterns of Table 2's last column ----------------------------------------


def _change(state: State, at: int, **what: str) -> State:
    things = list(state.things)
    things[at] = replace(things[at], **what)
    return replace(state, things=tuple(things))


def _missing_or_extra(state: State, rng: Random) -> State:
    at = rng.randrange(len(state.things))
    things = list(state.things)
    if rng.random() < 0.5:
        things.insert(at, things[at])
    else:
        del things[at]
    return replace(state, things=tuple(things))


def _other_length(state: State, rng: Random) -> State:
    for at in rng.sample(range(len(state.things)), rng.choice((1, 1, 2))):
        other = {"long": "short", "short": "long"}[state.things[at].length]
        state = _change(state, at, length=other)
    return state


def _other_kind(kinds: tuple[str, ...]):
    def change(state: State, rng: Random) -> State:
        for at in rng.sample(range(len(state.things)), rng.choice((1, 1, 2))):
            state = _change(state, at, kind=rng.choice(kinds))
        return state

    return change


def _swap_places(state: State, rng: Random) -> State:
    """Two things of different places change places; or all of two places do."""
    a, b = rng.sample(range(len(state.things)), 2)
    pa, pb = state.things[a].place, state.things[b].place
    if rng.random() < 0.5:
        return _change(_change(state, a, place=pb), b, place=pa)
    swap = {pa: pb, pb: pa}
    return replace(state, things=tuple(replace(t, place=swap.get(t.place, t.place)) for t in state.things))


def _tape_lengths(state: State, rng: Random) -> State:
    first, second = rng.choice([("short", "long"), ("long", "long"), ("short", "short")])
    return _change(_change(state, 0, length=first), 1, length=second)


def _tape_colours(state: State, rng: Random) -> State:
    return _change(state, rng.randrange(2), colour=rng.choice(("blue", "yellow")))


def _stationery_places(state: State, rng: Random) -> State:
    """Wrong order within a bin, or the pencils, or the erasers, in each other's bin."""
    order = rng.choice([(1, 0, 2, 3), (0, 1, 3, 2), (1, 0, 3, 2), (2, 1, 0, 3), (0, 3, 2, 1), (2, 3, 0, 1)])
    places = [t.place for t in state.things]
    things = [replace(state.things[i], place=p) for i, p in zip(order, places, strict=True)]
    return replace(state, things=tuple(things))


def _move_ball(state: State, rng: Random) -> State:
    """One ball lies in a compartment that is taken; its own stays empty."""
    a, b = rng.choice([(0, 1), (1, 0), (2, 3), (3, 2), (0, 2), (3, 1), (1, 3), (2, 0)])
    return _change(state, a, place=state.things[b].place)


def _swap_balls(state: State, rng: Random) -> State:
    for a, b in rng.choice([((0, 2),), ((1, 3),), ((0, 3),), ((1, 2),), ((0, 2), (1, 3))]):
        first, second = state.things[a].colour, state.things[b].colour
        state = _change(_change(state, a, colour=second), b, colour=first)
    return state


def _other_rope(state: State, rng: Random) -> State:
    others = [c for c in ROPE_COLOURS if c != state.label]
    return _change(state, 0, colour=rng.choice(others))


def _other_order(state: State, rng: Random) -> State:
    return replace(state, things=tuple(rng.sample(state.things, 3)))


BREAK = {
    ("sticks", "quantity"): _missing_or_extra,
    ("sticks", "length"): _other_length,
    ("fruits", "quantity"): _missing_or_extra,
    ("fruits", "type"): _other_kind(("apple", "lemon")),
    ("tools", "quantity"): _missing_or_extra,
    ("tools", "placement"): _swap_places,
    ("cookies", "quantity"): _missing_or_extra,
    ("cookies", "relation"): _swap_places,
    ("tapes", "length"): _tape_lengths,
    ("tapes", "type"): _tape_colours,
    ("stationery", "length"): _other_length,
    ("stationery", "placement"): _stationery_places,
    ("ropes", "length"): lambda s, rng: _change(s, 0, length=rng.choice(("longer", "shorter"))),
    ("ropes", "relation"): _other_rope,
    ("blocks", "type"): _other_kind(("star", "cross")),
    ("blocks", "placement"): _swap_places,
    ("dishes", "type"): lambda s, rng: _change(
        s, (at := rng.randrange(3)), kind="cup" if s.things[at].kind == "plate" else "knife"
    ),
    ("dishes", "relation"): _other_order,
    ("balls", "placement"): _move_ball,
    ("balls", "relation"): _swap_balls,
}
