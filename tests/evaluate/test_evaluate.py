"""Metrics by hand and against scikit-learn; tables; the report; no torch."""

import csv
import io
import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.artifacts.reader import read_table
from stages.artifacts.record import Spec, new_record
from stages.artifacts.tables import MANIFEST, METRICS, SCORES
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.evaluate.images import EvaluateConfig, run
from stages.report.grid import published
from stages.report.vidad import table4, table5
from stages.results.metrics.image import accuracy, curve_metrics, train_thresholds
from tests.pages import page_data

QUIET = RunOptions(quiet=True)


def metrics(scores, labels, resamples=0, seed=0):
    return curve_metrics(np.array(scores, float), np.array(labels), resamples, seed)


def test_by_hand():
    # by falling score: 1 0 {1 0} 0 -> AUROC: pairs (1st: 3 of 3), (3rd: 1 + half) of 2 * 3
    m = metrics([0.9, 0.8, 0.5, 0.5, 0.1], [1, 0, 1, 0, 0])
    assert m["auroc"].value == pytest.approx((3 + 1.5) / 6)
    assert m["ap"].value == pytest.approx(0.5 * 1 + 0.5 * 2 / 4)
    assert m["f1_max"].value == pytest.approx(2 * 2 / (4 + 2)) and m["f1_max"].n_positive == 2
    assert accuracy(np.array([True, False, True]), np.array([1, 1, 0]), 0, 0).value == pytest.approx(1 / 3)
    assert train_thresholds(np.arange(11.0)) == {"train-max": 10, "train-q90": 9, "train-q80": 8}


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1)), min_size=2, max_size=60))
def test_equals_scikit_learn_with_heavy_ties(pairs):
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    scores, labels = [p[0] for p in pairs], [p[1] for p in pairs]
    m = metrics(scores, labels)
    if len(set(labels)) < 2:
        assert m["auroc"].value is None and "images only" in m["auroc"].reason
        return
    p, r, _ = precision_recall_curve(labels, scores)
    best = np.max(2 * p * r / np.maximum(p + r, 1e-12))
    assert m["auroc"].value == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
    assert m["ap"].value == pytest.approx(average_precision_score(labels, scores), abs=1e-9)
    assert m["f1_max"].value == pytest.approx(best, abs=1e-9)


@pytest.mark.slow
def test_intervals_are_stratified_seeded_and_cover():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1], [40, 30])
    scores = rng.normal(labels * 1.0)
    a, b, c = (metrics(scores, labels, 800, seed)["auroc"] for seed in (0, 0, 1))
    assert (a.ci_low, a.ci_high) == (b.ci_low, b.ci_high) != (c.ci_low, c.ci_high)
    plain = [roc_auc_score(labels, np.r_[rng.choice(scores[:40], 40), rng.choice(scores[40:], 30)]) for _ in range(800)]
    assert a.ci_low == pytest.approx(np.quantile(plain, 0.025), abs=0.02)
    assert a.ci_high == pytest.approx(np.quantile(plain, 0.975), abs=0.02)


def make(tmp_path, rows):
    """rows: (category, condition, split, label, defect, score or None)."""
    manifest, scores = [], []
    for i, (category, condition, split, label, defect, score) in enumerate(rows):
        manifest.append(
            {
                "image_id": f"i{i:04d}",
                "path": f"{i}.png",
                "dataset": "vidad-synthetic",
                "category": category,
                "condition": condition,
                "split": split,
                "label": label,
                "defect": defect,
                "mask_paths": [],
            }
        )
        near = [{"image_id": "i0000", "distance": 0.1, "text": "one nut.", "missing": ["one"], "extra": []}]
        scores.append(
            {
                "image_id": f"i{i:04d}",
                "method": "text-knn",
                "score": score,
                "neighbours": near,
                "response": "two <script>nuts.",
                "error": None if score is not None else "bad",
            }
        )
    pq.write_table(pa.Table.from_pylist(manifest, schema=MANIFEST.schema), tmp_path / "m.parquet")
    pq.write_table(pa.Table.from_pylist(scores, schema=SCORES.schema), tmp_path / "s.parquet")
    return EvaluateConfig(
        scores=tmp_path / "s.parquet",
        manifest=tmp_path / "m.parquet",
        out=tmp_path / "metrics",
        tables=tmp_path / "tables",
        report=tmp_path / "report.html",
        resamples=50,
        root=tmp_path,
    )


