"""Pixel metrics by hand, against scikit-learn, and against a brute force over every threshold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.results.metrics.pixel import curve, f1, metrics, picture, pro, pro_200, saturated_picture, sorted_pixels


def components(mask):
    """8-connected components by flood fill, as lists of (row, column)."""
    left = set(zip(*np.nonzero(mask), strict=True))
    found = []
    while left:
        stack, region = [left.pop()], []
        while stack:
            r, c = stack.pop()
            region.append((r, c))
            near = {(r + i, c + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            stack += near
        found.append(region)
    return found


def area_below(rates, overlaps, limit):
    """Trapezoids over the points in order, cut at the limit by linear interpolation, divided by it."""
    area = 0.0
    for x0, y0, x1, y1 in zip(rates, overlaps, rates[1:], overlaps[1:], strict=False):
        if x0 >= limit:
            break
        if x1 > limit:
            y1, x1 = y0 + (y1 - y0) * (limit - x0) / (x1 - x0), limit
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


def brute_pro(maps, region_lists, outside, limit, credit=lambda hit, size, k: hit / size):
    """region_lists: per image lists of (row, column) lists; outside: per image bool arrays of normal pixels;
    credit(found pixels, all pixels, running number of the region)."""
    thresholds = sorted({v for m in maps for v in m.ravel()}, reverse=True)
    rates, overlaps = [0.0], [0.0]
    total = sum(o.sum() for o in outside)
    for t in thresholds:
        rates.append(sum((m[o] >= t).sum() for m, o in zip(maps, outside, strict=True)) / total)
        k, shares = 0, []
        for m, regions in zip(maps, region_lists, strict=True):
            for region in regions:
                shares.append(credit(sum(m[p] >= t for p in region), len(region), k))
                k += 1
        overlaps.append(np.mean(shares))
    return area_below(rates, overlaps, limit)


@st.composite
def categories(draw):
    """One to three images of few distinct scores, with at least one anomalous and one normal pixel."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([1, 2, 3, 8, 1000]))
    kind = draw(st.sampled_from([np.float16, np.float32, np.float64]))
    maps, masks = [], []
    for _ in range(draw(st.integers(1, 3))):
        shape = rng.integers(1, 8, 2)
        maps.append((rng.integers(0, levels, shape) / 7 - 3).astype(kind))
        masks.append(rng.random(shape) < rng.choice([0.0, 0.1, 0.4]))
    masks[0].flat[0] = True  # touches the border; often a region of one pixel
    if all(m.all() for m in masks):
        maps.append(np.zeros((2, 2), kind))
        masks.append(np.zeros((2, 2), bool))
    return maps, masks


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(categories(), st.sampled_from([0.05, 0.3, 1.0]))
def test_equals_scikit_learn_and_a_brute_force(category, limit):
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    maps, masks = category
    values, c = metrics([picture(m, k) for m, k in category_pairs(maps, masks)], limit, 0, 0)
    scores = np.concatenate([m.ravel() for m in maps]).astype(np.float64)
    labels = np.concatenate([m.ravel() for m in masks])
    p, r, t = precision_recall_curve(labels, scores)
    best = 2 * p * r / np.maximum(p + r, 1e-300)
    assert values["pixel_auroc"].value == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
    assert values["pixel_ap"].value == pytest.approx(average_precision_score(labels, scores), abs=1e-9)
    assert values["pixel_f1_max"].value == pytest.approx(best.max(), abs=1e-9)
    threshold = c.thresholds[f1(c).argmax()]
    assert best[:-1][t == threshold] == pytest.approx(best.max(), abs=1e-9), "the threshold it comes with"
    brute = brute_pro(maps, [components(m) for m in masks], [~m for m in masks], limit)
    assert values[f"pro@{limit:g}"].value == pytest.approx(brute, abs=1e-9)


def category_pairs(maps, masks):
    return list(zip(maps, masks, strict=True))


