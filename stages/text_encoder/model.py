"""The text encoder: a BERT with mean pooling (Eq. 1), loaded, run and saved."""

import json
from collections.abc import Sequence
from pathlib import Path

from stages.training.prepared import torch

import numpy as np
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from stages.base.errors import InputError
from stages.text_encoder.config import encoder_directory, not_loaded


def load_encoder(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """(model, tokenizer) of a BERT-like checkpoint: short name, directory or hub id.

    Raises:
        InputError: nothing that can be loaded there.
    """
    place = encoder_directory(name)
    try:
        return AutoModel.from_pretrained(place, use_safetensors=True), AutoTokenizer.from_pretrained(place)
    except (OSError, ValueError, KeyError, SafetensorError) as e:
        raise InputError(not_loaded(name, e)) from e


def mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Eq. 1: mean over the tokens of a text, then L2 norm.

    hidden: (B, T, C) last hidden states; mask: (B, T), 1 = token, 0 = padding. Returns (B, C) float32.
    """
    weights = mask.unsqueeze(-1).float()
    mean = (hidden.float() * weights).sum(dim=1) / weights.sum(dim=1)
    return F.normalize(mean, dim=-1)  # Eq. 1


def encode(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], batch_size: int = 64
) -> np.ndarray:
    """(N, C) float32 L2-normalised embeddings, dropout off. Equal texts are run once, similar lengths
    together."""
    unique = sorted(set(texts), key=lambda t: (len(t), t))
    rows = {}
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(unique), batch_size):
            batch = unique[start : start + batch_size]
            tokens = tokenizer(
                batch, padding=True, truncation=True, max_length=longest_text(model), return_tensors="pt"
            ).to(model.device)
            z = mean_pool(model(**tokens).last_hidden_state, tokens["attention_mask"])
            rows |= dict(zip(batch, z.cpu().numpy(), strict=True))
    return np.stack([rows[t] for t in texts])


def longest_text(model: PreTrainedModel) -> int:
    """Longest text in tokens that the model has positions for, 512 at most."""
    return min(512, getattr(model.config, "max_position_embeddings", 512))


def save_encoder(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save for transformers and for `sentence_transformers.SentenceTransformer(folder)` alike."""
    model.save_pretrained(folder)
    tokenizer.init_kwargs.pop("local_files_only", None)  # how it was loaded; the folder's digest is of what it is
    tokenizer.save_pretrained(folder)
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    size = model.config.hidden_size
    contents = {
        "modules.json": modules,
        "sentence_bert_config.json": {"max_seq_length": longest_text(model), "do_lower_case": False},
        "1_Pooling/config.json": {"word_embedding_dimension": size, "pooling_mode_mean_tokens": True},
    }
    for name, content in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=1))
    (folder / "2_Normalize").mkdir(exist_ok=True)
