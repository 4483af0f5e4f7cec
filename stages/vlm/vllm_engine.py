"""vLLM in this process, fed continuously: requests enter as others leave, so that the GPU never waits for a
batch to end. Data parallel is `--shard`, one engine per GPU; the prefix that prompts share (instruction,
reference image) is computed once, since vLLM caches prefixes.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from stages.base.errors import InputError, first_line
from stages.training.saved_models import check_model
from stages.training.weights import checkpoint_fingerprint
from stages.vlm import gpus
from stages.vlm.choices import choice_probabilities, first_tokens
from stages.vlm.engine import Lap, Reply, Request, Sampling
from stages.vlm.models import not_found
from stages.vlm.orphans import end_children_with_this_process
from stages.vlm.pixels import PixelLimits, limits_for
from stages.vlm.prefetch import RequestPrefetch

if TYPE_CHECKING:
    from stages.vlm.options import EngineOptions

AHEAD = 32  # requests decoded in advance
MOST_IMAGES = 8  # per prompt: four references and then some
PROCESSED_IMAGES_GB = 0.5  # vLLM's cache of processed images, twice: enough for references; its default of
# 4 GB grows with every new image until it is full


@dataclass(frozen=True)
class VllmEngine:
    """The model is loaded when the first request comes, so that a finished artifact costs nothing."""

    name: str
    fingerprint: str
    options: "EngineOptions"
    caveat: str = (
        "texts may differ in rare words with the number of prompts that run at once, where sums round differently"
    )
    deterministic: bool = True  # each request has its own seed

    @cached_property
    def _llm(self) -> Any:
        return _load(self.name, self.options, self._limits, self._gpus[0])

    @cached_property
    def _gpus(self) -> tuple[int, str]:
        given = self.options.tensor_parallel
        return (given, "") if given else gpus.choose(self.name, gpus.there())

    @property
    def plan(self) -> str:
        """See `engine.ask`. Raises InputError where the GPUs that are there cannot hold the model."""
        return self._gpus[1]

    @cached_property
    def _limits(self) -> PixelLimits:
        from transformers import AutoImageProcessor

        try:
            processor = AutoImageProcessor.from_pretrained(self.name, revision=self.options.revision or None)
        except (OSError, ValueError):
            processor = None  # a text-only model
        return limits_for(processor, self.options.min_pixels, self.options.max_pixels)

    @property
    def ran_on(self) -> str:
        """See Engine."""
        config = self._llm.llm_engine.vllm_config
        return f"{config.device_config.device_type} {config.model_config.dtype}"

    def run(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Reply]:
        """See Engine.run. At most `max_num_seqs` + AHEAD requests are in the engine and AHEAD decoded."""
        open_requests: dict[str, Request] = {}
        room, steps, lap = self.options.max_num_seqs + AHEAD, self._llm.llm_engine, Lap()  # when it has been loaded
        with RequestPrefetch(requests, self._limits, self.options.threads, AHEAD) as decoded:
            while decoded or open_requests:
                while decoded and len(open_requests) < room and (decoded.ready() or not open_requests):
                    if (item := next(decoded, None)) is None:  # a signal came at this very moment
                        break
                    reply = item if isinstance(item, Reply) else self._add(*item, sampling, open_requests)
                    if reply:
                        yield reply
                if open_requests:
                    yield from lap.shared(self._finished(steps, open_requests))

    def _add(
        self, request: Request, images: list, sampling: Sampling, open_requests: dict[str, Request]
    ) -> Reply | None:
        """Hand one request over; a Reply when vLLM refuses it (too long, too many images)."""
        from PIL import Image
        from vllm import SamplingParams
        from vllm.exceptions import VLLMValidationError

        content = [{"type": "image_pil", "image_pil": Image.fromarray(i)} for i in images]
        content.append({"type": "text", "text": request.text})
        ids = sorted({t for tokens in self._tokens(request.choices).values() for t in tokens})
        parameters = SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            seed=request.seed,
            logprob_token_ids=ids or None,
        )
        try:
            (key,) = self._llm.enqueue_chat([{"role": "user", "content": content}], parameters, use_tqdm=False)
        except (ValueError, VLLMValidationError) as e:
            return Reply(request.key, error=first_line(e))
        open_requests[key.partition("-")[0]] = request  # outputs bear the number without its suffix
        return None

    def _tokens(self, choices: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
        if not choices:
            return {}
        tokenizer = self._llm.get_tokenizer()
        return first_tokens(lambda s: tokenizer.encode(s, add_special_tokens=False), choices)

    def _finished(self, engine: Any, open_requests: dict[str, Request]) -> list[Reply]:
        """One step of vLLM's engine; replies of the requests that it finished."""
        found = []
        for output in engine.step():
            if not output.finished:
                continue
            request, answer = open_requests.pop(output.request_id), output.outputs[0]
            probabilities = None
            if request.choices:
                first = {t: lp.logprob for t, lp in answer.logprobs[0].items()}
                probabilities = choice_probabilities(first, self._tokens(request.choices))
            tokens = len(output.prompt_token_ids), len(answer.token_ids)
            found.append(Reply(request.key, answer.text, answer.finish_reason, *tokens, probabilities))
        return found


