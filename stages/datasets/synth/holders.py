"""Where trays, cases and dishes stand, and where things lie in them: tools, blocks, stationery, cookies, balls."""

from math import cos, hypot, pi, sin
from random import Random

from stages.datasets.synth.objects import LENGTHS
from stages.datasets.synth.placed import TINTS, Container, Layout, Placed, Range, spaced
from stages.datasets.synth.scenarios import COMPARTMENTS, State

TRAYS = {  # colours of which no thing in it is a shade
    "tools": ("tray green", "tray blue", "tray teal", "tray brown"),
    "blocks": ("tray blue", "tray green", "tray teal"),
    "stationery": ("tray wood", "tray beech"),
    "balls": ("tray brown", "tray blue", "tray green"),
}
DISHES = ("dish blue", "dish green", "dish pink")
PAINTS = ("wood", "red", "yellow", "orange")  # of blocks
STATIONERY_SIZES = {"long": (0.90, 1.10), "short": (0.80, 1.20)}

Bins = dict[str, tuple[float, float, float, float]]


def _tray(state: State, width: float, height: float, scales: Range, bins: Bins, rng: Random) -> tuple[Container, Bins]:
    """A tray anywhere in the picture and its bins; width, height and bins are those of one in the middle."""
    scale = rng.uniform(*scales)
    dx, dy = (rng.uniform(-1, 1) * max(0.48 - side * scale / 2, 0) for side in (width, height))

    def moved(x: float, y: float, w: float, h: float) -> tuple[float, float, float, float]:
        return 0.5 + dx + (x - 0.5) * scale, 0.5 + dy + (y - 0.5) * scale, w * scale, h * scale

    placed = {name: moved(*b) for name, b in bins.items()}
    paint = rng.choice(TRAYS[state.scenario])
    return Container("tray", paint, *moved(0.5, 0.5, width, height), tuple(placed.values())), placed


def tools(state: State, rng: Random) -> Layout:
    bins = {n: (0.5 + dx, 0.5, 0.27, 0.54) for n, dx in (("left", -0.29), ("middle", 0), ("right", 0.29))}
    tray, bins = _tray(state, 0.90, 0.60, (1.0, 1.0), bins, rng)
    placed = []
    for name, (x, y, _, _) in bins.items():
        things = [t for t in state.things if t.place == name]
        for thing, dy in zip(things, spaced(len(things), -0.195, 0.195, 0.128, rng), strict=True):
            angle = rng.uniform(-0.3, 0.3) + rng.choice((0, pi))
            size, tint = rng.uniform(0.90, 1.10), rng.uniform(*TINTS)
            placed.append(Placed(thing, x + rng.uniform(-0.045, 0.045), y + dy, angle, size, tint=tint))
    return Layout(tuple(placed), (tray,))


def blocks(state: State, rng: Random) -> Layout:
    bins = {n: (0.5, 0.5 + dy, 0.66, 0.255) for n, dy in (("top", -0.275), ("middle", 0), ("bottom", 0.275))}
    tray, bins = _tray(state, 0.72, 0.86, (0.86, 1.0), bins, rng)
    placed = []
    for name, (x, y, w, _) in bins.items():
        things = [t for t in state.things if t.place == name]
        reach = w / 2 - 0.09
        for thing, dx in zip(things, spaced(len(things), -reach, reach, 0.175, rng), strict=True):
            dy, size = rng.uniform(-0.02, 0.02), rng.uniform(0.90, 1.08)
            tint, paint, angle = rng.uniform(*TINTS), rng.choice(PAINTS), rng.uniform(0, 2 * pi)
            placed.append(Placed(thing, x + dx, y + dy, angle, size, tint=tint, paint=paint))
    return Layout(tuple(placed), (tray,))


def stationery(state: State, rng: Random) -> Layout:
    bins = {"left": (0.275, 0.5, 0.41, 0.62), "right": (0.725, 0.5, 0.41, 0.62)}
    tray, bins = _tray(state, 0.91, 0.68, (1.0, 1.0), bins, rng)
    placed = []
    for name, (x, y, _, _) in bins.items():
        things = [t for t in state.things if t.place == name]
        for thing, dx in zip(things, spaced(len(things), -0.13, 0.13, 0.14, rng), strict=True):
            size = rng.uniform(*STATIONERY_SIZES[thing.length])
            free = max(0.28 - LENGTHS[thing.kind, thing.length] * size / 2, 0.0)
            angle = rng.choice((-1, 1)) * pi / 2 + rng.uniform(-0.08, 0.08)
            width, tint = rng.uniform(0.85, 1.15), rng.uniform(*TINTS)
            placed.append(Placed(thing, x + dx, y + rng.uniform(-free, free), angle, size, width, tint))
    return Layout(tuple(placed), (tray,))


def cookies(state: State, rng: Random) -> Layout:
    """Two dishes beside or below each other, in either order."""
    side, upright = rng.choice((-1, 1)), rng.random() < 0.5
    containers, placed = [], []
    for kind, sign in (("square", -side), ("round", side)):
        scale = rng.uniform(0.90, 1.0)
        along, across = 0.5 + sign * rng.uniform(0.24, 0.26), 0.5 + rng.uniform(-0.25, 0.25)
        x, y = (across, along) if upright else (along, across)
        width = {"square": 0.40, "round": 0.42}[kind] * scale
        containers.append(Container(f"{kind} dish", rng.choice(DISHES), x, y, width, width))
        things = [t for t in state.things if t.place == kind]
        for thing, (dx, dy) in zip(things, _around(len(things), scale, rng), strict=True):
            size, tint = scale * rng.uniform(0.84, 1.08), rng.uniform(*TINTS)
            placed.append(Placed(thing, x + dx, y + dy, rng.uniform(0, 2 * pi), size, tint=tint))
    return Layout(tuple(placed), tuple(containers))


def _around(n: int, scale: float, rng: Random) -> list[tuple[float, float]]:
    """Offsets from a dish's centre for n cookies; scale: of the dish."""
    turn = rng.uniform(0, 2 * pi)
    r = {1: rng.uniform(0, 0.09), 2: rng.uniform(0.085, 0.105)}.get(n, 0.105)
    r *= scale
    return [(r * cos(turn + 2 * pi * i / n), r * sin(turn + 2 * pi * i / n)) for i in range(n)]


def balls(state: State, rng: Random) -> Layout:
    spots = [(0.5 + dx, 0.5 + dy, 0.355, 0.355) for dy in (-0.19, 0.19) for dx in (-0.19, 0.19)]
    tray, bins = _tray(state, 0.79, 0.79, (0.84, 1.0), dict(zip(COMPARTMENTS, spots, strict=True)), rng)
    placed = []
    for name, (x, y, w, _) in bins.items():
        things = [t for t in state.things if t.place == name]
        for thing, (dx, dy) in zip(things, _apart(len(things), w / 2 - 0.085, rng), strict=True):
            placed.append(Placed(thing, x + dx, y + dy, 0.0, rng.uniform(0.82, 1.08), tint=rng.uniform(*TINTS)))
    return Layout(tuple(placed), (tray,))


def _apart(n: int, reach: float, rng: Random) -> list[tuple[float, float]]:
    """Offsets from a compartment's centre for n balls that do not touch."""
    while True:
        spots = [(rng.uniform(-reach, reach), rng.uniform(-reach, reach)) for _ in range(n)]
        if all(hypot(a - c, b - d) > 0.172 for i, (a, b) in enumerate(spots) for c, d in spots[:i]):
            return spots
