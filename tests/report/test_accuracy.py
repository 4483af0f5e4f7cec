"""Decisions: accuracy, drop, ablation, thresholds and mask area, with values counted by hand."""

import csv
import io
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.artifacts.reader import read_table
from stages.artifacts.tables import MANIFEST, METRICS, SCORES, THRESHOLDS
from stages.base.config import RunOptions
from stages.datasets.conditions import split_condition
from stages.evaluate.images import EvaluateConfig, run
from stages.report.grid import published
from stages.report.lvlm_mask_area import Bin, correlation, in_bins, mask_percent, said_of_correlation
from tests.pages import page_data

QUIET = RunOptions(quiet=True)
LVLM, OTHER = "lvlm/m/1-shot+specific", "knn"


def write(folder, images, scores, dataset="mvtec-ad"):
    """images: name -> (category, condition, split, label, masks); scores: (name, method, score, prediction,
    parsed, error). Returns the configuration."""
    manifest = [
        {
            "image_id": n,
            "path": f"{n}.png",
            "dataset": dataset,
            "category": c,
            "condition": k,
            "split": s,
            "label": label,
            "mask_paths": masks,
        }
        for n, (c, k, s, label, masks) in images.items()
    ]
    names = ("image_id", "method", "score", "prediction", "parsed", "error")
    rows = [
        dict(zip(names, r, strict=True))
        | {"response": "Yes, <b>cut</b>.", "neighbours": [{"image_id": "ref"}] if r[1] == LVLM else None}
        for r in scores
    ]
    pq.write_table(pa.Table.from_pylist(manifest, schema=MANIFEST.schema), folder / "m.parquet")
    pq.write_table(pa.Table.from_pylist(rows, schema=SCORES.schema), folder / "s.parquet")
    return EvaluateConfig(
        scores=folder / "s.parquet",
        manifest=folder / "m.parquet",
        out=folder / "metrics",
        tables=folder / "tables",
        report=folder / "report.html",
        resamples=20,
        root=folder,
    )


def rows_of(folder, name):
    return list(csv.reader(io.StringIO((folder / "tables" / f"{name}.csv").read_text())))


@pytest.fixture
def two_methods(tmp_path):
    """Categories a (2 normal, 2 anomalous) and b (1 and 1), as they were taken and rotated.

    LVLM says right / right / right / wrong in a and both wrong in b: 75 and 0; rotated 50 and 50.
    OTHER has scores alone; training scores 1..10 in both categories.
    """
    images, scores = {}, []
    for kind, mark in ((None, ""), ("rotate90", "r")):
        for category in "ab":
            for n in range(1, 11):
                images[f"{category}{mark}t{n}"] = (category, kind, "train", 0, [])
                scores.append((f"{category}{mark}t{n}", OTHER, float(n), None, None, None))
        for name, label in (("a1", 0), ("a2", 0), ("a3", 1), ("a4", 1), ("b1", 0), ("b2", 1)):
            images[name + mark] = (name[0], kind, "test", label, [])
    said = {"a1": 0, "a2": 0, "a3": 1, "a4": 0, "b1": 1, "b2": 0}
    turned = {"a1r": 0, "a2r": 1, "a3r": 1, "a4r": 0, "b1r": 0, "b2r": 0}
    scores += [(n, LVLM, None, p, "strict", None) for n, p in (said | turned).items()]
    # q90 = 9.1, q80 = 8.2, max = 10: at q90 a is 4 of 4 and b 1 of 2; at the maximum 3 of 4 and 1 of 2
    level = {"a1": 1, "a2": 9, "a3": 9.5, "a4": 11, "b1": 10.5, "b2": 12}
    scores += [(n, OTHER, float(v), None, None, None) for n, v in level.items()]
    scores += [(f"{n}r", OTHER, 20.0, None, None, None) for n in level]  # rotated: all above
    return write(tmp_path, images, scores)


