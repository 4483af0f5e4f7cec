"""Any image-text-to-text model of transformers, or a text-only language model, run in this process."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.base.errors import InputError
from stages.training.saved_models import check_chat_template, check_model
from stages.training.weights import checkpoint_fingerprint
from stages.vlm.choices import choice_probabilities, first_tokens
from stages.vlm.engine import Lap, Reply, Request, Sampling
from stages.vlm.models import not_found
from stages.vlm.pixels import PixelLimits, limits_for
from stages.vlm.prefetch import Ready, RequestPrefetch

if TYPE_CHECKING:
    from stages.vlm.options import EngineOptions

WINDOW = 4  # batches sorted together by size: little padding, bounded memory


@dataclass(frozen=True)
class TransformersEngine:
    """A model that is loaded when the first request comes, so that a finished artifact costs nothing."""

    name: str
    fingerprint: str
    options: "EngineOptions"
    caveat: str = "greedy texts may differ in rare words with the batch size, where sums round differently"
    deterministic: bool = True

    @cached_property
    def _loaded(self) -> "LoadedModel":
        return load_model(self.name, self.options)

    @property
    def ran_on(self) -> str:
        """See Engine."""
        return f"{self._loaded.model.device} {self._loaded.model.dtype}"

    def run(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Reply]:
        """See Engine.run."""
        yield from self._loaded.run(requests, sampling)


@dataclass(frozen=True)
class LoadedModel:
    """processor: AutoProcessor, or the tokenizer of a text-only model."""

    name: str
    model: Any
    processor: Any
    batch_size: int
    workers: int
    limits: PixelLimits

    @property
    def tokenizer(self) -> Any:
        return getattr(self.processor, "tokenizer", self.processor)

    def run(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Reply]:
        """Images of the next window are decoded while the current one is generated."""
        size, lap = WINDOW * self.batch_size, Lap()
        with RequestPrefetch(requests, self.limits, self.workers, 2 * size) as decoded:
            while window := list(islice(decoded, size)):
                yield from (r for r in window if isinstance(r, Reply))
                ready = [r for r in window if not isinstance(r, Reply)]
                ready.sort(key=lambda r: (sum(i.shape[0] * i.shape[1] for i in r[1]), len(r[0].text)))
                for start in range(0, len(ready), self.batch_size):
                    if decoded.end_asked():
                        return
                    yield from lap.shared(self._batch(ready[start : start + self.batch_size], sampling))

    def _batch(self, batch: list[Ready], sampling: Sampling) -> list[Reply]:
        """Generate for one batch; out of memory halves it and goes on."""
        import torch

        try:
            return self._generate(batch, sampling)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            if len(batch) == 1:
                return [Reply(batch[0][0].key, error="out of GPU memory on this row alone")]
        half = len(batch) // 2
        return self._batch(batch[:half], sampling) + self._batch(batch[half:], sampling)

    def _generate(self, batch: list[Ready], sampling: Sampling) -> list[Reply]:
        import torch
        from transformers import LogitsProcessorList

        inputs = self._inputs(batch).to(self.model.device)
        n = inputs["input_ids"].shape[1]
        room = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if room and n + sampling.max_tokens > room:
            return self._too_long(batch, inputs, room, sampling)
        first = FirstToken()
        processors = LogitsProcessorList([first])
        if sampling.temperature > 0:
            processors.append(RowSampler([r.seed for r, _ in batch], sampling))
        with torch.inference_mode():
            output = self.model.generate(
                **inputs, max_new_tokens=sampling.max_tokens, do_sample=False, logits_processor=processors
            )
        return [
            self._reply(request, output[i, n:], int(inputs["attention_mask"][i].sum()), first.logprobs[i])
            for i, (request, _) in enumerate(batch)
        ]

    def _too_long(self, batch: list[Ready], inputs: Any, room: int, sampling: Sampling) -> list[Reply]:
        """One request alone is refused; of a batch only those that do not fit."""
        if len(batch) > 1:
            return [reply for one in batch for reply in self._generate([one], sampling)]
        n = int(inputs["attention_mask"].sum())
        return [
            Reply(
                batch[0][0].key,
                retry=False,
                error=f"the prompt has {n} tokens; with {sampling.max_tokens} for the answer they exceed the"
                f" model's context of {room}",
            )
        ]

    def _inputs(self, batch: list[Ready]) -> Any:
        from PIL import Image

        text_only = self.tokenizer is self.processor
        chats = []
        for request, images in batch:
            if images and text_only:
                raise InputError(f"{self.name} reads text only; captioning needs a model that sees")
            parts = [{"type": "image", "image": Image.fromarray(i)} for i in images]
            content = request.text if text_only else [*parts, {"type": "text", "text": request.text}]
            chats.append([{"role": "user", "content": content}])
        padding = {"padding": True} if text_only else {"processor_kwargs": {"padding": True}}
        return self.processor.apply_chat_template(
            chats, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt", **padding
        )

    def _reply(self, request: Request, tokens: Any, prompt_tokens: int, logprobs: Any) -> Reply:
        ends = self.model.generation_config.eos_token_id
        ends = set(ends) if isinstance(ends, list) else {ends}
        answer_tokens = tokens.tolist()
        stop = next((i for i, t in enumerate(answer_tokens) if t in ends), None)
        answer_tokens = answer_tokens if stop is None else answer_tokens[:stop]
        text = self.tokenizer.decode(answer_tokens, skip_special_tokens=True).rstrip("\ufffd")  # a cut character
        return Reply(
            request.key,
            text,
            "length" if stop is None else "stop",
            prompt_tokens,
            len(answer_tokens),
            self._probabilities(request.choices, logprobs),
        )

    def _probabilities(self, choices: tuple[str, ...], logprobs: Any) -> dict[str, float] | None:
        if not choices:
            return None
        tokens = first_tokens(lambda s: self.tokenizer.encode(s, add_special_tokens=False), choices)
        wanted = {t: float(logprobs[t]) for ids in tokens.values() for t in ids}
        return choice_probabilities(wanted, tokens)


class FirstToken:
    """Keeps the log-probabilities (B, V) of the first new token as the model gives them."""

    logprobs: Any = None

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """scores: (B, V) logits, passed on as they are."""
        if self.logprobs is None:
            self.logprobs = scores.float().log_softmax(dim=-1).cpu()
        return scores


class RowSampler:
    """Temperature and nucleus sampling: one random number per row and token, looked up in the nucleus' cumulated mass,
    so that of a vocabulary of 152,000 no more is drawn and all but that number stays on the device.

    Each row has its own generator, seeded by the row, so that a row's text does not depend on which
    rows share its batch (as far as the model's own arithmetic does not).
    """

    def __init__(self, seeds: list[int], sampling: Sampling) -> None:
        import torch

        self.sampling = sampling
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """scores: (B, V) logits of the next token -> (B, V) whose arg max is the sampled token."""
        import torch

        p = torch.softmax(scores.float() / self.sampling.temperature, dim=-1)
        ranked, order = p.sort(dim=-1, descending=True)
        before = ranked.cumsum(-1) - ranked
        nucleus = (before < self.sampling.top_p) & (ranked > 0)  # the first token always stays
        uniform = torch.stack([torch.rand(1, generator=g) for g in self.generators]).to(p.device)
        at = uniform * (ranked * nucleus).sum(-1, keepdim=True)
        place = ((before <= at) & nucleus).sum(-1, keepdim=True) - 1
        return torch.full_like(scores, -torch.inf).scatter(-1, order.gather(-1, place), 0.0)


def open_engine(name: str, options: "EngineOptions") -> TransformersEngine:
    """An engine for a local directory or hub id. Reads the configuration and hashes the weights, no more.

    Raises:
        InputError: there is no such model, it has no safetensors or no chat template, or there is no such device.
    """
    from stages.training.torch_setup import pick_device, prepare_torch

    check_model(name, "model")
    check_chat_template(name, "model")
    pick_device(options.device)
    prepare_torch()
    from transformers import AutoConfig

    _device(options.device)
    try:
        AutoConfig.from_pretrained(name, **revision_of(name, options))
        fingerprint = checkpoint_fingerprint(name, options.revision)
    except (OSError, ValueError, KeyError) as e:
        raise InputError(not_found(name, e)) from e
    return TransformersEngine(name, fingerprint, options)


def load_model(name: str, options: "EngineOptions") -> LoadedModel:
    """Load weights and processor; code from the checkpoint is never run.

    A model of a vision-language architecture gets its processor, any other one is a text-only language
    model with a tokenizer. The checkpoint's own sampling defaults (a repetition penalty, say) are
    dropped: what counts is what the request says, as in the other engines.

    Raises:
        InputError: it cannot be loaded, has no processor or no chat template.
    """
    from stages.training.torch_setup import prepare_torch

    prepare_torch()
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForImageTextToText,
        AutoProcessor,
        AutoTokenizer,
        GenerationConfig,
    )
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    device, where = _device(options.device), revision_of(name, options)
    try:
        sees = type(AutoConfig.from_pretrained(name, **where)) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
        model_class = AutoModelForImageTextToText if sees else AutoModelForCausalLM
        processor = (AutoProcessor if sees else AutoTokenizer).from_pretrained(name, **where)
        model = model_class.from_pretrained(
            name, dtype=_dtype(options.dtype), attn_implementation=options.attn or None, use_safetensors=True, **where
        )
    except (OSError, ValueError, KeyError, ImportError) as e:
        raise InputError(not_found(name, e)) from e
    tokenizer = getattr(processor, "tokenizer", processor)
    if not (getattr(processor, "chat_template", None) or tokenizer.chat_template):
        raise InputError(f"{name}: this checkpoint has no chat template; take an instruction-tuned one")
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    old = model.generation_config
    model.generation_config = GenerationConfig(
        eos_token_id=old.eos_token_id, bos_token_id=old.bos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    limits = limits_for(getattr(processor, "image_processor", None), options.min_pixels, options.max_pixels)
    if limits.multiple > 1:
        processor.image_processor.size = {"shortest_edge": limits.least, "longest_edge": limits.most}
    return LoadedModel(name, model.to(device).eval(), processor, options.batch_size, options.threads, limits)


def revision_of(name: str, options: "EngineOptions") -> dict:
    """Keyword arguments of from_pretrained: a revision only for hub models."""
    return {} if Path(name).is_dir() else {"revision": options.revision or None}


def _device(name: str) -> str:
    import torch

    from stages.training.torch_setup import pick_device

    try:
        device = torch.device(pick_device(name))
    except RuntimeError:
        raise InputError(f"--device {name}: expected auto, cpu, cuda or cuda:NUMBER") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {name}: there are {torch.cuda.device_count()} CUDA devices, counted from 0")
    return str(device)


def _dtype(name: str) -> Any:
    import torch

    if name == "auto":
        return "auto"
    if name not in ("float32", "bfloat16", "float16"):
        raise InputError(f"--dtype {name}: expected auto, float32, bfloat16 or float16")
    return getattr(torch, name)
