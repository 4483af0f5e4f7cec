"""Eq. 2-5: one positive (the same text under other dropout) against all negatives of the batch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def nt_xent(
    anchor: "torch.Tensor", positive: "torch.Tensor", negative: "torch.Tensor", temperature: float
) -> "torch.Tensor":
    """Eq. 4-5: mean over i of -log(exp(s_ii+ / t) / (exp(s_ii+ / t) + sum_j exp(s_ij- / t))).

    anchor, positive, negative: (B, C), L2-normalised; similarities are cosines. Returns a scalar, nats.
    """
    import torch

    own = (anchor * positive).sum(dim=1, keepdim=True)  # (B, 1)
    others = anchor @ negative.T  # (B, B)
    logits = torch.cat([own, others], dim=1) / temperature  # the positive is class 0
    target = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    return torch.nn.functional.cross_entropy(logits, target)
