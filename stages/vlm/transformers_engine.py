"""Any image-text-to-text model of transformers, or a text-only language model, run in this process."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.checkpoints import checkpoint_fingerprint
from stages.errors import InputError
from stages.images import load_rgb
from stages.vlm.engine import Reply, Request, Sampling
from stages.vlm.models import SHORT_NAMES

if TYPE_CHECKING:
    from stages.vlm.factory import EngineOptions

WINDOW = 4      # batches sorted together by size: little padding, bounded memory


@dataclass(frozen=True)
class TransformersEngine:
    """A model that is loaded when the first request comes, so that a finished artifact costs nothing."""

    name: str
    fingerprint: str
    options: "EngineOptions"

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

    def run(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Reply]:
        """Images of the next window are decoded while the current one is generated."""
        requests = iter(requests)
        with ThreadPoolExecutor(4) as pool:
            window = _submit(pool, requests, self.batch_size)
            while window:
                following = _submit(pool, requests, self.batch_size)
                yield from self._window(window, sampling)
                window = following

    def _window(self, window: list, sampling: Sampling) -> Iterator[Reply]:
        ready = []
        for request, images in window:
            try:
                ready.append((request, [f.result() for f in images]))
            except InputError as e:
                yield Reply(request.key, error=str(e))
        ready.sort(key=lambda r: (sum(i.shape[0] * i.shape[1] for i in r[1]), len(r[0].text)))
        for start in range(0, len(ready), self.batch_size):
            yield from self._batch(ready[start:start + self.batch_size], sampling)

    def _batch(self, batch: list, sampling: Sampling) -> list[Reply]:
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

    def _generate(self, batch: list, sampling: Sampling) -> list[Reply]:
        import torch
        from transformers import LogitsProcessorList

        inputs = self._inputs(batch).to(self.model.device)
        n = inputs["input_ids"].shape[1]
        noise = LogitsProcessorList()
        if sampling.temperature > 0:
            noise.append(RowSampler([r.seed for r, _ in batch], sampling))
        with torch.inference_mode():
            output = self.model.generate(**inputs, do_sample=False, max_new_tokens=sampling.max_tokens,
                                         logits_processor=noise, temperature=None, top_p=None, top_k=None)
        return [self._reply(request, output[i, n:], int(inputs["attention_mask"][i].sum()))
                for i, (request, _) in enumerate(batch)]

    def _inputs(self, batch: list) -> Any:
        from PIL import Image

        tokenizer = getattr(self.processor, "tokenizer", self.processor)
        text_only = tokenizer is self.processor
        chats = []
        for request, images in batch:
            if images and text_only:
                raise InputError(f"{self.name} reads text only; captioning needs a model that sees")
            parts = [{"type": "image", "image": Image.fromarray(i)} for i in images]
            content = request.text if text_only else [*parts, {"type": "text", "text": request.text}]
            chats.append([{"role": "user", "content": content}])
        padding = {"padding": True} if text_only else {"processor_kwargs": {"padding": True}}
        return self.processor.apply_chat_template(chats, add_generation_prompt=True, tokenize=True,
                                                  return_dict=True, return_tensors="pt", **padding)

    def _reply(self, request: Request, tokens: Any, prompt_tokens: int) -> Reply:
        tokenizer = getattr(self.processor, "tokenizer", self.processor)
        ends = self.model.generation_config.eos_token_id
        ends = set(ends) if isinstance(ends, list) else {ends}
        said = tokens.tolist()
        stop = next((i for i, t in enumerate(said) if t in ends), None)
        said = said if stop is None else said[:stop]
        return Reply(request.key, tokenizer.decode(said, skip_special_tokens=True),
                     "length" if stop is None else "stop", prompt_tokens, len(said))


class RowSampler:
    """Temperature and nucleus sampling by the Gumbel trick: arg max of (log p / T + noise) is a draw.

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
        outside = ranked.cumsum(-1) - ranked >= self.sampling.top_p      # the first token always stays
        p = p.masked_fill(outside.gather(-1, order.argsort(-1)), 0)
        uniform = torch.stack([torch.rand(p.shape[1], generator=g) for g in self.generators])
        gumbel = -(-uniform.clamp_min(1e-20).log()).clamp_min(1e-20).log()
        return p.log() + gumbel.to(p.device)


def _submit(pool: ThreadPoolExecutor, requests: Iterator[Request], batch_size: int) -> list:
    return [(r, [pool.submit(load_rgb, path) for path in r.images])
            for r in islice(requests, WINDOW * batch_size)]


def open_engine(name: str, options: "EngineOptions") -> TransformersEngine:
    """An engine for a local directory or hub id. Reads the configuration and hashes the weights, no more.

    Raises:
        InputError: there is no such model.
    """
    from stages.torch_setup import prepare_torch

    prepare_torch()
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(name, **_revision(name, options))
        fingerprint = checkpoint_fingerprint(name, options.revision)
    except (OSError, ValueError, KeyError) as e:
        raise InputError(_not_found(name, e)) from e
    return TransformersEngine(name, fingerprint, options)


def load_model(name: str, options: "EngineOptions") -> LoadedModel:
    """Load weights and processor; code from the checkpoint is never run.

    A model of a vision-language architecture gets its processor, any other one is a text-only language
    model with a tokenizer. Raises InputError when it cannot be loaded or has no chat template.
    """
    from stages.torch_setup import pick_device, prepare_torch

    prepare_torch()
    from transformers import (AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor,
                              AutoTokenizer)
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    device, where = pick_device(options.device), _revision(name, options)
    try:
        sees = type(AutoConfig.from_pretrained(name, **where)) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
        model_class = AutoModelForImageTextToText if sees else AutoModelForCausalLM
        processor = (AutoProcessor if sees else AutoTokenizer).from_pretrained(name, **where)
        model = model_class.from_pretrained(name, dtype=_dtype(options.dtype), **where)
    except (OSError, ValueError, KeyError) as e:
        raise InputError(_not_found(name, e)) from e
    tokenizer = getattr(processor, "tokenizer", processor)
    if not (getattr(processor, "chat_template", None) or tokenizer.chat_template):
        raise InputError(f"{name}: this checkpoint has no chat template; take an instruction-tuned one")
    tokenizer.padding_side = "left"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return LoadedModel(name, model.to(device).eval(), processor, options.batch_size)


def _revision(name: str, options: "EngineOptions") -> dict:
    return {} if Path(name).is_dir() else {"revision": options.revision or None}


def _dtype(name: str) -> Any:
    import torch

    if name == "auto":
        return "auto"
    if name not in ("float32", "bfloat16", "float16"):
        raise InputError(f"--dtype {name}: expected auto, float32, bfloat16 or float16")
    return getattr(torch, name)


def _not_found(name: str, error: Exception) -> str:
    close = get_close_matches(name, [*SHORT_NAMES, "scene"], 2, 0.5)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    first = str(error).strip().splitlines()[0][:200]
    return (f"model {name!r} cannot be loaded: {hint}It is neither scene, nor a short name"
            f" ({', '.join(SHORT_NAMES)}), nor a directory with a checkpoint, nor a hub id that could be"
            f" fetched ({first})")
