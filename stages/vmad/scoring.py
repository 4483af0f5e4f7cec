"""Images through a trained VMAD: the answer first, then the mask that its `<seg>` token draws."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from stages.base.errors import ImageError, InputError
from stages.datasets.images import ahead, load_rgb
from stages.datasets.manifest import Image
from stages.training.runs import context
from stages.vmad.checkpoint import load_vmad
from stages.vmad.data import QUERIES, Text, sample
from stages.vmad.model import Vmad
from stages.vmad.score import ScoreVmadConfig

TOP = 0.01  # share of the pixels whose mean is the image score


@dataclass(frozen=True)
class Seen:
    """An image as the two encoders want it. square: (3, S, S); canvas: (3, K, K); frame: (2,)."""

    square: Tensor
    canvas: Tensor
    frame: Tensor


@dataclass(frozen=True)
class Found:
    """map: (H, W) float32 on the CPU, probabilities; response: ends with `<seg>`; own_seg: the model wrote it itself;
    tokens: that it generated; seconds: per image."""

    map: Tensor
    response: str
    own_seg: bool
    tokens: int
    seconds: float

    def columns(self) -> dict:
        """Of SCORES."""
        return {
            "score": top_mean(self.map),
            "response": self.response,
            "seconds": self.seconds,
            "completion_tokens": self.tokens,
            "parsed": "strict" if self.own_seg else "fallback",
        }


def scored(
    config: ScoreVmadConfig, images: Sequence[Image], device: str, precision: str
) -> Iterator[tuple[Image, Found | ImageError]]:
    """(image, what was found), or (image, why not). Raises InputError as `load_vmad` does."""
    model, text = load_vmad(config.checkpoint, config.llava, config.sam, dtype_of(precision))
    model.to(device)

    def load(image: Image) -> Seen:
        if image.error:
            raise ImageError(image.error)
        return seen(model, load_rgb(image.file))

    loaded = ahead(load, images, config.workers, 2 * config.batch_size)
    while batch := list(islice(loaded, config.batch_size)):
        yield from ((i, x) for i, x in batch if isinstance(x, ImageError))
        good = [(i, x) for i, x in batch if not isinstance(x, ImageError)]
        if good:
            prompts = [text.prompt(asked(i, config.query)) for i, _ in good]
            found = answered(model, text, [x for _, x in good], prompts, config.max_tokens, precision)
            yield from zip((i for i, _ in good), found, strict=True)


def check_room(llava: Any, text: Text, prompts: Iterable[str], most: int) -> None:
    """llava: its configuration. Raises InputError when the longest prompt and answer are more than its context."""
    longest, room = max(len(text.prompt(p)) for p in prompts), context(llava, 0)
    if longest + most > room:
        raise InputError(
            f"--max-tokens {most}: with a prompt of {longest} tokens more than the model's context of {room}"
        )


def asked(image: Image, query: str) -> str:
    """The prompt of segmentation, or of segmentation and answering."""
    fields = {"query": QUERIES[query], "answer": ""} if query else {}
    return sample(image, "answering" if query else "segmentation", **fields).prompt


def seen(model: Vmad, rgb: np.ndarray) -> Seen:
    """rgb: (H, W, 3) uint8."""
    look = model.look
    return Seen(look.square(rgb), look.framed(rgb), torch.tensor(look.frame(rgb.shape)))


def answered(
    model: Vmad, text: Text, images: Sequence[Seen], prompts: Sequence[list[int]], most: int, precision: str
) -> list[Found]:
    """One answer and mask per image. An answer ends where the model writes `<seg>`; to one that ends without, it is
    appended (section III-B: the output is ensured to end with it)."""
    started = time.monotonic()
    device = model.mean.device
    with torch.inference_mode(), mixed(device, precision):
        pixels = model.for_clip(torch.stack([i.square for i in images]).to(device))
        said = generated(model, text, pixels, prompts, most, stop_at_seg=True)
        whole = [[*p, *(a if text.seg in a else [*a, text.seg])] for p, a in zip(prompts, said, strict=True)]
        frames = torch.stack([i.frame for i in images]).to(device)
        logits = masks_of(model, text, pixels, torch.stack([i.canvas for i in images]).to(device), frames, whole)
        maps = [probabilities(row, frame, model.look.canvas).cpu() for row, frame in zip(logits, frames, strict=True)]
    seconds = (time.monotonic() - started) / len(images)
    return [
        Found(m, text.tokenizer.decode(w[len(p) :], skip_special_tokens=True), text.seg in a, len(a), seconds)
        for m, w, p, a in zip(maps, whole, prompts, said, strict=True)
    ]


def generated(
    model: Vmad, text: Text, pixels: Tensor, prompts: Sequence[list[int]], most: int, stop_at_seg: bool
) -> list[list[int]]:
    """Greedy answers, token ids without the end token. pixels: (B, 3, S, S) as CLIP takes them."""
    longest, device = max(map(len, prompts)), pixels.device
    ids = torch.tensor([[text.pad] * (longest - len(p)) + p for p in prompts], device=device)
    there = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
    end = text.tokenizer.eos_token_id
    out = model.llava.generate(
        input_ids=ids,
        attention_mask=there,
        pixel_values=pixels,
        do_sample=False,
        max_new_tokens=most,
        pad_token_id=text.pad,
        eos_token_id=[end, text.seg] if stop_at_seg else [end],
    )
    return [until_end(row, end, text.seg if stop_at_seg else None) for row in out[:, longest:].tolist()]


def until_end(ids: list[int], end: int, seg: int | None) -> list[int]:
    """Up to the end token, which is left out, or to `<seg>`, which is kept."""
    for n, token in enumerate(ids):
        if token == end:
            return ids[:n]
        if token == seg:
            return ids[: n + 1]
    return ids


def masks_of(
    model: Vmad, text: Text, pixels: Tensor, canvases: Tensor, frames: Tensor, whole: Sequence[list[int]]
) -> Tensor:
    """(B, h, w) logits of SAM's decoder for conversations that hold `<seg>`; the last one counts."""
    longest, device = max(map(len, whole)), pixels.device
    ids = torch.tensor([w + [text.pad] * (longest - len(w)) for w in whole], device=device)
    there = torch.tensor([[1] * len(w) + [0] * (longest - len(w)) for w in whole], device=device)
    states = model.seg_states(model.hidden_states(ids, there, pixels), ids)
    return model.mask_logits(states.float(), model.visual_features(model.for_sam(canvases, frames)))


