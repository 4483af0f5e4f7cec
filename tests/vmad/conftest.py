"""Pictures with bright spots, and models that were trained on them."""

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.artifacts.tables import MANIFEST, QUESTIONS
from stages.vmad.train import run as train
from tests.tiny import tiny_deep_llava, tiny_sam
from tests.vmad_stages_world import QUIET, config


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """LLaVA and SAM."""
    return {
        "llava": str(tiny_deep_llava(tmp_path_factory.mktemp("llava"))),
        "sam": str(tiny_sam(tmp_path_factory.mktemp("sam"))),
    }


@pytest.fixture(scope="session")
def spots(tmp_path_factory):
    """12 grey noise images of 48 x 64 of two categories, half of them with a bright square and its mask."""
    from PIL import Image

    folder, rng, rows = tmp_path_factory.mktemp("spots"), np.random.default_rng(0), []
    for n in range(12):
        pixels = cv2.GaussianBlur(rng.normal(110, 25, (48, 64)).astype(np.float32), (0, 0), 1)
        mask = np.zeros((48, 64), np.uint8)
        if n % 2:
            top, left = rng.integers(0, 28), rng.integers(0, 44)
            mask[top : top + 20, left : left + 20] = 255
            pixels[mask > 0] += 100
            Image.fromarray(mask).save(folder / f"{n}_mask.png")
        Image.fromarray(np.repeat(pixels.clip(0, 255).astype(np.uint8)[:, :, None], 3, 2)).save(folder / f"{n}.png")
        rows.append(
            {
                "image_id": f"i{n:02d}",
                "path": f"{n}.png",
                "dataset": "spots",
                "category": f"grey_{n // 6}",
                "split": "train",
                "label": n % 2,
                "defect": "bright_spot" if n % 2 else None,
                "width": 64,
                "height": 48,
                "mask_paths": [f"{n}_mask.png"] if n % 2 else [],
            }
        )
    pq.write_table(pa.Table.from_pylist(rows, schema=MANIFEST.schema), folder / "m.parquet")
    asked = [
        {
            "question_id": f"q{n}",
            "image_id": f"i{n:02d}",
            "level": level,
            "question": "Why?",
            "choices": [],
            "answer": "It is bright.",
        }
        for n, level in ((1, "impact"), (3, "other"))
    ]
    pq.write_table(pa.Table.from_pylist(asked, schema=QUESTIONS.schema), folder / "q.parquet")
    return folder / "m.parquet"


@pytest.fixture(scope="session")
def trained(spots, models, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "v"
    train(config(spots, models, out), QUIET)
    return out


@pytest.fixture(scope="session")
def learned(spots, models, tmp_path_factory):
    """Long enough to answer and to segment: one task, without DSSL, since that takes most of the time."""
    out = tmp_path_factory.mktemp("learned") / "v"
    train(
        config(spots, models, out, epochs=40, tasks="segmentation", no_dssl=True, merged=out.parent / "merged"), QUIET
    )
    return out
