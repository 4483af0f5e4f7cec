"""VisualAD: two learned tokens in a frozen vision transformer (sections 3.1 to 3.3).

Two variants. `code`, the default, is what the authors' released code computes, which made the published numbers;
`paper` is the text's equations. Docstrings say which line is which. What the released code trains and then
loses before testing, the final norm and the tokens' positions, is part of our checkpoint.
"""

from dataclasses import dataclass
from math import ceil, floor, sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional

from stages.base.errors import InputError
from stages.training.image_scores import top_mean
from stages.visualad.backbone import Backbone, parts_of
from stages.visualad.config import SIGMA, VisualAdSettings

ROWS = 1536  # positions of the released code's SCA; more where the grid is larger
DROPOUT = 0.1  # released code
TRUNCATE = 4.0


class SpatialAwareCrossAttention(nn.Module):
    """SCA of one layer (Eq. 2, Eq. 3, Eq. 4, Eq. 5): anchor queries collect patches, each token takes what its gate
    lets in."""

    def __init__(self, width: int, rows: int, columns: int, settings: VisualAdSettings) -> None:
        super().__init__()
        m, code = settings.anchors, settings.variant == "code"
        self.anchors = nn.Parameter(torch.randn(m, width) * 0.02)
        self.position = PositionCode(settings.position, width, rows, columns)
        self.gate = nn.Linear(width, m, bias=code)
        self.scale = nn.Parameter(torch.tensor(0.01))
        self.projected = code
        if code:  # the text's Eq. 3 has bare products
            self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
            self.query_norm, self.key_norm = nn.LayerNorm(width), nn.LayerNorm(width)
            self.out = nn.Linear(width, width)
            xavier(self.query, self.key, self.value, self.out)
        self.dropout = nn.Dropout(DROPOUT if code else 0.0)

    def attention(self, patches: Tensor) -> Tensor:
        """patches: (B, N, C) -> A: (B, m, N), rows that sum to 1 (Eq. 2, Eq. 3)."""
        placed = patches + self.position(patches.shape[1])  # Eq. 2
        queries = self.query_norm(self.query(self.anchors)) if self.projected else self.anchors
        keys = self.key_norm(self.key(placed)) if self.projected else placed
        return (queries @ keys.transpose(1, 2) / sqrt(patches.shape[-1])).softmax(-1)  # Eq. 3

    def forward(self, tokens: Tensor, patches: Tensor) -> Tensor:
        """tokens: (B, T, C), patches: (B, N, C) -> enhanced tokens (B, T, C)."""
        collected = self.dropout(self.attention(patches)) @ (
            self.value(patches) if self.projected else patches
        )  # Eq. 3
        gates = self.gate(tokens).sigmoid()  # Eq. 4: (B, T, m)
        taken = gates @ collected  # sum over anchors of g_i a_i
        return tokens + self.scale * (self.dropout(self.out(taken)) if self.projected else taken)  # Eq. 5


class Unenhanced(nn.Module):
    """In the place of SCA where there is none (Table 2): the tokens stay as they are."""

    def forward(self, tokens: Tensor, patches: Tensor) -> Tensor:
        return tokens


