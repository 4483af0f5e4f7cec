"""Counts of the captions that text encoders were trained on, and why rewrites were refused."""

import csv

import pytest

from stages.artifacts.tables import CAPTIONS, ENCODERS, MANIFEST, NEGATIVES, SCORES
from stages.base.config import RunOptions
from stages.evaluate.config import EvaluateConfig
from stages.evaluate.images import run
from stages.report.training_texts import plain_reason
from tests.report.test_made import make

QUIET = RunOptions(quiet=True)
TASK = {"dataset": "vidad", "category": "fruits", "condition": "white_bg"}
EDIT = {"attribute": "count", "before": "two", "after": "four"}


def negative(image_id, **more):
    columns = {"sample": 0, "text": "Two kiwis and three oranges.", "attempts": 1, "edits": []}
    return {"image_id": image_id} | columns | more


@pytest.fixture
def world(tmp_path):
    """Seven normal training images: two with a contradiction, two kept unchecked, one refused, one whose caption
    failed, one without a row; a second task of one image and no rows."""
    images = [{"image_id": f"n{n}", "split": "train", "label": 0} | TASK for n in range(7)]
    images += [{"image_id": "other", "split": "train", "label": 0} | TASK | {"condition": "blurry"}]
    images += [{"image_id": f"t{n}", "split": "test", "label": n} | TASK for n in range(2)]
    images += [{"image_id": f"u{n}", "split": "test", "label": n} | TASK | {"condition": "blurry"} for n in range(2)]
    rows = [r | {"path": f"{r['image_id']}.png", "mask_paths": []} for r in images]
    m = make(tmp_path / "m", MANIFEST, "data index", {}, {}, rows, notes={"root": str(tmp_path)})
    texts = [{"image_id": r["image_id"], "prompt_id": "p", "sample": 0, "text": "Two kiwis."} for r in images]
    c = make(tmp_path / "c", CAPTIONS, "caption", {"vlm": "v"}, {"manifest": m}, texts)
    gave_up = "structure: `two` became `2x` (last of 5 rewrites)"
    rows = [
        negative("n0", negative="Four kiwis and three oranges.", edits=[EDIT], attempts=3),
        negative("n1", negative="Four kiwis and three oranges.", edits=[EDIT]),
        negative("n2", negative="Two kiwis and three oranges."),
        negative("n3", negative="Nine kiwis."),
        negative("n4", attempts=5, error=gave_up, retry=False),
        negative("n5", text=None, attempts=0, error="no caption: it is empty"),
    ]
    inputs = {"captions": c, "manifest": m}
    n = make(tmp_path / "n", NEGATIVES, "rewrite-negatives", {"rewriter": "v"}, inputs, rows)
    trained = [TASK | {"path": "_encoders/x", "n": 4}, TASK | {"condition": "blurry", "n": 0, "error": "none"}]
    e = make(tmp_path / "e", ENCODERS, "train-encoder", {"encoder": "b"}, {"negatives": n, "manifest": m}, trained)
    scores = [{"image_id": i["image_id"], "method": "text-knn/v", "score": 0.1 * k} for k, i in enumerate(images)]
    inputs = {"manifest": m, "captions": c, "encoders": e}
    make(tmp_path / "s", SCORES, "score", {"method": "text-knn/v", "k": 5}, inputs, scores)
    return tmp_path


def evaluated(world):
    settings = {"scores": world / "s", "manifest": world / "m", "out": world / "metrics", "tables": world / "tables"}
    run(EvaluateConfig(**settings, report=world / "r.html"), RunOptions(quiet=True, overwrite=True))
    return {f.stem: list(csv.reader(f.open())) for f in (world / "tables").glob("*.csv")}


def test_captions_of_every_task_are_counted_from_the_rows(world):
    found = evaluated(world)
    head, first, second = found["training-texts"]
    assert head[4:] == ["normal images", "to train on", "of these unchecked", "refused", "missing", "rewrites drawn"]
    assert first == ["vidad", "text-knn/v", "fruits", "White BG", "7", "4", "2", "1", "2", "11"]
    assert second == ["vidad", "text-knn/v", "fruits", "Blurry CD", "1", "0", "0", "0", "1", "0"]
    assert found["refused-rewrites"][1:] == [
        ["text-knn/v", "contradiction: no attribute changed", "0", "1"],
        ["text-knn/v", "replacement only: N words became N", "0", "1"],
        ["text-knn/v", "structure: `...` became `...`", "1", "0"],
    ]
    page = (world / "r.html").read_text()
    assert "Captions that the text encoders were trained on" in page and "Why rewrites were refused" in page


def test_a_damaged_table_of_negatives_costs_the_counts_alone(world):
    for part in (world / "n").glob("part-*"):
        part.write_bytes(b"no Parquet")
    found = evaluated(world)
    assert "training-texts" not in found and "negatives: cannot be" in found["made"][1][-1]


def test_equal_causes_have_equal_reasons():
    assert plain_reason("replacement only: 12 words became 1,013 (last of 5 rewrites)") == (
        "replacement only: N words became N"
    )
    assert plain_reason("a\n" + "b" * 200) == "a " + "b" * 95 + "..."
