"""What VMAD learns from: samples of the three task types (section V-A.2), as token ids, images and masks.

The templates are prompts/vmad/*.txt. Where the paper contradicts itself we follow section III-B, by which every
answer ends with `<seg>`: the token comes after the words that it can then draw on, where the template of section
V-A.2 has it before them, and no full stop follows. By section III-A a description of the normal scene stands before the
question about anomalies, which V-A.2's templates lack. Question answering alone has neither, no `<seg>` and no mask.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from stages.training.prepared import torch

from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from stages.base.errors import InputError
from stages.base.prompts import load_prompt, prompt_ids
from stages.datasets.images import load_rgb
from stages.datasets.manifest import Image
from stages.questions.table import Question
from stages.vmad.config import QUERIES, SEG
from stages.vmad.memory import Class
from stages.vmad.transform import ClipSamTransform

IMAGE = "<image>"
TASKS = ("segmentation", "answering", "vqa")
NO_TEXTS: Mapping[Class, str] = MappingProxyType({})
ANSWERS = "ASSISTANT:"  # where a prompt ends and an answer begins
IGNORED = -100


@dataclass(frozen=True)
class VmadSample:
    """prompt: up to ANSWERS, `<image>` in it once; answer: without the end token."""

    image: Image
    task: str
    prompt: str
    answer: str

    @property
    def segmented(self) -> bool:
        return self.task != "vqa"


def samples_of(
    images: Iterable[Image],
    tasks: Sequence[str],
    questions: Iterable[Question] = (),
    normal: Mapping[Class, str] = NO_TEXTS,
) -> list[VmadSample]:
    """The samples of these images, in their order; images: labelled; normal: what the instruction says of each class's
    normal scene (section III-A), nothing where it is missing.

    segmentation: one per image. answering: one per question on its description, impact or suggestion; an image without
    any is described by its label and kind of defect. vqa: one per question with an answer, in its own words.

    Raises:
        InputError: an anomalous image whose mask is missing where one is to be segmented; an unknown task; a question
            or an answer with a special token in it; or no sample at all.
    """
    if other := set(tasks) - set(TASKS):
        raise InputError(f"--tasks {sorted(other)[0]}: expected {', '.join(TASKS)}, comma-separated")
    by_image: dict[str, list[Question]] = {}
    for q in questions:
        if any(token in f"{q.question} {q.answer} {q.choices}" for token in (IMAGE, SEG)):
            raise InputError(f"question {q.question_id}: holds {IMAGE} or {SEG}, which stand for an image and a mask")
        by_image.setdefault(q.image_id, []).append(q)
    samples = []
    for i in images:
        samples += _of_image(i, tasks, by_image.get(i.image_id, []), normal.get((i.dataset, i.category), ""))
    for s in samples:
        if s.segmented and s.image.label == 1 and not s.image.masks:
            raise InputError(
                f"{s.image.image_id} is anomalous, but has no mask; {s.task} needs it (--tasks vqa"
                " trains without masks)"
            )
        if missing := [m for m in s.image.masks if s.segmented and not m.is_file()]:
            raise InputError(f"{s.image.image_id}: no mask at {missing[0]}; {s.task} needs it")
    if not samples:
        raise InputError(f"no sample for --tasks {','.join(tasks)}: vqa needs --questions with answers on these images")
    return samples


def _of_image(image: Image, tasks: Sequence[str], questions: list[Question], normal: str) -> list[VmadSample]:
    samples = [sample(image, "segmentation", normal=normal)] if "segmentation" in tasks else []
    if "answering" in tasks:
        answers = [(q.level, q.answer) for q in questions if q.level in QUERIES and q.answer]
        samples += [
            sample(image, "answering", normal=normal, query=QUERIES[level], answer=answer)
            for level, answer in answers or [("description", described(image))]
        ]
    if "vqa" in tasks:
        samples += [
            sample(image, "vqa", question="\n".join([q.question, *q.choices]), answer=q.answer)
            for q in questions
            if q.answer
        ]
    return samples


def sample(image: Image, task: str, **fields: str) -> VmadSample:
    """A sample of an image. fields: those of the task's template, and `normal`, see `conversation`."""
    return VmadSample(image, task, *conversation(task, object=spoken(image.category), **fields))


def conversation(task: str, normal: str = "", **fields: str) -> tuple[str, str]:
    """(prompt, answer) of the template prompts/vmad/<task>.txt with its fields filled in. normal: the description
    of the normal scene that stands before the question (section III-A), if there is one."""
    fields["normal"] = before(normal)
    prompt, _, answer = load_prompt(f"vmad/{task}").text.partition(ANSWERS)
    return filled(prompt, fields) + ANSWERS, filled(answer, fields).strip()


