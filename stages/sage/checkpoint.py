"""A trained SAGE on disk: safetensors and JSON.

`sage.json` says what it was made of. With LoRA there is a PEFT adapter (`adapter_model.safetensors`, which also holds
the trained image adapter), otherwise the whole model; beside it `fusion.safetensors`, where facts are fused.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stages.base.errors import InputError, last_line
from stages.sage.config import Settings
from stages.training.saved_models import (
    ADAPTER_WEIGHTS,
    check_chat_template,
    check_merged,
    check_model,
    read_json,
    trained_fingerprint,
    trained_folder,
)
from stages.training.weights import checkpoint_fingerprint
from stages.vlm.models import SHORT_NAMES, not_found

RECORD, FUSION = "sage.json", "fusion.safetensors"


@dataclass(frozen=True)
class Loaded:
    """model: stock class with its fusion attached, a PeftModel where LoRA was trained; record: of `sage.json`."""

    model: Any
    processor: Any
    settings: Settings
    record: dict


def find(place: Path) -> Path:
    """The folder with the checkpoint: `place` itself, or the one of a finetune-mllm artifact.

    Raises:
        InputError: none there.
    """
    return trained_folder(place, (RECORD,), "finetune-mllm --method sage-sfe or sage-edpo")


def read_record(place: Path) -> tuple[Path, Settings, dict]:
    """(folder, settings, record). Raises InputError for no checkpoint, or one of another version."""
    folder = find(place)
    record = read_json(folder / RECORD, "--checkpoint")
    try:
        return folder, Settings(**record["settings"]), record
    except (TypeError, KeyError) as e:
        raise InputError(f"{folder / RECORD}: not of this version of adcli ({e})") from e


def check_trained(place: Path, base: str = "") -> tuple[Path, Settings, dict]:
    """`read_record`, and that the files of the checkpoint and of its base model are there. Imports no torch. Raises
    InputError: they are not."""
    folder, settings, record = read_record(place)
    needed = [FUSION] if settings.fusion == "attention" else []
    needed += [ADAPTER_WEIGHTS] if settings.lora_rank else []
    if lacking := [name for name in needed if not (folder / name).is_file()]:
        raise InputError(f"--checkpoint {folder}: no {lacking[0]} here")
    name, _ = stock(folder, settings, record, base)
    what = "--base" if settings.lora_rank else "--checkpoint"
    check_model(name, what)
    check_chat_template(name, what)
    return folder, settings, record


def base_fingerprint(name: str, revision: str) -> str:
    """Of a base model's weights; reads its configuration first. Raises InputError: no such model, or of a family
    without the seam that SAGE needs."""
    from transformers import AutoConfig

    from stages.sage.model import require_family

    try:
        config = AutoConfig.from_pretrained(name, revision=revision or None)
        require_family(config, name)
        return checkpoint_fingerprint(name, revision)
    except (OSError, ValueError, KeyError) as e:
        raise InputError(f"--base {not_found(name, e)}") from e


def fingerprint(place: Path, base: str = "") -> str:
    """Of a checkpoint and of the base model under it, which may lie elsewhere now.

    Raises:
        InputError: no checkpoint, no such base, or another one than it was trained on.
    """
    folder, settings, record = read_record(place)
    own = trained_fingerprint(folder)
    if not settings.lora_rank:
        return own
    name = resolved(base or record["base"])
    found = base_fingerprint(name, record["revision"])
    local = "@" not in found + record["weights"]  # a hub model and its copy have no common fingerprint
    if local and found != record["weights"]:
        raise InputError(f"--base {name}: other weights than {place} was trained on ({record['base']})")
    return f"{own} {found}"


def resolved(name: str) -> str:
    """A short name -> its hub id; others as they are."""
    return SHORT_NAMES.get(name, name)


def load_processor(name: str, revision: str = "", tiles: int = 0) -> tuple[Any, Any]:
    """(processor, configuration) of a base model. tiles: most tiles per image, 0 = the processor's own number.

    Raises:
        InputError: there is none, it has no chat template, or does not cut images into tiles.
    """
    from transformers import AutoConfig, AutoProcessor

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


def load_model(name: str, revision: str, dtype: Any) -> Any:
    """A stock model. Raises InputError when it cannot be loaded."""
    from transformers import AutoModelForImageTextToText

    try:
        return AutoModelForImageTextToText.from_pretrained(
            name, revision=revision or None, dtype=dtype, use_safetensors=True
        )
    except (OSError, ValueError, KeyError, ImportError) as e:
        raise InputError(f"--base {not_found(name, e)}") from e


def prepare(name: str, revision: str, settings: Settings, seed: int, dtype: Any) -> Any:
    """A model ready for SFE: fusion attached; LoRA on the language model's linear layers and the image
    adapter trained beside it, or everything trained; the vision tower frozen."""
    import torch

    from stages.sage.model import ADAPTER, attach, core_of, linear_names

    model = load_model(name, revision, dtype)
    attach(model, settings, seed)
    if settings.lora_rank:
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(seed)
        model = get_peft_model(
            model,
            LoraConfig(
                r=settings.lora_rank,
                lora_alpha=settings.lora_alpha,
                target_modules=linear_names(core_of(model)),
                modules_to_save=[ADAPTER],
                task_type="CAUSAL_LM",
            ),
        )
        if settings.fusion == "attention":
            core_of(model).fusion.requires_grad_(True)
    else:
        core_of(model).vision_tower.requires_grad_(False)
    return in_float32(model)


def in_float32(model: Any) -> Any:
    """Trained tensors in float32 whatever the rest is in: steps of 2e-6 are lost in bfloat16."""
    import torch

    for p in model.parameters():
        if p.requires_grad:
            p.data = p.data.to(torch.float32)
    return model


def stock(folder: Path, settings: Settings, record: dict, base: str = "") -> tuple[str, str]:
    """(place, revision) of the stock model in a checkpoint: the base under LoRA, else the checkpoint itself."""
    return (resolved(base or record["base"]), record["revision"]) if settings.lora_rank else (str(folder), "")


def load_sage(
    place: Path, base: str = "", dtype: Any = "float32", trainable: bool = False, settings: Settings | None = None
) -> Loaded:
    """A trained SAGE. base: where the base model lies now, if elsewhere; settings: other ones than in training (shots).
    LoRA stays apart from the base weights: merged in bfloat16, what a small rate changed would be rounded away.

    trainable=True makes it ready for E-DPO: language model and image adapter trained, fusion and vision tower frozen.

    Raises:
        InputError: no checkpoint, no such base model, or tensors that do not fit it.
    """
    from safetensors.torch import load_file

    from stages.sage.model import attach, core_of

    folder, own, record = read_record(place)
    settings = settings or own
    name, revision = stock(folder, settings, record, base)
    processor, _ = load_processor(name, revision, settings.tiles)
    model = load_model(name, revision, dtype)
    attach(model, settings)
    core = core_of(model)
    try:
        if settings.fusion == "attention":
            core.fusion.load_state_dict(load_file(folder / FUSION))
            core.fusion.to(model.dtype)
        if settings.lora_rank:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
    except (RuntimeError, OSError, ValueError) as e:
        raise InputError(f"{folder}: does not fit the base model {name} ({last_line(e)})") from e
    if not trainable:
        return Loaded(model.requires_grad_(False).to(model.dtype).eval(), processor, settings, record)
    for part in (core.vision_tower, *([core.fusion] if settings.fusion == "attention" else [])):
        part.requires_grad_(False)
    return Loaded(in_float32(model), processor, settings, record)


def save(model: Any, state: Mapping[str, Any], processor: Any, folder: Path, record: dict, settings: Settings) -> None:
    """Write what was trained. state: the model's state dict, gathered where it was sharded."""
    from safetensors.torch import save_file

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
    if settings.fusion == "attention":
        raise InputError(
            f"{folder}: has a fusion layer, which a plain checkpoint cannot hold; only --fusion none and"
            " text can be merged"
        )
    check_merged(out, place, "config.json")
    loaded = load_sage(place, base)
    model = loaded.model.merge_and_unload() if settings.lora_rank else loaded.model
    _, config = load_processor(*stock(folder, settings, record, base))
    model.to(config.dtype or model.dtype).save_pretrained(out)
    loaded.processor.save_pretrained(out)