class PositionCode(nn.Module):
    """Positions of the patches for SCA: Table 5's variants but the relative bias, since anchors have no place.

    1d: learned per raster index, cut to the patches there are; 2d: learned per row and per column, added;
    1d-sin, 2d-sin: fixed sines; none. Learned ones start at N(0, 0.02).
    """

    def __init__(self, kind: str, width: int, rows: int, columns: int) -> None:
        super().__init__()
        self.kind = kind
        if kind == "1d":
            self.table = nn.Parameter(torch.randn(max(ROWS, rows * columns), width) * 0.02)
        elif kind == "2d":
            self.rows, self.cols = (nn.Parameter(torch.randn(n, width) * 0.02) for n in (rows, columns))
        elif kind == "1d-sin":
            self.register_buffer("table", sines(rows * columns, width), persistent=False)
        elif kind == "2d-sin":
            r, c = sines(rows, width // 2), sines(columns, width - width // 2)
            both = torch.cat([r[:, None].expand(-1, columns, -1), c[None].expand(rows, -1, -1)], -1)
            self.register_buffer("table", both.flatten(0, 1), persistent=False)

    def forward(self, count: int) -> Tensor | float:
        """(count, C), to be added to that many patches in raster order."""
        if self.kind == "none":
            return 0.0
        table = (self.rows[:, None] + self.cols).flatten(0, 1) if self.kind == "2d" else self.table
        if count > len(table) or (self.kind.startswith("2d") and count != len(table)):
            raise InputError(
                f"{count} patches, but the checkpoint has positions for {len(table)}; score at the size"
                " it was trained at"
            )
        return table[:count]


def sines(count: int, width: int) -> Tensor:
    """(count, width): sines and cosines of the index at wavelengths from 2 pi to 10000 * 2 pi."""
    at = torch.arange(count)[:, None] / 10000 ** (torch.arange(0, width, 2) / width)
    return torch.stack([at.sin(), at.cos()], -1).flatten(1)[:, :width]


def self_alignment(width: int, code: bool) -> nn.Sequential:
    """SAF of one layer (Eq. 6): an MLP of one hidden layer as wide as its input. The text leaves the non-linearity
    open, and the start of the weights; the released code has the exact GELU, dropout after both layers, and
    Xavier-uniform weights, which `paper` takes from it, too."""
    p = DROPOUT if code else 0.0
    first, second = nn.Linear(width, width), nn.Linear(width, width)
    xavier(first, second)
    return nn.Sequential(first, nn.GELU(), nn.Dropout(p), second, nn.Dropout(p))


def xavier(*linears: nn.Linear) -> None:
    """Weights and biases as the released code starts them: Xavier-uniform, zero."""
    for linear in linears:
        nn.init.xavier_uniform_(linear.weight)
        if linear.bias is not None:
            nn.init.zeros_(linear.bias)


@dataclass(frozen=True)
class Output:
    """maps: (K, B, S, S) of each layer (Eq. 7), at the input's size; tokens: (B, 2, C) enhanced ones of the deepest
    layer; attention: (K, B, m, N) of the anchors."""

    maps: Tensor
    tokens: Tensor
    attention: Tensor | None = None

    @property
    def fused(self) -> Tensor:
        """(B, S, S), the sum over layers (Eq. 8)."""
        return self.maps.sum(0)  # Eq. 8


class VisualAD(nn.Module):
    """tokens, positions: (2, C), anomaly first; norm: the backbone's final norm, trained in `code`. Starts as the
    released code does: tokens N(0, 1) times 0.1 / sqrt(C), linears of SCA and SAF by `xavier`."""

    def __init__(self, backbone: Backbone, settings: VisualAdSettings) -> None:
        """Raises InputError for settings that the backbone cannot have."""
        super().__init__()
        settings.check_backbone(backbone.patch, backbone.depth)
        self.backbone, self.settings = backbone, settings
        code, parts = settings.variant == "code", parts_of(backbone.vit)
        side = settings.size // backbone.patch
        self.tokens = nn.Parameter(torch.randn(2, backbone.width) * 0.1 / sqrt(backbone.width))
        self.positions = nn.Parameter(
            parts.class_position.detach().clone().repeat(2, 1), requires_grad=not settings.as_released
        )
        self.norm = nn.LayerNorm(backbone.width, eps=parts.norm.eps)
        self.norm.load_state_dict(parts.norm.state_dict())
        self.norm.requires_grad_(code)  # the text trains the tokens, SCA and SAF alone
        self.sca = nn.ModuleList(
            Unenhanced()
            if "sca" in settings.without
            else SpatialAwareCrossAttention(backbone.width, side, side, settings)
            for _ in settings.layers
        )
        self.saf = nn.ModuleList(
            nn.Identity() if "saf" in settings.without else self_alignment(backbone.width, code)
            for _ in settings.layers
        )

    def forward(self, pixels: Tensor, explain: bool = False) -> Output:
        """pixels: (B, 3, S, S), normalised as the backbone wants them. explain: attention maps, too.

        `code`: the two tokens of the last block serve every layer; `paper`: those of the layer itself ("before
        enhancement"). All of them, and the patches, go through the one final norm.
        """
        wanted = self.settings.layers
        tokens, patches = self.backbone(pixels, self.tokens + self.positions, wanted)  # Eq. 1
        last = self.norm(tokens[-1])
        maps, attention, enhanced = [], [], last
        for i, (sca, saf) in enumerate(zip(self.sca, self.saf, strict=True)):
            features = self.norm(patches[i])
            own = last if self.settings.variant == "code" else self.norm(tokens[i])
            enhanced = sca(own, features)
            maps.append(upsampled(contrast(saf(features), enhanced), pixels.shape[-2:]))  # Eq. 6, Eq. 7
            if explain:
                attention.append(sca.attention(features))
        return Output(torch.stack(maps), enhanced, torch.stack(attention) if explain else None)

    def trained_tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds: everything but the backbone."""
        return {n: p for n, p in self.state_dict().items() if not n.startswith("backbone.")}


def contrast(patches: Tensor, tokens: Tensor) -> Tensor:
    """patches: (B, N, C), tokens: (B, 2, C) -> (B, N): cosine to the anomaly token minus cosine to the normal one
    (Eq. 7), -2..2."""
    cosines = functional.normalize(patches, dim=-1) @ functional.normalize(tokens, dim=-1).transpose(1, 2)
    return cosines[..., 0] - cosines[..., 1]  # Eq. 7


def upsampled(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, N) in raster order of a square grid -> (B, S, S), bilinear, pixel centres aligned."""
    side = round(scores.shape[1] ** 0.5)
    grid = scores.reshape(len(scores), 1, side, side).float()
    return functional.interpolate(grid, size, mode="bilinear", align_corners=False)[:, 0]


def image_scores(maps: Tensor, variant: str = "code") -> Tensor:
    """(B, H, W) -> (B,): mean of the highest 1 % of the pixels (Eq. 9); at least one, rounded up (`code`) or down."""
    return top_mean(maps, ceil if variant == "code" else floor)  # Eq. 9


def smoothed(maps: Tensor, sigma: float = SIGMA) -> Tensor:
    """(B, H, W) after a Gaussian of `sigma` px, cut at 4 sigma, edges mirrored with the edge pixel twice: the
    released code's test-time filter (scipy's gaussian_filter), which the text does not have. 0 = none."""
    if not sigma:
        return maps
    radius = int(TRUNCATE * sigma + 0.5)
    at = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = (-0.5 * (at / sigma) ** 2).exp()
    kernel = (kernel / kernel.sum()).to(maps)
    for axis in (1, 2):
        index = mirrored(maps.shape[axis], radius).to(maps.device)
        padded = maps.index_select(axis, index).movedim(axis, -1)
        shape = padded.shape[:-1]
        out = functional.conv1d(padded.reshape(-1, 1, padded.shape[-1]), kernel[None, None])
        maps = out.reshape(*shape, -1).movedim(-1, axis)
    return maps


def mirrored(size: int, radius: int) -> Tensor:
    """(size + 2 radius,) indices: ... 1 0 | 0 1 ... size-1 | size-1 size-2 ..."""
    at = torch.arange(-radius, size + radius) % (2 * size)
    return torch.where(at < size, at, 2 * size - 1 - at)
