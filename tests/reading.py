"""What the kinds of files share that reading_images.py, reading_masks.py and reading_trees.py list."""

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from stages.base.config import RunOptions
from stages.datasets import folder
from stages.datasets.check import CheckConfig, run
from stages.datasets.manifest import Image as Row
from stages.datasets.manifest import read_manifest


@dataclass(frozen=True)
class Kind:
    """A kind of file or folder and what happens to it: a row of docs/reading.md. try_it: makes it below an empty folder
    and asserts that this is what happens."""

    name: str
    outcome: str
    try_it: Callable[[Path], None]


def truth() -> np.ndarray:
    """(24, 32) bool: two blobs and a single pixel, 2 to 10% of the image."""
    mask = np.zeros((24, 32), bool)
    mask[3:9, 4:12] = mask[15:20, 20:24] = True
    mask[12, 2] = True
    return mask


def photo(seed: int = 0, shape: tuple[int, ...] = (24, 32, 3)) -> np.ndarray:
    """A picture of smooth colours, so that JPEG changes it little."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    rng = np.random.default_rng(seed)
    return np.stack([(rng.uniform(1, 4) * x + rng.uniform(1, 4) * y + 20) for _ in range(3)], 2).astype(np.uint8)


def save(path: Path, pixels: np.ndarray, **options) -> Path:
    """Any array as an image, its folder made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def indexed(root: Path, **config) -> tuple[dict[str, Row], str]:
    """(rows by path below `root`, what was printed) of `data index folder`; its --out is beside the root."""
    out = config.pop("out", root.parent / "manifest.parquet")
    with contextlib.redirect_stderr(io.StringIO()) as printed:
        folder.run(folder.FolderConfig(root=root, out=out, **config), RunOptions(overwrite=True))
    rows = read_manifest(out).images
    return {i.image_id.removeprefix(f"{i.dataset}/"): i for i in rows}, printed.getvalue()


def checked(out: Path) -> str:
    """The differences that `data check` finds in a manifest, one a line."""
    return "\n".join(run(CheckConfig(manifest=out), RunOptions(quiet=True)).differences)
