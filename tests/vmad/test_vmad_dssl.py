"""VMAD's DSSL: regions, boxes, the loss and the memory by hand or by brute force."""

from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from stages.datasets.manifest import Image
from stages.vmad.dssl import (
    Dssl,
    log_similarity,
    overall_features,
    pbsd,
    random_boxes,
    roi,
)
from stages.vmad.memory import Memory, choose_memory


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
    valid = torch.tensor([[True, True, True, False]])
    positive = torch.tensor([[True, True, False, False]])
    keys = Tensor([[[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [9.0, 9.0]]])
    v, t = Tensor([[[1.0, 0.0]]]), Tensor([[[0.0, 1.0]]])
    p = np.exp(np.array([1.0, 0.6, 0.0]) / 0.5)
    q = np.exp(np.array([0.0, 0.8, 1.0]) / 0.5)
    p, q = p / p.sum(), q / q.sum()
    visual, text = log_similarity(v, keys, 0.5, valid), log_similarity(t, keys, 0.5, valid)
    assert visual.exp()[0, 0].tolist() == pytest.approx([*p, 0.0], abs=1e-6)
    expected = -p[0] * log(q[0]) - p[1] * log(q[1])
    assert float(pbsd(visual, text, positive)) == pytest.approx(expected, abs=1e-6)
    two = pbsd(visual.expand(3, 5, -1), text.expand(3, 5, -1), positive.expand(3, -1))
    assert float(two) == pytest.approx(expected, abs=1e-6), "mean over patches and images"


def test_pbsd_has_no_gradient_into_the_visual_side():
    torch.manual_seed(0)
    valid, positive = torch.ones(2, 5, dtype=torch.bool), torch.tensor([[True, True, False, False, True]] * 2)
    v, z, t, theta = (torch.randn(2, n, 4, requires_grad=True) for n in (3, 5, 3, 5))
    value = pbsd(log_similarity(v, z, 0.1, valid), log_similarity(t, theta, 0.1, valid), positive)
    value.backward()
    assert v.grad is None or v.grad.abs().max() == 0
    assert z.grad is None or z.grad.abs().max() == 0
    p = log_similarity(v, z, 0.1, valid).exp().detach()
    q = log_similarity(t, theta, 0.1, valid).exp().detach()
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
        assert drawn.images.shape == (2, 3, 3, 2, 2) and drawn.valid.tolist() == [[True, False, False], [True] * 3]
        first, second = drawn.features[:, :, 0].tolist()
        assert first[0] == 5 and second[2] == 4 and len({*second}) == 3, "no image twice"
        assert drawn.normal.tolist() == [[True, True, True], [True, True, False]]
        assert drawn.images[:, :, 0, 0, 0].tolist() == drawn.features[:, :, 0].tolist()
        assert drawn.described.tolist() == [[9, 0], [7, 8]]
        seen |= {*second}
    assert seen == {0, 1, 2, 3, 4}
