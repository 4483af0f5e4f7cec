"""A conversation with a trained VMAD about one image: a first answer with its mask, then follow-up questions."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stages.training.prepared import torch

import cv2
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from stages.artifacts.checks import require_ours
from stages.artifacts.files import write_atomically
from stages.base.errors import InputError
from stages.datasets.images import load_rgb
from stages.training.torch_setup import resolved_precision
from stages.vmad.checkpoint import load_vmad, sources
from stages.vmad.config import SEG, AskConfig
from stages.vmad.data import ANSWERS, IMAGE, before, conversation
from stages.vmad.descriptions import of_object, one_line
from stages.vmad.score import dtype_of, generate_answers, mask_logits_of, mixed, model_input, probabilities


@dataclass(frozen=True)
class Answer:
    """mask: (H, W) float32 at the image's size, 0..1; None where the answer has no `<seg>`."""

    question: str
    text: str
    mask: np.ndarray | None


class Conversation:
    """Keeps the questions and answers so far, as token ids."""

    def __init__(self, config: AskConfig) -> None:
        """Raises InputError: no checkpoint, no LLaVA or SAM, no tokens to answer with, or an image that cannot be
        read."""
        config.check()
        rgb = load_rgb(config.image)
        device, self.precision = resolved_precision(config.device, config.precision)
        self.model, self.text = load_vmad(config.checkpoint, config.llava, config.sam, dtype_of(self.precision))
        self.model.to(device)
        self.shape, self.input = rgb.shape[:2], model_input(self.model, rgb)
        self.max_new_tokens, self.object = config.max_tokens, config.object
        self.normal = normal_scene(config)
        self.history = list[int]()

    def ask(self, question: str) -> Answer:
        """question: "" is that of training, for a mask and a description. What a normal scene looks like stands before
        the first one, as in training (section III-A). The first answer always has a mask, a later
        one where the model writes `<seg>`. Raises InputError for a question with a special token in it, or one for
        which the model's context has no room left."""
        prompt = self._prompt(question)
        if len(prompt) + self.max_new_tokens > self.model.base.config.text_config.max_position_embeddings:
            raise InputError("the conversation and --max-tokens exceed the model's context; lower that, or start anew")
        ids, mask = self._answer(prompt, first=not self.history)
        self.history = [*prompt, *ids, self.text.tokenizer.eos_token_id]
        return Answer(question, self.text.tokenizer.decode(ids, skip_special_tokens=True).strip(), mask)

    def _prompt(self, question: str) -> list[int]:
        if not question:
            fields = {"object": self.object, "query": "description", "answer": ""}
            return self.text.prompt(conversation("answering", self.normal, **fields)[0])
        if IMAGE in question or SEG in question:
            raise InputError(f"the question holds {IMAGE} or {SEG}, which stand for an image and a mask")
        if not self.history:
            return self.text.prompt(f"USER: {IMAGE}\n{before(self.normal)}{question} {ANSWERS}")
        more = self.text.tokenizer(f"USER: {question} {ANSWERS}", add_special_tokens=False).input_ids
        return [*self.history, *more]

    def _answer(self, prompt: list[int], first: bool) -> tuple[list[int], np.ndarray | None]:
        model, text, device = self.model, self.text, self.model.device
        with torch.inference_mode(), mixed(device, self.precision):
            pixels = model.for_clip(self.input.clip_input[None].to(device))
            ids = generate_answers(model, text, pixels, [prompt], self.max_new_tokens, stop_at_seg=first)[0]
            if first and text.seg not in ids:
                ids = [*ids, text.seg]
            if text.seg not in ids:
                return ids, None
            content_sizes = self.input.content_size[None].to(device)
            logits = mask_logits_of(
                model, text, pixels, self.input.sam_input[None].to(device), content_sizes, [[*prompt, *ids]]
            )
            return ids, self._at_image_size(logits[0], content_sizes[0])

    def _at_image_size(self, logits: Tensor, content_size: Tensor) -> np.ndarray:
        mask = probabilities(logits, content_size, self.model.transform.sam_size).cpu().numpy()
        return cv2.resize(mask, self.shape[::-1], interpolation=cv2.INTER_LINEAR)


def normal_scene(config: AskConfig) -> str:
    """What the first question begins with: what was said, else what training was told. Raises InputError as
    `stages.vmad.descriptions.of_object` does, or for a special token in it."""
    if config.normal:
        return one_line(config.normal, "--normal")
    return of_object(sources(config.checkpoint, config.llava, config.sam)[1]["descriptions"], config.object)


def answers(config: AskConfig, questions: Iterator[str]) -> Iterator[Answer | InputError]:
    """The answer to the first question, then to each of `questions`; an InputError for one that cannot be put."""
    talk = Conversation(config)
    yield talk.ask(config.question)
    for question in questions:
        try:
            yield talk.ask(question)
        except InputError as e:
            yield e


def mask_path(config: AskConfig) -> Path:
    """Raises InputError when the mask would take the place of the image or of a file that `ask` did not write, or may
    not be written where it belongs."""
    path = config.mask or config.image.with_name(f"{config.image.stem}.vmad.png")
    if path.resolve() == config.image.resolve():
        raise InputError(f"--mask {path}: that is the image itself; give another name")
    require_ours("mask", path)
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"{path}: the mask may not be written there ({path.parent}); give another place (--mask)")
    return path


def write_mask(path: Path, mask: np.ndarray) -> None:
    """(H, W) of 0..1 as 8-bit PNG. Raises InputError when it cannot be written."""
    picture, said = Image.fromarray((mask * 255).round().astype(np.uint8)), PngInfo()
    said.add_text("Software", "adcli ask")  # as whose it is known again
    try:
        write_atomically(path, lambda f: picture.save(f, "png", pnginfo=said))
    except OSError as e:
        raise InputError(f"{path}: cannot be written ({e.strerror})") from e
