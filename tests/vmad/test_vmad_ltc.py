"""VMAD's LTC and what Table V compares it with: Eq. 18 to Eq. 22 by hand or by brute force."""

from math import exp, sqrt

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.base.errors import InputError
from stages.vmad.config import PROJECTORS, VmadSettings
from stages.vmad.ltc import (
    DeformableAttention,
    LocalityCompression,
    PointToRegion,
    deformable_sampling,
    point_to_region,
    regions,
)
from stages.vmad.projectors import Projector, pooled


def shaken(module, seed=0):
    """The module with every parameter away from where it starts."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p += 0.2 * torch.randn_like(p)
    return module.eval()


def test_no_offsets_and_equal_weights_are_plain_pooling():
    value = torch.randn(2, 5, 6, 8)
    offsets, weights = torch.zeros(2, 5, 6, 4, 9, 2), torch.full((2, 5, 6, 4, 9), 1 / 9)
    plain = functional.avg_pool2d(value.permute(0, 3, 1, 2), 3, 1, 1).permute(0, 2, 3, 1)
    assert (deformable_sampling(value, offsets, weights) - plain).abs().max() < 1e-5


def test_a_known_offset_moves_what_is_sampled():
    """All weight on the middle point, moved by (1, -2), by half a cell, and out of the grid; stride 2."""
    value = torch.arange(20.0).reshape(1, 4, 5, 1)
    weights = torch.zeros(1, 4, 5, 1, 9)
    weights[..., 4] = 1

    def sampled(down, right, stride=1.0):
        offsets = torch.tensor([down, right]).expand(1, 4, 5, 1, 9, 2)
        return deformable_sampling(value, offsets, weights, stride)[0, :, :, 0]

    assert sampled(1.0, -2.0)[1, 3] == value[0, 2, 1, 0]
    assert sampled(0.0, 0.5)[2, 1] == pytest.approx((11 + 12) / 2)
    assert sampled(0.5, -1.0, 2.0)[1, 2] == value[0, 2, 0, 0], "s (p + offset): (1, -2) cells"
    assert sampled(0.0, 1.0)[0, 4] == 0, "beyond the edge"


def test_deformable_attention_equals_a_loop_over_points():
    torch.manual_seed(1)
    b, h, w, heads, c = 1, 4, 3, 2, 6
    value, offsets = torch.randn(b, h, w, c), torch.randn(b, h, w, heads, 9, 2)
    weights = torch.randn(b, h, w, heads, 9).softmax(-1)
    found = deformable_sampling(value, offsets, weights, 1.5)

    def at(y, x, channel):
        total = 0.0
        for yy in (int(np.floor(y)), int(np.floor(y)) + 1):
            for xx in (int(np.floor(x)), int(np.floor(x)) + 1):
                if 0 <= yy < h and 0 <= xx < w:
                    total += (1 - abs(y - yy)) * (1 - abs(x - xx)) * float(value[0, yy, xx, channel])
        return total

    for y, x, channel in ((0, 0, 0), (3, 2, 5), (1, 1, 2), (2, 0, 3)):
        head, total = channel // (c // heads), 0.0
        for k in range(9):
            down, right = offsets[0, y, x, head, k].tolist()
            py, px = y + 1.5 * (k // 3 - 1 + down), x + 1.5 * (k % 3 - 1 + right)
            total += float(weights[0, y, x, head, k]) * at(py, px, channel)
        assert float(found[0, y, x, channel]) == pytest.approx(total, abs=1e-5)


def test_deformable_attention_starts_as_pooling_and_gives_its_offsets_a_gradient():
    layer = DeformableAttention(8, 2)
    grid = torch.randn(1, 4, 4, 8)
    nn.init.eye_(layer.out.weight)
    plain = functional.avg_pool2d(layer.value(grid).permute(0, 3, 1, 2), 3, 1, 1).permute(0, 2, 3, 1)
    assert (layer(grid) - plain).abs().max() < 1e-5
    shaken(layer)(grid).square().sum().backward()
    assert layer.offsets.weight.grad.abs().max() > 0 and layer.weights.weight.grad.abs().max() > 0


def test_each_coarse_token_stands_for_the_four_tokens_below_it():
    """Eq. 20's mapping on a 4 x 4 grid whose tokens are their own numbers."""
    found = regions(torch.arange(16.0).reshape(1, 16, 1), 2)[0, :, :, 0]
    assert found.tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    tokens = torch.randn(2, 36, 3)
    assert (regions(tokens, 3).mean(2) - pooled(tokens, 3)).abs().max() < 1e-6


