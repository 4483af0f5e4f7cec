"""A data set that a model with masks can learn from in seconds."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from stages.artifacts.tables import MANIFEST


def make_spots(
    folder: Path,
    count: int,
    size: tuple[int, int] = (60, 80),
    side: int = 18,
    brighter: int = 90,
    more: Callable[[int], dict] = lambda n: {},
) -> Path:
    """Grey noise images, half of them with a brighter square and its mask; the manifest. size: height and width, px;
    side: of the square; more: columns of the n-th image."""
    (height, width), rng, rows = size, np.random.default_rng(0), []
    for n in range(count):
        pixels = cv2.GaussianBlur(rng.normal(110, 25, size).astype(np.float32), (0, 0), 1)
        mask = np.zeros(size, np.uint8)
        if n % 2:
            top, left = rng.integers(0, height - 20), rng.integers(0, width - 20)
            mask[top : top + side, left : left + side] = 255
            pixels[mask > 0] += brighter
            Image.fromarray(mask).save(folder / f"{n}_mask.png")
        Image.fromarray(np.repeat(pixels.clip(0, 255).astype(np.uint8)[:, :, None], 3, 2)).save(folder / f"{n}.png")
        rows.append(
            {
                "image_id": f"i{n:02d}",
                "path": f"{n}.png",
                "dataset": "spots",
                "category": "grey",
                "split": "test",
                "label": n % 2,
                "width": width,
                "height": height,
                "mask_paths": [f"{n}_mask.png"] if n % 2 else [],
            }
            | more(n)
        )
    pq.write_table(pa.Table.from_pylist(rows, schema=MANIFEST.schema), folder / "m.parquet")
    return folder / "m.parquet"
