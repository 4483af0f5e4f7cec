import os
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")        # two test processes share two cores


@pytest.fixture(scope="session")
def qwen(tmp_path_factory) -> Path:
    from tests.tiny import tiny_qwen2_vl

    return tiny_qwen2_vl(tmp_path_factory.mktemp("qwen2-vl"))


@pytest.fixture(scope="session")
def bert(tmp_path_factory) -> Path:
    from tests.tiny import tiny_bert

    return tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def save_image():
    """save(path, seed or array): writes an image and returns the path."""
    from PIL import Image

    def save(path: Path, content=0, **options) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, int):
            content = np.random.default_rng(content).integers(0, 255, (40, 60, 3), np.uint8)
        Image.fromarray(content).save(path, **options)
        return path

    return save