@pytest.mark.slow
def test_accuracy_is_the_mean_over_categories_also_without_scores(two_methods):
    run(two_methods, QUIET)
    folder = two_methods.out.parent
    rows = {
        (r["method"], r["category"], r["condition"], r["metric"]): r
        for r in read_table(two_methods.out, METRICS).to_pylist()
    }
    own = rows[LVLM, "a", None, "accuracy@own"]
    assert (own["value"], own["n"], own["n_positive"]) == (0.75, 4, 2)
    assert rows[LVLM, "mean", None, "accuracy@own"]["value"] == 0.375
    assert rows[LVLM, "a", None, "auroc"]["value"] is None
    assert rows[LVLM, "a", None, "auroc"]["reason"] == "yes or no, no score"
    assert rows[OTHER, "a", None, "accuracy@train-q90"]["value"] == 1
    assert not any(m == "auroc_std" for _, _, _, m in rows), "augmentations are no capture conditions"
    _head, *lines = rows_of(folder, "accuracy")
    ours = {line[1]: line for line in lines if "ours" in line[1]}
    assert ours[f"{LVLM}, ours"][2:6] == ["-", "37.5", "37.5", "its own yes or no"]
    assert ours[f"{OTHER}, ours"][3:7] == ["75.0", "-", "train-q90", "2"]
    assert ["mvtec-ad", "Qwen2-VL-72B-AWQ (published)", "NA", "91.8", "", "its own yes or no", "15", ""] in lines
    page = (folder / "report.html").read_text()
    shown = {(r["method"], r["id"]): r for r in page_data(folder / "report.html").rows()}
    assert shown[LVLM, "a3"]["said"] == 1 and shown[LVLM, "a3"]["score"] is None and "<b>cut" not in page
    assert shown[LVLM, "a3"]["text"] == "Yes, <b>cut</b>." and shown[OTHER, "a4"]["score"] == "11"
    assert "Figure 7" not in page, "no masks, no figure"


@pytest.mark.slow
def test_drop_is_over_the_categories_that_have_both(two_methods):
    table = pq.read_table(two_methods.scores)
    keep = [not i.startswith("br") and i not in ("b1r", "b2r") for i in table["image_id"].to_pylist()]
    pq.write_table(table.filter(pa.array(keep)), two_methods.scores)
    run(replace(two_methods, partial=True), QUIET)
    ours = {line[1]: line[2:] for line in rows_of(two_methods.out.parent, "drop")[1:]}
    # originals 75 and 0; a rotated 50: the drop is a's own 25, and not 37.5 - 50
    assert ours[f"{LVLM}, ours"] == ["37.5", "50.0", "25.0"]


def test_what_does_not_depend_on_intervals_or_conditions(two_methods):
    """Decisions without resamples; a mean on top where there is one category; failures where they belong."""
    table = pq.read_table(two_methods.scores)
    rows = [
        r | ({"prediction": None, "parsed": "unparsable", "error": "x"} if r["image_id"] == "a1r" else {})
        for r in table.to_pylist()
        if r["method"] == LVLM and r["image_id"][0] == "a"
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCORES.schema), two_methods.scores)
    run(replace(two_methods, resamples=0), QUIET)
    folder = two_methods.out.parent
    assert [line[-2:] for line in rows_of(folder, "decisions")[1:]] == [["0.750", "0.750"], ["0.333", "0.250"]]
    assert [line[-1] for line in rows_of(folder, "accuracy")[1:] if "ours" in line[1]] == ["0"], "a1r is augmented"
    page = (folder / "report.html").read_text()
    assert "0.750</b><span>mean accuracy" in page


def test_an_answer_that_decides_nothing_keeps_its_score(tmp_path):
    """AUROC over all four scores: 1.0. Accuracy over the three that decide: 2 of 3. The fourth is counted."""
    images = {
        "n": ("a", None, "test", 0, []),
        "m": ("a", None, "test", 0, []),
        "p": ("a", None, "test", 1, []),
        "q": ("a", None, "test", 1, []),
    }
    scores = [
        ("n", LVLM, 0.1, 0, "strict", None),
        ("m", LVLM, 0.3, 1, "strict", None),
        ("p", LVLM, 0.9, 1, "fallback", None),
        ("q", LVLM, 0.4, None, "unparsable", None),
    ]
    run(write(tmp_path, images, scores), QUIET)
    ours = next(line for line in rows_of(tmp_path, "accuracy") if "ours" in line[1])
    assert ours[2:] == ["100.0", "66.7", "50.0", "its own yes or no", "1", "1"]
    counted = dict(zip(*rows_of(tmp_path, "answers"), strict=True))
    assert (counted["first word"], counted["sentences"], counted["unparsable"], counted["failed"]) == (
        "2",
        "1",
        "1",
        "0",
    )


