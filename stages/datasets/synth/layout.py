"""Where the things of a state lie: positions, angles, sizes and shades, all in units of the picture.

A layout is the same under every capture condition. Coordinates are (x, y) in 0..1, y downwards; angles
in radians, clockwise on screen.
"""

from dataclasses import dataclass
from math import cos, hypot, pi, sin
from random import Random

from stages.datasets.synth.scenarios import BLOCK_BINS, COMPARTMENTS, State, Thing


@dataclass(frozen=True)
class Placed:
    thing: Thing
    x: float
    y: float
    angle: float
    size: float  # factor about 1
    tint: float  # factor about 1


@dataclass(frozen=True)
class Container:
    """A tray of `kind` with compartments (x, y, width, height), or a dish as its own compartment."""

    kind: str
    x: float
    y: float
    width: float
    height: float
    compartments: tuple[tuple[float, float, float, float], ...] = ()


@dataclass(frozen=True)
class Layout:
    placed: tuple[Placed, ...]
    containers: tuple[Container, ...] = ()
    label: tuple[float, float] | None = None  # centre of the printed label
    reference: tuple[float, float] | None = None  # centre of the reference stick


def lay_out(state: State, rng: Random) -> Layout:
    """Random positions within what the rule leaves free."""
    layout = LAYOUTS[state.scenario](state, rng)
    return _turned(layout, rng.uniform(-0.05, 0.05), rng.uniform(-0.02, 0.02), rng.uniform(-0.02, 0.02))


def _turned(layout: Layout, angle: float, dx: float, dy: float) -> Layout:
    """The camera is never quite straight: loose things turn about the centre; trays only shift."""
    if layout.containers:
        angle = 0.0

    def move(x: float, y: float) -> tuple[float, float]:
        u, v = x - 0.5, y - 0.5
        return 0.5 + dx + cos(angle) * u - sin(angle) * v, 0.5 + dy + sin(angle) * u + cos(angle) * v

    placed = tuple(Placed(p.thing, *move(p.x, p.y), p.angle + angle, p.size, p.tint) for p in layout.placed)
    containers = tuple(
        Container(
            c.kind,
            c.x + dx,
            c.y + dy,
            c.width,
            c.height,
            tuple((x + dx, y + dy, w, h) for x, y, w, h in c.compartments),
        )
        for c in layout.containers
    )
    return Layout(
        placed, containers, layout.label and move(*layout.label), layout.reference and move(*layout.reference)
    )


def _put(thing: Thing, x: float, y: float, angle: float, rng: Random, jitter: float = 0.012) -> Placed:
    return Placed(
        thing,
        x + rng.uniform(-jitter, jitter),
        y + rng.uniform(-jitter, jitter),
        angle,
        rng.uniform(0.90, 1.10),
        rng.uniform(0.75, 1.12),
    )


def _sticks(state: State, rng: Random) -> Layout:
    things = rng.sample(state.things, len(state.things))
    upright = rng.random() < 0.5
    placed = []
    for i, thing in enumerate(things):
        across = 0.5 + (i - (len(things) - 1) / 2) * 0.18
        along = 0.5 + rng.uniform(-0.08, 0.08)
        x, y = (across, along) if upright else (along, across)
        placed.append(_put(thing, x, y, (pi / 2 if upright else 0) + rng.uniform(-0.16, 0.16), rng))
    return Layout(tuple(placed))


def _fruits(state: State, rng: Random) -> Layout:
    spots: list[tuple[float, float]] = []
    while len(spots) < len(state.things):
        spot = rng.uniform(0.14, 0.86), rng.uniform(0.14, 0.86)
        if all(hypot(spot[0] - a, spot[1] - b) > 0.165 for a, b in spots):
            spots.append(spot)
    return Layout(
        tuple(_put(t, x, y, rng.uniform(0, 2 * pi), rng, 0) for t, (x, y) in zip(state.things, spots, strict=True))
    )


def _tapes(state: State, rng: Random) -> Layout:
    things = rng.sample(state.things, 2)
    return Layout(
        tuple(
            _put(t, 0.5 + rng.uniform(-0.08, 0.08), y, rng.uniform(-0.13, 0.13), rng)
            for t, y in zip(things, (0.36, 0.64), strict=True)
        )
    )


def _ropes(state: State, rng: Random) -> Layout:
    rope = _put(state.things[0], 0.5, 0.50, rng.uniform(-0.06, 0.06), rng)
    return Layout((rope,), label=(0.5 + rng.uniform(-0.12, 0.12), 0.78), reference=(0.5, 0.25))


