"""The worked examples of CONTRIBUTING.md, as they stand there: a data set, an engine, a method."""

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import stages
from stages.artifacts.reader import read_table
from stages.artifacts.tables import CAPTIONS, MANIFEST, METRICS, SCORES
from stages.base.config import RunOptions

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
EXAMPLES = dict(re.findall(r"^```python\n# (\S+)\n(.*?)^```", TEXT, re.M | re.S))
QUIET = RunOptions(quiet=True)


@pytest.fixture
def example(tmp_path, monkeypatch):
    """example(name) -> the module, imported as if the examples' files lay where their first lines say."""
    loaded = set(sys.modules)
    for name, text in EXAMPLES.items():
        file = tmp_path / "code" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for folder in sorted({(tmp_path / "code" / name).parent for name in EXAMPLES}):
        known = (Path(stages.__path__[0]) / folder.name).is_dir()
        package = importlib.import_module(f"stages.{folder.name}") if known else stages
        more = folder if known else folder.parent
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(more)])
    yield importlib.import_module
    for name in set(sys.modules) - loaded:
        if name.split(".")[-1] in ("parts", "mean_colour") or name.startswith("stages.brightness"):
            del sys.modules[name]


@pytest.fixture
def parts(tmp_path, save_image):
    """Grey parts; the defective one is brighter, and its mask lies beside it."""
    for name, grey in (("train/ok-0", 100), ("train/ok-1", 104), ("test/ok-2", 103), ("test/hole-0", 180)):
        save_image(tmp_path / "parts" / "nut" / f"{name}.png", np.full((8, 8, 3), grey, np.uint8))
    save_image(tmp_path / "parts" / "nut" / "test" / "hole-0.mask.png", np.eye(8, dtype=np.uint8) * 255)
    return tmp_path / "parts"


@pytest.fixture
def manifest(example, parts, tmp_path):
    from stages.datasets.config import IndexConfig

    example("stages.datasets.parts").run(IndexConfig(root=parts, out=tmp_path / "manifest"), QUIET)
    return tmp_path / "manifest"


def test_there_are_three_examples_of_at_most_sixty_lines():
    assert list(EXAMPLES) == [
        "stages/datasets/parts.py",
        "stages/vlm/mean_colour.py",
        "stages/brightness/config.py",
        "stages/brightness/score.py",
    ]
    assert all(len(text.splitlines()) < 60 for text in EXAMPLES.values())


def test_a_data_set(manifest):
    rows = {r["image_id"]: r for r in read_table(manifest, MANIFEST).to_pylist()}
    hole = rows["parts/nut/test/hole-0.png"]
    assert len(rows) == 4 and [r["label"] for r in rows.values()].count(0) == 3
    assert (hole["split"], hole["category"], hole["defect"]) == ("test", "nut", "hole")
    assert hole["mask_paths"] == ["nut/test/hole-0.mask.png"]


def test_an_engine(example, manifest, parts, tmp_path, monkeypatch):
    """A caption stage that is given the engine, as `make_engine` would; a cut image is one failed row."""
    import stages.captions.caption as caption

    (parts / "nut" / "train" / "ok-1.png").write_bytes(b"cut")
    engine = example("stages.vlm.mean_colour").MeanColour()
    monkeypatch.setattr(caption, "make_engine", lambda name, options: engine)
    summary = caption.run(caption.CaptionConfig(manifest=manifest, out=tmp_path / "captions"), QUIET)
    texts = {r["image_id"]: r["text"] for r in read_table(tmp_path / "captions", CAPTIONS).to_pylist()}
    assert texts["parts/nut/test/hole-0.png"] == "Mean colour 180 180 180." and summary.errors == 1


def test_a_method(example, manifest, tmp_path):
    from stages.evaluate.images import EvaluateConfig
    from stages.evaluate.images import run as evaluate

    config = example("stages.brightness.config").BrightnessConfig(manifest=manifest, out=tmp_path / "scores")
    summary = example("stages.brightness.score").run(config, QUIET)
    scores = {r["image_id"]: r["score"] for r in read_table(tmp_path / "scores", SCORES).to_pylist()}
    assert summary.complete and scores["parts/nut/test/hole-0.png"] == 78 and scores["parts/nut/test/ok-2.png"] == 1
    assert example("stages.brightness.score").run(config, QUIET).up_to_date
    out = tmp_path / "metrics.parquet"
    evaluate(EvaluateConfig(scores=tmp_path / "scores", manifest=manifest, out=out, resamples=0), QUIET)
    values = {r["metric"]: r["value"] for r in read_table(out, METRICS).to_pylist() if r["level"] == "image"}
    assert values["auroc"] == 1.0 and pq.read_table(out).num_rows
