"""A data set that VisualAD can learn from in seconds."""

from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from stages.artifacts.tables import MANIFEST


def make_spots(folder: Path, count: int) -> Path:
    """Grey noise images of 60 x 80, half of them with a bright square and its mask; the manifest."""
    rng, rows = np.random.default_rng(0), []
    for n in range(count):
        pixels = cv2.GaussianBlur(rng.normal(110, 25, (60, 80)).astype(np.float32), (0, 0), 1)
        mask = np.zeros((60, 80), np.uint8)
        if n % 2:
            top, left = rng.integers(0, 40), rng.integers(0, 60)
            mask[top : top + 18, left : left + 18] = 255
            pixels[mask > 0] += 90
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
                "width": 80,
                "height": 60,
                "mask_paths": [f"{n}_mask.png"] if n % 2 else [],
            }
        )
    pq.write_table(pa.Table.from_pylist(rows, schema=MANIFEST.schema), folder / "m.parquet")
    return folder / "m.parquet"
