"""How a model is run: the options that every stage with a model takes, and which of them can change its text."""

import os
from dataclasses import dataclass

from stages.base.config import option

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
