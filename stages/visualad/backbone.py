"""Frozen vision transformers that take two more tokens in front of their own (VisualAD, Eq. 1)."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stages.training.prepared import torch

from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoImageProcessor, AutoModel, CLIPVisionModel, SiglipVisionModel

from stages.base.errors import InputError, cannot_be_loaded

KINDS = ("clip", "clip_vision_model", "siglip", "siglip_vision_model", "dinov2", "dinov2_with_registers", "dinov3_vit")
FAMILIES = "CLIP, DINOv2 (with and without registers), DINOv3, SigLIP and SigLIP2"


@dataclass(frozen=True)
class Parts:
    """What a family of models is made of.

    embed: pixels (B, 3, S, S) -> (B, prefix + N, C), positions added; prefix: its own tokens in front of the
    patches; start: a norm before the first block, or None; layers: blocks; norm: after the last block;
    class_position: (C,) what the inserted tokens' positions start from; rotary: pixels -> what its blocks take as
    position_embeddings, or None.
    """

    embed: Callable[[Tensor], Tensor]
    prefix: int
    start: nn.Module | None
    layers: nn.ModuleList
    norm: nn.LayerNorm
    class_position: Tensor
    rotary: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None


class Backbone(nn.Module):
    """A frozen vision transformer. width: C; depth: blocks; patch: px; digest: of its weights, as they were read."""

    def __init__(self, vit: nn.Module, recompute: bool = False) -> None:
        """recompute: activations of a block are computed again in the backward pass instead of kept."""
        super().__init__()
        self.vit = vit.requires_grad_(False).eval()
        self.recompute = recompute
        self.digest = digest_of(parts_of(vit).layers)  # before `in_bf16`
        self.width, self.depth = vit.config.hidden_size, vit.config.num_hidden_layers
        self.patch = vit.config.patch_size

    def in_bf16(self) -> "Backbone":
        """Keeps the weights of its linear layers in bf16: autocast would convert them anew in every pass, to the same
        values."""
        for module in self.vit.modules():
            if isinstance(module, nn.Linear):
                module.to(torch.bfloat16)
        return self

    def train(self, mode: bool = True) -> "Backbone":
        """Stays in evaluation mode: a frozen model has no dropout to train with."""
        return super().train(False)

    def forward(self, pixels: Tensor, tokens: Tensor, wanted: Sequence[int]) -> tuple[list[Tensor], list[Tensor]]:
        """pixels: (B, 3, S, S) normalised; tokens: (T, C) with their positions; wanted: layers from 1.

        Returns the tokens (B, T, C) and the patches (B, N, C) after each wanted layer and, last, after the
        last one, without the final norm.
        """
        parts = parts_of(self.vit)
        more = {"position_embeddings": parts.rotary(pixels)} if parts.rotary else {}
        hidden = parts.embed(pixels)
        count = len(tokens)
        hidden = torch.cat([tokens.to(hidden.dtype).expand(len(hidden), -1, -1), hidden], dim=1)  # Eq. 1
        if parts.start is not None:
            hidden = parts.start(hidden)
        extra, patches = [], []
        for number, layer in enumerate(parts.layers, 1):
            hidden = self._through(layer, hidden, more)
            if number in wanted or number == len(parts.layers):
                extra.append(hidden[:, :count])
                patches.append(hidden[:, count + parts.prefix :])
        return extra, patches

    def _through(self, layer: nn.Module, hidden: Tensor, more: dict) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            out = checkpoint(layer, hidden, None, use_reentrant=False, **more)
        else:
            out = layer(hidden, None, **more)
        return out[0] if isinstance(out, tuple) else out


def parts_of(vit: nn.Module) -> Parts:
    """The parts of a loaded model. Raises InputError for a family that has no patch tokens, or is not known."""
    kind = vit.config.model_type
    if kind == "clip_vision_model":
        inner = getattr(vit, "vision_model", vit)
        e = inner.embeddings
        return Parts(
            lambda pixels: _clip_embedded(e, pixels),
            1,
            inner.pre_layrnorm,
            inner.encoder.layers,
            inner.post_layernorm,
            e.position_embedding.weight[0],
        )
    if kind in ("dinov2", "dinov2_with_registers"):
        registers = getattr(vit.config, "num_register_tokens", 0)
        return Parts(
            vit.embeddings,
            1 + registers,
            None,
            vit.encoder.layer,
            vit.layernorm,
            vit.embeddings.position_embeddings[0, 0],
        )
    if kind == "dinov3_vit":
        layers = vit.model.layer if hasattr(vit, "model") else vit.layer
        return Parts(
            vit.embeddings,
            1 + vit.config.num_register_tokens,
            None,
            layers,
            vit.norm,
            torch.zeros(vit.config.hidden_size),
            vit.rope_embeddings,
        )
    if kind == "siglip_vision_model":
        inner = getattr(vit, "vision_model", vit)
        return Parts(
            lambda pixels: inner.embeddings(pixels, interpolate_pos_encoding=True),
            0,
            None,
            inner.encoder.layers,
            inner.post_layernorm,
            torch.zeros(vit.config.hidden_size),
        )
    raise InputError(unknown(kind))


def require_family(name: str, kind: str) -> None:
    """kind: the configuration's model_type. Raises InputError for a model that is none of the known families."""
    if kind not in KINDS:
        raise InputError(f"--backbone {name}: {unknown(kind)}")


