"""LTC, locality-enhanced token compression (section III-D): N patch tokens -> N / rho^2, 576 -> 144.

Which layers: LLaVA takes the layer before the last of CLIP as its visual features, so that is I_v, and the
n levels of Eq. 21, L-n-1 to L-2, are the n layers just before it. The text leaves open how many blocks a part
has (`depth`), and where each branch starts. Here every branch that is added to something ends in zeros, so that an
untrained LTC is adaptive average pooling, whose tokens a language model that was trained with LLaVA's projector
understands: at the paper's learning rate of 1e-6 no weight gets far from where it starts.
"""

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional

NEIGHBOURS = 3  # K of Eq. 19 = 3 x 3 points around each position, as a convolution has them
BOTTLENECK = 4


class LocalityCompression(nn.Module):
    """Eq. 18 to Eq. 22. levels: n of Eq. 21; 0 injects from the last layer (Table I's variant); None: no injection at
    all (Table V's baseline)."""

    def __init__(self, width: int, levels: int | None = 4, rho: int = 2, depth: int = 2, heads: int = 8) -> None:
        super().__init__()
        self.rho = rho
        self.learner = nn.Sequential(*(LocalContext(width, heads) for _ in range(depth)))
        self.before = nn.Sequential(*(ResNetBlock(width) for _ in range(depth)))
        self.after = nn.Sequential(*(ResNetBlock(width) for _ in range(depth)))
        sources = 0 if levels is None else max(levels, 1)
        self.injection = nn.ModuleList(PointToRegion(width) for _ in range(sources))
        self.integrate = zeroed(nn.Linear(sources * width, width)) if sources else None

    def downsample(self, last: Tensor) -> Tensor:
        """I_v: (B, N, C) of a square grid -> coarse I_v: (B, N / rho^2, C)."""
        fine = self.before(self.learner(as_grid(last)).permute(0, 3, 1, 2))
        coarse = functional.adaptive_avg_pool2d(fine, fine.shape[-1] // self.rho)
        return self.after(coarse).flatten(2).transpose(1, 2)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """levels: (B, N, C) each, shallowest first, I_v last -> I_v* (B, M, C)."""
        coarse = self.downsample(levels[-1])
        if self.integrate is None:
            return coarse
        sources = levels[:-1] or levels
        injected = [inject(coarse, fine, self.rho) for inject, fine in zip(self.injection, sources, strict=True)]
        return coarse + self.integrate(torch.cat(injected, -1))  # Eq. 21, Eq. 22


class LocalContext(nn.Module):
    """One block of the local-context learner: self-attention, then deformable attention, each added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        zeroed(self.attention.out_proj)
        self.deformable = DeformableAttention(width, heads)

    def forward(self, grid: Tensor) -> Tensor:
        """(B, H, W, C) -> the same shape."""
        tokens = self.norms[0](grid).flatten(1, 2)
        grid = grid + self.attention(tokens, tokens, tokens, need_weights=False)[0].reshape(grid.shape)
        return grid + self.deformable(self.norms[1](grid))


class DeformableAttention(nn.Module):
    """Eq. 18, Eq. 19 with offsets and weights W_k of each position predicted from its own token, per head; the
    weights are positive and sum to 1. Starts with no offsets and equal weights."""

    def __init__(self, width: int, heads: int, stride: float = 1.0) -> None:
        super().__init__()
        self.heads, self.stride = heads, stride
        self.offsets = zeroed(nn.Linear(width, heads * NEIGHBOURS**2 * 2))
        self.weights = zeroed(nn.Linear(width, heads * NEIGHBOURS**2))
        self.value = nn.Linear(width, width)
        self.out = zeroed(nn.Linear(width, width))

    def forward(self, grid: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        shape = (*grid.shape[:3], self.heads, NEIGHBOURS**2)
        weights = self.weights(grid).reshape(shape).softmax(-1)
        return self.out(
            deformable_sampling(self.value(grid), self.offsets(grid).reshape(*shape, 2), weights, self.stride)
        )


def deformable_sampling(value: Tensor, offsets: Tensor, weights: Tensor, stride: float = 1.0) -> Tensor:
    """Eq. 19: O(i) = sum over k of W_k X(i + s (p_k + offset_k)), bilinear, zero outside the grid.

    value: (B, H, W, C), channels split among the heads; offsets: (B, H, W, heads, K, 2) as (down, right), in cells;
    weights: (B, H, W, heads, K); p_k: the K cells around (0, 0), row by row. Returns (B, H, W, C).
    """
    b, h, w, c = value.shape
    heads, points = weights.shape[3:]
    reach = NEIGHBOURS // 2
    steps = torch.arange(-reach, reach + 1, device=value.device, dtype=torch.float32)
    around = torch.cartesian_prod(steps, steps)
    here = torch.stack(
        torch.meshgrid(torch.arange(h, device=value.device), torch.arange(w, device=value.device), indexing="ij"), -1
    )
    at = here[:, :, None, None] + stride * (
        around + offsets.float()
    )  # i + s p' of Eq. 19, p' of Eq. 18: (B, H, W, heads, K, 2)
    size = torch.tensor([h, w], device=value.device)
    at = ((2 * at + 1) / size - 1).flip(-1)  # grid_sample wants (x, y) in -1..1
    at = at.permute(0, 3, 1, 2, 4, 5).reshape(b * heads, h * w, points, 2)
    maps = value.permute(0, 3, 1, 2).reshape(b * heads, c // heads, h, w)
    sampled = functional.grid_sample(maps.float(), at, mode="bilinear", padding_mode="zeros", align_corners=False)
    summed = (sampled * weights.permute(0, 3, 1, 2, 4).reshape(b * heads, 1, h * w, points)).sum(-1)  # Eq. 19
    return summed.reshape(b, c, h, w).permute(0, 2, 3, 1).to(value.dtype)


class ResNetBlock(nn.Module):
    """A bottleneck of three convolutions that are added to the input, each after normalisation and ReLU; group
    normalisation, since the paper's batches hold two images."""

    def __init__(self, width: int) -> None:
        super().__init__()
        narrow = max(width // BOTTLENECK, 1)
        self.layers = nn.Sequential(
            nn.GroupNorm(1, width),
            nn.ReLU(),
            nn.Conv2d(width, narrow, 1),
            nn.GroupNorm(1, narrow),
            nn.ReLU(),
            nn.Conv2d(narrow, narrow, 3, padding=1),
            nn.GroupNorm(1, narrow),
            nn.ReLU(),
            zeroed(nn.Conv2d(narrow, width, 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return x + self.layers(x)


class PointToRegion(nn.Module):
    """Eq. 20 for one level: each coarse token asks the rho x rho tokens below it. One head, as the equation has."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, coarse: Tensor, fine: Tensor, rho: int) -> Tensor:
        """coarse: (B, M, C), fine: (B, rho^2 M, C) -> V_att: (B, M, C)."""
        below = regions(self.norms[1](fine), rho)
        return point_to_region(self.query(self.norms[0](coarse)), self.key(below), self.value(below))

    def weights(self, coarse: Tensor, fine: Tensor, rho: int) -> Tensor:
        """What `forward` weighs the values with: (B, M, rho^2), 1 in sum for each coarse token."""
        return point_weights(self.query(self.norms[0](coarse)), self.key(regions(self.norms[1](fine), rho)))[..., 0]


def point_to_region(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V within each region. query: (B, M, C); key, value: (B, M, R, C) -> (B, M, C)."""
    return (point_weights(query, key) * value).sum(2)  # Eq. 20


def point_weights(query: Tensor, key: Tensor) -> Tensor:
    """query: (B, M, C); key: (B, M, R, C) -> (B, M, R, 1), positive, 1 in sum over each region."""
    return (key @ query[..., None] / sqrt(query.shape[-1])).softmax(2)


def regions(tokens: Tensor, rho: int) -> Tensor:
    """(B, N, C) in raster order of a square grid -> (B, N / rho^2, rho^2, C): the tokens below each coarse one, both
    in raster order."""
    b, n, c = tokens.shape
    side = side_of(n) // rho
    cells = tokens.reshape(b, side, rho, side, rho, c).permute(0, 1, 3, 2, 4, 5)
    return cells.reshape(b, side * side, rho * rho, c)


def from_regions(cells: Tensor, rho: int) -> Tensor:
    """(B, M, rho^2) of `regions`, one value for each fine token -> (B, side, side) in their places."""
    side = side_of(cells.shape[1])
    return cells.reshape(-1, side, side, rho, rho).permute(0, 1, 3, 2, 4).reshape(-1, side * rho, side * rho)


def as_grid(tokens: Tensor) -> Tensor:
    """(B, N, C) in raster order -> (B, side, side, C)."""
    side = side_of(tokens.shape[1])
    return tokens.reshape(len(tokens), side, side, -1)


def side_of(count: int) -> int:
    """576 -> 24. Raises ValueError when the tokens are those of no square grid."""
    side = round(count**0.5)
    if side * side != count:
        raise ValueError(f"{count} tokens are not those of a square grid")
    return side


def zeroed(layer: nn.Module) -> nn.Module:
    """The layer with weights and bias 0."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
