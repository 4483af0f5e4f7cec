"""Rendered scenes: what is drawn is what the state says, and its look gives nothing away."""

from collections import defaultdict
from random import Random

import cv2
import numpy as np
import pytest

from stages.datasets.synth import objects
from stages.datasets.synth.layout import lay_out
from stages.datasets.synth.placed import Layout, distance, middle_line
from stages.datasets.synth.vidad import render_sample, samples_of, state_of
from stages.datasets.vidad import SCENARIOS
from stages.results.metrics.image import auroc, counts


def layouts(scenario, seed):
    for sample in samples_of(scenario)[::7]:
        state = state_of(sample, seed)
        yield state, lay_out(state, Random(sample.number))


def compartment(layout: Layout, scenario, placed) -> str:
    """The name of the bin, dish or compartment in which a thing's centre lies."""
    if scenario == "cookies":
        boxes = {c.kind.split()[0]: (c.x, c.y, c.width, c.height) for c in layout.containers}
    else:
        names = {
            "tools": ("left", "middle", "right"),
            "blocks": ("top", "middle", "bottom"),
            "stationery": ("left", "right"),
            "balls": ("top left", "top right", "bottom left", "bottom right"),
        }[scenario]
        boxes = dict(zip(names, layout.containers[0].compartments, strict=True))
    inside = [
        name
        for name, (x, y, w, h) in boxes.items()
        if abs(placed.x - x) < w / 2 - 0.03 and abs(placed.y - y) < h / 2 - 0.03
    ]
    assert len(inside) == 1, (placed, boxes)
    return inside[0]


@pytest.mark.parametrize("scenario", ["tools", "cookies", "stationery", "blocks", "balls"])
def test_things_lie_in_the_place_that_the_state_names(scenario):
    for seed in range(4):
        for state, layout in layouts(scenario, seed):
            assert sorted(map(str, (p.thing for p in layout.placed))) == sorted(map(str, state.things))
            assert all(compartment(layout, scenario, p) == p.thing.place for p in layout.placed)
            for c in layout.containers:
                assert c.x - c.width / 2 > 0 and c.x + c.width / 2 < 1
                assert c.y - c.height / 2 > 0 and c.y + c.height / 2 < 1


def length(placed) -> float:
    return objects.LENGTHS[placed.thing.kind, placed.thing.length] * placed.size


def test_lengths_are_what_the_state_says():
    for seed in range(4):
        for scenario in ("sticks", "stationery"):
            for _, layout in layouts(scenario, seed):
                for p in layout.placed:
                    least = 0.26 if p.thing.kind == "eraser" else 0.37
                    assert (length(p) > least) if p.thing.length == "long" else (length(p) < 0.80 * least + 0.01)
        for state, layout in layouts("ropes", seed):
            ratio = length(layout.placed[0]) / length(layout.reference)
            low, high = {"similar": (0.9, 1.1), "longer": (1.25, 2), "shorter": (0, 0.8)}[state.things[0].length]
            assert low < ratio < high
        for state, layout in layouts("tapes", seed):
            a, b = (length(p) for p in layout.placed)
            longer = {("long", "short"): a > 1.6 * b, ("short", "long"): b > 1.6 * a}
            assert longer.get(tuple(t.length for t in state.things), 0.9 < a / b < 1.1)


def test_order_from_left_to_right_is_that_of_the_state():
    for seed in range(4):
        for state, layout in layouts("dishes", seed):
            assert tuple(p.thing for p in layout.placed) == state.things
            x = [p.x for p in layout.placed]
            assert x == sorted(x) and min(np.diff(x)) > 0.06
        for state, layout in layouts("stationery", seed):
            for place in ("left", "right"):
                there = sorted((p for p in layout.placed if p.thing.place == place), key=lambda p: p.x)
                assert [p.thing for p in there] == [t for t in state.things if t.place == place]


def test_loose_things_do_not_touch():
    for scenario, least in (("sticks", 0.065), ("tapes", 0.11), ("fruits", 0.18)):
        for _, layout in layouts(scenario, 5):
            lines = [
                middle_line(p.x, p.y, p.angle, 0.0 if scenario == "fruits" else length(p) / 2) for p in layout.placed
            ]
            assert all(distance(a, b) > least for i, a in enumerate(lines) for b in lines[:i])


def novelty(train, test) -> np.ndarray:
    """Distance of each row of `test` to its nearest row of `train`."""
    return np.sqrt(((test[:, None] - train[None]) ** 2).sum(2)).min(1)


def statistics(rgb: np.ndarray) -> dict[str, np.ndarray]:
    """What can be said of a picture without knowing what is in it."""
    soft = cv2.GaussianBlur(rgb, (0, 0), 1)
    colours = cv2.calcHist([soft], [0, 1, 2], None, [4, 4, 4], [0, 256] * 3).ravel() / soft[..., 0].size
    chroma = soft.max(2).astype(int) - soft.min(2)
    return {
        "histogram of colours": np.sqrt(colours),
        "area of what has colour": np.array([(chroma > 40).mean()]),
        "colours of a tiny picture": cv2.resize(rgb, (6, 6), interpolation=cv2.INTER_AREA).ravel() / 255,
    }


@pytest.mark.slow
def test_simple_statistics_do_not_tell_anomalies_in_dishes():
    """Histogram, area and a picture of 6 x 6 px: nearest neighbours among normal training images find nothing."""
    found, labels = defaultdict(lambda: defaultdict(list)), []
    for sample in samples_of("dishes"):
        split = sample.folder.split("/")[0]
        labels += [bool(sample.broken)] if split == "test" else []
        for name, value in statistics(dict(render_sample(sample, ("white_bg",), 72, 0))["white_bg"]).items():
            found[name][split].append(value)
    for name, rows in found.items():
        scores = novelty(np.array(rows["train"]), np.array(rows["test"]))
        tp, fp = counts(scores, np.array(labels), np.ones((1, len(scores))))
        assert 0.35 < auroc(tp, fp)[0] < 0.65, (name, auroc(tp, fp)[0])


@pytest.mark.slow
def test_every_scene_has_clutter_that_no_thing_hides():
    """Scraps make normal scenes as new to a detector as anomalous ones; no tray may cover them all."""
    for scenario in SCENARIOS:
        for sample in samples_of(scenario)[::50]:
            grey = cv2.cvtColor(dict(render_sample(sample, ("white_bg",), 120, 0))["white_bg"], cv2.COLOR_RGB2HSV)
            black_paper = (grey[..., 1] < 40) & (grey[..., 2] < 110)
            assert black_paper.mean() > 0.001, (scenario, sample)
