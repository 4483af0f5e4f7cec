"""What the tests of refused starts name: models and tables that are whole, and some that are not."""

import shutil

import numpy as np
import pytest

from stages.artifacts.tables import ANSWERS, CAPTIONS, MANIFEST, QUESTIONS
from tests.qa import cables, question, write
from tests.tiny import tiny_clip_vision
from tests.trained_models import look_alikes


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    return tiny_clip_vision(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def world(tmp_path_factory, clip, internvl, llava, sam, qwen):
    """Every input that a stage could ask for: paths by name."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("world")

    def save(path, n):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(n).integers(0, 255, (40, 60, 3), np.uint8)).save(path)

    paths = cables(folder, save)
    Image.fromarray(np.eye(40, 60, dtype=np.uint8) * 255).save(folder / "mask.png")
    rows = [
        {
            "image_id": f"d/cable/{n}",
            "path": f"d/cable/{n}.png",
            "dataset": "d",
            "category": "cable",
            "split": "test" if n != "ref" else "train",
            "label": int(n == "bad"),
            "mask_paths": ["mask.png"] if n == "bad" else [],
        }
        for n in ("ref", "bad", "good")
    ]
    write(folder / "masked.parquet", MANIFEST, rows)
    write(
        folder / "captions.parquet",
        CAPTIONS,
        [{"image_id": r["image_id"], "prompt_id": "p", "sample": 0, "text": "A cable."} for r in rows],
    )
    write(folder / "answers.parquet", ANSWERS, [{"question_id": "r0", "method": "m", "response": "Cut."}])
    write(folder / "asked.parquet", QUESTIONS, [question("r0")])
    elsewhere = question("r1") | {"image_id": "other/1", "reference_id": None}
    write(folder / "strange.parquet", QUESTIONS, [elsewhere])
    (folder / "file").write_text("")
    (folder / "empty").mkdir()
    for name, source, gone in (
        ("bin-clip", clip, "model.safetensors"),
        ("no-config", clip, "config.json"),
        ("no-processor", clip, "preprocessor_config.json"),
        ("no-template", qwen, "chat_template.jinja"),
    ):
        shutil.copytree(source, folder / name)
        (folder / name / gone).unlink()
    cut = shutil.copytree(clip, folder / "cut") / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-10])
    look_alikes(folder, clip, internvl, llava, sam)
    (folder / "prompt.txt").write_text("Write about {object}.")
    return paths | {
        "root": folder,
        "masked": folder / "masked.parquet",
        "captions": folder / "captions.parquet",
        "clip": clip,
        "internvl": internvl,
        "llava": llava,
        "sam": sam,
        "qwen": qwen,
        "answers": folder / "answers.parquet",
        "asked": folder / "asked.parquet",
        "strange": folder / "strange.parquet",
    }
