"""VMAD's training objective (Eq. 6, Eq. 7)."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from stages.vmad.config import LossWeights

SMOOTH = 1.0  # px, of Dice
PARTS = ("text", "bce", "dice", "pbsd")


def bce(logits: Tensor, masks: Tensor, content: Tensor) -> Tensor:
    """Mean over images of the mean binary cross-entropy over the pixels in `content`. All (B, H, W); masks and content
    are 0 or 1, content 1 where the padded input shows the image."""
    each = functional.binary_cross_entropy_with_logits(logits, masks, reduction="none") * content
    return (each.sum((1, 2)) / content.sum((1, 2))).mean()


def dice(logits: Tensor, masks: Tensor, content: Tensor) -> Tensor:
    """Mean over the images with a mask of 1 - (2 sum(p y) + 1) / (sum p + sum y + 1) over the pixels in `content`; 0
    where there are none. All (B, H, W).

    A normal image has nothing to overlap with: there Dice falls only once all of its probabilities together are below
    one pixel, which drives every logit down and teaches no place. BCE is what normal images are for. In LISA, whose
    loss this is, every mask has pixels.
    """
    p, y = logits.sigmoid() * content, masks * content
    each = 1 - (2 * (p * y).sum((1, 2)) + SMOOTH) / (p.sum((1, 2)) + y.sum((1, 2)) + SMOOTH)
    masked = y.flatten(1).any(1)
    return (each * masked).sum() / masked.sum().clamp(min=1)


def text_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of the answers' tokens. logits: (B, T, V); labels: (B, T), -100 where nothing is learned."""
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100)


def total(parts: Mapping[str, Tensor], weights: LossWeights) -> Tensor:
    """Eq. 6 with Eq. 7 in it. parts: by PARTS; those that a batch has none of are left out."""
    factors = {
        "text": weights.text,
        "bce": weights.mask * weights.bce,  # Eq. 7
        "dice": weights.mask * weights.dice,  # Eq. 7
        "pbsd": weights.pbsd,
    }
    return torch.stack([factors[name] * value for name, value in parts.items()]).sum()  # Eq. 6
