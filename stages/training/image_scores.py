"""From an anomaly map to the score of its image, one rule for every method that makes maps."""

from collections.abc import Callable
from math import ceil

from torch import Tensor

TOP = 0.01  # share of the pixels whose mean is the score


def top_mean(maps: Tensor, rounded: Callable[[float], int] = ceil, share: float = TOP) -> Tensor:
    """(B, H, W) -> (B,): the mean of the highest pixels, at least one of them; rounded: how their number becomes a
    whole one; share: of all."""
    flat = maps.flatten(1)
    count = max(1, rounded(share * flat.shape[1]))
    return flat.topk(count, dim=1, sorted=False).values.mean(1)
