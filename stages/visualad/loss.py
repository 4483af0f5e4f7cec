"""VisualAD's training objective (section 3.4), with the constants of the released code where the text has none."""

from collections.abc import Collection

import torch
from torch import Tensor
from torch.nn import functional

from stages.visualad.model import Output, image_scores

MARGIN = 0.5  # tau of Eq. 12
SMOOTH = 1e-5  # of the focal loss
DICE_SMOOTH = 1.0


def focal(p: Tensor, mask: Tensor) -> Tensor:
    """Mean over pixels of -(1 - pt)^2 log(pt), no class weight (Eq. 11). p, mask: (B, H, W), 0..1.

    pt: probability of the pixel's class, the target clamped to [1e-5, 1 - 1e-5] and 1e-5 added.
    """
    target = mask.clamp(SMOOTH, 1 - SMOOTH)
    pt = target * p + (1 - target) * (1 - p) + SMOOTH
    return (-((1 - pt) ** 2) * pt.log()).mean()


def dice(p: Tensor, mask: Tensor) -> Tensor:
    """1 - mean over images of (2 sum(p y) + 1) / (sum p + sum y + 1) (Eq. 11). p, mask: (B, H, W)."""
    p, mask = p.flatten(1), mask.flatten(1)
    both = 2 * (p * mask).sum(1) + DICE_SMOOTH
    return 1 - (both / (p.sum(1) + mask.sum(1) + DICE_SMOOTH)).mean()


def margin(tokens: Tensor) -> Tensor:
    """Mean over images of max(0, cos(anomaly, normal) + 0.5) (Eq. 12). tokens: (B, 2, C)."""
    return (functional.cosine_similarity(tokens[:, 0], tokens[:, 1], dim=-1) + MARGIN).clamp(min=0).mean()


def losses(
    output: Output, masks: Tensor, labels: Tensor, variant: str, without: Collection[str] = ()
) -> dict[str, Tensor]:
    """cls (Eq. 10), seg (Eq. 11), ctr (Eq. 12) and their sum, loss (Eq. 13). masks: (B, S, S) 0/1; labels: (B,) 0/1;
    without: focal, dice, contrast, which are then in no part.

    Eq. 10 sees the score of the unfiltered map.
    """
    masks = masks.to(output.maps)
    score = image_scores(output.fused, variant)
    parts = {"cls": functional.binary_cross_entropy_with_logits(score, labels.to(score))}  # Eq. 10
    if of_pixels := [f for f in (focal, dice) if f.__name__ not in without]:
        parts["seg"] = sum(sum(f(p, masks) for f in of_pixels) for p in output.maps.sigmoid())  # Eq. 11
    if "contrast" not in without:
        parts["ctr"] = margin(output.tokens.float())  # Eq. 12
    return parts | {"loss": torch.stack(list(parts.values())).sum()}  # Eq. 13