def unknown(kind: str) -> str:
    """Why a family of models cannot be a backbone."""
    return f"a {kind} has no patch tokens that others could be put in front of; known are {FAMILIES}"


def _clip_embedded(e: nn.Module, pixels: Tensor) -> Tensor:
    """CLIP's patches and class token with their positions; those of the patches resized bilinearly, pixel centres
    aligned, where the grid is not the native one (the released code's rule; transformers' own is bicubic)."""
    patches = e.patch_embedding(pixels.to(e.patch_embedding.weight.dtype))
    rows, columns = patches.shape[-2:]
    positions = e.position_embedding.weight
    side = round((len(positions) - 1) ** 0.5)
    grid = positions[1:]
    if (rows, columns) != (side, side):
        grid = grid.reshape(1, side, side, -1).permute(0, 3, 1, 2)
        grid = functional.interpolate(grid, (rows, columns), mode="bilinear", align_corners=False)
        grid = grid.flatten(2).transpose(1, 2)[0]
    patches = patches.flatten(2).transpose(1, 2) + grid
    first = (e.class_embedding + positions[0]).expand(len(patches), 1, -1)
    return torch.cat([first, patches], dim=1)


def load_backbone(name: str, revision: str = "", recompute: bool = False) -> tuple[Backbone, list[float], list[float]]:
    """(frozen model in float32, image mean, image standard deviation) of a directory or hub id.

    Raises:
        InputError: there is no such model, or it is none of the known families.
    """
    at = {"revision": revision or None}
    try:
        kind = AutoConfig.from_pretrained(name, **at).model_type
        require_family(name, kind)
        loader = {
            "clip": CLIPVisionModel,
            "clip_vision_model": CLIPVisionModel,
            "siglip": SiglipVisionModel,
            "siglip_vision_model": SiglipVisionModel,
        }.get(kind, AutoModel)
        vit = loader.from_pretrained(name, dtype=torch.float32, attn_implementation="sdpa", use_safetensors=True, **at)
        processor = AutoImageProcessor.from_pretrained(name, **at)
    except (OSError, ValueError, KeyError) as e:
        raise cannot_be_loaded(f"--backbone {name}", e) from e
    return Backbone(vit, recompute), list(processor.image_mean), list(processor.image_std)


def digest_of(layers: nn.Module) -> str:
    """Of the values of a backbone's blocks, whatever their tensors are called and wherever they were read from."""
    each = (hashlib.sha256(t.detach().cpu().contiguous().numpy()).digest() for t in layers.state_dict().values())
    return hashlib.sha256(b"".join(sorted(each))).hexdigest()[:32]
