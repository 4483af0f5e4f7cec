"""One function per kind of object: unit sizes and a generator in, a Patch out.

s: picture side in px; angle: radians; size, width: factors about 1, of the whole or across; tint: shade factor about 1;
paint: one of COLOURS where no rule speaks of the colour.
"""

import cv2
import numpy as np

from stages.datasets.synth.shapes import Patch, bevel, box, coverage, dome, ellipse, grid, noise, polygon, shade, star

COLOURS = {
    "red": (0.78, 0.13, 0.12),
    "blue": (0.12, 0.27, 0.72),
    "green": (0.13, 0.55, 0.22),
    "yellow": (0.93, 0.78, 0.15),
    "black": (0.10, 0.10, 0.11),
    "white": (0.93, 0.93, 0.91),
    "orange": (0.95, 0.50, 0.08),
    "brown": (0.42, 0.29, 0.14),
    "wood": (0.80, 0.62, 0.40),
    "metal": (0.66, 0.67, 0.70),
    "teal": (0.16, 0.47, 0.55),
}
LENGTHS = {  # of the picture's side
    ("stick", "long"): 0.46,
    ("stick", "short"): 0.23,
    ("tape", "long"): 0.58,
    ("tape", "short"): 0.29,
    ("pencil", "long"): 0.44,
    ("pencil", "short"): 0.25,
    ("eraser", "long"): 0.31,
    ("eraser", "short"): 0.16,
    ("stick", "similar"): 0.50,  # the reference of ropes
    ("rope", "similar"): 0.50,
    ("rope", "longer"): 0.68,
    ("rope", "shorter"): 0.35,
}


def _tinted(colour: str, tint: float) -> np.ndarray:
    return np.clip(np.array(COLOURS[colour], np.float32) * tint, 0, 1)


def stick(s, angle, length, width, colour, tint, rng) -> Patch:
    """A painted round stick; length in units of s."""
    a, b = length * s / 2, 0.022 * s * width
    u, v = grid(a, b, angle)
    d = box(u, v, a, b, 0.4 * b)
    grain = 1 + 0.05 * noise(u.shape, rng, 0.02 * s)
    return Patch(shade(_tinted(colour, tint) * grain[:, :, None], dome(d, b, 0.8), 0.18), coverage(d))


def tape(s, angle, length, width, colour, tint, rng) -> Patch:
    """A strip of adhesive tape lying flat, with creases."""
    a, b = length * s / 2, 0.036 * s * width
    u, v = grid(a, b + 2, angle)
    ragged = 0.004 * s * np.sign(np.sin(v / (0.006 * s)))  # torn, saw-tooth ends
    d = box(u + ragged, v, a, b, 1.0)
    creases = 0.012 * s * noise(u.shape, rng, 0.09 * s)
    return Patch(shade(_tinted(colour, tint), bevel(d, 2, 1.2) + creases, 0.16, 12), coverage(d))