def test_point_to_region_by_hand():
    """One query (1, 0), two keys (2, 0) and (0, 5): weights exp(2 / sqrt 2) and 1."""
    query, key = Tensor([[[1.0, 0.0]]]), Tensor([[[[2.0, 0.0], [0.0, 5.0]]]])
    value = Tensor([[[[1.0, 10.0], [3.0, 20.0]]]])
    a = exp(2 / sqrt(2)) / (exp(2 / sqrt(2)) + 1)
    assert point_to_region(query, key, value)[0, 0].tolist() == pytest.approx([a + 3 * (1 - a), 10 * a + 20 * (1 - a)])


def test_a_coarse_token_sees_its_own_region_only():
    layer = shaken(PointToRegion(8))
    coarse, fine = torch.randn(1, 4, 8), torch.randn(1, 16, 8)
    before = layer(coarse, fine, 2)
    changed = fine.clone()
    changed[0, 5] = torch.randn(8)  # row 1, column 1: below the first coarse token
    moved = (layer(coarse, changed, 2) - before).abs().amax(-1)[0]
    assert moved[0] > 1e-4 and moved[1:].max() == 0


def test_576_tokens_become_144_and_start_as_average_pooling():
    torch.manual_seed(0)
    levels = [torch.randn(1, 576, 32) for _ in range(5)]
    ltc = LocalityCompression(32, levels=4, rho=2, depth=1, heads=4)
    assert ltc(levels).shape == (1, 144, 32)
    assert (ltc(levels) - pooled(levels[-1], 2)).abs().max() < 1e-5


def test_eq_21_and_22_from_their_parts():
    torch.manual_seed(0)
    levels = [torch.randn(2, 16, 8) for _ in range(5)]
    ltc = shaken(LocalityCompression(8, levels=4, rho=2, depth=1, heads=2))
    coarse = ltc.downsample(levels[-1])
    each = [inject(coarse, fine, 2) for inject, fine in zip(ltc.injection, levels[:4], strict=True)]
    expected = coarse + torch.cat(each, -1) @ ltc.integrate.weight.T + ltc.integrate.bias
    assert (ltc(levels) - expected).abs().max() < 1e-5
    for n in range(5):  # each of the n levels and the last layer counts
        other = [*levels]
        other[n] = torch.randn(2, 16, 8)
        assert (ltc(other) - expected).abs().max() > 1e-3, n


@pytest.mark.parametrize("name", PROJECTORS)
def test_projectors_of_table_v(name):
    torch.manual_seed(0)
    settings = VmadSettings(projector=name, heads=4, depth=1)
    mlp = nn.Sequential(nn.Linear(32, 48), nn.GELU(), nn.Linear(48, 48))
    projector = Projector(settings, mlp, 32, 48, 24)
    features = torch.randn(2, 576, 32 * settings.layers)
    count = 576 if name == "mlp" else 144
    assert projector(features).shape == (2, count, 48) and projector.tokens == count
    last = features[..., -32:]
    expected = {
        "mlp": lambda: mlp(last),
        "average-pooling": lambda: mlp(pooled(last, 2)),
        "ltc": lambda: mlp(pooled(last, 2)),
        "ltc-last": lambda: mlp(pooled(last, 2)),
        "ltc-coarse": lambda: mlp(pooled(last, 2)),
    }
    if name in expected:
        assert (projector(features) - expected[name]()).abs().max() < 1e-5
    if name == "ldp-v2":
        pool = pooled(mlp(last), 2).transpose(1, 2).reshape(2, 48, 12, 12)
        weight, bias = projector.refine.positions.weight, projector.refine.positions.bias
        place = pool[0, 7, 4:7, 2:5]
        by_hand = pool[0, 7, 5, 3] + (place * weight[7, 0]).sum() + bias[7]
        assert (projector(features)[0, 5 * 12 + 3, 7] - by_hand).abs() < 1e-5
    if name == "resampler":
        swapped = last[:, torch.randperm(576)]
        assert (projector(swapped) - projector(last)).abs().max() < 1e-5, "it does not know where a token lies"


def test_settings_that_cannot_be():
    for settings, said in (
        (VmadSettings(projector="qformer"), "expected ltc"),
        (VmadSettings(rho=5), "24 x 24"),
        (VmadSettings(levels=23), "1 to 22"),
        (VmadSettings(heads=7), "width of 1024"),
        (VmadSettings(boxes=0), "at least 1"),
        (VmadSettings(temperature=0.0), "above 0"),
    ):
        with pytest.raises(InputError, match=said):
            settings.check_llava(24, 22, 1024)