def probabilities(logits: Tensor, frame: Tensor, canvas: int) -> Tensor:
    """(h, w) logits of the whole canvas -> (H, W) float32 probabilities of the part that shows the image, at the
    resolution of the decoder's own grid (256 px along the image's longest side for SAM)."""
    stride = canvas / logits.shape[-1]
    cells = [side / stride for side in frame.tolist()]
    size = [max(round(c), 1) for c in cells]
    along = [
        (torch.arange(n, device=logits.device) + 0.5) / n * c * 2 / logits.shape[-1] - 1
        for n, c in zip(size, cells, strict=True)
    ]
    at = torch.stack([along[1][None].expand(size), along[0][:, None].expand(size)], -1)
    return functional.grid_sample(
        logits.float()[None, None], at[None].float(), padding_mode="border", align_corners=False
    )[0, 0].sigmoid()


def top_mean(anomaly_map: Tensor) -> float:
    """Mean of the highest 1 % of the pixels, at least one of them."""
    flat = anomaly_map.flatten()
    return float(flat.topk(max(ceil(TOP * len(flat)), 1)).values.mean())


def dtype_of(precision: str) -> torch.dtype:
    """Of the weights."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


def mixed(device: torch.device, precision: str) -> Any:
    """Where a forward pass computes in bfloat16, if it is to."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