@pytest.mark.slow
def test_folder_of_tables_has_figures_6_and_9(two_methods):
    run(two_methods, QUIET)
    folder = two_methods.out.parent
    assert (folder / "tables/figure6.png").stat().st_size > 1000
    listed = {tuple(line[1:6]) for line in rows_of(folder, "contradicted-labels")[1:]}
    assert listed == {
        ("a", "a4", "anomalous", "normal", "1 of 1"),
        ("b", "b1", "normal", "anomalous", "1 of 1"),
        ("b", "b2", "anomalous", "normal", "1 of 1"),
    }, "as they were taken, by answers; a score alone is none"


@pytest.mark.slow
def test_unanswered_images_count_as_wrong_in_a_row_of_their_own(two_methods):
    """a4 rotated is refused, b1 was not asked."""
    table = pq.read_table(two_methods.scores)
    rows = [
        r | ({"prediction": None, "parsed": "refused"} if r["image_id"] == "a4r" else {}) for r in table.to_pylist()
    ]
    rows = [r for r in rows if (r["image_id"], r["method"]) != ("b1", LVLM)]  # not asked
    pq.write_table(pa.Table.from_pylist(rows, schema=SCORES.schema), two_methods.scores)
    run(two_methods, QUIET)
    lines = {line[1]: line[2:] for line in rows_of(two_methods.out.parent, "drop")[1:]}
    # a 75 and b (b2 alone, wrong) 0; rotated a 2 of 3 and b 1 of 2
    assert lines[f"{LVLM}, ours"] == ["37.5", "58.3", "-20.8"]
    # a 75 and b 0 of 2; rotated a 2 of 4 and b 1 of 2
    assert lines[f"{LVLM}, ours, unanswered wrong"] == ["37.5", "50.0", "-12.5"]
    assert f"{OTHER}, ours, unanswered wrong" not in lines, "a score alone is no answer"
    first = next(line for line in rows_of(two_methods.out.parent, "accuracy") if line[1] == f"{LVLM}, ours")
    assert first[3:5] == ["37.5", "37.5"] and first[-1] == "1"
    found = {
        (r["category"], r["condition"], r["metric"]): r
        for r in read_table(two_methods.out, METRICS).to_pylist()
        if r["method"] == LVLM
    }
    assert (found["b", None, "accuracy_all@own"]["n"], found["b", None, "accuracy@own"]["n"]) == (2, 1)
    assert found["mean", None, "accuracy_all@own"]["value"] == 0.375


@pytest.mark.slow
def test_drop_keeps_the_threshold_that_is_best_on_the_originals(two_methods):
    run(two_methods, QUIET)
    head, *lines = rows_of(two_methods.out.parent, "drop")
    ours = {line[1]: line[2:] for line in lines}
    assert head[2:] == ["original", "rotated", "average drop"]
    assert ours[f"{LVLM}, ours"] == ["37.5", "50.0", "-12.5"]
    assert ours[f"{OTHER}, ours"] == ["75.0", "50.0", "25.0"], "train-q90 for both"
    assert ours["GLASS (published)"] == ["83.1", "77.1", "-"], "their average is over three augmentations"
    lines = rows_of(two_methods.out.parent, "thresholds")
    # a: at q80 a2 is a false alarm, 3 of 4; b: 1 of 2 at all three
    assert ["mvtec-ad", f"{OTHER}, ours", "original", "62.5", "75.0", "62.5"] in lines
    assert ["mvtec-ad", f"{OTHER}, ours", "rotated", "50.0", "50.0", "50.0"] in lines
    assert ["mvtec-ad", "INP-Former (published)", "time stamp", "82.7", "85.0", "81.1"] in lines


