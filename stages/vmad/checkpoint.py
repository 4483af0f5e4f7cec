"""A trained VMAD on disk: safetensors, PEFT's adapter, the tokenizer, and what it was made of as JSON.

`vmad.json`, `vmad.safetensors` (projector, MLPs, mask decoder), `adapter/` (LoRA and the rows of `<seg>`), and the
tokenizer. Merged, there is no `adapter/` but the whole language model, as a LLaVA checkpoint in `llava/` with
LLaVA's own projector. SAM's encoder is never copied.
"""

import copy
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from stages.checkpoints import checkpoint_fingerprint
from stages.errors import InputError
from stages.vmad.build import add_seg, freeze, load_llava, load_sam, look_of, record_of, replace_projector
from stages.vmad.model import Vmad
from stages.vmad.settings import SEG, Settings, Weights

WEIGHTS, RECORD, ADAPTER, MERGED = "vmad.safetensors", "vmad.json", "adapter", "llava"


def save_vmad(model: Vmad, tokenizer: Any, folder: Path, llava: str, sam: str,
              revisions: tuple[str, str] = ("", "")) -> None:
    """llava, sam: directory or hub id that it was made from, as it was given. A merged model brings its own LLaVA."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"{part}.{n}": t.detach().float().cpu().contiguous()
               for part, module in model.own_parts().items() for n, t in module.state_dict().items()}
    save_file(tensors, folder / WEIGHTS)
    tokenizer.save_pretrained(folder)
    merged = model.llava is model.base
    if merged:
        _save_llava(model, tokenizer, folder / MERGED)
    else:
        model.llava.save_pretrained(folder / ADAPTER)
    record = {"llava": llava, "sam": sam, "revisions": revisions, "seg": model.seg, "merged": merged,
              "settings": asdict(model.settings), "weights": asdict(model.weights)}
    (folder / RECORD).write_text(json.dumps(record, indent=2))


def _save_llava(model: Vmad, tokenizer: Any, folder: Path) -> None:
    """A LLaVA checkpoint that loads without us: its own projector is the MLP within ours."""
    ours, mlp = "model.multi_modal_projector.", "model.multi_modal_projector.mlp."
    state = {(ours + n.removeprefix(mlp) if n.startswith(mlp) else n): t for n, t in model.base.state_dict().items()
             if n.startswith(mlp) or not n.startswith(ours)}
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
    look = model.look
    from transformers import CLIPImageProcessor

    CLIPImageProcessor(size={"shortest_edge": look.size}, crop_size=look.size, image_mean=list(look.mean),
                       image_std=list(look.deviation)).save_pretrained(folder)


def find(place: Path) -> Path:
    """The folder with the checkpoint: `place` itself, or the one of a finetune-mllm artifact. Raises InputError."""
    for folder in (place, place / "_checkpoint"):
        if (folder / WEIGHTS).is_file() and (folder / RECORD).is_file():
            return folder
    raise InputError(f"--checkpoint {place}: no {WEIGHTS} here (expected what finetune-mllm --method vmad wrote)")


def sources(place: Path, llava: str = "", sam: str = "") -> tuple[Path, dict, str, str]:
    """(folder, record, LLaVA, SAM) with the places that they lie at now; llava, sam: if elsewhere than in training."""
    folder = find(place)
    record = record_of(folder, RECORD)
    inside = str(folder / MERGED) if record["merged"] else record["llava"]
    return folder, record, llava or inside, sam or record["sam"]


def fingerprint(place: Path, llava: str = "", sam: str = "") -> str:
    """Of all weights that a score depends on. Raises InputError: no checkpoint, no such LLaVA or SAM."""
    folder, record, llava, sam = sources(place, llava, sam)
    names = [(str(folder), ""), (llava, record["revisions"][0]), (sam, record["revisions"][1])]
    names += [] if record["merged"] else [(str(folder / ADAPTER), "")]
    try:
        return " ".join(checkpoint_fingerprint(name, revision) for name, revision in names)
    except (OSError, ValueError) as e:
        raise InputError(f"{place}: the LLaVA or SAM that it was trained on is not to be found"
                         f" ({str(e).splitlines()[0][:200]}); say where with --llava or --sam") from e


def load_vmad(place: Path, llava: str = "", sam: str = "", dtype: torch.dtype = torch.float32) -> tuple[Vmad, Any]:
    """(model in evaluation mode, its tokenizer). llava, sam: where they lie now, if elsewhere.

    Raises:
        InputError: no checkpoint, no such LLaVA or SAM, or tensors that do not fit them.
    """
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    folder, record, llava_name, sam_name = sources(place, llava, sam)
    settings, revisions = Settings(**record["settings"]), record["revisions"]
    base, tokenizer = load_llava(llava_name, "" if record["merged"] else revisions[0], dtype)
    backbone, canvas = load_sam(sam_name, revisions[1], dtype)
    if record["merged"]:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    elif add_seg(base, tokenizer, llava_name) != record["seg"]:
        raise InputError(f"--llava {llava_name}: gives {SEG} another number than the LLaVA that {folder} was"
                         " trained on")
    look = look_of(llava_name, "" if record["merged"] else revisions[0], base, canvas)
    replace_projector(base, settings, llava_name)
    if not record["merged"]:
        base = _with_adapter(base, folder / ADAPTER)
    model = Vmad(base, backbone, settings, Weights(**record["weights"]), look, record["seg"])
    load_parts(model, load_file(folder / WEIGHTS), folder)
    return freeze(model).requires_grad_(False).eval(), tokenizer


def _with_adapter(base: Any, folder: Path) -> Any:
    """PEFT's wrapper with what was trained. Raises InputError when it does not fit."""
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(base, folder)
    except (RuntimeError, OSError, ValueError) as e:
        raise InputError(f"{folder}: does not fit its LLaVA ({str(e).splitlines()[-1].strip()[:160]})") from e


def load_parts(model: Vmad, tensors: dict[str, torch.Tensor], where: Path) -> None:
    """Put a checkpoint's own tensors into the model. Raises InputError when they do not fit."""
    for part, module in model.own_parts().items():
        own = {n.removeprefix(f"{part}."): t for n, t in tensors.items() if n.startswith(f"{part}.")}
        try:
            module.float().load_state_dict(own)
        except RuntimeError as e:
            raise InputError(f"{where}: does not fit its LLaVA and SAM"
                             f" ({str(e).splitlines()[-1].strip()[:160]})") from e


def merged(model: Vmad) -> Vmad:
    """The same model with LoRA added into the language model's weights, and no PEFT around it; the given one is used
    up."""
    model.llava = model.llava.merge_and_unload()
    return model
