"""Scoring with a trained VMAD: for every image the answer first, then the mask that its `<seg>` token draws, and an
image score."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice

from stages.training.prepared import torch

import numpy as np
from torch import Tensor
from torch.nn import functional
from transformers import LlavaConfig

from stages.artifacts.maps import Key
from stages.artifacts.scores_and_maps import Result, check_outputs, scores_and_maps
from stages.artifacts.writer import Artifact, Summary
from stages.base.config import RunOptions, named_paths
from stages.base.errors import ImageError, InputError
from stages.base.prefetch import Prefetch
from stages.datasets.files import look_at
from stages.datasets.images import load_rgb
from stages.datasets.manifest import Image, images_of, read_manifest
from stages.training.image_scores import top_mean
from stages.training.saved_models import context_length
from stages.training.torch_setup import resolved_precision
from stages.vmad.build import check_sam
from stages.vmad.checkpoint import fingerprint, load_vmad, made_of, reader, sources
from stages.vmad.config import QUERIES, ScoreVmadConfig
from stages.vmad.data import NO_TEXTS, PromptEncoder, prompt_texts, sample
from stages.vmad.descriptions import Descriptions, classes_of, for_scoring, other_kind, place
from stages.vmad.memory import Class
from stages.vmad.model import Vmad

MAP_ROWS = 64  # maps of a part: at 256 x 256 some 17 MB before compression


def run(config: ScoreVmadConfig, options: RunOptions) -> Summary:
    """Score every image of the splits. An image that cannot be read is a row with `error`; `parsed` is strict where the
    model wrote `<seg>` itself, fallback where it had to be appended.

    The image score is the mean of the highest `top_share` of the mask's probabilities; the paper names no rule.

    Raises:
        InputError: see `config.check` and `for_scoring`; no LLaVA or SAM, no image in the splits, or prompts and
            answers that exceed the model's context.
    """
    config.check()
    device, precision = resolved_precision(config.device, config.precision)
    manifest = read_manifest(config.manifest, config.root)
    images = images_of(manifest, config.splits, config.manifest)
    check_outputs(config.out, {"--maps": config.maps})

    _, record, _, sam = sources(config.checkpoint, config.llava, config.sam)
    trained: Descriptions = record["descriptions"]
    told = for_scoring(config.descriptions, trained, manifest.images, classes_of(images.values()))
    check_room(
        *reader(config.checkpoint, config.llava),
        {prompt_about(i, config.query, told.texts) for i in images.values()},
        config.max_tokens,
    )
    check_sam(sam, record["revisions"][1])

    files = look_at(config.out, options.quiet, images=images.values())
    same = {n: getattr(config, n) for n in ("splits", "query", "max_tokens", "top_share")}
    parameters = same | {
        "method": config.name,
        "precision": precision,
        "prompts": prompt_texts(),
        "descriptions": told.fingerprint,
        "weights": fingerprint(config.checkpoint, config.llava, config.sam),
    }
    inputs = {"manifest": manifest.fingerprint, "image files": files.images}
    keys = [(i, config.name) for i in images]

    def results(todo: list[Key], scores: Artifact) -> Iterator[Result]:

        scores.ran_on = f"{device} {precision}"
        if said := other_kind(trained, told):
            scores.progress.say(said)
        for image, prediction in predictions(config, [images[k[0]] for k in todo], told.texts, device, precision):
            key = (image.image_id, config.name)
            if isinstance(prediction, ImageError):
                yield key, prediction, None
            else:
                yield key, prediction.columns(config.top_share), prediction.map.numpy()

    notes = {
        "training": str(config.checkpoint.resolve()),
        "batch_size": config.batch_size,
        "vmad": made_of(config.checkpoint),
        "descriptions": told.record(),
    }  # loss curves and Tables III and V of the report
    return scores_and_maps(
        config.out,
        config.maps,
        parameters,
        inputs,
        keys,
        options,
        MAP_ROWS,
        results,
        notes,
        map_kind="<f4",
        files=files,
        paths=named_paths(config) | place(config.descriptions),
    )


@dataclass(frozen=True)
class ModelInput:
    """An image as the two encoders want it. clip_input: (3, S, S); sam_input: (3, K, K); content_size: (2,)."""

    clip_input: Tensor
    sam_input: Tensor
    content_size: Tensor


@dataclass(frozen=True)
class Prediction:
    """map: (H, W) float32 on the CPU, probabilities; response: ends with `<seg>`; own_seg: the model wrote it itself;
    tokens: that it generated; seconds: per image."""

    map: Tensor
    response: str
    own_seg: bool
    tokens: int
    seconds: float

    def columns(self, top_share: float) -> dict:
        """Of SCORES. top_share: of the map's pixels, whose mean is the score."""
        return {
            "score": float(top_mean(self.map[None], share=top_share)),
            "response": self.response,
            "seconds": self.seconds,
            "completion_tokens": self.tokens,
            "parsed": "strict" if self.own_seg else "fallback",
        }


def predictions(
    config: ScoreVmadConfig, images: Sequence[Image], normal: Mapping[Class, str], device: str, precision: str
) -> Iterator[tuple[Image, Prediction | ImageError]]:
    """(image, its prediction), or (image, why there is none). normal: see `prompt_about`. Raises InputError as
    `load_vmad` does."""
    model, text = load_vmad(config.checkpoint, config.llava, config.sam, dtype_of(precision))
    model.to(device)

    def load(image: Image) -> ModelInput:
        if image.error:
            raise ImageError(image.error)
        return model_input(model, load_rgb(image.file))

    with Prefetch(load, images, config.workers, 2 * config.batch_size) as loaded:
        while batch := list(islice(loaded, config.batch_size)):
            yield from ((i, x) for i, x in batch if isinstance(x, ImageError))
            good = [(i, x) for i, x in batch if not isinstance(x, ImageError)]
            if good:
                prompts = [text.prompt(prompt_about(i, config.query, normal)) for i, _ in good]
                answers = predict(model, text, [x for _, x in good], prompts, config.max_tokens, precision)
                yield from zip((i for i, _ in good), answers, strict=True)


