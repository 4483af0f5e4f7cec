"""A trained VMAD on disk: safetensors, PEFT's adapter, and what it was made of as JSON.

`vmad.json`, `vmad.safetensors` (projector, MLPs, mask decoder), `adapter/` (LoRA and the rows of `<seg>`). Merged,
there is no `adapter/` but the whole language model, as a LLaVA checkpoint in `llava/` with LLaVA's own projector and
`<seg>` in its vocabulary. SAM's encoder is never copied.
"""

import copy
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from stages.training.prepared import torch

from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPImageProcessor, LlavaConfig, LlavaForConditionalGeneration, PreTrainedTokenizerBase

from stages.base.errors import InputError
from stages.training.saved_models import ADAPTER_WEIGHTS
from stages.training.trained import trained_fingerprint
from stages.training.weights import checkpoint_fingerprint, must_fit
from stages.vmad.build import (
    add_token_row,
    freeze,
    load_llava,
    load_sam,
    not_loaded,
    read_llava,
    replace_projector,
    text_of,
    transform_of,
)
from stages.vmad.config import (
    ADAPTER,
    MERGED,
    RECORD,
    SEG,
    WEIGHTS,
    LossWeights,
    VmadSettings,
    checkpoint_folder,
)
from stages.vmad.data import PromptEncoder
from stages.vmad.descriptions import UNTOLD, Descriptions, recorded
from stages.vmad.model import Vmad