def test_rows_of_tables_8_and_9_stand_in_the_papers_order(tmp_path):
    images = {f"t{n}": ("a", None, "train", 0, []) for n in range(3)}
    for kind in ("pad20", "timestamp", "rotate90", None):
        images |= {f"{kind}{label}": ("a", kind, "test", label, []) for label in (0, 1)}
    run(write(tmp_path, images, [(i, OTHER, float(n), None, None, None) for n, i in enumerate(images)]), QUIET)
    shown = [(line[1], line[2]) for line in rows_of(tmp_path, "thresholds")[1:]]
    order = ["original", "rotated", "padded", "time stamp"]
    assert shown == [(m, o) for m in (f"{OTHER}, ours", "GLASS (published)", "INP-Former (published)") for o in order]


@pytest.mark.slow
def test_augmented_images_are_held_against_the_training_images_as_they_were_taken(two_methods):
    """Without scores of their own training images, which nothing has changed."""
    run(two_methods, QUIET)
    folder = two_methods.out.parent
    with_all = rows_of(folder, "thresholds")
    table = pq.read_table(two_methods.scores)
    keep = [not i.startswith(("art", "brt")) for i in table["image_id"].to_pylist()]
    pq.write_table(table.filter(pa.array(keep)), two_methods.scores)
    run(replace(two_methods, thresholds=folder / "limits"), RunOptions(quiet=True, overwrite=True))
    assert rows_of(folder, "thresholds") == with_all
    limits = {
        (r["category"], r["condition"]): r
        for r in read_table(folder / "limits", THRESHOLDS).to_pylist()
        if (r["name"], r["method"]) == ("train-q90", OTHER)
    }
    assert limits["a", "rotate90"]["threshold"] == limits["a", None]["threshold"] == pytest.approx(9.1)
    assert limits["a", "rotate90"]["n"] == 10


def test_ablation_and_answers(tmp_path):
    images = {"n": ("a", None, "test", 0, []), "p": ("a", None, "test", 1, []), "q": ("a", None, "test", 1, [])}
    scores = [
        ("n", LVLM, 0.1, 0, "strict", None),
        ("p", LVLM, 0.9, 1, "fallback", None),
        ("q", LVLM, None, None, "unparsable", "neither"),
        ("n", "lvlm/m/0-shot", 0.6, 1, "strict", None),
        ("p", "lvlm/m/0-shot", 0.5, 1, "strict", None),
        ("n", "lvlm/m/4-shot", None, None, "refused", "neither"),
        ("p", "lvlm/m/4-shot", 0.5, 0, "strict", None),
        ("q", "lvlm/m/4-shot", None, None, None, "no such image"),
    ]
    run(write(tmp_path, images, scores), QUIET)
    assert rows_of(tmp_path, "ablation")[1:] == [
        ["mvtec-ad", "m", "one-shot + specific prompts", "100.0", "66.7", "100.0", "91.8"],
        ["mvtec-ad", "m", "zero-shot (our words)", "50.0", "33.3", "0.0", "69.7"],  # q was not asked
        ["mvtec-ad", "m", "4-shot", "0.0", "0.0", "-", "-"],
    ]
    assert sorted(rows_of(tmp_path, "answers")[1:]) == [
        ["mvtec-ad", "lvlm/m/0-shot", "2", "0", "0", "0", "0", "1"],
        ["mvtec-ad", LVLM, "1", "1", "0", "1", "0", "0"],
        ["mvtec-ad", "lvlm/m/4-shot", "1", "0", "1", "0", "1", "0"],
    ]
    counted = {line[1]: line[-1] for line in rows_of(tmp_path, "accuracy")[1:] if line[-1]}
    assert counted == {f"{LVLM}, ours": "1", "lvlm/m/0-shot, ours": "1", "lvlm/m/4-shot, ours": "2"}