def check_room(llava: LlavaConfig, text: PromptEncoder, prompts: Iterable[str], max_new_tokens: int) -> None:
    """llava: its configuration. Raises InputError when the longest prompt and answer are more than its context."""
    longest, room = max(len(text.prompt(p)) for p in prompts), context_length(llava, 0)
    if longest + max_new_tokens > room:
        raise InputError(
            f"--max-tokens {max_new_tokens}: with a prompt of {longest} tokens more than the model's context of {room}"
        )


def prompt_about(image: Image, query: str, normal: Mapping[Class, str] = NO_TEXTS) -> str:
    """The prompt of segmentation, or of segmentation and answering. normal: what it says of each class's normal
    scene."""
    fields = {"query": QUERIES[query], "answer": ""} if query else {}
    fields["normal"] = normal.get((image.dataset, image.category), "")
    return sample(image, "answering" if query else "segmentation", **fields).prompt


def model_input(model: Vmad, rgb: np.ndarray) -> ModelInput:
    """rgb: (H, W, 3) uint8."""
    transform = model.transform
    size = torch.tensor(transform.content_size(rgb.shape))
    return ModelInput(transform.clip_input(rgb), transform.sam_input(rgb), size)


def predict(
    model: Vmad,
    text: PromptEncoder,
    images: Sequence[ModelInput],
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    precision: str,
) -> list[Prediction]:
    """One answer and mask per image. An answer ends where the model writes `<seg>`; to one that ends without, it is
    appended (section III-B: the output is ensured to end with it)."""
    started = time.monotonic()
    device = model.device
    with torch.inference_mode(), mixed(device, precision):
        pixels = model.for_clip(torch.stack([i.clip_input for i in images]).to(device))
        answers = generate_answers(model, text, pixels, prompts, max_new_tokens, stop_at_seg=True)
        texts = [[*p, *(a if text.seg in a else [*a, text.seg])] for p, a in zip(prompts, answers, strict=True)]
        sizes = torch.stack([i.content_size for i in images]).to(device)
        logits = mask_logits_of(
            model, text, pixels, torch.stack([i.sam_input for i in images]).to(device), sizes, texts
        )
        sam_size = model.transform.sam_size
        maps = [probabilities(row, size, sam_size).cpu() for row, size in zip(logits, sizes, strict=True)]
    seconds = (time.monotonic() - started) / len(images)
    return [
        Prediction(m, text.tokenizer.decode(t[len(p) :], skip_special_tokens=True), text.seg in a, len(a), seconds)
        for m, t, p, a in zip(maps, texts, prompts, answers, strict=True)
    ]


def generate_answers(
    model: Vmad,
    text: PromptEncoder,
    pixels: Tensor,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    stop_at_seg: bool,
) -> list[list[int]]:
    """Greedy answers, token ids without the end token. pixels: (B, 3, S, S) as CLIP takes them."""
    longest, device = max(map(len, prompts)), pixels.device
    ids = torch.tensor([[text.pad] * (longest - len(p)) + p for p in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device)
    end = text.tokenizer.eos_token_id
    out = model.llava.generate(
        input_ids=ids,
        attention_mask=mask,
        pixel_values=pixels,
        do_sample=False,
        max_new_tokens=max_new_tokens,
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


def mask_logits_of(
    model: Vmad,
    text: PromptEncoder,
    pixels: Tensor,
    sam_inputs: Tensor,
    content_sizes: Tensor,
    texts: Sequence[list[int]],
) -> Tensor:
    """(B, h, w) logits of SAM's decoder for conversations that hold `<seg>`; the last one counts."""
    longest, device = max(map(len, texts)), pixels.device
    ids = torch.tensor([t + [text.pad] * (longest - len(t)) for t in texts], device=device)
    mask = torch.tensor([[1] * len(t) + [0] * (longest - len(t)) for t in texts], device=device)
    states = model.seg_states(model.hidden_states(ids, mask, pixels), ids)
    return model.mask_logits(states.float(), model.visual_features(model.for_sam(sam_inputs, content_sizes)))


def probabilities(logits: Tensor, content_size: Tensor, sam_size: int) -> Tensor:
    """(h, w) logits of SAM's whole input -> (H, W) float32 probabilities of the part that shows the image, at the
    resolution of the decoder's own grid (256 px along the image's longest side for SAM)."""
    stride = sam_size / logits.shape[-1]
    cells = [side / stride for side in content_size.tolist()]
    size = [max(round(c), 1) for c in cells]
    along = [
        (torch.arange(n, device=logits.device) + 0.5) / n * c * 2 / logits.shape[-1] - 1
        for n, c in zip(size, cells, strict=True)
    ]
    at = torch.stack([along[1][None].expand(size), along[0][:, None].expand(size)], -1)
    return functional.grid_sample(
        logits.float()[None, None], at[None].float(), padding_mode="border", align_corners=False
    )[0, 0].sigmoid()


def dtype_of(precision: str) -> torch.dtype:
    """Of the weights."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


def mixed(device: torch.device, precision: str) -> AbstractContextManager:
    """Where a forward pass computes in bfloat16, if it is to."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
