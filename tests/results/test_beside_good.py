"""Test images beside good ones: the line, percentiles and the AUROC by hand, and where normal images are missing."""

from pathlib import Path

import numpy as np
import pytest

from stages.datasets.manifest import Image
from stages.results.beside_good import beside_good, heights, percentiles
from stages.results.metric_rows import metric_rows, threshold_rows
from stages.results.scores import Scored, TaskScores


def task(category="c", **scores):
    """scores: split -> numbers, or (number, label) for others than the split's own: 0, but unknown in test."""
    rows = []
    for split, values in scores.items():
        for n, value in enumerate(values):
            score, label = value if isinstance(value, tuple) else (value, None if split == "test" else 0)
            name = f"{category}/{split}{n}"
            image = Image(name, Path(f"{name}.png"), "d", category, None, split, label, None, (), 4, 4, None)
            row = {
                "score": score,
                "prediction": None,
                "neighbours": None,
                "error": None,
                "parsed": None,
                "response": "",
            }
            rows.append(Scored(image, row))
    return TaskScores("d", category, None, "m", tuple(rows), 0)


def test_the_line_lies_above_nine_tenths_of_those_held_out():
    """Of 0, 1, ..., 10 the 90th percentile is 9; the training images, whose scores are low, do not count."""
    found = beside_good(task(train=[0, 0.1], val=range(11), test=[8.5, 9, 9.5, 20]))
    assert (found.line, found.above) == (9, 2)
    assert found.auroc.value == pytest.approx((9 + 9.5 + 10 + 11) / 44)


def test_without_any_held_out_the_training_images_draw_it():
    few = task(train=range(11), test=[9.5])
    assert few.line == "train-q90" and beside_good(few).line == 9
    nothing = task(test=[1, 2])
    assert beside_good(nothing).line is None and percentiles(nothing) == [None, None]


def test_percentiles_and_heights_by_hand():
    """Good 0, 1, 2, 3, 4: the median is 2, the 90th percentile 3.6."""
    found = task(val=range(5), test=[-1, 1, 2.5, 3.6, 5.2])
    assert percentiles(found) == [0, 20, 60, 80, 100], "as many are lower, equal ones not"
    assert heights(found) == pytest.approx([-3 / 1.6, -1 / 1.6, 0.5 / 1.6, 1, 2])
    flat = task(val=[1, 1, 1], test=[0, 2])
    assert heights(flat).tolist() == [0, 2], "there is no distance to measure in"


def test_an_anomalous_validation_image_is_no_good_one():
    assert beside_good(task(val=[0, 1, (100, 1)], test=[2])).line == pytest.approx(0.9)


def test_told_apart_by_more_than_chance():
    rng = np.random.default_rng(0)
    good, same, other = rng.normal(size=60), rng.normal(size=200), rng.normal(1, 1, 200)
    assert not beside_good(task(val=good, test=same)).told_apart
    assert beside_good(task(val=good, test=other)).told_apart
    assert not beside_good(task(val=good, test=good - 3)).told_apart, "lower is no sign of defects either"


def test_held_out_images_stand_for_normal_test_images_where_there_are_none():
    rows = metric_rows([task(val=[0, 2, 4], test=[(1, 1), (3, 1), 9])], 50, 0)
    auroc = next(r for r in rows if r["metric"] == "auroc")
    assert auroc["value"] == pytest.approx(3 / 6) and (auroc["n"], auroc["n_positive"]) == (5, 2)
    assert auroc["reason"] == "the split val has its 3 normal images, test has none"
    rows = metric_rows([task(val=[0, 2, 4], test=[(1, 1), (3, 1), (0, 0)])], 50, 0)
    assert next(r for r in rows if r["metric"] == "auroc")["value"] == 1, "the test's own count where there are some"
    (none,) = {r["reason"] for r in metric_rows([task(val=[0, 2], test=[1])], 50, 0)}
    assert none == "no labels"


def test_thresholds_say_where_they_come_from():
    rows = threshold_rows([task(train=[0, 1], val=[2, 3, 4], test=[5])], [])
    said = {r["name"]: (r["threshold"], r["source"], r["n"]) for r in rows}
    assert said["val-max"] == (4, "normal validation images", 3)
    assert said["train-max"] == (1, "normal training images", 2) and len(said) == 6
