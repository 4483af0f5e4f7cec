"""What cannot be counted is named, and costs the metrics no more than it must."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

from stages.artifacts.reader import read_table
from stages.artifacts.tables import MANIFEST, METRICS, SCORES, THRESHOLDS
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.datasets.manifest import read_manifest
from stages.evaluate.images import run
from tests.hostile import QUIET, images, write


def metric(config, name, category="c"):
    rows = read_table(config.out, METRICS).to_pylist()
    return next(r for r in rows if (r["metric"], r["category"]) == (name, category))


@pytest.mark.slow
def test_a_mask_that_is_missing_costs_the_pixel_metrics_of_its_image_alone(tmp_path, capsys):
    names = [f"i{n}" for n in range(20)]
    config = images(tmp_path / "a", names)
    rows = pq.read_table(config.manifest).to_pylist()
    for row in [r for r in rows if r["label"]][:4]:
        row["mask_paths"] = [f"gone/{row['image_id']}.png"]
    (config.root / "half.png").write_bytes((config.root / "k.png").read_bytes()[:40])
    rows[19]["mask_paths"] = ["half.png"]
    write(config.manifest, MANIFEST, rows)
    run(config, RunOptions())
    assert metric(config, "auroc")["n"] == 20 and metric(config, "auroc")["reason"] is None
    found = metric(config, "pixel_auroc")
    assert (found["n"], found["n_positive"]) == (15, 5) and 0 < found["value"] <= 1
    assert found["reason"].startswith("5 of 20 images left out: i1: ") and "gone/i1.png" in found["reason"]
    assert found["reason"].endswith(" and 2 more") and "i19: " in capsys.readouterr().err
    assert len(list(config.heatmaps.rglob("*.png"))) == 15


@pytest.mark.slow
def test_a_normal_image_needs_no_mask_file(tmp_path):
    config = images(tmp_path / "a", ["i0", "i1"])
    rows = pq.read_table(config.manifest).to_pylist()
    write(config.manifest, MANIFEST, [rows[0] | {"mask_paths": ["gone.png"]}, rows[1]])
    run(config, QUIET)
    assert metric(config, "pixel_auroc")["n"] == 2 and metric(config, "pixel_auroc")["reason"] is None


@pytest.mark.slow
def test_scores_that_are_no_numbers_are_named_and_not_averaged(tmp_path, capsys):
    config = images(tmp_path / "a", [f"i{n}" for n in range(8)], ["c", "c2"])
    rows = pq.read_table(config.scores).to_pylist()
    odd = {0: np.nan, 1: np.nan, 3: np.inf, 5: -np.inf, 7: np.nan}
    write(config.scores, SCORES, [r | {"score": odd.get(n, r["score"])} for n, r in enumerate(rows)])
    run(config, RunOptions())
    some, none = metric(config, "auroc"), metric(config, "auroc", "c2")
    assert (some["value"], some["n"]) == (0.5, 3) and some["reason"] == "1 of 4 scores are NaN or infinite: i0"
    assert (none["value"], none["n"]) == (None, 0)
    assert none["reason"] == "4 of 4 scores are NaN or infinite: i1, i3, i5 and 1 more"
    mean = [r["metric"] for r in read_table(config.out, METRICS).to_pylist() if r["category"] == "mean"]
    assert "auroc" not in mean, "one category has a value: there is nothing to average"
    said = capsys.readouterr().err
    assert "i0, i1, i3 and 2 more: `score` is NaN or infinite; counted as failed" in said.replace("\n", " ")
    assert "5</b><span>images without a score" in config.report.read_text()


@pytest.mark.parametrize(
    ("value", "why"), [(np.nan, "4 of 4 scores are NaN or infinite: i0"), (None, "none of 4 images")]
)
def test_a_table_without_any_score_is_refused(tmp_path, value, why):
    """It was evaluated with exit code 0, and every metric was null."""
    config = replace(images(tmp_path / "a", [f"i{n}" for n in range(4)]), maps=None, heatmaps=None)
    rows = pq.read_table(config.scores).to_pylist()
    write(config.scores, SCORES, [r | {"score": value, "error": None if value else "no answer"} for r in rows])
    with pytest.raises(InputError, match=f"nothing to evaluate, no image has a score or a decision: {why}"):
        run(config, QUIET)
    assert not config.out.exists()


def test_labels_and_manifests_that_cannot_be(tmp_path):
    config = images(tmp_path / "a", ["i0", "i1"])
    rows = pq.read_table(config.manifest).to_pylist()
    for label in (-1, 2):
        write(config.manifest, MANIFEST, [rows[0] | {"label": label}, rows[1]])
        with pytest.raises(InputError, match=f"m.parquet: column `label` holds {label}; expected 0 .normal., 1 "):
            run(config, QUIET)
    write(config.manifest, MANIFEST, [])
    with pytest.raises(InputError, match="m.parquet: an empty manifest; index the data set again"):
        run(config, QUIET)
    assert not (config.root / "out").exists()


def test_categories_and_conditions_that_tables_could_not_tell_from_means(tmp_path):
    """They ended hours of scoring with "two rows with the key", or as a defect of adcli."""
    config = images(tmp_path / "a", ["i0", "i1"])
    one, two = pq.read_table(config.manifest).to_pylist()
    for rows, why in (
        ([one, two | {"category": "mean"}], "a category is called `mean`, as tables call the mean over categories"),
        (
            [one, two | {"condition": "fog"}],
            r"1 images of \w+ have no condition, and others have one \(fog\); give all",
        ),
        ([one | {"condition": ""}, two | {"condition": "fog+pad20"}], "1 images of d have no condition, and others"),
    ):
        write(config.manifest, MANIFEST, rows)
        with pytest.raises(InputError, match=f"m.parquet: {why}"):
            read_manifest(config.manifest)
    write(config.manifest, MANIFEST, [one | {"condition": ""}, two | {"condition": "rotate90"}])
    assert [i.condition for i in read_manifest(config.manifest).images] == [None, "rotate90"]


def test_training_leaves_out_images_whose_masks_cannot_be_read(tmp_path, save_image):
    from stages.datasets.trainable import unreadable

    images(tmp_path / "a", ["x"])
    (tmp_path / "a" / "half.png").write_bytes((tmp_path / "a" / "k.png").read_bytes()[:40])
    save_image(tmp_path / "a" / "small.png", np.eye(3, 5, dtype=np.uint8) * 255)

    def image(name, label, *masks):
        masks, file = tuple(tmp_path / "a" / m for m in masks), tmp_path / "a" / "i.png"
        return SimpleNamespace(image_id=name, label=label, masks=masks, file=file, width=None, height=None, error=None)

    given = [
        image("a", 1, "k.png"),
        image("b", 0),
        image("c", 1),
        image("d", 1, "gone.png"),
        image("e", 1, "k.png", "half.png"),
        image("f", 1, "small.png"),
    ]
    lacks = unreadable(given, masks=True)
    assert list(lacks) == ["c", "d", "e", "f"] and not unreadable(given), "masks only where they are needed"
    assert lacks["c"] == "anomalous, but has no mask" and "gone.png" in lacks["d"] and "half.png" in lacks["e"]
    assert "small.png: 5 x 3 px, its image 8 x 8" in lacks["f"], "nor stretched"


@pytest.mark.parametrize(("split", "name"), [("val", "val-max"), ("train", "train-max")])
def test_scores_without_test_images_give_thresholds_alone(tmp_path, split, name):
    """Those of the split val were refused as nothing to evaluate."""
    config = replace(images(tmp_path / "a", [f"i{n}" for n in range(4)]), maps=None, heatmaps=None)
    rows = [r | {"split": split, "label": 0, "mask_paths": []} for r in pq.read_table(config.manifest).to_pylist()]
    write(config.manifest, MANIFEST, rows)
    run(config, QUIET)
    limits = {r["name"]: r["threshold"] for r in read_table(config.thresholds, THRESHOLDS).to_pylist()}
    assert limits[name] == 3 and {n.partition("-")[0] for n in limits} == {split}
    found = read_table(config.out, METRICS).to_pylist()
    assert found and {(r["value"], r["n"], r["reason"]) for r in found} == {(None, 0, "no test rows")}
