"""Signed distances and shading: how a flat outline becomes a solid thing under a lamp.

All lengths are in pixels. A patch is a small picture of one object: `rgb` (h, w, 3) float32 in 0..1 and
`alpha` (h, w) float32 coverage, antialiased.
"""

from dataclasses import dataclass

import cv2
import numpy as np

LIGHT = np.array([-0.45, -0.55, 0.70]) / np.linalg.norm([-0.45, -0.55, 0.70])  # from the upper left
HALF = (LIGHT + np.array([0, 0, 1.0])) / np.linalg.norm(LIGHT + np.array([0, 0, 1.0]))


@dataclass(frozen=True)
class Patch:
    rgb: np.ndarray
    alpha: np.ndarray


def grid(half_width: float, half_height: float, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Object coordinates (u along, v across, px) on a pixel grid that holds the box rotated by `angle`
    (radians, clockwise on screen)."""
    c, s = np.cos(angle), np.sin(angle)
    w = int(np.ceil(abs(c) * half_width + abs(s) * half_height)) + 2
    h = int(np.ceil(abs(s) * half_width + abs(c) * half_height)) + 2
    y, x = np.mgrid[-h : h + 1, -w : w + 1].astype(np.float32)
    return c * x + s * y, -s * x + c * y


def box(u: np.ndarray, v: np.ndarray, a: float, b: float, r: float = 0.0) -> np.ndarray:
    """Distance to a box of half sizes a, b with corners rounded by r; negative inside."""
    qx, qy = np.abs(u) - a + r, np.abs(v) - b + r
    outside = np.hypot(np.maximum(qx, 0), np.maximum(qy, 0))
    return outside + np.minimum(np.maximum(qx, qy), 0) - r


def ellipse(u: np.ndarray, v: np.ndarray, a: float, b: float) -> np.ndarray:
    """Approximate distance to an ellipse; exact for a circle."""
    k = np.hypot(u / a, v / b)
    return (k - 1) * min(a, b)


def polygon(u: np.ndarray, v: np.ndarray, radius: float, sides: int) -> np.ndarray:
    """Distance (inside exact, outside a bound) to a regular polygon of circumradius `radius`."""
    inner = radius * np.cos(np.pi / sides)
    turns = np.pi * (2 * np.arange(sides) + 1) / sides - np.pi / 2
    return np.max([np.cos(t) * u + np.sin(t) * v for t in turns], axis=0) - inner


def star(u: np.ndarray, v: np.ndarray, radius: float, tips: int = 5) -> np.ndarray:
    """Approximate distance to a star whose inner corners lie at 0.45 of its radius."""
    angle = (np.arctan2(v, u) + np.pi / 2) % (2 * np.pi / tips)
    t = np.abs(angle / (np.pi / tips) - 1)  # 1 at a tip, 0 between two tips
    return (np.hypot(u, v) - radius * (0.45 + 0.55 * t**1.3)) * 0.8


def coverage(distance: np.ndarray) -> np.ndarray:
    """Antialiased coverage from a signed distance."""
    return np.clip(0.5 - distance, 0, 1).astype(np.float32)


def noise(shape: tuple[int, int], rng: np.random.Generator, cell: float, octaves: int = 3) -> np.ndarray:
    """Smooth noise, about -1..1, coarsest features `cell` px wide."""
    h, w = shape
    total, weight = np.zeros(shape, np.float32), 0.0
    for octave in range(octaves):
        size = max(cell / 2**octave, 1.0)
        rows, columns = int(h / size) + 2, int(w / size) + 2
        coarse = rng.standard_normal((rows, columns), np.float32)
        total += 0.5**octave * cv2.resize(coarse, (w, h), interpolation=cv2.INTER_LINEAR)
        weight += 0.5**octave
    return total / weight


def shade(albedo: np.ndarray, height: np.ndarray, gloss: float = 0.0, power: int = 24) -> np.ndarray:
    """Lambert and Blinn-Phong over a height field (px). albedo: (h, w, 3) or (3,), 0..1."""
    gy, gx = np.gradient(height)
    norm = np.sqrt(gx * gx + gy * gy + 1)
    lambert = np.clip((-gx * LIGHT[0] - gy * LIGHT[1] + LIGHT[2]) / norm, 0, 1)
    rgb = np.asarray(albedo, np.float32) * (0.45 + 0.78 * lambert)[:, :, None]
    if gloss:
        mirror = np.clip((-gx * HALF[0] - gy * HALF[1] + HALF[2]) / norm, 0, 1)
        rgb = rgb + gloss * (mirror**power)[:, :, None]
    return np.clip(rgb, 0, 1).astype(np.float32)


def bevel(distance: np.ndarray, width: float, rise: float) -> np.ndarray:
    """Height (px) of a plate whose rim rises over `width` px to `rise` px."""
    t = np.clip(-distance / width, 0, 1)
    return (rise * np.sqrt(1 - (1 - t) ** 2)).astype(np.float32)


def dome(distance: np.ndarray, radius: float, flat: float = 1.0) -> np.ndarray:
    """Height (px) of a round body: a sphere or cylinder of `radius`, flattened by `flat`."""
    inside = np.clip(-distance, 0, radius)
    return (flat * np.sqrt(np.clip(inside * (2 * radius - inside), 0, None))).astype(np.float32)
