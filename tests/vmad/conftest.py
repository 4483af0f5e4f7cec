"""Pictures with bright spots, and models that were trained on them."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.artifacts.tables import QUESTIONS
from stages.vmad.train import run as train
from tests.spots import make_spots
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
    folder = tmp_path_factory.mktemp("spots")

    def more(n):
        return {"category": f"grey_{n // 6}", "split": "train", "defect": "bright_spot" if n % 2 else None}

    manifest = make_spots(folder, 12, (48, 64), 20, 100, more)
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
    return manifest


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