def fruit(kind):
    """Sphere-like fruits: orange, kiwi, apple, lemon."""
    colours = {
        "orange": (0.96, 0.52, 0.07),
        "kiwi": (0.45, 0.34, 0.17),
        "apple": (0.72, 0.10, 0.10),
        "lemon": (0.95, 0.85, 0.20),
    }

    def draw(s, angle, size, tint, rng) -> Patch:
        r = 0.080 * s * size
        a, b = {"kiwi": (1.0 * r, 0.80 * r), "lemon": (1.08 * r, 0.76 * r)}.get(kind, (r, 0.97 * r))
        u, v = grid(1.25 * a, 1.25 * b, angle)
        d = ellipse(u, v, a, b)
        if kind == "lemon":  # its two tips
            d = np.minimum(d, ellipse(np.abs(u) - 0.96 * a, v, 0.22 * a, 0.26 * b))
        fine = noise(u.shape, rng, 0.012 * s, 2)
        bumps = {"orange": 0.5, "kiwi": 0.35, "lemon": 0.3}.get(kind, 0.05) * fine
        albedo = np.array(colours[kind], np.float32) * tint * (1 + 0.05 * noise(u.shape, rng, r))[..., None]
        if kind == "kiwi":  # fuzz
            albedo = albedo * (1 + 0.16 * noise(u.shape, rng, 3, 1))[..., None]
        if kind == "apple":  # streaks towards the stem
            albedo = (
                albedo
                + np.array([0.16, 0.13, 0.03], np.float32) * np.clip(noise(u.shape, rng, 0.03 * s), 0, 1)[..., None]
            )
        if kind in ("orange", "apple"):
            stem = coverage(ellipse(u - 0.25 * r, v + 0.1 * r, 0.10 * r, 0.10 * r))[..., None]
            albedo = albedo * (1 - stem) + stem * np.array([0.25, 0.26, 0.10], np.float32)
        gloss = {"kiwi": 0.0, "apple": 0.45, "orange": 0.16, "lemon": 0.16}[kind]
        return Patch(shade(albedo, dome(d, b, 0.9) + bumps, gloss, 30), coverage(d))

    return draw


def bolt(s, angle, size, tint, rng) -> Patch:
    """A hexagon bolt lying on its side: wide head, threaded shaft."""
    a, b = 0.070 * s * size, 0.017 * s * size
    head = 0.036 * s * size
    u, v = grid(a + 0.01 * s, head, angle)
    shaft, cap = box(u - 0.012 * s, v, a - 0.012 * s, b, 1), box(u + a - 0.018 * s, v, 0.018 * s, head, 2)
    d = np.minimum(shaft, cap)
    thread = np.where(u > 0, 0.5 * np.sin(u * 2 * np.pi / max(0.012 * s, 3)), 0)
    height = np.maximum(dome(shaft, b, 0.9), bevel(cap, 3, 0.02 * s)) + thread
    return Patch(shade(_tinted("metal", tint), height, 0.5, 14), coverage(d))


def washer(s, angle, size, tint, rng) -> Patch:
    """A flat ring; what lies below shows through its hole."""
    r = 0.046 * s * size
    u, v = grid(r, r, angle)
    d = np.maximum(ellipse(u, v, r, r), -ellipse(u, v, 0.60 * r, 0.60 * r))
    scratches = 0.25 * noise(u.shape, rng, 4, 1)
    return Patch(shade(_tinted("metal", tint), bevel(d, 2.5, 1.5) + scratches, 0.3, 10), coverage(d))


def nut(s, angle, size, tint, rng) -> Patch:
    """A hexagon nut, taller and with a smaller hole than a washer."""
    r = 0.056 * s * size
    u, v = grid(r, r, angle)
    d = np.maximum(polygon(u, v, r, 6), -ellipse(u, v, 0.34 * r, 0.34 * r))
    return Patch(shade(_tinted("metal", tint), bevel(d, 0.22 * r, 0.25 * r), 0.45, 16), coverage(d))


def cookie(s, angle, size, colour, tint, rng) -> Patch:
    """A butter (yellow) or chocolate (black) biscuit with a crumbly surface."""
    r = 0.066 * s * size
    base = {"yellow": (0.90, 0.71, 0.36), "black": (0.17, 0.11, 0.09)}[colour]
    u, v = grid(1.08 * r, 1.08 * r, angle)
    d = ellipse(u, v, r, r) + 0.02 * r * noise(u.shape, rng, 0.5 * r)
    crumbs = noise(u.shape, rng, 0.016 * s, 2)
    albedo = np.array(base, np.float32) * tint * (1 + 0.10 * crumbs)[..., None]
    return Patch(shade(albedo, bevel(d, 0.35 * r, 0.22 * r) + 0.5 * crumbs, 0.03), coverage(d))


