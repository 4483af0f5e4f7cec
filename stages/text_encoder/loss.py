"""Eq. 4, Eq. 5: one positive (the same text under other dropout) against all negatives of the batch."""

from stages.training.prepared import torch

from torch import Tensor
from torch.nn import functional as F


def nt_xent(anchor: Tensor, positive: Tensor, negative: Tensor, temperature: float) -> Tensor:
    """Mean over i of -log(exp(s_ii+ / t) / (exp(s_ii+ / t) + sum_j exp(s_ij- / t))).

    anchor, positive, negative: (B, C), L2-normalised; similarities are cosines. Returns a scalar, nats.
    """
    own = (anchor * positive).sum(dim=1, keepdim=True)  # (B, 1)
    others = anchor @ negative.T  # (B, B)
    logits = torch.cat([own, others], dim=1) / temperature  # Eq. 5: all of the denominator; the positive is class 0
    target = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    return F.cross_entropy(logits, target)  # Eq. 4
