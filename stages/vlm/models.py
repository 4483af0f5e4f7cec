"""Vision-language models that people use here: short name, hub id, memory, licence; and what is cached."""

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from stages.base.errors import InputError, first_line

GIB = 2**30
MARGIN = 1.2  # of the weights: a fifth more for activations and the key-value cache


@dataclass(frozen=True)
class Model:
    """billions: parameters; bits: per parameter as stored, scales of a quantization included; kept: billions
    of them that a quantization leaves at 16 bits (embeddings, vision); licence: as the model's page has it."""

    short: str
    hub_id: str
    billions: float
    bits: float
    licence: str
    note: str = ""
    kept: float = 0.0

    @property
    def weights_gib(self) -> float:
        """Counted, not measured: parameters times bits."""
        return ((self.billions - self.kept) * self.bits + self.kept * 16) * 1e9 / 8 / GIB

    @property
    def least_gpu_gib(self) -> float:
        """Estimated: the weights and a fifth more for activations and the key-value cache."""
        return MARGIN * self.weights_gib


MODELS = (
    Model("qwen2-vl", "Qwen/Qwen2-VL-7B-Instruct", 8.29, 16, "Apache 2.0", "VID-AD's captioner"),
    Model("qwen2-vl-72b-awq", "Qwen/Qwen2-VL-72B-Instruct-AWQ", 73.4, 4.25, "Tongyi Qianwen", "LVLM's model", kept=3.2),
    Model("qwen2.5-vl", "Qwen/Qwen2.5-VL-7B-Instruct", 8.29, 16, "Apache 2.0"),
    Model("qwen3-vl", "Qwen/Qwen3-VL-8B-Instruct", 8.77, 16, "Apache 2.0"),
    Model(
        "llama-3.2-vision",
        "meta-llama/Llama-3.2-11B-Vision-Instruct",
        10.7,
        16,
        "Llama 3.2 Community",
        "gated; newer vLLM has dropped it: --engine transformers",
    ),
    Model("llava-1.5-7b", "llava-hf/llava-1.5-7b-hf", 7.06, 16, "Llama 2 Community", "one image a prompt"),
    Model("llava-1.5-13b", "llava-hf/llava-1.5-13b-hf", 13.4, 16, "Llama 2 Community", "one image a prompt"),
    Model(
        "internvl2",
        "OpenGVLab/InternVL2-8B",
        8.08,
        16,
        "MIT",
        "runs code from its own files: only behind --engine server",
    ),
    Model("internvl3", "OpenGVLab/InternVL3-8B-hf", 7.94, 16, "Qwen"),
    Model("gemma-3", "google/gemma-3-12b-it", 12.2, 16, "Gemma", "gated"),
)
SHORT_NAMES = {m.short: m.hub_id for m in MODELS}


def cached_ids() -> set[str] | None:
    """Hub ids whose configuration and at least one weight file are in the local cache; None when nobody can
    tell, because huggingface_hub is not installed."""
    try:
        from huggingface_hub import scan_cache_dir
        from huggingface_hub.errors import CacheNotFound
    except ModuleNotFoundError:
        return None
    try:
        repos = [r for r in scan_cache_dir().repos if r.repo_type == "model"]
    except CacheNotFound:
        return set()
    names = {r.repo_id: {f.file_name for v in r.revisions for f in v.files} for r in repos}
    return {i for i, n in names.items() if "config.json" in n and any(f.endswith(".safetensors") for f in n)}


def require_known(name: str, option: str, *words: str) -> None:
    """Find a misspelt name before the network is asked for it.

    words: what else `option` takes (scene, rules, ...).

    Raises:
        InputError: `name` is no short name, has no slash as hub ids have, and nothing of that name is on disk.
    """
    if name in SHORT_NAMES or name in words or "/" in name or _exists(name):
        return
    close = get_close_matches(name, [*SHORT_NAMES, *words], 2, 0.5)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    known = "".join(f"{w}, " for w in words)
    raise InputError(
        f"{option} {name}: {hint}Expected {known}a short name (`adcli models` lists them), a hub id"
        " OWNER/NAME, or a directory with a checkpoint"
    )


def _exists(name: str) -> bool:
    try:
        return bool(name) and Path(name).exists()
    except (OSError, ValueError):  # too long, or with a NUL byte
        return False


def not_found(name: str, error: Exception) -> str:
    """One line: why a model cannot be loaded, and which names there are."""
    first = first_line(error)
    if Path(name).is_dir():
        return f"{name}: cannot be loaded as a checkpoint with its processor ({first})"
    if model := next((m for m in MODELS if m.hub_id == name), None):
        note = f"; {model.note}" if model.note else ""
        return f"model {model.short} ({name}) is not in the local cache and could not be fetched{note} ({first})"
    return (
        f"model {name!r} cannot be loaded: it is neither a short name (`adcli models` lists them), nor a directory"
        f" with a checkpoint, nor a hub id that could be fetched ({first})"
    )