def two_by_two(tmp_path):
    rows = []
    for category in ("fruits", "sticks"):
        for condition in ("white_bg", "blurry"):
            rows += [(category, condition, "train", 0, None, 0.1), (category, condition, "train", 0, None, 0.2)]
            rows += [(category, condition, "test", 0, None, score) for score in (0.15, 0.6)]
            high = 0.9 if condition == "white_bg" else 0.5
            rows += [(category, condition, "test", 1, "type", 0.9), (category, condition, "test", 1, "length", high)]
    rows.append(("fruits", "blurry", "test", 1, "type", None))
    return make(tmp_path, rows)


def test_metrics_table(tmp_path):
    run(two_by_two(tmp_path), QUIET)
    rows = read_table(tmp_path / "metrics", METRICS).to_pylist()

    def value(category, condition, metric):
        return next(r for r in rows if (r["category"], r["condition"], r["metric"]) == (category, condition, metric))

    assert value("fruits", "white_bg", "auroc")["value"] == 1.0
    blurry = value("fruits", "blurry", "auroc")
    assert (blurry["value"], blurry["n"], blurry["n_positive"]) == (0.75, 4, 2)  # the failed row is out
    assert value("fruits", "blurry", "auroc/length")["value"] == 0.5
    assert value("fruits", "blurry", "accuracy@train-max")["value"] == 0.75
    assert value("mean", "blurry", "auroc")["value"] == 0.75
    assert value("mean", None, "auroc")["value"] == 0.875
    assert value("mean", None, "auroc_std")["value"] == 0.125  # population
    assert value("sticks", None, "auroc_std")["value"] == 0.125


def test_tables_and_report(tmp_path):
    run(two_by_two(tmp_path), QUIET)
    table4 = list(csv.reader(io.StringIO((tmp_path / "tables" / "table4.csv").read_text())))
    name = "text-knn, ours, SYNTHETIC scenes, 2 of 10 scenarios, 16 of 17 test images"
    mean = "0.875±0.125 (2 of 5 conditions)"
    assert table4[1] == [name, "1.000", "-", "-", "-", "0.750", mean]
    table5 = list(csv.reader(io.StringIO((tmp_path / "tables" / "table5.csv").read_text())))
    assert table5[1][:4] == ["text-knn, ours, SYNTHETIC scenes, 2 of 5 conditions", "0.125", "0.125", "-"]
    assert not (tmp_path / "tables" / "table7.csv").exists()
    assert "cannot be compared" in (tmp_path / "tables" / "table4.md").read_text()
    page = (tmp_path / "report.html").read_text()
    for part in (
        "Table 4",
        "Table 5",
        "Figure 5",
        "Synthetic.",
        "2 of 10 scenarios, 2 of 5 conditions",
        "1</b><span>image without a score",
    ):
        assert part in page, part
    shown = page_data(tmp_path / "report.html").rows()
    assert len(shown) == 17, "every test image"
    near = next(r for r in shown if r["nearText"])
    assert near["text"].split()[near["differs"][0][0]] == "two" and "no such image" in near["problem"]
    assert {r["error"] for r in shown if r["score"] is None} == {"bad"}
    assert "<script>nuts" not in page and near["text"] == "two <script>nuts."
    assert not re.search("(src|href)=.https?:", page)


def test_each_cell_says_what_it_is_over_where_they_differ():
    def cell(category, condition, metric, value):
        names = {"dataset": "vidad", "method": "m", "category": category, "condition": condition, "metric": metric}
        return names | {"value": value, "reason": None}

    tasks = {("sticks", "white_bg"): 0.25, ("sticks", "blurry"): 0.5, ("fruits", "white_bg"): 0.75}
    tasks |= {("fruits", "blurry"): 0.5, ("fruits", "mesh_bg"): 1.0}
    rows = [cell(*task, "auroc", value) for task, value in tasks.items()]
    rows += [cell("mean", c, "auroc", 0.5) for c in ("white_bg", "blurry")]  # over several scenarios alone
    rows += [cell("dishes", "low_light", "auroc", None) | {"reason": "no scores"}]
    rows += [cell("sticks", None, "auroc_std", 0.125), cell("fruits", None, "auroc_std", 0.204)]
    two, one = "0.500 (2 of 10 scenarios)", "1.000 (1 of 10 scenarios)"
    assert table4(rows).rows[0] == ("m, ours", two, "-", one, "no scores", two, "0.667±0.236 (3 of 5 conditions)")
    assert table5(rows).rows[0][:3] == ("m, ours", "0.125 (2 of 5 conditions)", "0.204 (3 of 5 conditions)")
    assert table4(rows[2:3] + rows[-3:-2]).rows[0][0] == "m, ours, 1 of 10 scenarios", "one that failed does not count"