def described(image: Image) -> str:
    """What label and kind of defect say of an image."""
    kind = "anomalous" if image.label else "normal"
    fields = {"object": spoken(image.category), "defect": spoken(image.defect or "defect")}
    return filled(load_prompt(f"vmad/description-{kind}").text, fields)


def before(normal: str) -> str:
    """The description as it stands before a question, if there is one."""
    return f"{normal} " if normal else ""


def filled(text: str, fields: dict[str, str]) -> str:
    """`{name}` replaced, once and not within what was put in."""
    return re.sub(r"\{(\w+)\}", lambda match: fields[match[1]], text)


def spoken(name: str) -> str:
    """'metal_nut' -> 'metal nut'."""
    return name.replace("_", " ").replace("-", " ")


@dataclass(frozen=True)
class PromptEncoder:
    """Token ids as the model takes them. image: id of LLaVA's image token; tokens: how many an image takes; seg: id of
    `<seg>`."""

    tokenizer: PreTrainedTokenizerBase
    image: int
    tokens: int
    seg: int

    @property
    def pad(self) -> int:
        token = self.tokenizer.pad_token_id
        return self.tokenizer.eos_token_id if token is None else token

    def prompt(self, text: str) -> list[int]:
        """Token ids of a prompt, `<image>` taken as often as the projector gives tokens."""
        token = self.tokenizer.convert_ids_to_tokens(self.image)
        ids = self.tokenizer(text.replace(IMAGE, token)).input_ids
        return [i for one in ids for i in ([one] * self.tokens if one == self.image else [one])]

    def answer(self, text: str) -> list[int]:
        """Token ids of an answer and the end token. It is tokenised apart from its prompt, as in generation."""
        return [*self.tokenizer(text, add_special_tokens=False).input_ids, self.tokenizer.eos_token_id]


def check_lengths(samples: Iterable[VmadSample], text: PromptEncoder, limit: int) -> int:
    """The longest sample, tokens. Raises InputError when any is longer than `limit`: cut, it would lose its `<seg>`,
    and left out, something else would be trained than was asked for."""
    lengths = {s: len(text.prompt(s.prompt)) + len(text.answer(s.answer)) for s in samples}
    over = {s: n for s, n in lengths.items() if n > limit}
    if over:
        worst = max(over, key=over.get)
        raise InputError(
            f"{len(over)} of {len(lengths)} samples are longer than --max-length {limit}, the longest"
            f" {over[worst]} ({worst.image.image_id}, {worst.task}); shorten their answers or --descriptions, take"
            " them out, or raise it as far as the language model goes"
        )
    return max(lengths.values())


def prompt_texts() -> dict[str, str]:
    """Fingerprints of the templates."""
    return {i: load_prompt(i).fingerprint for i in prompt_ids() if i.startswith("vmad/") and i.count("/") == 1}


class TrainingSet(Dataset):
    """classes: (dataset, category) -> number, as the memory counts them."""

    def __init__(
        self,
        samples: Sequence[VmadSample],
        text: PromptEncoder,
        transform: ClipSamTransform,
        classes: dict[tuple[str, str], int],
    ) -> None:
        self.samples, self.text, self.transform, self.classes = samples, text, transform, classes

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, n: int) -> dict[str, Any]:
        s = self.samples[n]
        prompt, answer = self.text.prompt(s.prompt), self.text.answer(s.answer)
        rgb = load_rgb(s.image.file)
        content_size = self.transform.content_size(rgb.shape)
        return {
            "input_ids": prompt + answer,
            "labels": [IGNORED] * len(prompt) + answer,
            "clip_inputs": self.transform.clip_input(rgb),
            "sam_inputs": self.transform.sam_input(rgb),
            "content_sizes": torch.tensor(content_size),
            "masks": self.transform.mask(s.image.masks if s.segmented else (), content_size),
            "segmented": torch.tensor(s.segmented),
            "classes": torch.tensor(self.classes[s.image.dataset, s.image.category]),
        }


def collate(items: Sequence[dict[str, Any]], pad: int) -> dict[str, Tensor]:
    """A batch as `Vmad.forward` takes it: texts padded to the right."""
    longest = max(len(i["input_ids"]) for i in items)

    def padded(name: str, filler: int) -> Tensor:
        return torch.tensor([i[name] + [filler] * (longest - len(i[name])) for i in items])

    lengths = torch.tensor([[len(i["input_ids"])] for i in items])
    batch = {name: torch.stack([i[name] for i in items]) for name in items[0] if name not in ("input_ids", "labels")}
    return batch | {
        "input_ids": padded("input_ids", pad),
        "labels": padded("labels", IGNORED),
        "attention_mask": (torch.arange(longest) < lengths).long(),
    }