def pencil(s, angle, length, width, colour, tint, rng) -> Patch:
    """A lacquered hexagon pencil: sharpened wood and lead towards +u."""
    a, b = length * s / 2, 0.019 * s * width
    u, v = grid(a, b, angle)
    cone = 0.045 * s
    half = np.clip((a - u) / cone, 0.04, 1) * b
    d = np.maximum(np.abs(v) - half, np.abs(u) - a)
    wood = coverage(a - cone + 1.2 * np.abs(v) - u)[..., None]
    lead = coverage(a - 0.30 * cone - u)[..., None]
    albedo = _tinted(colour, tint) * (1 - wood) + wood * np.array([0.86, 0.70, 0.48], np.float32)
    albedo = albedo * (1 - lead) + lead * _tinted(colour, 1)
    facets = b * np.clip(1.25 - np.abs(v) / b, 0, 0.75)
    return Patch(shade(albedo, facets.astype(np.float32), 0.22, 18), coverage(d))


def eraser(s, angle, length, width, colour, tint, rng) -> Patch:
    """A block of rubber in a card sleeve of its colour, its white end towards +u."""
    a, b = length * s / 2, 0.044 * s * width
    u, v = grid(a, b, angle)
    d = box(u, v, a, b, 0.012 * s)
    bare = coverage(a - 0.035 * s - u)[..., None]
    albedo = _tinted(colour, tint) * (1 - bare) + bare * np.array([0.90, 0.88, 0.85], np.float32)
    return Patch(shade(albedo, bevel(d, 0.016 * s, 0.012 * s), 0.08, 10), coverage(d))


def rope(s, angle, length, width, colour, tint, rng) -> Patch:
    """A twisted rope laid out nearly straight."""
    a, b = length * s / 2, 0.022 * s * width
    wave = rng.uniform(0.004, 0.010) * s
    u, v = grid(a, b + 2 * wave, angle)
    v = v + wave * np.sin(u / s * rng.uniform(9, 14) + rng.uniform(0, 6))
    d = box(u, v, a, b, 0.5 * b)
    twist = np.sin((u + 1.6 * v) * 2 * np.pi / (0.034 * s))
    albedo = _tinted(colour, tint) * (1 + 0.12 * twist)[..., None]
    fuzz = 0.4 * noise(u.shape, rng, 3, 1)
    return Patch(shade(albedo, dome(d, b, 0.7) + 0.10 * b * twist + fuzz, 0.03), coverage(d))


def block(kind):
    """Wooden blocks seen from above: circle, triangle, square, and the odd ones: star, cross."""

    def draw(s, angle, size, paint, tint, rng) -> Patch:
        r = 0.066 * s * size
        u, v = grid(1.25 * r, 1.25 * r, angle)
        d = {
            "circle": lambda: ellipse(u, v, r, r),
            "triangle": lambda: polygon(u, v, 1.22 * r, 3),
            "square": lambda: box(u, v, 0.90 * r, 0.90 * r, 1.5),
            "star": lambda: star(u, v, 1.22 * r),
            "cross": lambda: np.minimum(box(u, v, 1.1 * r, 0.36 * r, 1), box(u, v, 0.36 * r, 1.1 * r, 1)),
        }[kind]()
        grain = noise((u.shape[0], 4), rng, 3, 2)
        grain = cv2.resize(grain, u.shape[::-1], interpolation=cv2.INTER_CUBIC)
        albedo = _tinted(paint, tint) * (1 + 0.08 * grain)[..., None]
        return Patch(shade(albedo, bevel(d, 0.05 * s * 0.2, 0.012 * s), 0.04), coverage(d))

    return draw


