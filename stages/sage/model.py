"""SAGE on a stock vision-language model: everything happens between the adapter and the language model.

The model stays the class that transformers made. Before its own forward, images and facts become embeddings at the
places of the image tokens; the same step serves training, likelihoods and generation, under PEFT, DDP and FSDP alike.

What the language model reads (Eq. 9, section 3.1): the test image, the comparison-enhanced prompt t^s, the question.
The reference image serves Eq. 1 only; its own tokens are not shown, because neither Eq. 9 nor section 3.1 lists them,
and leaving them out halves the length. Without fusion there is no other way to compare, so there the reference image
is shown before the test image.

phi_Proj of Eq. 9 is, for images, the model's own adapter (in InternVL a LayerNorm and two linear layers), for words
the embedding table; both were trained with the language model, and a new LayerNorm over them would undo that. Only
t^s gets a projection of its own. Without a reference image (section 5.1) all patches of the test image are keys and
values: each of them would find itself in Eq. 1, and rounding would choose.
"""

from collections.abc import Sequence

from stages.training.prepared import torch

from torch import Tensor, nn

from stages.base.errors import InputError
from stages.sage.config import SageSettings
from stages.sage.fusion import Fusion, ReleasedFusion, differing

ADAPTER = "multi_modal_projector"  # the paper's Adapter, by the name it has in both families
FAMILIES = {"internvl": "InternVL", "llava": "LLaVA"}
REMOTE = "internvl_chat"  # of OpenGVLab/InternVL2-8B and the like, without -hf


def core_of(model: nn.Module) -> nn.Module:
    """The part without the LM head: vision tower, adapter, language model; also of a PEFT model."""
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    return plain.model


def require_family(kind: str, name: str) -> None:
    """kind: `model_type` of a configuration. Raises InputError for a model without a plain seam between adapter and
    language model (Qwen-VL's positions are computed from the sizes of its images, in which prompt vectors have no
    place), and for one in the authors' own format."""
    if kind == REMOTE:
        raise InputError(
            f"--base {name}: OpenGVLab's own format, with code beside its weights; take the checkpoint with -hf in"
            " its name (for example OpenGVLab/InternVL3-8B-hf), or convert this one, see docs/sage.md"
        )
    if kind not in FAMILIES:
        raise InputError(
            f"--base {name}: a {kind}; SAGE is built on {' and '.join(FAMILIES.values())}"
            " checkpoints in transformers' own format (for example OpenGVLab/InternVL3-8B-hf)"
        )


def check_heads(settings: SageSettings, width: int) -> None:
    """width: of the language model. Raises InputError where the fusion attention's heads do not divide it."""
    if settings.fuses and width % settings.heads:
        raise InputError(f"--heads {settings.heads}: does not divide the model's width of {width}")


def attach(model: nn.Module, settings: SageSettings, seed: int = 0) -> None:
    """Give a stock model its fusion layer and the step that turns images and facts into embeddings.

    Raises:
        InputError: --heads does not divide the width.
    """
    core = core_of(model)
    table = core.get_input_embeddings().weight
    if settings.fuses:
        check_heads(settings, table.shape[1])
        core.fusion = (
            Fusion(table.shape[1], settings.heads)
            if settings.fusion == "attention"
            else ReleasedFusion(table.shape[1], settings.heads, settings.redraw_output)
        )
        scale = float(table.detach().float().square().mean().sqrt()) or 1.0  # 0 where another process has the weights
        core.fusion.start(scale, torch.Generator().manual_seed(seed))
        core.fusion.to(table.device)

    def with_embeddings(module: nn.Module, args: tuple, inputs: dict) -> tuple[tuple, dict] | None:
        if inputs.get("pixel_values") is None:  # a later step of generation, or embeddings already
            return None
        return args, embedded(module, inputs, settings)

    core.register_forward_pre_hook(with_embeddings, with_kwargs=True)


