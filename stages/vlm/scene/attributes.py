"""What a piece is: colour, length, type. Sizes are in units of the picture's longer side."""

import cv2
import numpy as np

from stages.vlm.scene.segment import Piece, filled

HUES = {"red": 0.0, "orange": 30.0, "yellow": 52.0, "green": 135.0, "blue": 222.0}  # degrees
PLAIN_NAMES = ("black", "white", "grey", "brown", *HUES)
LONG = {"stick": 0.345, "pencil": 0.315, "eraser": 0.245, "tape": 0.43}  # from here on it is long
SAME_LENGTH = 1.22  # two things whose lengths differ by less than this factor are similar


def colour_of(even: np.ndarray, piece: Piece, names: tuple[str, ...] = ()) -> str:
    """The colour's name, one of `names` where given (the prompt's vocabulary), else a plain name."""
    core = filled(piece, 2)
    rgb = np.median(even[core if core.sum() > 12 else piece.mask], axis=0)
    names = names or PLAIN_NAMES
    return min(names, key=lambda name: _colour_distance(rgb, name))


def _colour_distance(rgb: np.ndarray, name: str) -> float:
    """How far a colour (white = 1) is from a name; about 0..2."""
    value, chroma = float(rgb.max()), float(rgb.max() - rgb.min())
    saturation = chroma / max(value, 0.05)
    if name == "black":
        return max(0.0, value - 0.12) / 0.25 + 0.5 * saturation * value
    if name in ("white", "grey"):
        level = 0.85 if name == "white" else 0.45
        return 2.2 * saturation + abs(value - level)
    turn = abs((_hue(rgb) - HUES["orange" if name == "brown" else name] + 180) % 360 - 180) / 60
    if name == "brown":
        return turn + max(0.0, value - 0.60) / 0.2 + max(0.0, saturation - 0.8) / 0.1
    least = {"yellow": 0.62, "orange": 0.62}.get(name, 0.42)
    return turn + 2.5 * max(0.0, least - value) + max(0.0, 0.45 - saturation)


def _hue(rgb: np.ndarray) -> float:
    r, g, b = (float(v) for v in rgb)
    return float(np.degrees(np.arctan2(np.sqrt(3) * (g - b), 2 * r - g - b))) % 360


def length_of(piece: Piece) -> float:
    """Length of the longest extent, in units of the picture's longer side."""
    (_, _), (w, h), _ = cv2.minAreaRect(piece.contour)
    return max(w, h) / max(piece.mask.shape)


def width_of(piece: Piece) -> float:
    """Area over length: the mean width, in units of the picture's longer side."""
    side = max(piece.mask.shape)
    return piece.area / max(length_of(piece) * side, 1) / side


def length_name(piece: Piece, kind: str) -> str:
    """long or short, judged against what is usual for `kind` in a picture that it fills."""
    return "long" if length_of(piece) >= LONG.get(kind, 0.345) else "short"


def compared(a: float, b: float) -> str:
    """'longer than', 'similar to' or 'shorter than', for lengths a and b."""
    if a > SAME_LENGTH * b:
        return "longer than"
    return "shorter than" if b > SAME_LENGTH * a else "similar to"


# -- types -------------------------------------------------------------------------------------------


def type_of(even: np.ndarray, piece: Piece, types: tuple[str, ...]) -> str:
    """The most fitting of `types`. A single type is taken on the prompt's word."""
    if len(types) == 1:
        return types[0]
    for names, judge in (
        (set(FRUITS), _fruit),
        ({"bolt", "washer", "nut"}, _tool),
        ({"circle", "triangle", "square", "star", "cross"}, _shape),
        ({"eraser", "pencil"}, _stationery),
        ({"rope", "stick"}, _rope_or_stick),
        ({"fork", "knife", "spoon", "plate", "cup"}, _tableware),
    ):
        if set(types) <= names:
            return judge(even, piece)
    return "object"


FRUITS = {"orange": "orange", "kiwi": "brown", "apple": "red", "lemon": "yellow"}


