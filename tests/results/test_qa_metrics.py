"""Metrics of answers, by hand; intervals that resample images."""

import numpy as np
import pytest

from stages.results.metrics.qa import level_mean, mean, whole_groups


def test_means_by_hand():
    right, images = [1, 1, 0, 1, 0, 0], ["a", "a", "b", "b", "c", "c"]
    value = mean(right, images, 0, 0, positive=4)
    assert (value.value, value.n, value.n_positive, value.ci_low) == (0.5, 6, 4, None)
    # standard: 1, 1, 0, 1 -> 3/4; reasoning: 0, 0 -> 0. Over levels 3/8, over questions 3/6.
    levels = ["standard"] * 4 + ["reasoning"] * 2
    assert level_mean(right, levels, images, 0, 0).value == 0.375
    assert mean([0.2, 0.6], ["a", "b"], 0, 0).value == pytest.approx(0.4)
    empty = mean([], [], 100, 0, reason="no judgements")
    assert (empty.value, empty.n, empty.reason) == (None, 0, "no judgements")


def test_groups_by_hand():
    right = [True] * 5 + [True, True, False, True, True] + [True, None, False] + [True]
    groups = ["g1"] * 5 + ["g2"] * 5 + ["g3"] * 3 + [None]
    images = ["a"] * 5 + ["b"] * 5 + ["c"] * 4
    assert whole_groups(right, groups, images) == ([1.0, 0.0], ["a", "b"]), "g3 has a question without an answer"
    assert whole_groups([True], [None], ["a"]) == ([], [])


def test_the_interval_resamples_images_not_questions():
    """20 images of 50 questions, an image all right or all wrong: the interval is that of 20 draws, not of 1000."""
    right = np.repeat([1.0] * 10 + [0.0] * 10, 50)
    images = np.repeat([f"i{n}" for n in range(20)], 50)
    clustered = mean(right, images, 2000, 0)
    single = mean(right, [str(n) for n in range(1000)], 2000, 0)
    assert clustered.value == single.value == 0.5
    assert clustered.ci_high - clustered.ci_low == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(20), rel=0.12)
    assert single.ci_high - single.ci_low == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(1000), rel=0.12)
    assert mean(right, images, 2000, 0) == clustered and mean(right, images, 20, 1) != mean(right, images, 20, 2)


def test_against_a_bootstrap_by_loops():
    rng = np.random.default_rng(3)
    images = [f"i{n}" for n in rng.integers(0, 12, 80)]
    levels = [("x", "y")[n] for n in rng.integers(0, 2, 80)]
    values = rng.random(80)
    found = level_mean(values, levels, images, 500, 7)
    drawn, names, rng = [], sorted(set(images)), np.random.default_rng(7)
    for weights in rng.multinomial(len(names), np.full(len(names), 1 / len(names)), 500):
        times = dict(zip(names, weights, strict=True))
        means = []
        for level in ("x", "y"):
            of = [(v, times[i]) for v, i, at in zip(values, images, levels, strict=True) if at == level]
            means.append(sum(v * w for v, w in of) / sum(w for _, w in of))
        drawn.append(sum(means) / 2)
    assert (found.ci_low, found.ci_high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=1e-12)


def test_one_image_has_no_interval_and_a_missing_level_breaks_none():
    assert mean([1, 0], ["a", "a"], 100, 0).ci_low is None
    rare = level_mean([1, 0, 1, 0], ["x", "x", "x", "y"], ["a", "b", "c", "d"], 300, 0)
    assert rare.value == pytest.approx((2 / 3 + 0) / 2) and 0 <= rare.ci_low <= rare.ci_high <= 0.5


def test_the_order_of_likelihoods_by_hand():
    """Of six pairs: all right; 2 before 1 wrong (tau 4/6); reversed; a tie of two (five right, one half)."""
    from stages.results.metrics.qa import in_order

    assert list(in_order([4, 3, 2, 1]).values()) == [1, pytest.approx(1)]
    assert list(in_order([3, 4, 2, 1]).values()) == [pytest.approx(5 / 6), pytest.approx(4 / 6)]
    assert list(in_order([1, 2, 3, 4]).values()) == [0, pytest.approx(-1)]
    assert list(in_order([4, 3, 3, 1]).values()) == [pytest.approx(5.5 / 6), pytest.approx(5 / (6 * 5) ** 0.5)]
    assert list(in_order([1, 1, 1, 1]).values()) == [0.5, 0]
