"""SAGE's recipes: what an option that is not given means, and that the default lowers its loss on a small set."""

from pathlib import Path

import pytest

from stages.base.errors import InputError
from stages.sage.config import EdpoConfig, SfeConfig
from stages.sage.edpo import run as edpo
from stages.sage.recipes import counted, filled
from stages.sage.sfe import run as sfe
from tests.sage_world import QUIET, build, edpo_config, losses, sfe_config

NOTHING = dict.fromkeys(("epochs", "batch_size", "learning_rate", "warmup", "schedule", "weight_decay"))
GIVEN = {"manifest": Path("m"), "questions": Path("q"), "out": Path("o")}


def values(config, *names):
    return tuple(getattr(config, n) for n in names)


def test_the_papers_recipe_takes_as_many_epochs_as_its_warm_up_needs():
    """1,722 images with five questions, 32 a step: 270 steps an epoch; four epochs are 1,080 steps."""
    config = counted(filled(SfeConfig(**GIVEN, recipe="paper")), 8610)
    assert values(config, "epochs", "warmup", "batch_size", "learning_rate", "schedule") == (
        4,
        1000,
        32,
        2e-6,
        "linear",
    )
    settings = SfeConfig(**GIVEN, recipe="paper").settings()
    assert (settings.lora_rank, settings.adapter) == (0, "trained")
    assert counted(filled(SfeConfig(**GIVEN, recipe="paper")), 32_000).epochs == 2, "the warm-up ends within the run"


def test_the_released_recipe_is_that_of_the_scripts():
    config = counted(filled(SfeConfig(**GIVEN, recipe="released")), 8000)
    names = ("epochs", "batch_size", "learning_rate", "schedule", "weight_decay", "warmup")
    assert values(config, *names) == (1, 16, 4e-5, "cosine", 0.05, 15), "3 % of 500 steps"
    settings = SfeConfig(**GIVEN, recipe="released").settings()
    assert (settings.lora_rank, settings.lora_alpha, settings.lora_dropout) == (16, 32, 0.05)
    assert (settings.adapter, settings.tiles) == ("frozen", 6)
    config = filled(EdpoConfig(**GIVEN, checkpoint=Path("c"), judgements=Path("j"), recipe="released"), 0)
    assert values(config, *names[:-1], "vision") == (1, 4, 5e-6, "cosine", 0.05, "trained")


def test_what_is_given_wins_and_rates_depend_on_lora():
    assert values(filled(SfeConfig(**GIVEN, epochs=7.0, batch_size=3)), "epochs", "batch_size") == (7, 3)
    assert (
        filled(SfeConfig(**GIVEN)).learning_rate == 2e-4
        and filled(SfeConfig(**GIVEN, lora_rank=0)).learning_rate == 1e-5
    )
    config = EdpoConfig(**GIVEN, checkpoint=Path("c"), judgements=Path("j"))
    assert filled(config, 16).learning_rate == 5e-5 and filled(config, 0).learning_rate == 2e-6


def test_a_warm_up_longer_than_the_training_is_refused_with_the_way_out(tiles, internvl, tmp_path):
    said = "--warmup 1000: does not end within the 3 steps of this training; give --epochs 334 or more, or a --warmup"
    with pytest.raises(InputError, match=said):
        sfe(sfe_config(tiles, internvl, tmp_path / "o", warmup=1000.0, epochs=1.0), QUIET)
    assert not (tmp_path / "o").exists()
    with pytest.raises(InputError, match="--recipe text: expected default, paper, released"):
        sfe(sfe_config(tiles, internvl, tmp_path / "o", recipe="text"), QUIET)


def test_a_share_of_warm_up_leaves_steps_to_learn_in():
    """The rate of a warm-up's first step is 0: a training of one step would be that step."""
    for samples, epochs, share, steps in ((12, 1.0, 0.03, 0), (12, 3.0, 0.03, 1), (12, 3.0, 0.99, 2), (160, 1.0, 0, 0)):
        config = filled(SfeConfig(**GIVEN, epochs=epochs, warmup=float(share)))
        assert counted(config, samples).warmup == steps


@pytest.mark.slow
def test_the_defaults_lower_the_loss(internvl, tmp_path):
    """Of both stages, on 48 questions: the mean over the last third of the steps is below that over the first."""

    def thirds(out, name="loss"):
        curve = [float(r[name]) for r in losses(out)]
        n = len(curve) // 3
        return sum(curve[:n]) / n, sum(curve[-n:]) / n

    small, whole = build(tmp_path / "small", 48), {"lora_rank": None, "micro_batch": 4}
    sfe(sfe_config(small, internvl, tmp_path / "sfe", **NOTHING | whole), QUIET)
    first, last = thirds(tmp_path / "sfe")
    assert last < first
    edpo(edpo_config(small, tmp_path / "sfe", tmp_path / "edpo", micro_batch=4, **NOTHING), QUIET)
    first, last = thirds(tmp_path / "edpo")
    assert last < first
    first, last = thirds(tmp_path / "edpo", "rewards/margins")
    assert first < last, "winners gain on losers"
