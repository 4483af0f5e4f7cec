"""`make reproduce-vidad-check`: what it runs, and its rows."""

import pytest

from benchmarks.caption_accuracy import main as caption_accuracy
from benchmarks.vidad_check import look_alone, means
from stages.datasets.manifest import Image
from stages.results.scores import Scored, TaskScores
from tests.pipelines.recorded import Run, value


def task(category, condition, method, normal, anomalous) -> TaskScores:
    rows = []
    for label, scores in ((0, normal), (1, anomalous)):
        for n, score in enumerate(scores):
            name = f"{label}{n}"
            image = Image(name, f"{name}.png", "d", category, condition, "test", label, None, (), None, None, None)
            rows.append(Scored(image, {"score": score}))
    return TaskScores("d", category, condition, method, tuple(rows), 0)


def test_rows_per_scenario_and_their_mean():
    """AUROC by hand: 1, 3 against 2, 4 is 3 of 4 pairs; 1 against 2 is 1; 2 against 1 is 0."""
    tasks = [
        task("fruits", "white_bg", "padim", [1, 3], [2, 4]),
        task("fruits", "blurry", "padim", [1], [2]),
        task("tapes", "white_bg", "padim", [2], [1]),
        task("tapes", "white_bg", "knn", [1], [2]),
    ]
    assert means(tasks[:3], "category") == {"fruits": 0.875, "tapes": 0.0}
    assert means(tasks[:3], "condition") == {"white_bg": 0.375, "blurry": 1.0}
    assert look_alone(tasks) == [
        ("knn, tapes", 1.0, "< 0.75", False),
        ("knn, mean of 1", 1.0, "<= 0.65", False),
        ("padim, fruits", 0.875, "< 0.75", False),
        ("padim, tapes", 0.0, "< 0.75", True),
        ("padim, mean of 2", 0.4375, "<= 0.65", True),
    ]


@pytest.mark.parametrize("real", [False, True])
def test_vision_methods_score_rendered_scenes_before_the_rows_are_printed(real, tmp_path):
    settings = {"VIDAD_ROOT": "/d/VID AD"} if real else {}
    run = Run(tmp_path, "vidad.sh", SCENARIOS="fruits,tapes", CHECK="yes", SEED="3", **settings).done()
    assert run.code == 0
    vision = [c for c in run.of("--method") if value(c, "--method").startswith("anomalib/")]
    assert [value(c, "--method") for c in vision] == ([] if real else ["anomalib/padim", "anomalib/patchcore"])
    (check,) = run.of("benchmarks.vidad_check")
    assert all(run.commands.index(c) < run.commands.index(check) for c in vision)
    for c in vision:
        assert value(c, "--out").startswith(f"{check[-1]}/check/vision.parquet/") and value(c, "--seed") == "3"


def test_share_of_whole_captions_is_printed_with_its_target(tmp_path, capsys):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from stages.artifacts.tables import CAPTIONS, TRUTH

    state = '{"things": [{"kind": "orange"}, {"kind": "kiwi"}], "label": ""}'
    row = {"scenario": "fruits", "condition": "blurry", "split": "test", "label": 0, "violates": [], "state": state}
    truth = [row | {"image_id": i} for i in "ab"]
    said = [
        {"image_id": i, "prompt_id": "vidad/fruits", "sample": 0, "text": text}
        for i, text in (("a", "one orange, one kiwi."), ("b", "two oranges."))
    ]
    for name, table, rows in (("t", TRUTH, truth), ("c", CAPTIONS, said)):
        rows = [{n: r.get(n) for n in table.schema.names} for r in rows]
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), tmp_path / name)
    caption_accuracy(tmp_path / "c", tmp_path / "t")
    assert "whole captions right: 50.0 %   target >= 90 %   NOT REACHED" in capsys.readouterr().out
