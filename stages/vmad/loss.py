"""VMAD's training objective (Eq. 6 and 7)."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from stages.vmad.settings import Weights

SMOOTH = 1.0         # of Dice: with it the empty mask of a normal image has a gradient, too
PARTS = ("text", "bce", "dice", "pbsd")


def bce(logits: Tensor, masks: Tensor, frame: Tensor) -> Tensor:
    """Mean over images of the mean binary cross-entropy over the pixels in `frame`. All (B, H, W); masks and frame are
    0 or 1, frame 1 where the padded input shows the image."""
    each = functional.binary_cross_entropy_with_logits(logits, masks, reduction="none") * frame
    return (each.sum((1, 2)) / frame.sum((1, 2))).mean()


def dice(logits: Tensor, masks: Tensor, frame: Tensor) -> Tensor:
    """Mean over images of 1 - (2 sum(p y) + 1) / (sum p + sum y + 1) over the pixels in `frame`. All (B, H, W)."""
    p = logits.sigmoid() * frame
    both = 2 * (p * masks).sum((1, 2)) + SMOOTH
    return (1 - both / (p.sum((1, 2)) + (masks * frame).sum((1, 2)) + SMOOTH)).mean()


def text_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the answers' tokens. logits: (B, T, V); labels: (B, T), -100 where nothing is learned."""
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100)


def total(parts: Mapping[str, Tensor], weights: Weights) -> Tensor:
    """Eq. 6 with Eq. 7 in it. parts: by PARTS; those that a batch has none of are left out."""
    factors = {"text": weights.text, "bce": weights.mask * weights.bce, "dice": weights.mask * weights.dice,
               "pbsd": weights.pbsd}
    return torch.stack([factors[name] * value for name, value in parts.items()]).sum()