def embedded(core: nn.Module, inputs: dict, settings: SageSettings) -> dict:
    """`inputs` of a batch (see `data.Encoder`) with `inputs_embeds` (S, L, C) instead of tokens, images and facts.

    S sequences about B images, S a multiple of B: sequence i is about image i mod B, so that answers to one question
    share its vision features. Image tokens take, in order, the patches of the image and the vectors of t^s.
    """
    inputs = dict(inputs)
    ids, pixels, counts = (inputs.pop(n) for n in ("input_ids", "pixel_values", "image_tokens"))
    visual = patches(core, pixels, counts)
    more = [
        inputs.pop(n, None)
        for n in ("reference_pixel_values", "reference_tokens", "fact_ids", "fact_mask", "fact_counts")
    ]
    if settings.fuses:
        prompts = enhanced(core, visual, *more, settings)
        before = settings.fusion == "released"
        pairs = [(t.to(v.dtype), v) if before else (v, t.to(v.dtype)) for v, t in zip(visual, prompts, strict=True)]
        visual = [torch.cat(pair) for pair in pairs]
        if before:
            inputs["position_ids"] = starting_again(inputs["attention_mask"], [len(t) for t in prompts])
    words = core.get_input_embeddings()(ids)
    where = (ids == core.config.image_token_id)[..., None]
    filled = torch.cat(visual * (len(ids) // len(visual))).to(words.dtype)
    if int(where.sum()) != len(filled):
        raise ValueError(f"{int(where.sum())} image tokens for {len(filled)} patches and prompt vectors")
    return inputs | {"input_ids": None, "inputs_embeds": words.masked_scatter(where, filled)}


def starting_again(attention_mask: Tensor, counts: Sequence[int]) -> Tensor:
    """Positions (S, L) of sequences that begin with n vectors: 0 to n - 1, and the chat from 0 again. attention_mask:
    (S, L), padded on either side; counts: n of each image, sequence i is about image i mod B."""
    places = attention_mask.long().cumsum(-1) - 1
    n = torch.tensor(counts, device=places.device).repeat(len(places) // len(counts))[:, None]
    return torch.where(places < n, places, places - n).clamp(min=0)


def enhanced(
    core: nn.Module,
    visual: list[Tensor],
    reference_pixels: Tensor | None,
    reference_tokens: Tensor | None,
    fact_ids: Tensor,
    fact_mask: Tensor,
    fact_counts: Tensor,
    settings: SageSettings,
) -> list[Tensor]:
    """The comparison-enhanced prompt t^s of each image, (N, C).

    visual: patches of the test images; fact_ids, fact_mask: (all sentences, longest), fact_counts: (B,).
    """
    if reference_pixels is None:
        chosen = visual
    else:
        references = patches(core, reference_pixels, reference_tokens)
        chosen = [
            differing(v, r, settings.patches, settings.similarity) for v, r in zip(visual, references, strict=True)
        ]
    if settings.fusion == "released":
        core.fusion.begin()
    facts = pooled(core.get_input_embeddings()(fact_ids), fact_mask).split(fact_counts.tolist())
    return [core.fusion(f, c) for f, c in zip(facts, chosen, strict=True)]


def pooled(embeddings: Tensor, mask: Tensor) -> Tensor:
    """t^g: mean over a sentence's tokens. embeddings: (n, L, C); mask: (n, L), 1 = token -> (n, C)."""
    weights = mask[..., None].to(embeddings.dtype)
    return (embeddings * weights).sum(1) / weights.sum(1)


def patches(core: nn.Module, pixels: Tensor, counts: Tensor) -> list[Tensor]:
    """Patch features after the adapter, one (counts[i], C) for each entry; the tiles of an image follow each other."""
    features = core.get_image_features(pixel_values=pixels, return_dict=True).pooler_output
    return list(torch.cat(list(features)).split(counts.tolist()))


def linear_names(core: nn.Module) -> str:
    """PEFT's pattern for all linear layers of the language model, and of nothing else."""
    names = {n.rpartition(".")[2] for n, m in core.language_model.named_modules() if isinstance(m, nn.Linear)}
    return rf".*\.language_model\..*\.({'|'.join(sorted(names))})"
