"""VisualAD's optimiser: rates, schedule, clipping of the tokens' gradients."""

from pathlib import Path

import pytest
import torch

from stages.visualad.backbone import load_backbone
from stages.visualad.config import TrainVisualadConfig, VisualAdSettings
from stages.visualad.model import VisualAD
from stages.visualad.train import optimiser_of
from tests.tiny import tiny_clip_vision


@pytest.fixture
def model(tmp_path):
    backbone, _, _ = load_backbone(str(tiny_clip_vision(tmp_path / "clip")))
    torch.manual_seed(0)
    return VisualAD(backbone, VisualAdSettings(layers=(1, 3, 4), size=56))


def config_of(variant, epochs=2, **more):
    return TrainVisualadConfig(manifest=Path("m"), out=Path("o"), variant=variant, epochs=epochs, **more)


def test_the_tokens_and_the_rest_have_their_rates(model):
    """code: 1e-3 and 1e-4, as released; paper: one rate for all."""
    own = {id(model.tokens), id(model.positions)}
    for variant, rest in (("code", 1e-4), ("paper", 1e-3)):
        optimiser, _ = optimiser_of(model, config_of(variant), steps=5)
        assert [g["lr"] for g in optimiser.param_groups] == [1e-3, rest]
        assert {id(p) for p in optimiser.param_groups[0]["params"]} == own
        trained = {id(p) for p in model.parameters() if p.requires_grad} - own
        assert {id(p) for p in optimiser.param_groups[1]["params"]} == trained and trained


def test_rates_fall_by_a_cosine_per_epoch(model):
    """code, 2 epochs of 5 steps: the tokens' rate is half way between 1e-3 and 1e-4 in the second epoch."""
    optimiser, schedule = optimiser_of(model, config_of("code"), steps=5)
    rates = []
    for _ in range(10):
        rates.append([g["lr"] for g in optimiser.param_groups])
        optimiser.step()
        schedule.step()
    assert rates == [pytest.approx([1e-3, 1e-4])] * 5 + [pytest.approx([5.5e-4, 1e-4])] * 5


def test_another_rate_of_the_tokens_takes_its_companions_along(model):
    """As in the released code: a tenth of it for SCA, SAF and norm, and at the end of the cosine; paper: one rate."""
    for variant, rest in (("code", 4e-4), ("paper", 4e-3)):
        optimiser, schedule = optimiser_of(model, config_of(variant, learning_rate=4e-3), steps=1)
        assert [g["lr"] for g in optimiser.param_groups] == pytest.approx([4e-3, rest])
        for _ in range(2):
            optimiser.step()
            schedule.step()
        assert [g["lr"] for g in optimiser.param_groups] == pytest.approx([rest, rest])


def test_each_tokens_gradient_is_clipped_to_norm_1(model):
    """A huge gradient: Adam's step forgets its size, its first moment, a tenth of the gradient, does not."""
    optimiser, _ = optimiser_of(model, config_of("code"), steps=5)
    direction = torch.zeros_like(model.tokens)
    direction[0, 0], direction[1, 1] = 1e6, 0.5  # a long one and a short one
    model.tokens.grad = direction.clone()
    optimiser.step()
    moment = optimiser.state[model.tokens]["exp_avg"]
    assert moment[0, 0] == pytest.approx(0.1, rel=1e-4) and moment[1, 1] == pytest.approx(0.05, rel=1e-4)
    assert moment.count_nonzero() == 2
