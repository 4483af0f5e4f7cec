"""VMAD's equations by hand or by brute force: LTC and its rivals, regions, DSSL, memory, losses; what it sees."""

from math import exp, log, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.base.errors import InputError
from stages.datasets.manifest import Image
from stages.vmad import loss
from stages.vmad.config import PROJECTORS, Settings, Weights, check
from stages.vmad.dssl import (
    Dssl,
    log_similarity,
    overall_features,
    pbsd,
    random_boxes,
    roi,
)
from stages.vmad.look import Look, normalised
from stages.vmad.ltc import (
    DeformableAttention,
    LocalityCompression,
    PointToRegion,
    deformable_sampling,
    point_to_region,
    regions,
)
from stages.vmad.memory import Memory, choose_memory
from stages.vmad.projectors import Projector, pooled


def shaken(module, seed=0):
    """The module with every parameter away from where it starts."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p += 0.2 * torch.randn_like(p)
    return module.eval()


# -- LTC --------------------------------------------------------------------------------------------------


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
    settings = Settings(projector=name, heads=4, depth=1)
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
        (Settings(projector="qformer"), "expected ltc"),
        (Settings(rho=5), "24 x 24"),
        (Settings(levels=23), "1 to 22"),
        (Settings(heads=7), "width of 1024"),
        (Settings(boxes=0), "at least 1"),
        (Settings(temperature=0.0), "above 0"),
    ):
        with pytest.raises(InputError, match=said):
            check(settings, 24, 22, 1024)


# -- DSSL -------------------------------------------------------------------------------------------------


def test_regions_of_interest_equal_a_loop():
    torch.manual_seed(0)
    features = torch.randn(2, 3, 6, 7)
    boxes = Tensor([[[0, 0, 2, 2], [1.3, 2.2, 5.9, 4.0]], [[4, 3, 7, 6], [0.2, 0.1, 0.9, 0.4]]])

    def bilinear(plane, y, x):
        h, w = plane.shape
        y, x = min(max(y - 0.5, 0), h - 1), min(max(x - 0.5, 0), w - 1)
        top, left = int(y), int(x)
        low, right = min(top + 1, h - 1), min(left + 1, w - 1)
        fy, fx = y - top, x - left
        return float(
            (plane[top, left] * (1 - fx) + plane[top, right] * fx) * (1 - fy)
            + (plane[low, left] * (1 - fx) + plane[low, right] * fx) * fy
        )

    for bins in (1, 3):
        found = roi(features, boxes, bins)
        assert found.shape == (2, 2, 3, bins, bins)
        for b in range(2):
            for n in range(2):
                x1, y1, x2, y2 = boxes[b, n].tolist()
                for r in range(bins):
                    for c in range(bins):
                        ys = [y1 + (y2 - y1) * (r + (i + 0.5) / 2) / bins for i in range(2)]
                        xs = [x1 + (x2 - x1) * (c + (j + 0.5) / 2) / bins for j in range(2)]
                        expected = np.mean([bilinear(features[b, 1], y, x) for y in ys for x in xs])
                        assert float(found[b, n, 1, r, c]) == pytest.approx(expected, abs=1e-5)
    cells = roi(features, Tensor([[[2, 1, 4, 3]]]).expand(2, -1, -1))[..., 0, 0]
    assert (cells[:, 0] - features[:, :, 1:3, 2:4].mean((2, 3))).abs().max() < 1e-5, "2 x 2 whole cells: their mean"


def test_boxes_lie_in_the_frame_and_everywhere_in_it():
    torch.manual_seed(0)
    boxes = random_boxes(torch.tensor([[100, 60], [20, 64]]), 500, 32)
    assert boxes.shape == (2, 500, 4) and (boxes == boxes.round()).all()
    sides = boxes[..., 2:] - boxes[..., :2]
    assert (sides[0] == 32).all() and (sides[1] == Tensor([32, 20])).all(), "smaller where the image is"
    assert (boxes[..., :2] >= 0).all() and (boxes[0, :, 3] <= 100).all() and (boxes[0, :, 2] <= 60).all()
    assert boxes[0, :, 1].min() == 0 and boxes[0, :, 1].max() == 68 and boxes[0, :, 0].max() == 28
    torch.manual_seed(0)
    assert (random_boxes(torch.tensor([[100, 60], [20, 64]]), 500, 32) == boxes).all()


def test_overall_features_leave_the_padding_out():
    features = torch.zeros(1, 1, 4, 4)
    features[0, 0, :2, :3] = 6
    assert overall_features(features, torch.tensor([[32, 48]]), 16).tolist() == [[6.0]]
    assert overall_features(features, torch.tensor([[64, 64]]), 16).tolist() == [[6 * 6 / 16]]


def test_heads_keep_cosines_and_are_not_trained():
    dssl, features = Dssl(6, 32), torch.randn(3, 6)
    assert (dssl.local(features) - functional.normalize(features, dim=-1)).abs().max() < 1e-6
    assert not any(p.requires_grad for head in (dssl.local, dssl.overall) for p in head.parameters())
    visual, described = torch.randn(2, 4, 32), torch.randn(2, 1, 32)
    w1, b1, w2, b2 = (p.detach() for p in dssl.meta.parameters())
    by_hand = visual[1, 2] + w2 @ (w1 @ described[1, 0] + b1).clamp(min=0) + b2
    assert (dssl.semantic_tokens(visual, described)[1, 2] - by_hand).abs().max() < 1e-6


def test_pbsd_by_hand():
    """One patch, three images in the memory, of which two are normal and one place is empty."""
    there = torch.tensor([[True, True, True, False]])
    positive = torch.tensor([[True, True, False, False]])
    keys = Tensor([[[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [9.0, 9.0]]])
    v, t = Tensor([[[1.0, 0.0]]]), Tensor([[[0.0, 1.0]]])
    p = np.exp(np.array([1.0, 0.6, 0.0]) / 0.5)
    q = np.exp(np.array([0.0, 0.8, 1.0]) / 0.5)
    p, q = p / p.sum(), q / q.sum()
    visual, text = log_similarity(v, keys, 0.5, there), log_similarity(t, keys, 0.5, there)
    assert visual.exp()[0, 0].tolist() == pytest.approx([*p, 0.0], abs=1e-6)
    expected = -p[0] * log(q[0]) - p[1] * log(q[1])
    assert float(pbsd(visual, text, positive)) == pytest.approx(expected, abs=1e-6)
    two = pbsd(visual.expand(3, 5, -1), text.expand(3, 5, -1), positive.expand(3, -1))
    assert float(two) == pytest.approx(expected, abs=1e-6), "mean over patches and images"


def test_pbsd_has_no_gradient_into_the_visual_side():
    torch.manual_seed(0)
    there, positive = torch.ones(2, 5, dtype=torch.bool), torch.tensor([[True, True, False, False, True]] * 2)
    v, z, t, theta = (torch.randn(2, n, 4, requires_grad=True) for n in (3, 5, 3, 5))
    value = pbsd(log_similarity(v, z, 0.1, there), log_similarity(t, theta, 0.1, there), positive)
    value.backward()
    assert v.grad is None or v.grad.abs().max() == 0
    assert z.grad is None or z.grad.abs().max() == 0
    p = log_similarity(v, z, 0.1, there).exp().detach()
    q = log_similarity(t, theta, 0.1, there).exp().detach()
    mass = (p * positive[:, None]).sum(-1, keepdim=True)
    by_hand = ((mass * q - p * positive[:, None]) @ theta / 0.1 / 6).detach()  # of softmax and cross-entropy
    assert (t.grad - by_hand).abs().max() < 1e-5 and theta.grad.abs().max() > 0


def image(name, category, label, **more):
    return Image(f"d/{category}/{name}", Path(name), "d", category, None, "train", label, None, (), 9, 9, None)


def test_memory_holds_a_twentieth_of_each_class_and_label():
    images = [
        image(f"{label}-{n}", category, label)
        for category, counts in (("a", (100, 40)), ("b", (7, 0)))
        for label, count in enumerate(counts)
        for n in range(count)
    ]
    memory = choose_memory(images, 1 / 20, 0)
    assert {name: [i.label for i in chosen] for name, chosen in memory.items()} == {
        ("d", "a"): [0] * 5 + [1] * 2,
        ("d", "b"): [0],
    }
    assert all(i.category == name[1] for name, chosen in memory.items() for i in chosen)
    assert len({i.image_id for i in memory["d", "a"]}) == 7
    assert choose_memory(images[::-1], 1 / 20, 0) == memory, "whatever the order of the images"
    assert choose_memory(images, 1 / 20, 1) != memory


def test_what_is_drawn_belongs_to_the_class():
    """Class 0 has four normal and one anomalous image, class 1 a single normal one."""
    n = 6
    memory = Memory(
        torch.arange(n, dtype=torch.uint8).reshape(n, 1, 1, 1).expand(-1, 3, 2, 2),
        torch.arange(float(n))[:, None],
        torch.tensor([True] * 4 + [False, True]),
        torch.tensor([0, 0, 0, 0, 0, 1]),
        torch.tensor([[7, 8], [9, 0]]),
        torch.tensor([[1, 1], [1, 0]]),
        2,
    )
    seen = set()
    for _ in range(50):
        drawn = memory.draw(torch.tensor([1, 0]))
        assert drawn.squares.shape == (2, 3, 3, 2, 2) and drawn.there.tolist() == [[True, False, False], [True] * 3]
        first, second = drawn.features[:, :, 0].tolist()
        assert first[0] == 5 and second[2] == 4 and len({*second}) == 3, "no image twice"
        assert drawn.normal.tolist() == [[True, True, True], [True, True, False]]
        assert drawn.squares[:, :, 0, 0, 0].tolist() == drawn.features[:, :, 0].tolist()
        assert drawn.described.tolist() == [[9, 0], [7, 8]]
        seen |= {*second}
    assert seen == {0, 1, 2, 3, 4}


# -- losses -----------------------------------------------------------------------------------------------


def test_bce_and_dice_by_hand():
    """Two images of 1 x 3 pixels, the second normal; the last pixel of the first is padding."""
    logits = Tensor([[[0.0, log(3), 50.0]], [[-log(4), 0.0, 0.0]]])  # p: 1/2, 3/4, -; 1/5, 1/2, 1/2
    masks, frame = Tensor([[[0, 1, 0]], [[0, 0, 0]]]), Tensor([[[1, 1, 0]], [[1, 1, 1]]])
    first, second = (log(2) + log(4 / 3)) / 2, (log(5 / 4) + 2 * log(2)) / 3
    assert float(loss.bce(logits, masks, frame)) == pytest.approx((first + second) / 2, abs=1e-6)
    logits.requires_grad_()
    found = loss.dice(logits, masks, frame)
    assert float(found.detach()) == pytest.approx(1 - (2 * 0.75 + 1) / (1.25 + 1 + 1), abs=1e-6), "none of a normal one"
    found.backward()
    assert logits.grad[0, 0, 1] < 0 < logits.grad[0, 0, 0] and not logits.grad[1].any()
    assert float(loss.dice(logits.detach(), 0 * masks, frame)) == 0, "no mask in the batch"


def test_text_loss_is_of_the_answer_alone():
    logits = torch.zeros(1, 4, 3)
    logits[0, 1] = Tensor([0.0, log(2), 0.0])
    labels = torch.tensor([[-100, -100, 1, -100]])
    assert float(loss.text_loss(logits, labels)) == pytest.approx(log(2), abs=1e-6), "the token before predicts it"


def test_the_objective_is_eq_6_with_eq_7_in_it():
    parts = {"text": Tensor([2.0])[0], "bce": Tensor([3.0])[0], "dice": Tensor([5.0])[0], "pbsd": Tensor([7.0])[0]}
    weights = Weights(text=1.5, mask=2, pbsd=0.5, bce=0.1, dice=10)
    assert float(loss.total(parts, weights)) == pytest.approx(1.5 * 2 + 2 * (0.1 * 3 + 10 * 5) + 0.5 * 7)
    assert Weights() == Weights(1, 1, 1, 2, 0.5)
    assert float(loss.total({"text": Tensor([2.0])[0]}, weights)) == 3


# -- images -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(40, 60), (61, 33), (64, 64), (1, 1), (3, 500)])
def test_the_visual_backbone_sees_what_its_own_processor_makes(shape):
    from transformers import SamImageProcessor

    side = {"height": 64, "width": 64}
    processor = SamImageProcessor(size={"longest_edge": 64}, pad_size=side)
    look = Look(56, (0.5,) * 3, (0.5,) * 3, 64, tuple(processor.image_mean), tuple(processor.image_std))
    rgb = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    h, w = look.frame(rgb.shape)
    ours = normalised(look.framed(rgb), torch.tensor(look.canvas_mean), torch.tensor(look.canvas_deviation))
    assert max(h, w) == 64 and min(h, w) >= 1
    if min(shape) < 4:
        return  # its own processor fails on these
    theirs = processor(rgb, return_tensors="pt")
    assert theirs["reshaped_input_sizes"][0].tolist() == [h, w]
    assert (ours[:, :h, :w] - theirs["pixel_values"][0][:, :h, :w]).abs().max() < 0.03  # one step of 255 levels
    assert theirs["pixel_values"][0][:, h:].abs().sum() == theirs["pixel_values"][0][..., w:].abs().sum() == 0


def test_clip_sees_the_whole_image_and_masks_keep_thin_anomalies(tmp_path, save_image):
    look = Look(56, (0.5,) * 3, (0.5,) * 3, 64, (0.5,) * 3, (0.5,) * 3)
    rgb = np.zeros((20, 40, 3), np.uint8)
    rgb[:, :2] = 255
    square = look.square(rgb)
    assert square.shape == (3, 56, 56) and (square[:, :12] == 128).all(), "padded above with the mean"
    assert (square[:, 20:36, 0] > 200).all() and (square[:, 20:36, 10:] < 5).all()
    thin = np.zeros((400, 400), np.uint8)
    thin[:, 100] = 255
    mask = look.mask([save_image(tmp_path / "thin.png", thin)], (64, 64))
    assert mask[:, 16].all() and mask.sum() == 64, "0.16 px wide on the canvas, and still there"
    thin[:, :200] = 255
    mask = look.mask([save_image(tmp_path / "half.png", thin[:200])], (32, 64))
    assert mask[:32, :32].all() and mask.sum() == 32 * 32
    assert look.mask([], (32, 64)).sum() == 0