def _fruit(even: np.ndarray, piece: Piece) -> str:
    colour = colour_of(even, piece, tuple(FRUITS.values()))
    return next(fruit for fruit, c in FRUITS.items() if c == colour)


def radii(piece: Piece, n: int = 128) -> np.ndarray:
    """(n,) distances of the outer contour from the centre in equal angles, over their mean."""
    x, y = piece.centre
    d = piece.contour - np.array([x, y])
    angle = np.arctan2(d[:, 1], d[:, 0])
    order = np.argsort(angle)
    r = np.interp(
        np.linspace(-np.pi, np.pi, n, endpoint=False), angle[order], np.hypot(d[:, 0], d[:, 1])[order], period=2 * np.pi
    )
    return r / r.mean()


def harmonics(piece: Piece) -> np.ndarray:
    """(9,) amplitudes of the radius's 0..8 waves per turn: 3 for triangles, 4 squares, 5 stars, 6 nuts."""
    spectrum = np.abs(np.fft.rfft(radii(piece))) / 64
    return spectrum[:9]


def solidity(piece: Piece) -> float:
    """Area of the outline over that of its convex hull, 0..1."""
    return cv2.contourArea(piece.contour) / max(cv2.contourArea(cv2.convexHull(piece.contour)), 1)


def roundness(piece: Piece) -> float:
    """Area of the outline over that of the smallest circle around it, 0..1."""
    return cv2.contourArea(piece.contour) / (np.pi * cv2.minEnclosingCircle(piece.contour)[1] ** 2)


def elongation(piece: Piece) -> float:
    """Longer over shorter side of the smallest rectangle around it, >= 1."""
    (_, _), (w, h), _ = cv2.minAreaRect(piece.contour)
    return max(w, h) / max(min(w, h), 1)


def _tool(even: np.ndarray, piece: Piece) -> str:
    if elongation(piece) > 1.45:
        return "bolt"
    six = harmonics(piece)[6]
    hole = 1 - piece.area / max(filled(piece).sum(), 1)  # out of focus a nut's closes and a washer's does not
    evidence = (six - 0.0115) / 0.006 - (hole - 0.115) / 0.05
    return "nut" if evidence > 0 else "washer"


def _shape(even: np.ndarray, piece: Piece) -> str:
    h = harmonics(piece)
    if solidity(piece) < 0.87:
        return "star" if h[5] > h[4] else "cross"
    if h[3] > 0.06:
        return "triangle"
    return "square" if h[4] > 0.045 else "circle"


def _stationery(even: np.ndarray, piece: Piece) -> str:
    return "eraser" if width_of(piece) > 0.058 else "pencil"


def _rope_or_stick(even: np.ndarray, piece: Piece) -> str:
    rgb = np.median(even[filled(piece, 2)], axis=0)
    wooden = (rgb.max() - rgb.min()) / rgb.max() < 0.68 and 15 < _hue(rgb) < 55
    return "stick" if wooden else "rope"


def _tableware(even: np.ndarray, piece: Piece) -> str:
    if elongation(piece) < 2.2:
        return "plate" if roundness(piece) > 0.84 else "cup"  # its handle reaches beyond the round body
    profile = width_profile(piece)
    tip, blade = profile[0], profile[7:10].mean()
    if blade > 0.72 * profile[1:6].max():
        return "knife"
    return "fork" if tip > 0.83 * profile[1:6].max() else "spoon"


def width_profile(piece: Piece, n: int = 20) -> np.ndarray:
    """(n,) extents across the long axis, from the broader end on, over the picture's longer side."""
    points = np.argwhere(piece.mask)[:, ::-1].astype(np.float32)
    centred = points - points.mean(axis=0)
    axis = np.linalg.svd(centred[::7], full_matrices=False)[2][0]
    along, across = centred @ axis, centred @ np.array([-axis[1], axis[0]])
    place = ((along - along.min()) / max(np.ptp(along), 1) * n).astype(int).clip(0, n - 1)
    extent = np.array([np.ptp(across[place == i]) if (place == i).any() else 0 for i in range(n)])
    extent = extent / max(piece.mask.shape)
    return extent if extent[: n // 2].sum() > extent[n // 2 :].sum() else extent[::-1]
