"""Where things lie that lie on the table: sticks, fruits, tapes, ropes, dishes."""

from math import cos, pi, sin
from random import Random

from stages.datasets.synth.objects import LENGTHS
from stages.datasets.synth.placed import TINTS, Layout, Placed, scattered
from stages.datasets.synth.scenarios import State, Thing

STICK_SIZES = {"long": (0.82, 1.12), "short": (0.80, 1.30)}  # a long one is 0.38 at least, a short one 0.30 at most
SCALES = (0.72, 1.12)  # of a picture in which only lengths relative to each other count
WIDTHS = (0.80, 1.45)
GLAZES = ("teal", "blue", "green", "red", "orange", "yellow")
WOODS = ("wood", "orange", "yellow", "red")


def sticks(state: State, rng: Random) -> Layout:
    sizes = [rng.uniform(*STICK_SIZES[t.length]) for t in state.things]
    turn = rng.uniform(0, pi)
    return Layout(_laid(state.things, sizes, turn, 0.35, 0.085, rng))


def fruits(state: State, rng: Random) -> Layout:
    spots = scattered([0.0] * len(state.things), [(0, 2 * pi)] * len(state.things), 0.195, rng)
    return Layout(
        tuple(
            Placed(t, x, y, angle, rng.uniform(0.75, 1.15), tint=rng.uniform(*TINTS))
            for t, (x, y, angle) in zip(state.things, spots, strict=True)
        )
    )


def tapes(state: State, rng: Random) -> Layout:
    scale = rng.uniform(*SCALES)
    sizes = [scale * rng.uniform(0.96, 1.04) for _ in state.things]
    return Layout(_laid(state.things, sizes, rng.uniform(0, pi), 0.3, 0.14, rng))


def _laid(things: tuple[Thing, ...], sizes: list[float], turn: float, spread: float, clear: float, rng: Random):
    """Long things, each turned by `turn` give or take `spread`."""
    reaches = [LENGTHS[t.kind, t.length] * size / 2 for t, size in zip(things, sizes, strict=True)]
    spots = scattered(reaches, [(turn - spread, turn + spread)] * len(things), clear, rng)
    return tuple(
        Placed(t, x, y, angle, size, rng.uniform(*WIDTHS), rng.uniform(*TINTS))
        for t, (x, y, angle), size in zip(things, spots, sizes, strict=True)
    )


def ropes(state: State, rng: Random) -> Layout:
    """Rope, stick and label one below the other, in any order; the label lies nearly level, so that it can be read."""
    scale = rng.uniform(*SCALES)
    at = rng.sample([y + rng.uniform(-0.05, 0.05) for y in (0.20, 0.50, 0.80)], 3)
    lying = []
    for thing, y in ((state.things[0], at[0]), (Thing("stick", "wood", "similar"), at[1])):
        size = scale * rng.uniform(0.97, 1.03)
        free = max(0.44 - LENGTHS[thing.kind, thing.length] * size / 2, 0.0)
        x, angle = 0.5 + rng.uniform(-free, free), rng.uniform(-0.12, 0.12)
        lying.append(Placed(thing, x, y, angle, size, rng.uniform(*WIDTHS), rng.uniform(*TINTS)))
    return Layout((lying[0],), label=(0.5 + rng.uniform(-0.27, 0.27), at[2]), reference=lying[1])


def dishes(state: State, rng: Random) -> Layout:
    """A row with gaps of any width: what lies first may lie where another one's second does."""
    sizes = [rng.uniform(0.88, 1.08) if t.kind in ("plate", "cup") else rng.uniform(0.86, 1.10) for t in state.things]
    tilts = [rng.uniform(-0.22, 0.22) for _ in state.things]
    widths = [_breadth(t.kind, size, tilt) for t, size, tilt in zip(state.things, sizes, tilts, strict=True)]
    room = max(0.96 - sum(widths), 0.06)
    cuts = [0.0, *sorted(rng.uniform(0, room - 0.04) for _ in state.things)]
    x, placed = 0.02, []
    for i, (thing, size, tilt, w) in enumerate(zip(state.things, sizes, tilts, widths, strict=True)):
        x += cuts[i + 1] - cuts[i] + 0.02 * (i > 0)
        round_one = thing.kind in ("plate", "cup")
        angle = rng.uniform(-0.5, 0.5) if round_one else pi / 2 + tilt + rng.choice((0, pi))
        y = 0.5 + rng.uniform(-0.26, 0.26)
        if not round_one:
            y = min(max(y, 0.04 + 0.25 * size), 0.96 - 0.25 * size)
        paint = rng.choice(GLAZES if round_one else WOODS)
        placed.append(Placed(thing, x + w / 2, y, angle, size, tint=rng.uniform(*TINTS), paint=paint))
        x += w
    return Layout(tuple(placed))


def _breadth(kind: str, size: float, tilt: float) -> float:
    if kind in ("plate", "cup"):
        return {"plate": 0.335, "cup": 0.34}[kind] * size
    return (0.50 * abs(sin(tilt)) + 0.09 * cos(tilt)) * size
