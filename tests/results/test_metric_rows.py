"""Means over categories, and mean and standard deviation over capture conditions, by hand."""

import pytest

from stages.results.metric_rows import mean_rows


def row(category, condition, value, metric="auroc", n=4, **more):
    columns = {"dataset": "d", "method": "m", "level": "image", "n_positive": 1, "ci_low": 0.1, "ci_high": 0.9}
    reason = None if value is not None else "no images"
    return (
        columns
        | {"category": category, "condition": condition, "metric": metric, "value": value, "n": n, "reason": reason}
        | more
    )


def found(rows):
    return {(r["category"], r["condition"], r["metric"]): r for r in mean_rows(rows)}


def test_mean_and_population_deviation_by_hand():
    """fruits 0.5, 0.75, 1 and sticks 0.25, 0.75, 0.75: means per condition 0.375, 0.75, 0.875."""
    conditions = ("white_bg", "mesh_bg", "blurry")
    values = {"fruits": (0.5, 0.75, 1.0), "sticks": (0.25, 0.75, 0.75)}
    rows = [
        row(c, k, v, n=n + 1) for c, of in values.items() for n, (k, v) in enumerate(zip(conditions, of, strict=True))
    ]
    means = found(rows)
    assert [means["mean", k, "auroc"]["value"] for k in conditions] == [0.375, 0.75, 0.875]
    assert [means["mean", k, "auroc"]["n"] for k in conditions] == [2, 4, 6]
    assert means["fruits", None, "auroc"]["value"] == 0.75
    assert means["fruits", None, "auroc_std"]["value"] == pytest.approx((0.125 / 3) ** 0.5, abs=1e-15)  # not / 2
    assert means["sticks", None, "auroc"]["value"] == pytest.approx(1.75 / 3, abs=1e-15)
    assert means["mean", None, "auroc"]["value"] == pytest.approx(2 / 3, abs=1e-15)
    deviations = [0.375 - 2 / 3, 0.75 - 2 / 3, 0.875 - 2 / 3]
    std = (sum(d * d for d in deviations) / 3) ** 0.5
    assert means["mean", None, "auroc_std"]["value"] == pytest.approx(std, abs=1e-15)
    one = means["mean", None, "auroc_std"]
    assert (one["n"], one["n_positive"], one["ci_low"], one["ci_high"], one["reason"]) == (12, 6, None, None, None)
    assert len(means) == 3 + 4 + 2


def test_augmented_images_are_no_capture_condition():
    kinds = (None, "rotate90", "white_bg", "white_bg+pad20")
    means = found([row(c, k, 0.5) for c in "ab" for k in kinds])
    assert set(means) == {("mean", k, "auroc") for k in kinds}, "one capture condition alone has no spread"


def test_what_is_not_averaged():
    """Values that are missing, AUROC per defect, and a category that stands alone; pixel metrics of any name are."""
    rows = [row("a", None, 0.25), row("b", None, None), row("a", None, 1.0, "auroc/x"), row("b", None, 1.0, "auroc/x")]
    assert found(rows) == {} and mean_rows([]) == []
    rows += [row("c", None, 0.5), *(row(c, None, 0.5, "spro@0.05/x", level="pixel") for c in "ab")]
    means = found(rows)
    assert means["mean", None, "auroc"]["value"] == 0.375 and means["mean", None, "spro@0.05/x"]["level"] == "pixel"
    assert len(means) == 2
