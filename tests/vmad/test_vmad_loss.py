"""VMAD's objective by hand, and what its two encoders see."""

from math import log

import numpy as np
import pytest
import torch
from torch import Tensor

from stages.vmad import loss
from stages.vmad.config import LossWeights
from stages.vmad.transform import ClipSamTransform, normalised


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
    weights = LossWeights(text=1.5, mask=2, pbsd=0.5, bce=0.1, dice=10)
    assert float(loss.total(parts, weights)) == pytest.approx(1.5 * 2 + 2 * (0.1 * 3 + 10 * 5) + 0.5 * 7)
    assert LossWeights() == LossWeights(1, 1, 1, 2, 0.5)
    assert float(loss.total({"text": Tensor([2.0])[0]}, weights)) == 3


@pytest.mark.parametrize("shape", [(40, 60), (61, 33), (64, 64), (1, 1), (3, 500)])
def test_the_visual_backbone_sees_what_its_own_processor_makes(shape):
    from transformers import SamImageProcessor

    side = {"height": 64, "width": 64}
    processor = SamImageProcessor(size={"longest_edge": 64}, pad_size=side)
    transform = ClipSamTransform(
        56, (0.5,) * 3, (0.5,) * 3, 64, tuple(processor.image_mean), tuple(processor.image_std)
    )
    rgb = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    h, w = transform.content_size(rgb.shape)
    mean, std = torch.tensor(transform.sam_mean), torch.tensor(transform.sam_std)
    ours = normalised(transform.sam_input(rgb), mean, std)
    assert max(h, w) == 64 and min(h, w) >= 1
    if min(shape) < 4:
        return  # its own processor fails on these
    theirs = processor(rgb, return_tensors="pt")
    assert theirs["reshaped_input_sizes"][0].tolist() == [h, w]
    assert (ours[:, :h, :w] - theirs["pixel_values"][0][:, :h, :w]).abs().max() < 0.03  # one step of 255 levels
    assert theirs["pixel_values"][0][:, h:].abs().sum() == theirs["pixel_values"][0][..., w:].abs().sum() == 0


def test_clip_sees_the_whole_image_and_masks_keep_thin_anomalies(tmp_path, save_image):
    transform = ClipSamTransform(56, (0.5,) * 3, (0.5,) * 3, 64, (0.5,) * 3, (0.5,) * 3)
    rgb = np.zeros((20, 40, 3), np.uint8)
    rgb[:, :2] = 255
    square = transform.clip_input(rgb)
    assert square.shape == (3, 56, 56) and (square[:, :12] == 128).all(), "padded above with the mean"
    assert (square[:, 20:36, 0] > 200).all() and (square[:, 20:36, 10:] < 5).all()
    thin = np.zeros((400, 400), np.uint8)
    thin[:, 100] = 255
    mask = transform.mask([save_image(tmp_path / "thin.png", thin)], (64, 64))
    assert mask[:, 16].all() and mask.sum() == 64, "0.16 px wide on the canvas, and still there"
    thin[:, :200] = 255
    mask = transform.mask([save_image(tmp_path / "half.png", thin[:200])], (32, 64))
    assert mask[:32, :32].all() and mask.sum() == 32 * 32
    assert transform.mask([], (32, 64)).sum() == 0
