"""Where the anchors of a trained VisualAD look (Figure 6), as pictures."""

from pathlib import Path

import cv2
import numpy as np
from torch import Tensor

from stages.artifacts.files import make_folder, write_atomically
from stages.datasets.manifest import Image
from stages.images import load_rgb

SIDE = 160       # px of one cell


def write_attention(folder: Path, image: Image, attention: Tensor) -> None:
    """FOLDER/<image_id>.png: a row per layer; the image, then each anchor's attention over it.

    attention: (K, m, N), rows that sum to 1, patches in raster order of a square grid.
    """
    picture = cv2.resize(load_rgb(image.file), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    rows = [np.hstack([picture, *(_over(picture, a) for a in layer)]) for layer in attention.float().cpu().numpy()]
    path = folder / f"{image.image_id}.png"
    make_folder(path.parent)
    png = cv2.imencode(".png", np.vstack(rows)[:, :, ::-1])[1].tobytes()
    write_atomically(path, lambda f: f.write(png))


def _over(picture: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """picture: (SIDE, SIDE, 3) uint8, weights: (N,) >= 0 -> the same, dimmed where the anchor does not look."""
    side = round(len(weights) ** 0.5)
    grid = (weights / max(weights.max(), 1e-12)).reshape(side, side).astype(np.float32)
    seen = cv2.resize(grid, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)[:, :, None]
    heat = cv2.applyColorMap((seen * 255).astype(np.uint8), cv2.COLORMAP_TURBO)[:, :, ::-1]
    return (picture * 0.5 + heat * 0.5).astype(np.uint8)