@pytest.mark.slow
def test_table_7_holds_the_runs_that_are_named_after_a_captioner(tmp_path):
    config = two_by_two(tmp_path)
    rows = pq.read_table(config.scores).to_pylist()
    for captioner in ("scene", "llava"):
        rows += [r | {"method": f"text-knn/{captioner}"} for r in rows if r["method"] == "text-knn"]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCORES.schema), config.scores)
    run(config, QUIET)
    table7 = list(csv.reader(io.StringIO((tmp_path / "tables" / "table7.csv").read_text())))
    assert [line[0].partition(",")[0] for line in table7[1:3]] == ["text-knn/llava", "text-knn/scene"]
    assert table7[3][0] == "Qwen2 7B (published)" and table7[3][-1] == "0.831±0.013" and len(table7) == 6


@pytest.mark.parametrize("name", ["vid_ad_table4", "vid_ad_table7"])
def test_published_tables_agree_with_their_own_summary(name):
    for row in published(name):
        values = [float(row[c]) for c in ("white_bg", "cable_bg", "mesh_bg", "low_light", "blurry")]
        assert np.mean(values) == pytest.approx(float(row["mean"]), abs=0.0011), row
        assert np.std(values) == pytest.approx(float(row["std"]), abs=0.0016), row  # population


def test_no_labels_gives_a_ranking_and_reasons(tmp_path, save_image):
    save_image(tmp_path / "2.png")
    config = make(tmp_path, [("all", None, "test", None, None, s) for s in (0.1, 0.3, 0.9)])
    summary = run(config, QUIET)
    rows = read_table(tmp_path / "metrics", METRICS).to_pylist()
    assert summary.errors == 0 and {r["reason"] for r in rows} == {"no labels"}
    assert all(r["value"] is None for r in rows)
    shown = page_data(tmp_path / "report.html")
    assert [r["score"] for r in shown.rows()] == ["0.1", "0.3", "0.9"]
    assert [(n, a[:16]) for n, a in shown.pictures.items()] == [("p2", "data:image/webp;")], "the one that is there"


def test_one_class_and_strangers(tmp_path):
    run(make(tmp_path, [("a", None, "test", 0, None, 0.1), ("a", None, "test", 0, None, 0.2)]), QUIET)
    rows = {r["metric"]: r for r in read_table(tmp_path / "metrics", METRICS).to_pylist()}
    assert rows["auroc"]["value"] is None and rows["auroc"]["reason"] == "normal images only"
    other = pa.Table.from_pylist([{"image_id": "else", "method": "m", "score": 1.0}], schema=SCORES.schema)
    pq.write_table(other, tmp_path / "s.parquet")
    with pytest.raises(InputError, match="none of its images is in the manifest"):
        run(EvaluateConfig(scores=tmp_path / "s.parquet", manifest=tmp_path / "m.parquet", out=tmp_path / "x"), QUIET)


@pytest.mark.slow
def test_runs_without_torch(tmp_path):
    two_by_two(tmp_path)
    code = (
        "import sys; sys.modules.update(torch=None, transformers=None)\n"
        "from adcli.main import build\n"
        f"args = ['evaluate', '{tmp_path}/s.parquet', '--manifest', '{tmp_path}/m.parquet', '--out',"
        f" '{tmp_path}/o', '--report', '{tmp_path}/r.html']\n"
        "build(args)(args)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "AUROC per task" in done.stdout and (tmp_path / "r.html").exists()


def test_images_without_a_row_count_as_missing(tmp_path):
    config = two_by_two(tmp_path)
    table = pq.read_table(tmp_path / "s.parquet")
    pq.write_table(table.slice(0, len(table) - 2), tmp_path / "s.parquet")  # a scored row and a failed one
    run(config, QUIET)
    assert "2</b><span>images without a score" in (tmp_path / "report.html").read_text()


def test_partial_evaluates_what_is_finished(tmp_path):
    config = two_by_two(tmp_path)
    scores, out = pq.read_table(tmp_path / "s.parquet"), tmp_path / "growing"
    out.mkdir()
    record = new_record(Spec("score", {}, {}), SCORES.name, len(scores))
    (out / "_adcli.partial.json").write_text(json.dumps(record))
    pq.write_table(scores.slice(0, 9), out / "part-0.parquet")  # one task of six images, half of the next
    with pytest.raises(InputError, match="growing: not complete .`score` was interrupted"):
        run(replace(config, scores=out), QUIET)
    run(replace(config, scores=out, partial=True), QUIET)
    rows = read_table(tmp_path / "metrics", METRICS).to_pylist()
    assert {(r["category"], r["condition"]) for r in rows} == {("fruits", "white_bg")}
    pq.write_table(scores.slice(0, 5), out / "part-0.parquet")
    with pytest.raises(InputError, match="no task is finished yet"):
        run(replace(config, scores=out, partial=True), QUIET)