def open_vllm(name: str, options: "EngineOptions") -> VllmEngine:
    """An engine for a local directory or hub id; the model itself is loaded later.

    Raises:
        InputError: vLLM is not installed, or there is no such model.
    """
    from importlib.util import find_spec

    if find_spec("vllm") is None:
        raise InputError("--engine vllm needs vLLM: pip install 'adcli[vllm]' (or use --engine transformers)")
    from stages.training.torch_setup import prepare_torch

    check_model(name, "model")
    prepare_torch()
    try:
        return VllmEngine(name, checkpoint_fingerprint(name, options.revision), options)
    except (OSError, ValueError, KeyError) as e:
        raise InputError(not_found(name, e)) from e


def _dtype(name: str, options: "EngineOptions") -> str:
    """The checkpoint's own type for `auto`. vLLM's `auto` is another one where a GPU has no bfloat16, and for float32:
    two machines would write different texts into one artifact."""
    if options.dtype != "auto":
        return options.dtype
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(name, revision=options.revision or None)
    stored = config.dtype or config.get_text_config().dtype
    return str(stored).removeprefix("torch.") if stored else "auto"


def _load(name: str, options: "EngineOptions", limits: PixelLimits, number_of_gpus: int) -> Any:
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # the progress of this stage says enough
    from vllm import LLM
    from vllm.platforms import current_platform

    more: dict[str, Any] = {}
    if options.max_model_len:
        more["max_model_len"] = options.max_model_len
    if options.quantization:
        more["quantization"] = options.quantization
    if limits.multiple > 1:  # what `fit` has sized must not be sized again; other processors have no such limits
        more["mm_processor_kwargs"] = {"size": {"shortest_edge": limits.least, "longest_edge": limits.most}}
    end_children_with_this_process()
    try:
        llm = LLM(
            model=name,
            revision=options.revision or None,
            dtype=_dtype(name, options),
            load_format="safetensors",
            tensor_parallel_size=number_of_gpus,
            max_num_seqs=options.max_num_seqs,
            gpu_memory_utilization=options.gpu_memory,
            limit_mm_per_prompt={"image": MOST_IMAGES},
            mm_processor_cache_gb=PROCESSED_IMAGES_GB,
            enable_prefix_caching=True,
            trust_remote_code=False,
            disable_log_stats=True,
            enforce_eager=current_platform.is_cpu(),  # compiling for a CPU costs more than it brings
            **more,
        )
    except (ValueError, OSError, RuntimeError) as e:
        raise InputError(f"vLLM cannot load {name}: {first_line(e)}") from e
    return llm
