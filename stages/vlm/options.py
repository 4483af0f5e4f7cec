"""How a model is run: the options that every stage with a model takes, and which of them can change its text."""

import os
from dataclasses import dataclass

from stages.base.config import option

ENGINES = ("transformers", "vllm", "server")
AS_STORED = "as the checkpoint says"  # what --dtype auto is on every machine; the checkpoint is in the key
DTYPES = ("auto", "float32", "bfloat16", "float16")

# Headings in --help
ENGINE, TRANSFORMERS = "Engine, where a model is asked", "Transformers (--engine transformers)"
VLLM, SERVER = "vLLM (--engine vllm)", "Server (--engine server)"


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How a model is run."""

    engine: str = option(
        "what runs the model: transformers, vllm (batches in this process), or server (any OpenAI-compatible one)",
        "transformers",
        ENGINE,
    )
    dtype: str = option("auto (as the checkpoint says), float32, bfloat16 or float16", "auto", ENGINE)
    revision: str = option("branch, tag or commit of a hub model", "", ENGINE)
    workers: int = option("threads (scene: processes) that decode images; 0 = one per core", 0, ENGINE)
    min_pixels: int = option("scale smaller images up to this many pixels; 0 = as the model says", 0, ENGINE)
    max_pixels: int = option("scale larger images down to this many pixels; 0 = as the model says", 0, ENGINE)
    device: str = option("auto, cpu, cuda, cuda:1, ...", "auto", TRANSFORMERS)
    attn: str = option("attention, e.g. sdpa, eager or flash_attention_2", "", TRANSFORMERS)
    batch_size: int = option("prompts per forward pass; halved by itself when memory runs out", 8, TRANSFORMERS)
    tensor_parallel: int = option(
        "GPUs that share one model; 0 = as few of those there as hold it; for a model that fits on one, --shard over"
        " GPUs is faster",
        1,
        VLLM,
    )
    max_model_len: int = option("longest prompt and answer, tokens; 0 = the model's", 0, VLLM)
    max_num_seqs: int = option("prompts that run at once", 256, VLLM)
    gpu_memory: float = option("share of the GPU's memory (on CPU builds: of the machine's), 0 to 1", 0.9, VLLM)
    quantization: str = option("awq, gptq, fp8, ...; by default as the checkpoint says", "", VLLM)
    base_url: str = option("address, such as http://localhost:8000/v1", "", SERVER)
    api_key_env: str = option("environment variable that holds the key", "OPENAI_API_KEY", SERVER)
    concurrency: int = option("requests in flight", 32, SERVER)
    retries: int = option("further tries after 429, 5xx, timeouts and broken replies", 6, SERVER)
    timeout: float = option(
        "seconds until a try counts as lost, from connecting to the answer's last byte", 120.0, SERVER
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
