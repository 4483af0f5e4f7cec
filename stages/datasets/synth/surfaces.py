"""`adcli data synth surfaces`: brushed metal with scratches and spots, made up, as folders for `adcli inspect`."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from stages.artifacts.files import make_folder, write_alone
from stages.artifacts.tables import TRUTH
from stages.artifacts.writer import Artifact, Spec, Summary
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.base.seeds import row_seed
from stages.datasets.config import SURFACES, SURFACES_MARK, SurfacesConfig

NOTE = """These surfaces were rendered by `adcli data synth surfaces`. None of them is a photograph: figures measured on
them say that the program works, and nothing of any product.
"""
FOLDERS = ("good", "new/good", "new/scratch", "new/spot")
FINE = 4  # defects are drawn so many times as large and averaged, so that their edges are soft


@dataclass(frozen=True)
class Grain:
    """How a surface was brushed. angle: of the grain, radians from the horizontal; unit: px of a picture of this size
    for one px of a picture of 256."""

    angle: float
    unit: float


def run(config: SurfacesConfig, options: RunOptions) -> Summary:
    """Render OUT/good, OUT/new/{good,scratch,spot} and OUT/masks/{scratch,spot}, and write the table OUT/truth.parquet.
    Raises InputError for too few pictures or a size below 64."""
    if config.size < 64:
        raise InputError(f"--size {config.size}: too small to show anything; at least 64 px")
    for name, least in (("good", 1), ("new", 3)):
        if getattr(config, name) < least:
            raise InputError(f"--{name} {getattr(config, name)}: at least {least}")
    each = max(config.new // 5, 1)
    counts = dict(zip(FOLDERS, (config.good, config.new - 2 * each, each, each), strict=True))
    files = {f"{SURFACES}/{folder}/{n:03d}.jpg": (folder, n) for folder, count in counts.items() for n in range(count)}
    make_folder(config.out)
    write_alone(config.out / SURFACES_MARK, lambda f: f.write(NOTE.encode()))
    spec = Spec("data synth", {"surfaces": counts, "size": config.size}, {}, config.seed)
    with Artifact(config.out / "truth.parquet", TRUTH, spec, [(i,) for i in files], options) as artifact:
        for (image_id,) in artifact.pending:
            folder, number = files[image_id]
            artifact.write({"image_id": image_id, **_render_to_disk(folder, number, config)})
    return artifact.summary


def _render_to_disk(folder: str, number: int, config: SurfacesConfig) -> dict:
    """Write a picture and its mask, where it has a defect; returns its truth row but for the image_id."""
    picture, mask, state = surface(folder, number, config.size, config.seed)
    _save(config.out / folder / f"{number:03d}.jpg", Image.fromarray(picture), "JPEG", quality=92)
    kind = Path(folder).name
    if mask.any():
        _save(config.out / "masks" / kind / f"{number:03d}.png", Image.fromarray(mask), "PNG")
    return {
        "scenario": "surfaces",
        "condition": "",
        "split": "train" if folder == "good" else "test",
        "label": int(kind != "good"),
        "violates": [] if kind == "good" else [kind],
        "state": json.dumps(state),
    }


def _save(path: Path, picture: Image.Image, form: str, **options: int) -> None:
    encoded = io.BytesIO()
    picture.save(encoded, form, **options)
    make_folder(path.parent)
    write_alone(path, lambda f: f.write(encoded.getvalue()))


def surface(folder: str, number: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray, dict]:
    """((size, size, 3) uint8, (size, size) bool: where the defect is, its figures) of one picture. No two surfaces have
    the same light, colour, grain or harmless marks; what is a defect lies across the grain or has an area."""
    rng = np.random.default_rng(row_seed(seed, "surfaces", folder, number))
    grain = Grain(np.pi / 2 + rng.normal(0, 0.1), size / 256)
    grey = _sheet(rng, size, grain)
    for _ in range(rng.integers(0, 5)):  # marks of the brush, along the grain
        grey += rng.uniform(-0.1, 0.1) * _line(rng, size, grain, rng.normal(0, 0.04), (0.1, 0.5), (0.6, 1.4))
    for _ in range(rng.integers(0, 5)):  # dust
        grey += rng.uniform(-0.16, 0.16) * _blot(rng, size, (0.8, 1.6), grain)
    tint = 1 + rng.normal(0, 0.012, 3)
    cover, change, state = DEFECTS.get(Path(folder).name, _none)(rng, size, grain)
    rgb = grey[:, :, None] * tint + change + rng.normal(0, 0.012, (size, size, 1))
    return (rgb.clip(0, 1) * 255).round().astype(np.uint8), cover > 0.1, state


def _sheet(rng: np.random.Generator, size: int, grain: Grain) -> np.ndarray:
    """(size, size) grey values of a brushed sheet under uneven light, about 0.3 to 0.75."""
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    turn, fall = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.25)
    light = 1 + fall * (np.cos(turn) * x + np.sin(turn) * y) - rng.uniform(0, 0.3) * (x * x + y * y)
    along, across = grain.angle, grain.angle + np.pi / 2
    brushed = _texture(rng, size, (rng.uniform(15, 50) * grain.unit, along), (1.2 * grain.unit, across))
    clouds = _texture(rng, size, (30 * grain.unit, along), (30 * grain.unit, across))
    return light * (rng.uniform(0.42, 0.62) + rng.uniform(0.02, 0.05) * brushed + rng.uniform(0.005, 0.02) * clouds)


def _texture(rng: np.random.Generator, size: int, *scales: tuple[float, float]) -> np.ndarray:
    """(size, size) noise of mean 0 and deviation 1, smooth over so many px in each of the directions (px, radians)."""
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
    filtered = np.fft.rfft2(rng.standard_normal((size, size)))
    for px, angle in scales:
        filtered *= np.exp(-((np.pi * px * (np.cos(angle) * fx + np.sin(angle) * fy)) ** 2) / 2)
    filtered[0, 0] = 0
    noise = np.fft.irfft2(filtered, (size, size))
    return noise / noise.std()


def _line(
    rng: np.random.Generator,
    size: int,
    grain: Grain,
    turned: float,
    length: tuple[float, float],
    width: tuple[float, float],
) -> np.ndarray:
    """(size, size) coverage of a bent line, thinner towards its ends. turned: from the grain, radians; length: range,
    of the picture's side; width: range, px of a picture of 256."""
    angle, reach = grain.angle + turned, rng.uniform(*length) / 2
    middle = rng.uniform(0.2, 0.8, 2)
    way, beside = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    t = np.linspace(-1, 1, 40)[:, None]
    points = (middle + reach * (t * way + rng.uniform(-0.2, 0.2) * (1 - t * t) * beside)) * size * FINE
    widths = rng.uniform(*width) * grain.unit * FINE * np.sqrt(np.clip(1 - t[:-1, 0] ** 2, 0.15, 1))

    def draw(canvas: ImageDraw.ImageDraw) -> None:
        for a, b, w in zip(points, points[1:], widths, strict=False):
            canvas.line([*a, *b], fill=255, width=max(round(w), 1))

    return _coverage(size, draw)


