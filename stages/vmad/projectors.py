"""Visual projectors (Eq. 2): patch tokens of CLIP -> tokens of the language model. LTC and what Table V compares it
with, by name.

Each ends in the two-layer MLP of the LLaVA checkpoint itself, which keeps what LLaVA has learned; only LDP-v2, as
in MobileVLM V2, has it first. The others work in CLIP's width. `ltc-last` injects from the last layer alone
(Table I's circle), `ltc-coarse` not at all (Table V's baseline).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from stages.vmad.config import VmadSettings
from stages.vmad.ltc import LocalityCompression, side_of


class Projector(nn.Module):
    """Psi. mlp: (.., C) -> (.., D), the checkpoint's projector; grid: patches per side of the vision tower.

    In training its activations, 0.15 GiB per image for LTC, are computed again on the way back: what it reads is
    CLIP's, which is frozen, so that this costs one pass through the projector and none through CLIP.
    """

    def __init__(self, settings: VmadSettings, mlp: nn.Module, width: int, text_width: int, grid: int) -> None:
        super().__init__()
        self.layers, self.tokens = settings.layers, settings.tokens(grid)
        self.compress, self.mlp, self.refine = parts(settings, width, text_width, self.tokens, mlp)

    def forward(self, features: Tensor) -> Tensor:
        """(B, N, layers C), the layers side by side as LLaVA joins them, the deepest last, on any device -> (B, M, D).
        What waits for the way back stays where it is given."""
        if self.training and torch.is_grad_enabled():
            return checkpoint(self.projected, features, use_reentrant=False, preserve_rng_state=False)  # Eq. 2
        return self.projected(features)

    def projected(self, features: Tensor) -> Tensor:
        """The same without recomputing."""
        here = features.to(next(self.parameters()).device)
        return self.refine(self.mlp(self.compress(here.chunk(self.layers, -1))))  # Eq. 2


def parts(
    settings: VmadSettings, width: int, text_width: int, tokens: int, mlp: nn.Module
) -> tuple[nn.Module, nn.Module, nn.Module]:
    """What comes before the MLP, the MLP, what comes after."""
    s = settings
    if s.projector.startswith("ltc"):
        levels = {"ltc": s.levels, "ltc-last": 0, "ltc-coarse": None}[s.projector]
        return LocalityCompression(width, levels, s.rho, s.depth, s.heads), mlp, nn.Identity()
    if s.projector == "average-pooling":
        return AveragePooling(s.rho), mlp, nn.Identity()
    if s.projector == "resampler":
        return Resampler(width, tokens, s.heads), mlp, nn.Identity()
    return Last(), mlp, LightDownsample(text_width, s.rho) if s.projector == "ldp-v2" else nn.Identity()


class Last(nn.Module):
    """All tokens of the last layer."""

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """(B, N, C) each -> (B, N, C)."""
        return levels[-1]


class AveragePooling(nn.Module):
    """The mean of each rho x rho region of the last layer."""

    def __init__(self, rho: int) -> None:
        super().__init__()
        self.rho = rho

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """(B, N, C) each -> (B, M, C)."""
        return pooled(levels[-1], self.rho)


class Resampler(nn.Module):
    """M learned queries that look at all tokens of the last layer: one cross-attention and an MLP, without regard to
    where a token lies but for what CLIP's own positions say."""

    def __init__(self, width: int, tokens: int, heads: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """(B, N, C) each -> (B, M, C)."""
        keys = self.norms[0](levels[-1])
        queries = self.norms[1](self.queries).expand(len(keys), -1, -1)
        collected = self.attention(queries, keys, keys, need_weights=False)[0]
        return collected + self.mlp(self.norms[2](collected))


class LightDownsample(nn.Module):
    """The part of MobileVLM V2's LDP that follows its MLP: average pooling, then a 3 x 3 depthwise convolution that
    is added to its input and tells positions."""

    def __init__(self, width: int, rho: int) -> None:
        super().__init__()
        self.rho = rho
        self.positions = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, D) -> (B, M, D)."""
        grid = as_map(pooled(tokens, self.rho))
        return (grid + self.positions(grid)).flatten(2).transpose(1, 2)


def pooled(tokens: Tensor, rho: int) -> Tensor:
    """(B, N, C) in raster order -> (B, N / rho^2, C): the mean of each rho x rho region."""
    return functional.avg_pool2d(as_map(tokens), rho).flatten(2).transpose(1, 2)


def as_map(tokens: Tensor) -> Tensor:
    """(B, N, C) in raster order -> (B, C, side, side)."""
    side = side_of(tokens.shape[1])
    return tokens.transpose(1, 2).reshape(len(tokens), -1, side, side)
