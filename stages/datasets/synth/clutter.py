"""What lies about and means nothing: scraps of printed paper and confetti, in normal and anomalous scenes alike.

A scrap is grey and no two have the same print; confetti has every colour and is far smaller than any thing. Scraps lie
flat below the things; confetti keeps a distance from them, so that no outline of a thing changes.
"""

import cv2
import numpy as np

from stages.datasets.synth.shapes import Patch, box, coverage, ellipse, grid, noise, polygon, shade

SCRAPS = (4, 9)  # how many, from and to (exclusive)
SCRAP = (0.05, 0.17)  # half of its longer side, in units of the picture's
CONFETTI = (15, 90)
DOT = (0.004, 0.0068)  # radius
CLEAR = 0.045  # between confetti and a thing or the next piece


def scrap(side: int, rng: np.random.Generator) -> Patch:
    """A piece of grey paper with a random print."""
    a = rng.uniform(*SCRAP) * side
    b = a * rng.uniform(0.35, 1.0)
    u, v = grid(a, b, rng.uniform(0, np.pi))
    d = SHAPES[rng.integers(len(SHAPES))](u, v, a, b, rng)
    dark, light = sorted(rng.uniform(0.03, 0.97, 2))
    if light - dark < 0.45:
        dark, light = 0.06, 0.94
    ink = PRINTS[rng.integers(len(PRINTS))](u, v, a, side, rng)
    if rng.random() < 0.5:  # a second print over part of it
        half = coverage(np.cos(t := rng.uniform(0, 7)) * u + np.sin(t) * v + rng.uniform(-0.4, 0.4) * a)
        ink = ink * (1 - half) + PRINTS[rng.integers(len(PRINTS))](u, v, a, side, rng) * half
    grey = dark + (light - dark) * np.clip(ink, 0, 1)
    return Patch(shade(np.repeat(grey[..., None], 3, 2), 0.2 * noise(u.shape, rng, 0.1 * side)), coverage(d))


def _card(u, v, a, b, rng) -> np.ndarray:
    return box(u, v, a, b, rng.uniform(0, 0.3) * b)


def _disc(u, v, a, b, rng) -> np.ndarray:
    return ellipse(u, v, a, b)


def _torn(u, v, a, b, rng) -> np.ndarray:
    edge = 0.12 * a * noise(u.shape, rng, 0.3 * a)
    return np.maximum(polygon(u, v, a, int(rng.integers(3, 7))) + edge, np.abs(v) - b)


SHAPES = (_card, _disc, _torn)

# -- prints: (u, v) px, half length a, the picture's side -> 0..1 ---------------------------------------


def _edge(wave: np.ndarray, sharp: float) -> np.ndarray:
    return np.clip(0.5 + sharp * wave, 0, 1)


def _period(side, rng) -> float:
    return float(np.exp(rng.uniform(np.log(0.012), np.log(0.11)))) * side


def _stripes(u, v, a, side, rng) -> np.ndarray:
    turn, bent = rng.uniform(0, np.pi), rng.uniform(0, 0.35) * a * noise(u.shape, rng, 0.7 * a, 1)
    wave = np.cos((np.cos(turn) * u + np.sin(turn) * v + bent) * 2 * np.pi / _period(side, rng))
    return _edge(wave + rng.uniform(-0.5, 0.5), rng.uniform(0.6, 3))


def _squares(u, v, a, side, rng) -> np.ndarray:
    p, q = _period(side, rng), _period(side, rng)
    return _edge(np.sin(2 * np.pi * u / p) * np.sin(2 * np.pi * v / q) + rng.uniform(-0.3, 0.3), rng.uniform(1, 4))


def _rings(u, v, a, side, rng) -> np.ndarray:
    x, y = rng.uniform(-a, a, 2)
    return _edge(np.cos(np.hypot(u - x, v - y) * 2 * np.pi / _period(side, rng)), rng.uniform(0.6, 3))


def _rays(u, v, a, side, rng) -> np.ndarray:
    x, y = rng.uniform(-0.6 * a, 0.6 * a, 2)
    return _edge(np.cos(np.arctan2(v - y, u - x) * rng.integers(2, 18)), rng.uniform(0.6, 3))


def _blots(u, v, a, side, rng) -> np.ndarray:
    return _edge(noise(u.shape, rng, _period(side, rng), int(rng.integers(1, 4))), rng.uniform(0.8, 5))


def _lines(u, v, a, side, rng) -> np.ndarray:
    """Lines of writing."""
    p = rng.uniform(0.018, 0.05) * side
    words = noise((8, u.shape[1]), rng, p * rng.uniform(0.2, 1.2), 2)
    row = np.floor(v / p).astype(int)
    letters = words[row % 8, np.arange(u.shape[1])[None, :]] > 0
    return 1 - letters * (np.abs(v / p - row - 0.5) < rng.uniform(0.2, 0.4))


PRINTS = (_stripes, _squares, _rings, _rays, _blots, _lines)


def lay_scraps(side: int, rng: np.random.Generator) -> list[tuple[float, float, Patch]]:
    """(x, y, patch): centres in px."""
    return [(*rng.uniform(0.0, 1.0, 2) * side, scrap(side, rng)) for _ in range(rng.integers(*SCRAPS))]


def scatter_confetti(rgb: np.ndarray, alpha: np.ndarray, taken: np.ndarray, rng: np.random.Generator) -> None:
    """Draw dots into a layer (S, S, 3), (S, S) wherever `taken` (S, S; 0 = free) is far enough away."""
    side = taken.shape[0]
    free = cv2.distanceTransform((taken < 0.02).astype(np.uint8), cv2.DIST_L2, 5)
    hue = rng.uniform(0, 360)
    spread = rng.uniform(10, 180)
    for _ in range(rng.integers(*CONFETTI)):
        x, y = (rng.uniform(0.01, 0.99, 2) * side).astype(int)
        r = rng.uniform(*DOT) * side
        if free[y, x] < r + CLEAR * side:
            continue
        cv2.circle(free, (int(x), int(y)), int(2 * r + CLEAR * side), 0, -1)
        colour = _of_hue(hue + rng.uniform(-spread, spread), rng.uniform(0.3, 1), rng.uniform(0.25, 1))
        w = int(np.ceil(r)) + 1
        v, u = np.mgrid[-w : w + 1, -w : w + 1].astype(np.float32)
        cover = coverage(ellipse(u, v, r, r))
        x0, y0 = max(x - w, 0), max(y - w, 0)
        x1, y1 = min(x + w + 1, side), min(y + w + 1, side)
        c = cover[y0 - y + w : y1 - y + w, x0 - x + w : x1 - x + w]
        rgb[y0:y1, x0:x1] = rgb[y0:y1, x0:x1] * (1 - c[..., None]) + colour * c[..., None]
        alpha[y0:y1, x0:x1] = np.maximum(alpha[y0:y1, x0:x1], c)


def _of_hue(hue: float, saturation: float, value: float) -> np.ndarray:
    turns = np.abs(((hue / 60 + np.array([0, 4, 2])) % 6) - 3) - 1
    return (value * (1 - saturation + saturation * np.clip(turns, 0, 1))).astype(np.float32)