def _blot(rng: np.random.Generator, size: int, radius: tuple[float, float], grain: Grain) -> np.ndarray:
    """(size, size) coverage of a round thing with an uneven outline. radius: range, px of a picture of 256."""
    turns = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    waves = sum(rng.normal(0, 0.12) * np.cos(k * turns + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 5))
    r = rng.uniform(*radius) * grain.unit * FINE * (1 + waves)
    x, y = rng.uniform(0.1, 0.9, 2) * size * FINE
    outline = np.stack([x + r * np.cos(turns), y + r * np.sin(turns)], 1)
    return _coverage(size, lambda canvas: canvas.polygon(list(map(tuple, outline)), fill=255))


def _coverage(size: int, draw: Callable[[ImageDraw.ImageDraw], object]) -> np.ndarray:
    """(size, size), 0 to 1, of what is drawn in a picture FINE times as large."""
    canvas = Image.new("L", (size * FINE, size * FINE))
    draw(ImageDraw.Draw(canvas))
    return np.asarray(canvas.reduce(FINE), float) / 255


def _scratch(rng: np.random.Generator, size: int, grain: Grain) -> tuple[np.ndarray, np.ndarray, dict]:
    """A bright line across the grain with a shadow on one side."""
    turned = rng.choice([-1, 1]) * rng.uniform(0.45, np.pi / 2)
    cover = _line(rng, size, grain, turned, (0.15, 0.6), (0.8, 2.2))
    strength, step = rng.uniform(0.04, 0.2), max(round(1.5 * grain.unit), 1)
    change = strength * (cover - 0.7 * np.roll(cover, (step, step), (0, 1)))
    return cover, change[:, :, None], {"degrees from the grain": round(np.degrees(turned)), "strength": strength}


def _spot(rng: np.random.Generator, size: int, grain: Grain) -> tuple[np.ndarray, np.ndarray, dict]:
    """A stain, darker and browner than the sheet, or a pale one, with a soft edge."""
    cover = _blot(rng, size, (3, 10), grain)
    soft = Image.fromarray((cover * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(grain.unit))
    cover = np.asarray(soft, float) / 255
    strength = rng.uniform(0.04, 0.25)
    colour = np.array([-0.8, -1.0, -1.2]) if rng.random() < 0.7 else np.array([0.7, 0.7, 0.7])
    return cover, strength * cover[:, :, None] * colour, {"strength": strength, "dark": bool(colour[0] < 0)}


def _none(rng: np.random.Generator, size: int, grain: Grain) -> tuple[np.ndarray, np.ndarray, dict]:
    return np.zeros((size, size)), np.zeros((1, 1, 1)), {}


DEFECTS = {"scratch": _scratch, "spot": _spot}
