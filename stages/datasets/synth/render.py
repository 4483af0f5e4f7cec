"""From a layout to pixels: background, shadows, containers, objects."""

from dataclasses import dataclass

import cv2
import numpy as np

from stages.datasets.synth import objects
from stages.datasets.synth.clutter import lay_scraps, scatter_confetti
from stages.datasets.synth.placed import Container, Layout, Placed
from stages.datasets.synth.scenarios import State
from stages.datasets.synth.shapes import Patch, bevel, box, coverage, ellipse, noise, shade

CONTAINERS = {
    "tray green": (0.25, 0.50, 0.36),
    "tray blue": (0.22, 0.36, 0.62),
    "tray teal": (0.20, 0.48, 0.54),
    "tray wood": (0.74, 0.58, 0.38),
    "tray beech": (0.70, 0.55, 0.38),
    "tray brown": (0.36, 0.23, 0.13),
    "dish blue": (0.55, 0.72, 0.86),
    "dish green": (0.58, 0.80, 0.62),
    "dish pink": (0.86, 0.62, 0.68),
}


@dataclass(frozen=True)
class Layer:
    """Everything that lies on the table. rgb: (S, S, 3); alpha, shadow: (S, S); all float32 in 0..1."""

    rgb: np.ndarray
    alpha: np.ndarray
    shadow: np.ndarray


def draw_layer(state: State, layout: Layout, side: int, rng: np.random.Generator) -> Layer:
    """Draw clutter, containers, objects and their shadows, once for all capture conditions."""
    rgb, alpha = np.zeros((side, side, 3), np.float32), np.zeros((side, side), np.float32)
    holders, holder_alpha = np.zeros_like(rgb), np.zeros_like(alpha)
    for container in layout.containers:
        _draw_container(holders, holder_alpha, container, side, rng)
    table_shadow = cast_shadow(holder_alpha, side, 0.016)
    things = [(p.x, p.y, draw_thing(p, side, rng)) for p in layout.placed]
    if layout.label:
        things.append((*layout.label, objects.label(side, 0.03, state.label, rng)))
    if layout.reference:
        things.append((layout.reference.x, layout.reference.y, draw_thing(layout.reference, side, rng)))
    outline = np.zeros_like(alpha)
    for x, y, patch in things:
        _paste(None, outline, x * side, y * side, patch)
    shadow = cast_shadow(outline, side, 0.010)
    for x, y, patch in lay_scraps(side, rng):
        _paste(rgb, alpha, x, y, patch)
    scatter_confetti(rgb, alpha, np.maximum(holder_alpha, outline), rng)
    rgb *= (1 - table_shadow)[..., None]
    rgb = rgb * (1 - holder_alpha[..., None]) + holders * holder_alpha[..., None]
    np.maximum(alpha, holder_alpha, out=alpha)
    rgb *= (1 - shadow)[..., None]  # what lies in a container shades its floor
    for x, y, patch in things:
        _paste(rgb, alpha, x * side, y * side, patch)
    return Layer(rgb, alpha, np.maximum(table_shadow, shadow))


def cast_shadow(alpha: np.ndarray, side: int, reach: float) -> np.ndarray:
    """Soft shadow towards the lower right plus a dark line of contact; 0 = none."""
    shift = np.array([[1, 0, 0.7 * reach * side], [0, 1, 0.8 * reach * side]], np.float32)
    moved = cv2.warpAffine(alpha, shift, alpha.shape[::-1])
    soft = cv2.GaussianBlur(moved, (0, 0), max(0.9 * reach * side, 0.5))
    contact = cv2.GaussianBlur(alpha, (0, 0), max(0.005 * side, 0.5))
    return np.clip(0.42 * soft + 0.18 * contact, 0, 0.6)


def compose(background: np.ndarray, layer: Layer) -> np.ndarray:
    """Lay the layer over a background (S, S, 3) in 0..1."""
    alpha = layer.alpha[..., None]
    return background * (1 - layer.shadow)[..., None] * (1 - alpha) + layer.rgb * alpha


def draw_thing(placed: Placed, side: int, rng: np.random.Generator) -> Patch:
    """The patch of one object."""
    thing, angle, size, tint = placed.thing, placed.angle, placed.size, placed.tint
    if thing.kind in ("stick", "tape", "pencil", "eraser", "rope"):
        length = objects.LENGTHS[thing.kind, thing.length] * size
        return getattr(objects, thing.kind)(side, angle, length, placed.width, thing.colour, tint, rng)
    if thing.kind in ("cookie", "ball"):
        return getattr(objects, thing.kind)(side, angle, size, thing.colour, tint, rng)
    if thing.kind in ("orange", "kiwi", "apple", "lemon"):
        return objects.fruit(thing.kind)(side, angle, size, tint, rng)
    if thing.kind in ("circle", "triangle", "square", "star", "cross"):
        return objects.block(thing.kind)(side, angle, size, placed.paint, tint, rng)
    if thing.kind in ("fork", "spoon", "knife"):
        return objects.cutlery(thing.kind)(side, angle, size, placed.paint, tint, rng)
    if thing.kind in ("plate", "cup"):
        return getattr(objects, thing.kind)(side, angle, size, placed.paint, tint, rng)
    return getattr(objects, thing.kind)(side, angle, size, tint, rng)


def _paste(rgb: np.ndarray | None, alpha: np.ndarray, x: float, y: float, patch: Patch) -> None:
    """Blend a patch centred at (x, y) px into the layer; what sticks out of the frame is cut."""
    h, w = patch.alpha.shape
    left, top = round(x) - w // 2, round(y) - h // 2
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + w, alpha.shape[1]), min(top + h, alpha.shape[0])
    if x0 >= x1 or y0 >= y1:
        return
    cut = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
    a = patch.alpha[cut]
    if rgb is not None:
        rgb[y0:y1, x0:x1] = rgb[y0:y1, x0:x1] * (1 - a[..., None]) + patch.rgb[cut] * a[..., None]
    alpha[y0:y1, x0:x1] = np.maximum(alpha[y0:y1, x0:x1], a)


def _draw_container(rgb, alpha, container: Container, side: int, rng) -> None:
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    u, v = x - container.x * side, y - container.y * side
    a, b = container.width * side / 2, container.height * side / 2
    colour: np.ndarray
    if container.kind.endswith("dish"):
        square = container.kind.startswith("square")
        d = box(u, v, a, b, 0.03 * side) if square else ellipse(u, v, a, b)
        rim = np.clip((d + 0.05 * side) / (0.05 * side), 0, 1) ** 2 * 0.03 * side
        colour, height, gloss = np.array(CONTAINERS[container.paint], np.float32), rim, 0.10
    else:
        d = box(u, v, a, b, 0.02 * side)
        height = bevel(d, 0.008 * side, 0.008 * side)
        for cx, cy, w, h in container.compartments:
            hollow = box(x - cx * side, y - cy * side, w * side / 2, h * side / 2, 0.012 * side)
            height = height - 0.02 * side * np.clip(-hollow / (0.010 * side), 0, 1)
        grain = 1 + 0.04 * noise(d.shape, rng, 0.03 * side)
        colour, gloss = np.array(CONTAINERS[container.paint], np.float32) * grain[..., None], 0.05
    mask = coverage(d)
    painted = shade(colour, height.astype(np.float32), gloss, 20)
    rgb[:] = rgb * (1 - mask[..., None]) + painted * mask[..., None]
    np.maximum(alpha, mask, out=alpha)
