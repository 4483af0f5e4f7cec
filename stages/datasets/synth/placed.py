"""Things with a place, an angle, a size and a shade, all in units of the picture; and how places are drawn.

Coordinates are (x, y) in 0..1, y downwards; angles in radians, clockwise on screen. What the rules of a scenario do not
fix is drawn widely here, alike for normal and anomalous scenes: no size, shade, colour or place may tell them apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, hypot, sin
from random import Random

from stages.datasets.synth.scenarios import Thing

TINTS = (0.72, 1.15)
TRIES = 300  # of one thing before all are placed anew

Range = tuple[float, float]
Spot = tuple[float, float, float]  # x, y, angle


@dataclass(frozen=True)
class Placed:
    """size, width, tint: factors about 1 (width: across a long thing); paint: a colour that no rule speaks of."""

    thing: Thing
    x: float
    y: float
    angle: float
    size: float = 1.0
    width: float = 1.0
    tint: float = 1.0
    paint: str = ""


@dataclass(frozen=True)
class Container:
    """A tray with compartments (x, y, width, height), or a dish as its own compartment."""

    kind: str  # tray, square dish, round dish
    paint: str
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
    reference: Placed | None = None  # the reference stick


def spaced(n: int, low: float, high: float, gap: float, rng: Random) -> list[float]:
    """n ascending numbers in low..high, at least `gap` apart, as close as need be where there is too little room."""
    if n == 0:
        return []
    gap = min(gap, (high - low) / max(n - 1, 1))
    free = high - low - gap * (n - 1)
    return [low + f + i * gap for i, f in enumerate(sorted(rng.uniform(0, free) for _ in range(n)))]


def scattered(reaches: Sequence[float], turns: Sequence[Range], clear: float, rng: Random) -> list[Spot]:
    """(x, y, angle) of each thing: anywhere in the picture, at least `clear` between the middle lines of any two.

    reaches: half the length of each middle line, 0 for a round thing; turns: range of its angle.
    """
    while True:
        found: list[Spot] = []
        lines: list[list[tuple[float, float]]] = []
        for reach, turn in zip(reaches, turns, strict=True):
            for _ in range(TRIES):
                x, y, angle = rng.uniform(0.1, 0.9), rng.uniform(0.1, 0.9), rng.uniform(*turn)
                line = middle_line(x, y, angle, reach)
                inside = all(0.06 < v < 0.94 for v in (*line[0], *line[-1]))
                if inside and all(distance(line, other) > clear for other in lines):
                    found.append((x, y, angle))
                    lines.append(line)
                    break
            else:
                break
        if len(found) == len(reaches):
            return found


def middle_line(x: float, y: float, angle: float, reach: float) -> list[tuple[float, float]]:
    """Points along a long thing, from end to end; a round thing has one."""
    steps = [i / 6 - 1 for i in range(13)] if reach else [0.0]
    return [(x + t * reach * cos(angle), y + t * reach * sin(angle)) for t in steps]


def distance(a: list[tuple[float, float]], b: list[tuple[float, float]]) -> float:
    """Between the nearest points of two middle lines."""
    return min(hypot(x - u, y - v) for x, y in a for u, v in b)
