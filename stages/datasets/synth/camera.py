"""The five capture conditions: what lies under the things, how bright it is, how sharp the lens.

Only background, illumination and defocus differ between conditions (the paper's section 3.3); every
picture has its own drift of exposure and white balance, vignetting and sensor noise.
"""

import cv2
import numpy as np

from stages.datasets.synth.render import Layer, cast_shadow, compose
from stages.datasets.synth.shapes import noise

CABLES = ((0.10, 0.10, 0.11), (0.30, 0.31, 0.32), (0.52, 0.53, 0.54), (0.14, 0.15, 0.20))


def photograph(layer: Layer, condition: str, rng: np.random.Generator) -> np.ndarray:
    """A picture (S, S, 3) uint8 of the layer under one of the capture conditions."""
    side = layer.alpha.shape[0]
    background = {"cable_bg": cable_background, "mesh_bg": mesh_background}.get(condition, desk_background)(side, rng)
    picture = compose(background, layer)
    if condition == "blurry":
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.0075, 0.0115) * side)
    return _sensor(picture, low_light=condition == "low_light", rng=rng)


def desk_background(side: int, rng: np.random.Generator) -> np.ndarray:
    """A white desk: a soft fall-off of light and a faint surface."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side - 0.5
    turn = rng.uniform(0, 2 * np.pi)
    light = 0.90 + 0.07 * (np.cos(turn) * x + np.sin(turn) * y)
    grain = 0.010 * noise((side, side), rng, 0.25 * side) + 0.006 * noise((side, side), rng, 2, 1)
    return ((light + grain)[..., None] * np.array([1.0, 0.995, 0.98], np.float32)).astype(np.float32)


def cable_background(side: int, rng: np.random.Generator) -> np.ndarray:
    """The same desk with loose cables lying across it."""
    picture = desk_background(side, rng)
    for _ in range(rng.integers(4, 8)):
        line = np.zeros((side, side), np.uint8)
        thickness = max(int(rng.uniform(0.010, 0.022) * side), 2)
        cv2.polylines(line, [_cable_course(side, rng)], False, 255, thickness, cv2.LINE_AA)
        alpha = line.astype(np.float32) / 255
        ridge = cv2.GaussianBlur(alpha, (0, 0), max(thickness / 4, 0.6))
        gy, gx = np.gradient(ridge * thickness / 2)
        gleam = np.clip(0.75 - 0.5 * gx - 0.6 * gy, 0.3, 1.5)[..., None]
        colour = np.array(CABLES[rng.integers(len(CABLES))], np.float32)
        picture *= (1 - cast_shadow(alpha, side, 0.008))[..., None]
        picture = picture * (1 - alpha[..., None]) + np.clip(colour * gleam, 0, 1) * alpha[..., None]
    return picture.astype(np.float32)


def _cable_course(side: int, rng: np.random.Generator) -> np.ndarray:
    """Integer points of a smooth curve from one edge of the picture to another."""
    ends = rng.permutation(
        [(-0.1, rng.uniform(0, 1)), (1.1, rng.uniform(0, 1)), (rng.uniform(0, 1), -0.1), (rng.uniform(0, 1), 1.1)]
    )[:2]
    p0, p3 = ends
    p1, p2 = rng.uniform(-0.1, 1.1, 2), rng.uniform(-0.1, 1.1, 2)
    t = np.linspace(0, 1, 60)[:, None]
    curve = (1 - t) ** 3 * p0 + 3 * t * (1 - t) ** 2 * p1 + 3 * t * t * (1 - t) * p2 + t**3 * p3
    return (curve * side).round().astype(np.int32)


def mesh_background(side: int, rng: np.random.Generator) -> np.ndarray:
    """A woven wire sheet over the desk."""
    picture = desk_background(side, rng)
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    turn, pitch = rng.uniform(-0.4, 0.4), rng.uniform(0.045, 0.065) * side
    bend = 0.02 * side * noise((side, side), rng, 0.7 * side, 1)
    u = (np.cos(turn) * x + np.sin(turn) * y + bend + rng.uniform(0, pitch)) / pitch
    v = (-np.sin(turn) * x + np.cos(turn) * y + bend + rng.uniform(0, pitch)) / pitch
    across = np.minimum(np.abs(u - np.round(u)), np.abs(v - np.round(v))) * pitch
    half = rng.uniform(0.12, 0.17) * pitch
    wire = np.clip(half - across + 0.5, 0, 1)
    tone = rng.uniform(0.30, 0.50) * (0.75 + 0.45 * np.clip(1 - across / half, 0, 1))
    picture *= (1 - 0.6 * cast_shadow(wire.astype(np.float32), side, 0.006))[..., None]
    picture = picture * (1 - wire[..., None]) + (tone * wire)[..., None]
    return picture.astype(np.float32)


def _sensor(picture: np.ndarray, low_light: bool, rng: np.random.Generator) -> np.ndarray:
    """Exposure, white balance, vignetting, shot and read noise, quantisation."""
    side = picture.shape[0]
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side - 0.5
    vignette = 1 - 0.22 * (x * x + y * y)
    gain = rng.uniform(0.93, 1.06) * (rng.uniform(0.12, 0.22) if low_light else 1.0)
    balance = 1 + rng.uniform(-0.02, 0.02, 3)
    if low_light:
        balance = balance * np.array([1.10, 1.0, 0.84])  # an evening lamp
    picture = picture * vignette[..., None] * (gain * balance).astype(np.float32)
    read, shot = (0.012, 0.036) if low_light else (0.005, 0.012)
    spread = np.sqrt(read**2 + shot**2 * np.clip(picture, 0, 1))
    picture = picture + spread * rng.standard_normal(picture.shape, np.float32)
    return (np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8)
