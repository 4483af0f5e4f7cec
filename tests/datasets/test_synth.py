"""Rendered scenes: the rule of every state, the counts of Table 3, the same layout everywhere."""

from random import Random

import cv2
import numpy as np
import pytest

from stages.artifacts.reader import read_table
from stages.artifacts.tables import TRUTH
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.datasets.synth import scenarios as rules
from stages.datasets.synth import vidad
from stages.datasets.synth.layout import lay_out
from stages.datasets.synth.scenarios import State, Thing, violated
from stages.datasets.synth.vidad import SynthConfig, relative_path, render_sample, run, samples_of, state_of
from stages.datasets.vidad import CONDITIONS, SCENARIOS


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_state_breaks_what_its_folder_says(scenario):
    first, second = rules.ASPECTS[scenario]
    for seed in range(60):
        for broken in ((), (first,), (second,), (first, second)):
            state = rules.sample_state(scenario, broken, Random(seed))
            assert violated(state) == set(broken), state


def test_rules_on_states_written_by_hand():
    orange, kiwi, lemon = Thing("orange"), Thing("kiwi"), Thing("lemon")
    assert violated(State("fruits", (orange,) * 3 + (kiwi,) * 2)) == set()
    assert violated(State("fruits", (orange,) * 2 + (kiwi,) * 2)) == {"quantity"}
    assert violated(State("fruits", (orange,) * 3 + (kiwi, lemon))) == {"type"}
    assert violated(State("fruits", (orange,) * 3 + (kiwi, lemon, lemon))) == {"quantity", "type"}
    dish = [Thing(k) for k in ("spoon", "plate", "fork")]
    assert violated(State("dishes", tuple(dish))) == {"relation"}
    assert violated(State("dishes", (Thing("knife"), *dish[1::-1]))) == {"type"}
    assert violated(State("ropes", (Thing("rope", "red", "longer"),), "blue")) == {"length", "relation"}


def test_counts_of_table_3():
    totals = [sum(rules.COUNTS[s]) for s in SCENARIOS]
    assert sum(totals) * 5 == 10_395 and sum(rules.COUNTS[s][0] for s in SCENARIOS) * 5 == 2_500
    folders = [s.folder for s in samples_of("dishes")]
    assert {f: folders.count(f) for f in folders} == {
        "train/normal": 50,
        "test/normal": 50,
        "test/type": 48,
        "test/relation": 48,
        "test/type+relation": 15,
    }


def test_everything_lies_within_the_picture():
    for scenario in SCENARIOS:
        for sample in samples_of(scenario)[::9]:
            for p in lay_out(state_of(sample, 3), Random(sample.number)).placed:
                assert 0.05 < p.x < 0.95 and 0.05 < p.y < 0.95, (scenario, p)


def test_pictures_depend_on_seed_and_condition_alone():
    sample = samples_of("tools")[120]
    all_five = dict(render_sample(sample, tuple(CONDITIONS), 96, 5))
    assert len({a.tobytes() for a in all_five.values()}) == 5
    alone = dict(render_sample(sample, ("mesh_bg",), 96, 5))
    assert (alone["mesh_bg"] == all_five["mesh_bg"]).all()
    other = dict(render_sample(sample, ("mesh_bg",), 96, 6))
    assert (other["mesh_bg"] != all_five["mesh_bg"]).any()


def test_the_tray_lies_at_the_same_place_under_every_condition():
    """The blue tray is the only blue thing: its outline agrees between conditions."""
    pictures = dict(render_sample(samples_of("blocks")[7], tuple(CONDITIONS), 120, 0))
    masks = {}
    for condition, rgb in pictures.items():
        rgb = cv2.GaussianBlur(rgb, (0, 0), 1.5)  # the sensor's noise out of the comparison
        r, b = rgb[..., 0].astype(float), rgb[..., 2].astype(float)
        masks[condition] = b > 1.35 * r + 1
    white = masks["white_bg"]
    for condition, mask in masks.items():
        agree = (mask & white).sum() / (mask | white).sum()
        assert agree > 0.85, (condition, agree)


def test_low_light_is_darker_and_blur_is_softer():
    pictures = dict(render_sample(samples_of("sticks")[0], tuple(CONDITIONS), 120, 0))
    assert pictures["low_light"].mean() < 0.5 * pictures["white_bg"].mean()
    steepest = {c: np.abs(np.diff(p.astype(float), axis=1)).max() for c, p in pictures.items()}
    assert steepest["blurry"] < 0.6 * steepest["white_bg"]


@pytest.mark.slow
def test_the_stage_writes_what_the_truth_lists(tmp_path, monkeypatch):
    config = SynthConfig(out=tmp_path / "s", scenarios="tapes", conditions="blurry", size=64, workers=1)
    summary = run(config, RunOptions(quiet=True))
    truth = read_table(tmp_path / "s" / "truth.parquet", TRUTH)
    assert summary.rows == len(truth) == 210 and (tmp_path / "s" / "SYNTHETIC").exists()
    for image_id in truth["image_id"].to_pylist():
        assert (tmp_path / "s" / image_id.removeprefix("vidad-synthetic/")).is_file()
    path = tmp_path / "s" / relative_path(samples_of("tapes")[3], "blurry")
    before = path.read_bytes()
    assert run(config, RunOptions(quiet=True)).up_to_date
    with monkeypatch.context() as another_version:  # of the renderer
        another_version.setattr(vidad, "RENDERER", vidad.RENDERER[2:])
        with pytest.raises(InputError, match="--overwrite"):
            run(config, RunOptions(quiet=True))
    run(
        SynthConfig(out=tmp_path / "t", scenarios="tapes", conditions="blurry", size=64, workers=2),
        RunOptions(quiet=True),
    )
    assert (tmp_path / "t" / path.relative_to(tmp_path / "s")).read_bytes() == before
