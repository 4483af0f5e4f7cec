"""A tiny backbone, smooth noise, and photographs of two tasks."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.artifacts.tables import MANIFEST
from stages.training.torch_setup import prepare_torch
from tests.baselines.world import SIZE, saved

torch = pytest.importorskip("torch")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A directory with a small random convolutional network of timm's, 32 + 48 + 48 channels at levels 1 to 3."""
    prepare_torch()
    return saved("test_resnet", tmp_path_factory.mktemp("backbone") / "tiny")


@pytest.fixture(scope="session")
def pixels():
    """(12, 3, 64, 64) smooth noise, normalised."""
    torch.manual_seed(1)
    coarse = torch.randn(12, 3, 8, 8)
    return torch.nn.functional.interpolate(coarse, size=(SIZE, SIZE), mode="bilinear")


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Two tasks of mixed sizes: `grey` with 8 normal training images, `lone` with 1; one file is broken."""
    from PIL import Image

    folder, rng, rows = tmp_path_factory.mktemp("photos"), np.random.default_rng(0), []
    for n in range(16):
        size = (60 + 10 * (n % 3), 80)
        pixels = rng.normal(120, 20, (*size, 3))
        if n >= 12:
            pixels[20:40, 20:40] += 90
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{n:02d}.png")
        split, label = ("train", 0) if n < 8 else ("test", int(n >= 12))
        rows.append(
            {
                "image_id": f"i{n:02d}",
                "path": f"{n:02d}.png",
                "dataset": "d",
                "category": "grey",
                "split": split,
                "label": label,
                "width": 80,
                "height": size[0],
                "mask_paths": [],
            }
        )
    rows += [r | {"image_id": f"l{r['image_id']}", "category": "lone"} for r in (rows[0], rows[12])]
    (folder / "broken.png").write_bytes(b"no image")
    rows.append(rows[15] | {"image_id": "broken", "path": "broken.png"})
    pq.write_table(pa.Table.from_pylist(rows, schema=MANIFEST.schema), folder / "m.parquet")
    return folder / "m.parquet"
