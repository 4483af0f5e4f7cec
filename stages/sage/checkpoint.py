"""A trained SAGE on disk: safetensors and JSON.

`sage.json` says what it was made of. With LoRA there is a PEFT adapter (`adapter_model.safetensors`, which also holds
the trained image adapter), otherwise the whole model; beside it `fusion.safetensors`, where facts are fused.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from stages.training.prepared import torch

from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    PretrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
)
from transformers.integrations import is_fsdp_enabled

from stages.base.errors import InputError, last_line
from stages.sage.config import FUSION, RECORD, SageSettings, hub_id, read_record, stock
from stages.sage.model import ADAPTER, attach, core_of, linear_names, require_family
from stages.training import distributed
from stages.training.trained import trained_fingerprint, write_copy
from stages.training.weights import checkpoint_fingerprint
from stages.vlm.models import not_found


@dataclass(frozen=True)
class Loaded:
    """model: stock class with its fusion attached, a PeftModel where LoRA was trained; record: of `sage.json`."""

    model: PreTrainedModel | PeftModel
    processor: ProcessorMixin
    settings: SageSettings
    record: dict


def base_fingerprint(name: str, revision: str) -> str:
    """Of a base model's weights; reads its configuration first. Raises InputError: no such model, or of a family
    without the seam that SAGE needs."""
    try:
        config, _ = PretrainedConfig.get_config_dict(name, revision=revision or None)  # runs no code of the checkpoint
        require_family(config.get("model_type", "model without a type"), name)
        return checkpoint_fingerprint(name, revision)
    except (OSError, ValueError, KeyError) as e:
        raise InputError(f"--base {not_found(name, e)}") from e


def fingerprint(place: Path | None, base: str = "") -> str:
    """Of a checkpoint and of the base model under it, which may lie elsewhere now; without one, of the base alone.

    Raises:
        InputError: no checkpoint, no such base, or another one than it was trained on.
    """
    if place is None:
        return base_fingerprint(hub_id(base), "")
    folder, settings, record = read_record(place)
    own = trained_fingerprint(folder)
    if not settings.lora_rank:
        return own
    name = hub_id(base or record["base"])
    weights = base_fingerprint(name, record["revision"])
    local = "@" not in weights + record["weights"]  # a hub model and its copy have no common fingerprint
    if local and weights != record["weights"]:
        raise InputError(f"--base {name}: other weights than {place} was trained on ({record['base']})")
    return f"{own} {weights}"


def load_processor(name: str, revision: str = "", tiles: int = 0) -> tuple[ProcessorMixin, PretrainedConfig]:
    """(processor, configuration) of a base model. tiles: most tiles per image, 0 = the processor's own number.

    Raises:
        InputError: there is none, it has no chat template, or does not cut images into tiles.
    """
    try:
        processor = AutoProcessor.from_pretrained(name, revision=revision or None)
        config = AutoConfig.from_pretrained(name, revision=revision or None)
    except (OSError, ValueError, KeyError, ImportError) as e:
        raise InputError(f"--base {not_found(name, e)}") from e
    if not (getattr(processor, "chat_template", None) or processor.tokenizer.chat_template):
        raise InputError(f"--base {name}: this checkpoint has no chat template; take an instruction-tuned one")
    if processor.tokenizer.pad_token is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token
    if tiles:
        if not hasattr(processor.image_processor, "max_patches"):
            raise InputError(f"--tiles {tiles}: the images of a {config.model_type} are not cut into tiles")
        processor.image_processor.max_patches = tiles
    return processor, config


def load_model(name: str, revision: str, dtype: str) -> PreTrainedModel:
    """A stock model. After `train.read_weights_once` the first process of a node alone reads it; in the others all
    weights are zeros (pages that nothing has touched take no memory) until the first one hands the shards on.

    Raises:
        InputError: it cannot be loaded.
    """
    try:
        if is_fsdp_enabled() and distributed.local_rank() > 0:
            config = AutoConfig.from_pretrained(name, revision=revision or None)
            kind = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(config)]
            return kind.from_pretrained(None, config=config, state_dict={}, dtype=dtype)
        return AutoModelForImageTextToText.from_pretrained(
            name, revision=revision or None, dtype=dtype, use_safetensors=True
        )
    except (OSError, ValueError, KeyError, ImportError) as e:
        raise InputError(f"--base {not_found(name, e)}") from e


def prepare(name: str, revision: str, settings: SageSettings, seed: int, dtype: str) -> PreTrainedModel | PeftModel:
    """A model ready for SFE: fusion attached; LoRA on the language model's linear layers and the image
    adapter trained beside it unless frozen, or everything trained; the vision tower frozen."""
    model = load_model(name, revision, dtype)
    attach(model, settings, seed)
    if settings.lora_rank:
        torch.manual_seed(seed)
        model = get_peft_model(
            model,
            LoraConfig(
                r=settings.lora_rank,
                lora_alpha=settings.lora_alpha,
                lora_dropout=settings.lora_dropout,
                target_modules=linear_names(core_of(model)),
                modules_to_save=[ADAPTER] if settings.adapter == "trained" else None,
                task_type="CAUSAL_LM",
            ),
        )
        if settings.fuses:
            core_of(model).fusion.requires_grad_(True)
    else:
        core_of(model).vision_tower.requires_grad_(False)
        getattr(core_of(model), ADAPTER).requires_grad_(settings.adapter == "trained")
    return in_float32(model)


def in_float32(model: nn.Module) -> nn.Module:
    """Trained tensors in float32 whatever the rest is in: steps of 2e-6 are lost in bfloat16."""
    for p in model.parameters():
        if p.requires_grad:
            p.data = p.data.to(torch.float32)
    return model


def load_plain(base: str, dtype: str, settings: SageSettings) -> Loaded:
    """A base model as it is before any training, asked as a SAGE without fusion. Raises InputError as `load_sage`."""
    processor, _ = load_processor(hub_id(base), "", settings.tiles)
    model = load_model(hub_id(base), "", dtype)
    attach(model, settings)
    return Loaded(model.requires_grad_(False).eval(), processor, settings, {"stage": "base", "base": hub_id(base)})


def load_sage(
    place: Path, base: str = "", dtype: str = "float32", trainable: bool = False, settings: SageSettings | None = None
) -> Loaded:
    """A trained SAGE. base: where the base model lies now, if elsewhere; settings: other ones than in training (shots).
    LoRA stays apart from the base weights: merged in bfloat16, what a small rate changed would be rounded away.

    trainable=True makes it ready for E-DPO: language model and image adapter trained, fusion and vision tower frozen.

    Raises:
        InputError: no checkpoint, no such base model, or tensors that do not fit it.
    """
    folder, own, record = read_record(place)
    settings = settings or own
    name, revision = stock(folder, settings, record, base)
    processor, _ = load_processor(name, revision, settings.tiles)
    model = load_model(name, revision, dtype)
    attach(model, settings)
    core = core_of(model)
    try:
        if settings.fuses:
            core.fusion.load_state_dict(load_file(folder / FUSION))
            core.fusion.to(model.dtype)
        if settings.lora_rank:
            model = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
    except (RuntimeError, OSError, ValueError) as e:
        raise InputError(f"{folder}: does not fit the base model {name} ({last_line(e)})") from e
    if not trainable:
        return Loaded(model.requires_grad_(False).to(model.dtype).eval(), processor, settings, record)
    for part in (core.vision_tower, *([core.fusion] if settings.fuses else [])):
        part.requires_grad_(False)
    return Loaded(in_float32(model), processor, settings, record)


def save(
    model: PreTrainedModel | PeftModel,
    state: Mapping[str, Tensor],
    processor: ProcessorMixin,
    folder: Path,
    record: dict,
    settings: SageSettings,
) -> None:
    """Write what was trained. state: the model's state dict, gathered where it was sharded."""
    prefix = "base_model.model.model.fusion." if settings.lora_rank else "model.fusion."
    fusion = {n.removeprefix(prefix): t.float().cpu().contiguous() for n, t in state.items() if n.startswith(prefix)}
    rest = {n: t for n, t in state.items() if not n.startswith(prefix)}
    if settings.lora_rank:
        model.save_pretrained(folder, state_dict=rest, selected_adapters=["default"], save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)
    else:  # gathered from shards, tied tensors are copies: one is enough
        rest = {n: t for n, t in rest.items() if n not in model.all_tied_weights_keys}
        model.save_pretrained(folder, state_dict=rest)
        processor.save_pretrained(folder)
    if fusion:
        save_file(fusion, folder / FUSION)
    (folder / RECORD).write_text(json.dumps(record | {"settings": asdict(settings)}, indent=2))


def merge(place: Path, out: Path, base: str = "") -> None:
    """Write the plain checkpoint of a SAGE without fusion: LoRA merged in float32, saved in the base model's own
    type, for from_pretrained and vLLM. Deltas below that type's resolution are rounded away here.

    Raises:
        InputError: a checkpoint with a fusion layer, which no stock model has; `out` is taken.
    """
    folder, settings, record = read_record(place)
    if settings.fuses:
        raise InputError(
            f"{folder}: has a fusion layer, which a plain checkpoint cannot hold; only --fusion none and"
            " text can be merged"
        )

    def write(target: Path) -> None:
        loaded = load_sage(place, base)
        model = loaded.model.merge_and_unload() if settings.lora_rank else loaded.model
        _, config = load_processor(*stock(folder, settings, record, base))
        model.to(config.dtype or model.dtype).save_pretrained(target)
        loaded.processor.save_pretrained(target)

    write_copy(folder, place, out, write)