def test_by_hand():
    # normal 0.1 0.2 0.4 0.8; one region of 0.4 0.9, one of 0.3
    scores = np.array([[0.1, 0.2, 0.4, 0.8], [0.4, 0.5, 0.5, 0.5], [0.9, 0.5, 0.5, 0.3]])
    mask = np.array([[0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 1]], bool)
    normal_only = scores.copy()
    normal_only[1:, 1:] = 0.0
    normal_only[2, 3] = 0.3
    values, c = metrics([picture(normal_only, mask)], 0.3, 0, 0)
    # normal: 0.1 0.2 0.4 0.8 and five zeros (9); anomalous: 0.9, 0.4, 0.3
    assert list(c.thresholds) == [0.9, 0.4, 0.3] and list(c.tp) == [1, 2, 3]
    assert list(c.fp) == [0, 2, 2] and list(c.fp_above) == [0, 1, 2] and list(c.overlap) == [0.25, 0.5, 1.0]
    assert values["pixel_auroc"].value == pytest.approx((9 + 7.5 + 7) / 27)
    assert values["pixel_ap"].value == pytest.approx((1 + 2 / 4 + 3 / 5) / 3)
    assert values["pixel_f1_max"].value == pytest.approx(2 * 3 / (5 + 3))
    # rate 0 to 1/9 at overlap 1/4, slope to 1/2 at 2/9, then 1 up to the limit of 2.7 / 9
    assert values["pro@0.3"].value == pytest.approx((0.25 + 0.375 + 0.7) / 2.7)


def test_what_has_no_value_and_what_is_refused():
    normal = picture(np.zeros((3, 3)), np.zeros((3, 3), bool))
    whole = picture(np.ones((3, 3)), np.ones((3, 3), bool))
    for pictures, reason in (([], "no images"), ([normal], "no anomalous pixels"), ([whole], "no normal pixels")):
        values, c = metrics(pictures, 0.3, 10, 0, approximate=True)
        assert c is None and all(v.value is None and v.reason == reason for v in values.values())
    values, _ = metrics([normal, whole, normal], 0.3, 10, 0)
    assert values["pixel_auroc"].value == 1 and (values["pro@0.3"].n, values["pro@0.3"].n_positive) == (3, 1)
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(ValueError, match="NaN or infinity"):
            picture(np.array([[0.0, bad]]), np.array([[True, False]]))
    with pytest.raises(ValueError, match="map of"):
        picture(np.zeros((2, 3)), np.zeros((3, 2), bool))


def test_a_constant_map_is_chance():
    mask = np.zeros((10, 10), bool)
    mask[2:4, 2:4] = mask[6:9, 6:9] = True
    values, _ = metrics([picture(np.full((10, 10), 0.7), mask)], 0.3, 0, 0, approximate=True)
    assert values["pixel_auroc"].value == 0.5 and values["pixel_ap"].value == pytest.approx(13 / 100)
    assert values["pro@0.3"].value == pytest.approx(0.15), "the diagonal up to 0.3, divided by 0.3"
    assert values["pro_200"].value is None and "200 thresholds" in values["pro_200"].reason


def test_zeros_of_both_signs_are_one_score():
    scores = np.array([[-0.0, 0.0, 1.0, -1.0]])
    values, c = metrics([picture(scores, np.array([[True, False, True, False]]))], 1.0, 0, 0)
    assert len(c.thresholds) == 2 and values["pixel_auroc"].value == pytest.approx((2 + 1.5) / 4)