@pytest.mark.slow
def test_mask_area_picture(tmp_path, save_image):
    import PIL.Image

    images, scores = {}, []
    for n in range(110):  # mask areas 1..110 of 400 pixels; the larger half is found
        mask = np.zeros((20, 20), np.uint8)
        mask.flat[: n + 1] = 255
        save_image(tmp_path / f"mask{n}.png", mask)
        images[f"i{n:03d}"] = ("a", None, "test", 1, [f"mask{n}.png"])
        scores.append((f"i{n:03d}", LVLM, 0.5, int(n >= 55), "strict", None))
    images["gone"] = ("a", None, "test", 1, ["nowhere.png"])
    scores.append(("gone", LVLM, 0.5, 0, "strict", None))
    run(write(tmp_path, images, scores, "tiles"), QUIET)
    first, second = rows_of(tmp_path, "mask-area")[1:]
    assert first == ["tiles", LVLM, f"{100 * 28 / 400:.3f}", "0.0", "55"]
    assert second == ["tiles", LVLM, f"{100 * 83 / 400:.3f}", "100.0", "55"]
    assert min(PIL.Image.open(tmp_path / "tables" / "figure7.png").size) > 200
    assert "Figure 7" in (tmp_path / "report.html").read_text()


def test_bins_and_correlation_by_hand(tmp_path, save_image):
    assert list(in_bins([])) == [] and list(in_bins([(2.0, True), (1.0, False)])) == [(1.5, 0.5, 2)]
    assert [n for _, _, n in in_bins([(float(i), True) for i in range(149)])] == [75, 74]
    at = [Bin("d", "m", p, a, 50) for p, a in ((0.1, 0.2), (1.0, 0.5), (10.0, 0.8))]
    assert correlation(at) == pytest.approx(1.0) and correlation(at[:2]) is None
    # deviations of the area -3.6, -2.7, 6.3, of the accuracy -0.3, 0, 0.3: 2.97 / sqrt(59.94 x 0.18)
    assert correlation(at, log=False) == pytest.approx(0.9042, abs=1e-4)
    assert said_of_correlation(at) == "r = 1.00 (log area), 0.90 (area), 3 bins" and said_of_correlation(at[:2]) == ""
    assert correlation([replace(b, accuracy=0.5) for b in at]) is None
    assert correlation([at[0], at[1], Bin("d", "m", 10.0, 0.2, 50)]) == pytest.approx(0.0)
    half, other = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    half[:2], other[1:3] = 255, 255
    paths = save_image(tmp_path / "h.png", half), save_image(tmp_path / "o.png", other)
    assert mask_percent(paths[:1]) == 50 and mask_percent(paths) == 75, "the union of several masks"
    assert mask_percent((tmp_path / "none.png",)) is None
    assert mask_percent((paths[0], save_image(tmp_path / "s.png", half[:3]))) is None


def test_conditions_are_taken_apart():
    assert split_condition(None) == (None, ()) and split_condition("white_bg") == ("white_bg", ())
    assert split_condition("rotate90+pad20") == (None, ("rotate90", "pad20"))
    assert split_condition("low_light+timestamp") == ("low_light", ("timestamp",))


def test_published_figures_agree_with_each_other():
    """Tables 1-4 against 8 and 9, and the average drops, of which the paper's two for AnomalyGPT are not the
    mean of its own columns (9.6 and 11.4 would be)."""
    columns = {"original": "original", "rotated": "rotate90", "padded": "pad20", "time stamp": "timestamp"}
    at = {(r["dataset"], r["method"], columns[r["images"]]): r for r in published("lvlm_tables8_9")}
    for r in published("lvlm_tables1_4"):
        values = {k: float(r[k]) for k in columns.values()}
        drop = np.mean([values["original"] - v for k, v in values.items() if k != "original"])
        if r["method"] != "AnomalyGPT":
            assert drop == pytest.approx(float(r["drop"]), abs=0.06), r
        for kind in values if r["decision"].startswith("train") else ():
            threshold = at[r["dataset"], r["method"], kind][r["decision"].removeprefix("train-")]
            assert float(threshold) == values[kind], (r, kind)
    assert next(r for r in published("lvlm_table5") if r["variant"] == "1-shot+specific")["accuracy"] == "91.8"
