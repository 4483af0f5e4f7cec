"""DSSL, defect-sensitive structure learning (section III-C): which patches look like normal images, told to the
language model's space by the visual backbone.

What the text leaves open, and what is done here:
- Boxes are in pixels of the visual backbone's input, whose longest side is 1024 for SAM: Eq. 8, Eq. 12 then mean the
  same boxes, which cover 2 x 2 cells of SAM's features whatever the camera's resolution.
- Psi gives many tokens, Eq. 13, Eq. 16 want one vector: the mean over the tokens, of a patch and of an image alike.
  Both sides of Eq. 16 are L2-normalised, as Eq. 11's are, or tau would mean another thing in each model.
- t_x, the normal description, is one sentence per class, for its anomalous images too; the Meta-Net reads the mean
  of its input embeddings.
- "Randomly sampled global representations": `drawn` images of each label, from the memory of the class, at a step.
"""

from collections.abc import Sequence
from math import ceil

import torch
from torch import Tensor, nn
from torch.nn import functional

SAMPLES = 2  # per side and bin of a region of interest
BOTTLENECK = 16  # of the Meta-Net, as in CoCoOp, which it is taken from


class Dssl(nn.Module):
    """What DSSL adds to the model. visual: channels of the visual backbone's features; text: of the language model."""

    def __init__(self, visual: int, text: int) -> None:
        super().__init__()
        self.local, self.overall = Head(visual), Head(visual)
        narrow = max(text // BOTTLENECK, 1)
        self.meta = nn.Sequential(nn.Linear(text, narrow), nn.ReLU(), nn.Linear(narrow, text))

    def semantic_tokens(self, visual: Tensor, described: Tensor) -> Tensor:
        """Eq. 13: theta = Psi(z) + Meta(t_x). Both (..., D) -> (..., D)."""
        return visual + self.meta(described)  # Eq. 13


class Head(nn.Module):
    """g_alpha (`local`) and g_beta (`overall`): a linear map, then L2 normalisation.

    Eq. 17 lets no gradient through to them, and started at random the two would compare vectors in unrelated bases.
    They start as the identity and are frozen; with --dssl-target trained-heads they are trained before the model is
    (`separation.train_heads`), so that Eq. 17 stays detached.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.map = nn.Linear(width, width, bias=False).requires_grad_(False)
        nn.init.eye_(self.map.weight)

    def forward(self, features: Tensor) -> Tensor:
        """(..., C) -> (..., C), of length 1."""
        return functional.normalize(self.map(features), dim=-1)  # Eq. 8, Eq. 9


def random_boxes(content_sizes: Tensor, count: int, size: int) -> Tensor:
    """content_sizes: (B, 2) height and width of the images within the padded input, px -> boxes (B, count, 4) as x1,
    y1, x2, y2 in px, at whole pixels, inside the content; smaller where the content is smaller. Drawn from torch's CPU
    generator, whose state the Trainer saves and restores."""
    content_sizes = content_sizes.float().cpu()
    sides = content_sizes.clamp(max=size)
    room = content_sizes - sides
    start = (torch.rand(len(content_sizes), count, 2) * (room[:, None] + 1)).floor().minimum(room[:, None])
    return torch.cat([start.flip(-1), (start + sides[:, None]).flip(-1)], -1)


def boxes_at(mask: Tensor, content_size: Sequence[int], count: int, size: int) -> Tensor:
    """mask: (K, K) with pixels that are not 0 within the content -> (count, 4) as of `random_boxes`, the middle of each
    on a random pixel of the mask, moved into the content where it would stand out of it."""
    at = mask.nonzero()[torch.randint(int((mask > 0).sum()), (count,))].float()
    whole = torch.tensor([float(side) for side in content_size])
    sides = whole.clamp(max=size)
    start = (at - (sides / 2).floor()).clamp(min=0).minimum(whole - sides)
    return torch.cat([start.flip(-1), (start + sides).flip(-1)], -1)


def roi(features: Tensor, boxes: Tensor, bins: int = 1) -> Tensor:
    """Region of interest of Eq. 8, Eq. 12: each of bins x bins cells of a box is the mean of SAMPLES x SAMPLES points,
    bilinear between the centres of pixels, which lie at 0.5, 1.5, ...

    features: (B, C, H, W); boxes: (B, Nb, 4) as x1, y1, x2, y2 in cells of the features -> (B, Nb, C, bins, bins).
    """
    b, c, h, w = features.shape
    count, points = boxes.shape[1], bins * SAMPLES
    along = (torch.arange(points, device=boxes.device) + 0.5) / points
    x = boxes[..., 0:1] + along * (boxes[..., 2:3] - boxes[..., 0:1])  # (B, Nb, points)
    y = boxes[..., 1:2] + along * (boxes[..., 3:4] - boxes[..., 1:2])
    at = torch.stack(
        [(2 * x / w - 1)[:, :, None].expand(-1, -1, points, -1), (2 * y / h - 1)[..., None].expand(-1, -1, -1, points)],
        -1,
    )
    sampled = functional.grid_sample(
        features.float(), at.reshape(b, count * points, points, 2).float(), padding_mode="border", align_corners=False
    )
    means = functional.avg_pool2d(sampled, SAMPLES).reshape(b, c, count, bins, bins)
    return means.transpose(1, 2).to(features.dtype)


def overall_features(features: Tensor, content_sizes: Tensor, stride: float) -> Tensor:
    """GAP of Eq. 9 over the part of the features that shows the image. features: (B, C, H, W) of the padded input;
    content_sizes: (B, 2) its height and width in px; stride: px per cell -> (B, C)."""
    return torch.stack(
        [
            f[:, : max(ceil(h / stride), 1), : max(ceil(w / stride), 1)].mean((1, 2))
            for f, (h, w) in zip(features, content_sizes.tolist(), strict=True)
        ]
    )


def log_similarity(queries: Tensor, keys: Tensor, temperature: float, valid: Tensor) -> Tensor:
    """Logarithm of Eq. 11, Eq. 16. queries: (B, Nb, C); keys: (B, m, C), both of length 1; valid: (B, m) bool,
    false where the memory has fewer than m images -> (B, Nb, m), a distribution over the memory in each row.

    Eq. 16's denominator prints v^j, a vector of the visual backbone, where the text compares "patch tokens and
    normal semantic tokens": queries are T_v^j above and below the line.
    """
    with torch.autocast(queries.device.type, enabled=False):  # bf16's last digit, divided by tau, is 0.06
        values = queries.float() @ keys.float().transpose(1, 2) / temperature
    return values.masked_fill(~valid[:, None], float("-inf")).log_softmax(-1)  # Eq. 11, Eq. 16


def pbsd(visual: Tensor, text: Tensor, positive: Tensor) -> Tensor:
    """Eq. 17, mean over images: the cross-entropy over normal images of the memory, `visual` detached.

    visual, text: (B, Nb, m) logarithms of p; positive: (B, m) bool, the normal images that are there.
    """
    chosen = positive[:, None].expand_as(text)
    each = torch.where(chosen, -visual.detach().exp() * text.masked_fill(~chosen, 0.0), 0.0)  # Eq. 17
    return each.sum(-1).mean()