def save_vmad(
    model: Vmad,
    text: PromptEncoder,
    folder: Path,
    llava: str,
    sam: str,
    revisions: tuple[str, str] = ("", ""),
    notes: dict | None = None,
    descriptions: Descriptions = UNTOLD,
) -> None:
    """llava, sam: directory or hub id that it was made from, as it was given; notes: what else the record keeps;
    descriptions: of what is normal, that it was trained with. A merged model brings its own LLaVA."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{part}.{n}": t.detach().float().cpu().contiguous()
        for part, module in model.own_parts().items()
        for n, t in module.state_dict().items()
    }
    save_file(tensors, folder / WEIGHTS)
    merged = model.llava is model.base
    if merged:
        _save_llava(model, text.tokenizer, folder / MERGED)
    else:
        model.llava.save_pretrained(folder / ADAPTER)
        (folder / ADAPTER / "README.md").unlink(missing_ok=True)
    record = {
        "llava": llava,
        "sam": sam,
        "revisions": revisions,
        "seg": model.seg,
        "merged": merged,
        "tokens": model.projector.tokens,
        "settings": asdict(model.settings),
        "weights": asdict(model.weights),
        "notes": notes or {},
        "descriptions": descriptions.record(),
    }
    (folder / RECORD).write_text(json.dumps(record, indent=2))


def _save_llava(model: Vmad, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """A LLaVA checkpoint that loads without us: its own projector is the MLP within ours."""
    ours, mlp = "model.multi_modal_projector.", "model.multi_modal_projector.mlp."
    state = {
        (ours + n.removeprefix(mlp) if n.startswith(mlp) else n): t
        for n, t in model.base.state_dict().items()
        if n.startswith(mlp) or not n.startswith(ours)
    }
    inside = model.base.config
    outside = copy.deepcopy(inside)
    outside.vision_feature_layer = inside.vision_feature_layer[-1]
    outside.image_seq_length = (inside.vision_config.image_size // inside.vision_config.patch_size) ** 2
    try:
        model.base.config = outside
        model.base.save_pretrained(folder, state_dict=state)
    finally:
        model.base.config = inside
    tokenizer.save_pretrained(folder)
    transform = model.transform
    CLIPImageProcessor(
        size={"shortest_edge": transform.clip_size},
        crop_size=transform.clip_size,
        image_mean=list(transform.clip_mean),
        image_std=list(transform.clip_std),
    ).save_pretrained(folder)


def record_of(folder: Path, name: str) -> dict:
    """A JSON file of a checkpoint. Raises InputError when it is not there or no JSON."""
    try:
        return json.loads((folder / name).read_text())
    except (OSError, ValueError) as e:
        raise InputError(
            f"--checkpoint {folder}: no readable {name} here (expected what finetune-mllm --method vmad wrote)"
        ) from e


def sources(place: Path, llava: str = "", sam: str = "") -> tuple[Path, dict, str, str]:
    """(folder, record, LLaVA, SAM) with the places that they lie at now; llava, sam: if elsewhere than in training.
    Raises InputError: no checkpoint, or one of another version."""
    folder = checkpoint_folder(place)
    record = record_of(folder, RECORD)
    try:
        settings, weights = VmadSettings(**record["settings"]), LossWeights(**record["weights"])
        inside = str(folder / MERGED) if record["merged"] else record["llava"]
        record |= {
            "settings": settings,
            "weights": weights,
            "seg": int(record["seg"]),
            "revisions": tuple(record["revisions"]),
            "descriptions": recorded(record.get("descriptions")),
        }
        return folder, record, llava or inside, sam or record["sam"]
    except (TypeError, KeyError, ValueError) as e:
        raise InputError(f"{folder / RECORD}: not of this version of adcli ({e})") from e


def made_of(place: Path) -> dict:
    """projector, dssl, boxes (N_b; 0 without DSSL), and how many tokens an image becomes, None in checkpoints that do
    not say. Raises InputError as `sources` does."""
    record = sources(place)[1]
    settings = record["settings"]
    return {
        "projector": settings.projector,
        "dssl": settings.dssl,
        "boxes": settings.boxes * settings.dssl,
        "tokens": record.get("tokens"),
    }


def fingerprint(place: Path, llava: str = "", sam: str = "") -> str:
    """Of all weights that a score depends on. Raises InputError: no checkpoint, no such LLaVA or SAM."""
    folder, record, llava, sam = sources(place, llava, sam)
    return " ".join([trained_fingerprint(folder), source_fingerprints(llava, sam, record["revisions"])])


def source_fingerprints(llava: str, sam: str, revisions: Sequence[str]) -> str:
    """Of LLaVA and SAM. Raises InputError when one is not to be found."""
    fingerprints = []
    for option, name, revision in (("--llava", llava, revisions[0]), ("--sam", sam, revisions[1])):
        try:
            fingerprints.append(checkpoint_fingerprint(name, revision))
        except (OSError, ValueError) as e:
            raise not_loaded(option, name, e) from e
    return " ".join(fingerprints)


def reader(place: Path, llava: str = "") -> tuple[LlavaConfig, PromptEncoder]:
    """(configuration of LLaVA, how the model reads text), without weights. Raises InputError: no checkpoint, no such
    LLaVA, or one that gives `<seg>` another number than in training."""
    folder, record, name, _ = sources(place, llava)
    config, tokenizer = read_llava(name, "" if record["merged"] else record["revisions"][0])
    if record["merged"]:
        grid = config.vision_config.image_size // config.vision_config.patch_size
        return config, PromptEncoder(tokenizer, config.image_token_id, record["settings"].tokens(grid), record["seg"])
    text = text_of(config, tokenizer, record["settings"], name)
    if text.seg != record["seg"]:
        raise InputError(f"--llava {name}: gives {SEG} another number than the LLaVA that {folder} was trained on")
    return config, text


def load_vmad(
    place: Path, llava: str = "", sam: str = "", dtype: torch.dtype = torch.float32
) -> tuple[Vmad, PromptEncoder]:
    """(model in evaluation mode, how it reads text). llava, sam: where they lie now, if elsewhere.

    Raises:
        InputError: no checkpoint, no such LLaVA or SAM, or tensors that do not fit them.
    """
    folder, record, llava_name, sam_name = sources(place, llava, sam)
    settings, revision = record["settings"], "" if record["merged"] else record["revisions"][0]
    config, text = reader(place, llava)
    base = load_llava(llava_name, revision, dtype)
    if not record["merged"]:
        add_token_row(base, text.seg)
    replace_projector(base, settings)
    if not record["merged"]:
        base = _with_adapter(base, folder / ADAPTER)
    backbone, sam_transform = load_sam(sam_name, record["revisions"][1], dtype)
    transform = transform_of(llava_name, revision, config, sam_transform)
    model = Vmad(base, backbone, settings, record["weights"], transform, text.seg)
    load_parts(model, load_file(folder / WEIGHTS), folder)
    return freeze(model).requires_grad_(False).eval(), text


def _with_adapter(base: LlavaForConditionalGeneration, folder: Path) -> nn.Module:
    """PEFT's wrapper with what was trained. Raises InputError when it does not fit."""
    from peft import PeftModel

    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise InputError(f"{folder}: holds no {ADAPTER_WEIGHTS}")  # PEFT would look for a pickle
    with must_fit(folder, "its LLaVA"):
        return PeftModel.from_pretrained(base, folder)


def load_parts(model: Vmad, tensors: dict[str, torch.Tensor], where: Path) -> None:
    """Put a checkpoint's own tensors into the model. Raises InputError when they do not fit."""
    for part, module in model.own_parts().items():
        own = {n.removeprefix(f"{part}."): t for n, t in tensors.items() if n.startswith(f"{part}.")}
        with must_fit(where, "its LLaVA and SAM"):
            module.float().load_state_dict(own)


def merged(model: Vmad) -> Vmad:
    """The same model with LoRA added into the language model's weights, and no PEFT around it; the given one is used
    up. In bfloat16 what a learning rate of 1e-6 has changed would be rounded away: load it in float32 for this."""
    model.llava = model.llava.merge_and_unload()
    return model
