"""Image and prompt -> caption. The caption depends on nothing but these two."""

import cv2
import numpy as np

from stages.vlm.scene import attributes as look
from stages.vlm.scene.form import Form, counted, parse_form
from stages.vlm.scene.label import read_word
from stages.vlm.scene.segment import Piece, coloured, even_light, filled, pieces, split_touching, unlike, working_size
from stages.vlm.scene.surface import describe_surface

NOTHING = "no objects."
LEAST = 0.0018  # of the picture: what is smaller lies about and is none of the things


def describe(rgb: np.ndarray, prompt: str) -> str:
    """Caption of (H, W, 3) uint8 in the form that the prompt asks for."""
    form = parse_form(prompt)
    if form.surface:
        return describe_surface(rgb)
    rgb = working_size(rgb)
    even = even_light(rgb)
    if form.regions:
        return _by_region(even, form)
    things = [p for p in split_touching(coloured(even), LEAST) if not _at_edge_only(p)]
    if not things:
        return NOTHING
    if form.label:
        return _rope_and_label(even, things, form)
    if form.compared:
        return _comparison(even, things, form)
    if form.ordered:
        return _in_order(even, things, form) + "."
    return _counted([_name(even, p, form) for p in things], form) + "."


def _name(even: np.ndarray, piece: Piece, form: Form) -> tuple[str, ...]:
    """('long', 'blue', 'stick'): the attributes that the form asks for, type last."""
    kind = look.type_of(even, piece, form.types)
    said = {
        "length": lambda: look.length_name(piece, kind),
        "colour": lambda: look.colour_of(even, piece, form.colours),
        "type": lambda: kind,
    }
    return tuple(said[a]() for a in form.attributes)


def _counted(names: list[tuple[str, ...]], form: Form) -> str:
    return counted(names, vocabulary_order(form), form.attributes[-1] == "type")


def vocabulary_order(form: Form) -> list[tuple[str, ...]]:
    """Every possible name in the order of the prompt's vocabulary."""
    names: list[tuple[str, ...]] = [()]
    values = {"length": ("long", "short"), "colour": form.colours, "type": form.types}
    for a in form.attributes:
        names = [(*n, v) for n in names for v in values[a]]
    return names


def _at_edge_only(piece: Piece) -> bool:
    """A sliver along the frame is part of something outside the picture."""
    x, y, w, h = piece.box
    height, width = piece.mask.shape
    touches = x == 0 or y == 0 or x + w == width or y + h == height
    return touches and min(w, h) < 0.03 * max(height, width)


def _in_order(even: np.ndarray, things: list[Piece], form: Form) -> str:
    ordered = sorted(things, key=lambda p: p.centre[0])
    return ", ".join(" ".join(_name(even, p, form)) for p in ordered)


def _comparison(even: np.ndarray, things: list[Piece], form: Form) -> str:
    named = sorted(((look.length_of(p), _name(even, p, form)) for p in things), reverse=True)
    if len(named) != 2:
        return _counted([name for _, name in named], form) + "."
    (a, first), (b, second) = named
    relation = look.compared(a, b)
    if relation == "similar to":
        first, second = sorted((first, second), key=vocabulary_order(form).index)
    return f"{' '.join(first)} {relation} {' '.join(second)}."


def _rope_and_label(even: np.ndarray, things: list[Piece], form: Form) -> str:
    long_things = [p for p in things if look.elongation(p) > 3]
    ropes = [p for p in long_things if look.type_of(even, p, form.types) == "rope"]
    sticks = [p for p in long_things if look.type_of(even, p, form.types) == "stick"]
    if not ropes:
        return "no rope."
    rope = max(ropes, key=look.length_of)
    colour, word = look.colour_of(even, rope, form.colours), read_word(even, form.colours)
    relation = "matches" if colour == word else "contradicts"
    said = f"{colour} rope {relation} label {word}"
    if not sticks:
        return f"{said}, no stick."
    stick = max(sticks, key=look.length_of)
    return f"{said}, rope {look.compared(look.length_of(rope), look.length_of(stick))} stick."


# -- bins, dishes and compartments --------------------------------------------------------------------


def _by_region(even: np.ndarray, form: Form) -> str:
    mask = coloured(even)
    close = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    holders = [p for p in pieces(close.astype(bool)) if filled(p).sum() > 0.08 * mask.size]
    if not holders:
        return NOTHING
    if any("dish" in r for r in form.regions):
        contents = _on_dishes(even, holders, form)
    else:
        contents = _in_tray(even, holders[0], form)
    return ". ".join(f"{region}: {_content(even, things, form)}" for region, things in contents.items()) + "."


def _content(even: np.ndarray, things: list[Piece], form: Form) -> str:
    if not things:
        return "empty"
    if form.ordered:
        return _in_order(even, things, form)
    return _counted([_name(even, p, form) for p in things], form)


def things_on(even: np.ndarray, holder: Piece) -> list[Piece]:
    """What lies on a tray or dish: no shade of its colour, which is that of most of its surface."""
    inside = filled(holder, 7)
    ground = _main_colour(even[inside])
    return split_touching(unlike(even, ground, inside), 0.0012)


def _main_colour(pixels: np.ndarray) -> np.ndarray:
    """(N, 3) -> the colour (3,) of the commonest of 8x8x8 cells: the floor, not the things on it."""
    cells = (pixels * 8).astype(int).clip(0, 11)
    codes = cells[:, 0] * 144 + cells[:, 1] * 12 + cells[:, 2]
    return np.median(pixels[codes == np.bincount(codes).argmax()], axis=0)


def _on_dishes(even: np.ndarray, holders: list[Piece], form: Form) -> dict[str, list[Piece]]:
    contents: dict[str, list[Piece]] = {region: [] for region in form.regions}
    for holder in holders:
        body = cv2.morphologyEx(filled(holder).astype(np.uint8), cv2.MORPH_OPEN, np.ones((15, 15), np.uint8))
        _, _, w, h = cv2.boundingRect(body)  # without specks that its edge has caught
        kind = "square" if body.sum() > 0.88 * w * h else "round"
        region = next((r for r in form.regions if kind in r), None)
        if region:
            contents[region] += things_on(even, holder)
    return contents


def _in_tray(even: np.ndarray, tray: Piece, form: Form) -> dict[str, list[Piece]]:
    """Divide the tray's box evenly by the regions' names: left/middle/right, top/middle/bottom, both."""
    contents: dict[str, list[Piece]] = {region: [] for region in form.regions}
    x, y, w, h = tray.box
    across = [n for n in ("left", "middle", "right") if any(n in r for r in form.regions)]
    down = [n for n in ("top", "middle", "bottom") if any(n in r for r in form.regions)]
    sideways, upright = "left" in across, "top" in down
    for thing in things_on(even, tray):
        cx, cy = thing.centre
        column = across[min(int((cx - x) / w * len(across)), len(across) - 1)] if sideways else ""
        row = down[min(int((cy - y) / h * len(down)), len(down) - 1)] if upright else ""
        name = f"{row} {column}".strip()
        region = next((r for r in form.regions if r == name or r == f"{name} bin"), None)
        if region:
            contents[region].append(thing)
    return contents