def cutlery(kind):
    """Wooden fork, spoon or knife; the working end points up (-u) at angle pi/2."""

    def draw(s, angle, size, paint, tint, rng) -> Patch:
        a, w = 0.25 * s * size, 0.045 * s * size
        u, v = grid(a, w, angle)
        handle = box(u - 0.30 * a, v, 0.70 * a, 0.018 * s * (0.8 + 0.35 * np.clip(u / a, -1, 1)), 3)
        if kind == "spoon":
            head = ellipse(u + 0.66 * a, v, 0.34 * a, w)
        elif kind == "knife":
            head = np.maximum(box(u + 0.45 * a, v, 0.55 * a, 0.66 * w, 0.5 * w), -v - 0.3 * w)
        else:
            root = box(u + 0.50 * a, v, 0.16 * a, w, 0.5 * w)
            tine = np.abs(np.abs(v) - 0.78 * w * (np.abs(v) > 0.39 * w))
            head = np.minimum(root, box(u + 0.75 * a, tine, 0.25 * a, 0.19 * w, 2))
        d = np.minimum(handle, head)
        grain = noise((4, u.shape[1]), rng, 3, 2)
        albedo = _tinted(paint, tint) * (1 + 0.05 * cv2.resize(grain, u.shape[::-1]))[..., None]
        hollow = dome(ellipse(u + 0.66 * a, v, 0.30 * a, 0.8 * w), 0.8 * w, 0.35) if kind == "spoon" else 0
        return Patch(shade(albedo, bevel(d, 0.012 * s, 0.008 * s) - hollow, 0.05), coverage(d))

    return draw


def plate(s, angle, size, paint, tint, rng) -> Patch:
    """A glazed round plate with a raised rim."""
    r = 0.165 * s * size
    u, v = grid(r, r, 0)
    radius = np.hypot(u, v)
    height = 0.03 * s * np.clip((radius / r - 0.62) / 0.3, 0, 1) ** 1.5
    return Patch(shade(_tinted(paint, tint), height.astype(np.float32), 0.10, 20), coverage(radius - r))


def cup(s, angle, size, paint, tint, rng) -> Patch:
    """A cup from above: thick wall, dark hollow, one handle."""
    r = 0.115 * s * size
    u, v = grid(1.5 * r, r, angle)
    body, handle = ellipse(u, v, r, r), box(u - 1.2 * r, v, 0.26 * r, 0.15 * r, 0.08 * r)
    hollow = coverage(ellipse(u, v, 0.80 * r, 0.80 * r))[..., None]
    albedo = _tinted(paint, tint) * (1 - 0.55 * hollow)
    return Patch(shade(albedo, bevel(body, 0.2 * r, 0.2 * r), 0.15, 20), coverage(np.minimum(body, handle)))


def ball(s, angle, size, colour, tint, rng) -> Patch:
    """A table tennis ball."""
    r = 0.072 * s * size
    u, v = grid(r, r, 0)
    d = ellipse(u, v, r, r)
    return Patch(shade(_tinted(colour, tint), dome(d, r, 0.85), 0.12, 26), coverage(d))


def label(s, angle, word, rng) -> Patch:
    """A paper label with a printed word, set from left to right."""
    a, b = 0.17 * s, 0.062 * s
    text = np.zeros((int(2 * b) * 4, int(2 * a) * 4), np.uint8)
    scale, thick = b * 4 / 24, max(int(b * 4 / 5), 1)
    (w, h), _ = cv2.getTextSize(word.upper(), cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
    scale = scale * min(1.0, 0.86 * text.shape[1] / w)
    (w, h), _ = cv2.getTextSize(word.upper(), cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
    cv2.putText(
        text,
        word.upper(),
        ((text.shape[1] - w) // 2, (text.shape[0] + h) // 2),
        cv2.FONT_HERSHEY_SIMPLEX,
        scale,
        255,
        thick,
        cv2.LINE_AA,
    )
    u, v = grid(a, b, angle)
    at = ((u + a) * 4).astype(np.float32), ((v + b) * 4).astype(np.float32)
    ink = cv2.remap(cv2.GaussianBlur(text, (0, 0), 1.6), *at, cv2.INTER_LINEAR)[..., None] / 255
    albedo = np.array([0.96, 0.95, 0.91], np.float32) * (1 - ink) + 0.08 * ink
    d = box(u, v, a, b, 2)
    return Patch(shade(albedo, 0.2 * noise(u.shape, rng, 0.1 * s), 0), coverage(d))