def _dishes(state: State, rng: Random) -> Layout:
    width = {"plate": 0.37, "cup": 0.34}
    widths = [width.get(t.kind, 0.13) for t in state.things]
    gap = (0.94 - sum(widths)) / 3
    x, placed = 0.03 + gap / 2, []
    for thing, w in zip(state.things, widths, strict=True):
        turn = rng.uniform(-0.5, 0.5) if thing.kind == "cup" else pi / 2 + rng.uniform(-0.08, 0.08)
        placed.append(_put(thing, x + w / 2, 0.5, turn, rng))
        x += w + gap
    return Layout(tuple(placed))


def _in_slots(
    state: State, rng: Random, bins: dict[str, tuple], slots: list[tuple[float, float]], angle
) -> list[Placed]:
    """Each thing into a free slot of its bin; slots are offsets from the bin's centre."""
    placed = []
    for name, (x, y, _, _) in bins.items():
        things = [t for t in state.things if t.place == name]
        for thing, (dx, dy) in zip(things, sorted(rng.sample(slots, len(things))), strict=True):
            placed.append(_put(thing, x + dx, y + dy, angle(thing), rng, 0.008))
    return placed


def _tools(state: State, rng: Random) -> Layout:
    bins = {n: (0.5 + dx, 0.5, 0.27, 0.54) for n, dx in (("left", -0.29), ("middle", 0), ("right", 0.29))}
    slots = [(rng.uniform(-0.03, 0.03), y) for y in (-0.19, -0.065, 0.06, 0.185)]
    placed = _in_slots(state, rng, bins, slots, lambda t: rng.uniform(-0.3, 0.3) + rng.choice((0, pi)))
    return Layout(tuple(placed), (Container("green tray", 0.5, 0.5, 0.90, 0.60, tuple(bins.values())),))


def _blocks(state: State, rng: Random) -> Layout:
    bins = {n: (0.5, 0.5 + dy, 0.66, 0.255) for n, dy in (("top", -0.275), ("middle", 0), ("bottom", 0.275))}
    slots = [(x, rng.uniform(-0.02, 0.02)) for x in (-0.21, 0.0, 0.21)]
    turn = {"circle": 0.5, "triangle": 0.5, "square": 0.5}
    placed = _in_slots(state, rng, bins, slots, lambda t: rng.uniform(-1, 1) * turn.get(t.kind, 0.5))
    assert set(bins) == set(BLOCK_BINS.values())
    return Layout(tuple(placed), (Container("blue tray", 0.5, 0.5, 0.72, 0.86, tuple(bins.values())),))


def _stationery(state: State, rng: Random) -> Layout:
    bins = {"left": (0.275, 0.5, 0.41, 0.62), "right": (0.725, 0.5, 0.41, 0.62)}
    placed = []
    for name, (x, y, _, _) in bins.items():
        things = [t for t in state.things if t.place == name]
        for i, thing in enumerate(things):
            angle = rng.choice((-1, 1)) * pi / 2 + rng.uniform(-0.08, 0.08)
            at = y + rng.uniform(-0.04, 0.04)
            placed.append(_put(thing, x + (i - (len(things) - 1) / 2) * 0.18, at, angle, rng, 0.008))
    tray = Container("wooden tray", 0.5, 0.5, 0.91, 0.68, tuple(bins.values()))
    return Layout(tuple(placed), (tray,))


def _cookies(state: State, rng: Random) -> Layout:
    side = rng.choice((-1, 1))
    dishes = {
        "square": (0.5 - side * 0.235, 0.5 + rng.uniform(-0.06, 0.06), 0.40, 0.40),
        "round": (0.5 + side * 0.235, 0.5 + rng.uniform(-0.06, 0.06), 0.42, 0.42),
    }
    slots = [(0.10 * cos(a), 0.10 * sin(a)) for a in (pi / 4 + i * pi / 2 for i in range(4))]
    placed = _in_slots(state, rng, dishes, slots, lambda t: rng.uniform(0, 2 * pi))
    return Layout(tuple(placed), tuple(Container(f"{n} dish", x, y, w, h) for n, (x, y, w, h) in dishes.items()))


def _balls(state: State, rng: Random) -> Layout:
    offsets = (-0.19, 0.19)
    spots = [(0.5 + dx, 0.5 + dy, 0.355, 0.355) for dy in offsets for dx in offsets]
    bins = dict(zip(COMPARTMENTS, spots, strict=True))
    slots = [(-0.085, -0.085), (0.085, 0.085)] if rng.random() < 0.5 else [(-0.085, 0.085), (0.085, -0.085)]
    placed = _in_slots(state, rng, bins, slots, lambda t: 0.0)
    return Layout(tuple(placed), (Container("brown case", 0.5, 0.5, 0.79, 0.79, tuple(spots)),))


LAYOUTS = {
    "sticks": _sticks,
    "fruits": _fruits,
    "tools": _tools,
    "cookies": _cookies,
    "tapes": _tapes,
    "stationery": _stationery,
    "ropes": _ropes,
    "blocks": _blocks,
    "dishes": _dishes,
    "balls": _balls,
}