def test_pro_200_is_the_authors_loop():
    rng = np.random.default_rng(5)
    maps = [rng.normal(size=(40, 50)) for _ in range(4)]
    masks = [np.zeros((40, 50), bool) for _ in range(4)]
    for n in (0, 1, 2):
        masks[n][5:20, 5 + n : 15] = masks[n][25:28, 30:45] = True
        maps[n][masks[n]] += 1.5
    low, high = min(m.min() for m in maps), max(m.max() for m in maps)
    rates, overlaps = [], []
    for threshold in np.arange(low, high, (high - low) / 200):
        shares = [
            np.mean([maps[n][p] > threshold for p in region]) for n in range(4) for region in components(masks[n])
        ]
        rates.append(sum((maps[n][~masks[n]] > threshold).sum() for n in range(4)) / sum((~m).sum() for m in masks))
        overlaps.append(np.mean(shares))
    rates, overlaps = np.array(rates), np.array(overlaps)
    kept = rates < 0.3
    stretched = (rates[kept] - rates[kept].min()) / (rates[kept].max() - rates[kept].min())
    expected = np.trapezoid(overlaps[kept][::-1], stretched[::-1])
    pictures = [picture(*p) for p in category_pairs(maps, masks)]
    assert pro_200(pictures, *sorted_pixels(pictures)) == pytest.approx(expected, abs=1e-12)
    exact = metrics(pictures, 0.3, 0, 0)[0]["pro@0.3"].value
    assert 1e-4 < abs(exact - expected) < 0.05, "close, but not the same"


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_saturated_pro_equals_a_brute_force(seed):
    rng = np.random.default_rng(seed)
    maps, masks, saturation = [], [], []
    for _ in range(rng.integers(1, 4)):
        shape = tuple(rng.integers(2, 8, 2))
        maps.append(rng.integers(0, 6, shape) / 5)
        here = [rng.random(shape) < 0.3 for _ in range(rng.integers(0, 4))]  # they may overlap
        masks.append([m for m in here if m.any() and not m.all()])
        saturation.append([float(rng.choice([1, 2.5, m.sum(), 1000])) for m in masks[-1]])
    maps.append(np.zeros((2, 2)))
    masks.append([])
    saturation.append([])
    if not any(masks):
        return
    caps = [s for per in saturation for s in per]
    lists = [[list(zip(*np.nonzero(m), strict=True)) for m in per] for per in masks]
    outside = [~np.logical_or.reduce([*per, np.zeros(m.shape, bool)]) for m, per in zip(maps, masks, strict=True)]
    if not sum(o.sum() for o in outside):
        return

    def credit(hit, size, k):
        return min(hit / min(caps[k], size), 1)

    expected = brute_pro(maps, lists, outside, 0.3, credit)
    pictures = [saturated_picture(*p) for p in zip(maps, masks, saturation, strict=True)]
    assert pro(curve(pictures, *sorted_pixels(pictures)), 0.3) == pytest.approx(expected, abs=1e-9)


def test_saturation_at_the_area_of_components_is_plain_pro():
    rng = np.random.default_rng(1)
    scores, mask = rng.random((20, 20)), np.zeros((20, 20), bool)
    mask[2:8, 3:9] = mask[12:15, 12:19] = True
    one, two = mask.copy(), mask.copy()
    one[10:], two[:10] = False, False
    plain = [picture(scores, mask)]
    saturated = [saturated_picture(scores, [one, two], [36, 21])]
    assert pro(curve(plain, *sorted_pixels(plain)), 0.3) == pytest.approx(
        pro(curve(saturated, *sorted_pixels(saturated)), 0.3), abs=1e-12
    )


@pytest.mark.slow
def test_intervals_resample_images():
    """Against resamples that are computed from scratch; also with more thresholds than the grid holds."""
    rng = np.random.default_rng(2)
    pictures, pairs = [], []
    for n in range(24):
        mask = np.zeros((40, 40), bool)
        if n % 2:
            mask[5:25, 5 : 5 + n] = True
        scores = rng.normal(size=(40, 40)) + mask * rng.uniform(0, 3)
        pairs.append((scores, mask))
        pictures.append(picture(scores, mask))
    values, c = metrics(pictures, 0.3, 300, 0)
    assert len(c.thresholds) > 2000
    again = {name: [] for name in values}
    for _ in range(300):
        drawn = [pictures[i] for i in np.r_[rng.choice(np.arange(0, 24, 2), 12), rng.choice(np.arange(1, 24, 2), 12)]]
        for name, v in metrics(drawn, 0.3, 0, 0)[0].items():
            again[name].append(v.value)
    for name, v in values.items():
        low, high = np.quantile(again[name], [0.025, 0.975])
        width = high - low
        assert v.ci_low == pytest.approx(low, abs=0.25 * width) and v.ci_high == pytest.approx(high, abs=0.25 * width)
        assert v.ci_low < v.value < v.ci_high
    assert metrics(pictures, 0.3, 300, 0)[0] == values != metrics(pictures, 0.3, 300, 1)[0]
