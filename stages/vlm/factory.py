"""From the values of `--vlm` and `--engine` to an engine."""

import os
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from stages.base.config import flag, option, require_at_least_zero, require_positive
from stages.base.errors import InputError
from stages.vlm.engine import Engine
from stages.vlm.models import SHORT_NAMES, require_known

ENGINES = ("transformers", "vllm", "server")
AS_STORED = "as the checkpoint says"  # what --dtype auto is on every machine; the checkpoint is in the key
DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How a model is run."""

    engine: str = option(
        "what runs the model: transformers, vllm (batches in this process), or server (any OpenAI-compatible one)",
        "transformers",
    )
    device: str = option("transformers: auto, cpu, cuda, cuda:1, ...", "auto")
    dtype: str = option("auto (as the checkpoint says), float32, bfloat16 or float16", "auto")
    attn: str = option("transformers: attention, e.g. sdpa, eager or flash_attention_2", "")
    revision: str = option("branch, tag or commit of a hub model", "")
    batch_size: int = option("transformers: prompts per forward pass; halved by itself when memory runs out", 8)
    workers: int = option("threads (scene: processes) that decode images; 0 = one per core", 0)
    min_pixels: int = option("scale smaller images up to this many pixels; 0 = as the model says", 0)
    max_pixels: int = option("scale larger images down to this many pixels; 0 = as the model says", 0)
    tensor_parallel: int = option(
        "vllm: GPUs that share one model; for a model that fits on one, --shard over GPUs is faster", 1
    )
    max_model_len: int = option("vllm: longest prompt and answer, tokens; 0 = the model's", 0)
    max_num_seqs: int = option("vllm: prompts that run at once", 256)
    gpu_memory: float = option("vllm: share of the GPU's memory (on CPU builds: of the machine's), 0 to 1", 0.9)
    quantization: str = option("vllm: awq, gptq, fp8, ...; by default as the checkpoint says", "")
    base_url: str = option("server: address, such as http://localhost:8000/v1", "")
    api_key_env: str = option("server: environment variable that holds the key", "OPENAI_API_KEY")
    concurrency: int = option("server: requests in flight", 32)
    retries: int = option("server: further tries after 429, 5xx, timeouts and broken replies", 6)
    timeout: float = option(
        "server: seconds until a try counts as lost, from connecting to the answer's last byte", 120.0
    )

    @property
    def threads(self) -> int:
        """Decoding threads."""
        return self.workers or os.cpu_count() or 1


def engine_parameters(name: str, options: EngineOptions) -> dict:
    """What of the options can change the text: part of the cache key."""
    if name == "scene":
        return {}
    parameters = {n: getattr(options, n) for n in ("engine", "min_pixels", "max_pixels")}
    if options.engine != "server":  # its type is the server's own affair
        parameters["dtype"] = AS_STORED if options.dtype == "auto" else options.dtype
    if options.engine == "transformers":
        parameters["attn"] = options.attn
    if options.engine == "vllm":
        parameters["quantization"] = options.quantization
    return parameters


def check_engine(name: str, options: EngineOptions, option: str = "--vlm", words: tuple[str, ...] = ("scene",)) -> None:
    """Everything that can be said of the options without reading a file, for the first line of a stage. Fields that
    stages add under their usual names (temperature, top_p, max_tokens) are looked at, too.

    name: the value of `option`; words: what it takes beside models.

    Raises:
        InputError: a number out of its range, an unknown engine or dtype, a misspelt model, or no address.
    """
    if options.engine not in ENGINES:
        close = get_close_matches(options.engine, ENGINES, 1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise InputError(f"--engine {options.engine}: expected {', '.join(ENGINES)}{hint}")
    if options.dtype not in DTYPES:
        raise InputError(f"--dtype {options.dtype}: expected {', '.join(DTYPES)}")
    require_positive(options, "batch_size", "tensor_parallel", "max_num_seqs", "concurrency", "timeout")
    require_at_least_zero(options, "workers", "min_pixels", "max_pixels", "max_model_len", "retries")
    _require_share(options, "gpu_memory")
    if options.max_pixels and options.min_pixels > options.max_pixels:
        raise InputError(f"--min-pixels {options.min_pixels}: more than --max-pixels {options.max_pixels}")
    if hasattr(options, "temperature"):
        require_at_least_zero(options, "temperature")
    if hasattr(options, "top_p"):
        _require_share(options, "top_p")
    if hasattr(options, "max_tokens"):
        require_positive(options, "max_tokens")
    if name in words:
        return
    if options.engine == "server":
        from stages.vlm.server_engine import credentials

        credentials(options)
    else:
        require_known(name, option, *words)


def _require_share(options: EngineOptions, field: str) -> None:
    if not 0 < (value := getattr(options, field)) <= 1:
        raise InputError(f"{flag(field)} {value}: expected more than 0 and at most 1")


def make_engine(name: str, options: EngineOptions) -> Engine:
    """`scene`, or a model: a short name, a local directory or a hub id; with --engine server the name that
    the server knows.

    Raises:
        InputError: there is no such model or engine, a package is missing, or the server is none.
    """
    check_engine(name, options)
    if name == "scene":
        from stages.vlm.scene.engine import SceneEngine

        return SceneEngine(options.workers)
    if options.engine == "server":
        from stages.vlm.server_engine import open_server

        return open_server(name, options)
    place = str(Path(name)) if Path(name).is_dir() else SHORT_NAMES.get(name, name)
    if options.engine == "vllm":
        from stages.vlm.vllm_engine import open_vllm

        return open_vllm(place, options)
    from stages.vlm.transformers_engine import open_engine

    return open_engine(place, options)
