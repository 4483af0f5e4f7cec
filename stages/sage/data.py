"""From questions, images and facts to what the model reads."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random

from stages.training.prepared import torch

from PIL import Image as Pil
from torch import Tensor
from transformers import ProcessorMixin

from stages.artifacts.reader import fingerprint, read_table
from stages.artifacts.tables import CAPTIONS
from stages.base.errors import InputError
from stages.base.prompts import fill, load_prompt
from stages.base.seeds import row_seed
from stages.datasets.images import load_rgb
from stages.datasets.manifest import Image, Manifest, by_task
from stages.datasets.references import references_for
from stages.questions.table import Question, Questions, check_images
from stages.sage.config import SageSettings

PLACE = "\0"  # where the vectors of t^s go, until the text is cut there
LINES, LINE_TOKENS = 10, 256  # of --fusion released
IGNORED = -100  # label of a token that is not learned
PLAIN = {0: "sage/zero-shot", 1: "sage/one-shot"}  # without fusion: what the plain models are asked, too


class RowFailed(InputError):
    """What a question needs is a row with `error`, or an image that cannot be read: it alone is left out."""


@dataclass(frozen=True)
class SageSample:
    """One question, ready to be read. shown: images that the language model sees, in order; reference: the image of
    Eq. 1; facts: sentences that become vectors; text: the user's turn, with PLACE where the vectors go."""

    question_id: str
    shown: tuple[Image, ...]
    reference: Image | None
    facts: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Facts:
    """sentences: image_id -> fact sentences, in order of (prompt_id, sample); errors: of images all of whose rows have
    `error`, one each; fingerprint: of the whole table."""

    sentences: Mapping[str, tuple[str, ...]]
    errors: Mapping[str, str]
    fingerprint: str


def read_facts(path: Path, limit: int) -> Facts:
    """Facts of a captions table. A text of several sentences gives several facts (section 3.2: one embedding per
    sentence); limit: keep so many per image, 0 = all. Rows with `error` have none.

    Raises:
        InputError: as `read_table` does.
    """
    table = read_table(path, CAPTIONS)
    facts: dict[str, list[str]] = {}
    rows = table.to_pylist()
    for row in rows:
        facts.setdefault(row["image_id"], []).extend(sentences(row["text"] or ""))
    found = {i: tuple(s[: limit or None]) for i, s in facts.items() if s}
    return Facts(found, _errors(rows), fingerprint(table, CAPTIONS))


def _errors(rows: Sequence[Mapping]) -> dict[str, str]:
    """image_id -> `error` of images without any row of CAPTIONS that has none."""
    sound = {r["image_id"] for r in rows if r["error"] is None}
    return {r["image_id"]: r["error"] for r in rows if r["image_id"] not in sound}


def read_lines(path: Path, limit: int) -> Facts:
    """As the released code reads a description: its lines, blank ones too, the first LINES of them (or `limit`); what
    is missing is filled up with distinct lines of prompts/sage/stock-lines.txt, drawn once per image (there: anew each
    time it is read, from ten texts of the authors'). Rows with `error` have none."""
    table, stock = read_table(path, CAPTIONS), load_prompt("sage/stock-lines").text.splitlines()
    texts: dict[str, list[str]] = {}
    rows = table.to_pylist()
    for row in rows:
        if row["text"]:
            texts.setdefault(row["image_id"], []).extend(row["text"].split("\n"))
    most, facts = limit or LINES, {}
    for image, lines in texts.items():
        more = Random(row_seed(0, "stock lines", image)).sample(stock, max(0, min(most, LINES) - len(lines)))
        facts[image] = (*lines[:most], *more)
    return Facts(facts, _errors(rows), fingerprint(table, CAPTIONS))


def sentences(text: str) -> list[str]:
    """'A dent. Or a 2.5 mm hole!' -> ['A dent.', 'Or a 2.5 mm hole!']; numbers of a list are left out."""
    parts = (p.strip() for p in re.split(r"(?<=[.!?])\s+|\n+", text))
    return [p for p in parts if re.search(r"[^\W\d_]", p)]


class QuestionSet:
    """Questions with all that is read beside them. inputs: fingerprints for the cache key, without the image files;
    watched: images that are read; datasets: their names."""

    def __init__(self, questions: Questions, manifest: Manifest, facts: Path | None, settings: SageSettings) -> None:
        """Raises InputError for no facts where they are fused, images that are not in the manifest, and as
        `read_facts` does."""
        if settings.fusion != "none" and facts is None:
            raise InputError(
                f"--facts is missing: --fusion {settings.fusion} reads facts about the test images"
                " (`adcli caption --prompt sage/facts` makes them)"
            )
        self.settings = settings
        self.images = check_images(questions, manifest)
        self.tasks = by_task(manifest.images)
        read = read_lines if settings.fusion == "released" else read_facts
        self.facts = read(facts, settings.sentences) if facts else None
        self.datasets = "+".join(sorted({i.dataset for i in self.images.values()}))
        unnamed = settings.shots and any(q.reference_id is None for q in questions.rows)
        self.watched = tuple(manifest.images if unnamed else self.images.values())  # any training image may be one
        self.inputs = {
            "manifest": manifest.fingerprint,
            "questions": questions.fingerprint,
            "facts": self.facts.fingerprint if self.facts else "",
        }

    def sample(self, question: Question, text: str = "") -> SageSample:
        """text: the question with its options, where they are shown.

        Raises:
            RowFailed: an image whose file is missing or whose row has `error`, or facts that have one.
            InputError: no facts for the image, or no reference image for --shots 1.
        """
        where, settings = f"question {question.question_id}", self.settings
        test, facts = self.images[question.image_id], ()
        text = (text or question.question).replace(PLACE, " ")  # byte tokens can write it: it marks nothing there
        reference = self.reference(question, test) if settings.shots else None
        for image in filter(None, (test, reference)):
            if image.error:
                raise RowFailed(f"{where}: {image.image_id}: {image.error}")
            if not image.file.is_file():
                raise RowFailed(f"{where}: {image.file}: no such image (--root says where paths start)")
        if settings.fusion != "none":
            facts = self.facts.sentences.get(test.image_id, ())
            if not facts and test.image_id in self.facts.errors:
                raise RowFailed(f"{where}: --facts has none for {test.image_id}: {self.facts.errors[test.image_id]}")
            if not facts:
                raise InputError(f"{where}: --facts has none for {test.image_id}; caption it with --prompt sage/facts")
        if settings.fusion == "attention":
            text = fill(load_prompt("sage/attention"), facts=PLACE, question=text)
            return SageSample(question.question_id, (test,), reference, facts, text)
        if settings.fusion == "released":
            text = fill(load_prompt(PLAIN[0]), question=text)
            return SageSample(question.question_id, (test,), None, facts, text)
        if settings.fusion == "text":
            text = fill(load_prompt("sage/text"), facts="\n".join(facts).replace(PLACE, " "), question=text)
        text = fill(load_prompt(PLAIN[settings.shots]), question=text)
        return SageSample(question.question_id, (reference, test) if reference else (test,), None, (), text)

    def reference(self, question: Question, test: Image) -> Image:
        """The question's own reference image; for a question that names none (MANTA's) the first normal training image
        of the test image's category. Raises InputError: there is none."""
        if question.reference_id:
            return self.images[question.reference_id]
        if references := references_for(test, self.tasks[test.task], 1, "first", 0):
            return references[0]
        raise InputError(
            f"question {question.question_id}: no `reference_id`, and {test.category} has no normal"
            " training image to compare with (--shots 0 does without)"
        )


def best_answer(question: Question) -> str:
    """What SFE learns to say. Raises InputError for a question whose right answer is not known."""
    if question.answer is None:
        raise InputError(f"question {question.question_id}: no `answer` to learn from")
    return question.answer


@dataclass(frozen=True)
class PromptEncoder:
    """Samples and answers -> tensors. processor: transformers' own, of the checkpoint."""

    processor: ProcessorMixin
    settings: SageSettings

    @cached_property
    def image_token(self) -> str:
        return self.processor.image_token

    @cached_property
    def image_token_id(self) -> int:
        """Number of the image token: of patches and of the vectors of t^s alike."""
        return self.processor.tokenizer.convert_tokens_to_ids(self.image_token)

    def tokens(self, text: str) -> list[int]:
        return self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]

    @cached_property
    def begin(self) -> list[int]:
        """[BOS] where the tokenizer puts one before every text (LLaVA's), else []."""
        tokenizer = self.processor.tokenizer
        first = tokenizer("a")["input_ids"][:1]
        return first if first == [tokenizer.bos_token_id] else []

    def turns(self, sample: SageSample) -> tuple[str, str]:
        """The chat before and after PLACE, up to where the model's turn begins; images are one image token each."""
        text = self.processor.apply_chat_template(self._chat(sample), add_generation_prompt=True, tokenize=False)
        before, _, after = text.partition(PLACE)
        return before, after

    def _chat(self, sample: SageSample) -> list[dict]:
        if self.image_token in sample.text:
            raise InputError(
                f"question {sample.question_id}: its text or its facts hold the model's image token {self.image_token}"
            )
        content = [{"type": "image"}] * len(sample.shown) + [{"type": "text", "text": sample.text}]
        return [{"role": "user", "content": content}]

    def answer(self, sample: SageSample, text: str) -> list[int]:
        """Tokens of the model's turn: the answer and the end of the turn, as the chat template writes them. Templates
        that write no end (LLaVA-1.5's) get the tokenizer's, without which the model would never learn to stop.

        Raises:
            InputError: the template writes the question in another way once it is answered.
        """
        prompt = "".join(self.turns(sample))
        chat = [*self._chat(sample), {"role": "assistant", "content": [{"type": "text", "text": text}]}]
        whole = self.processor.apply_chat_template(chat, tokenize=False).replace(PLACE, "")
        if not whole.startswith(prompt):
            raise InputError(
                "this checkpoint's chat template does not begin an answer as it ends a question; training"
                " needs one that does"
            )
        said, before = whole[len(prompt) :].rstrip(), self.tokens(self.turns(sample)[1] or prompt)
        both = self.tokens((self.turns(sample)[1] or prompt) + said)  # as it is generated: a blank joins the next word
        ids = both[len(before) :] if both[: len(before)] == before else self.tokens(said)
        tokenizer = self.processor.tokenizer
        return ids if ids and ids[-1] in tokenizer.all_special_ids else [*ids, tokenizer.eos_token_id]

    def length(self, sample: SageSample) -> int:
        """Tokens of the prompt, without loading an image."""
        before, after = self.turns(sample)
        images = sum(self.image_tokens(i) for i in sample.shown) - len(sample.shown)
        first = self.tokens(before)
        begin = 0 if first[: len(self.begin)] == self.begin else 1
        return begin + len(first) + images + len(sample.facts) + len(self.tokens(after))

    def image_tokens(self, image: Image) -> int:
        """Tokens of one image, those around it included, by its size."""
        height, width = (image.height, image.width) if image.width else load_rgb(image.file).shape[:2]
        return self.processor._get_num_multimodal_tokens(image_sizes=[(height, width)]).num_image_tokens[0]

    def prompt(self, sample: SageSample) -> tuple[list[int], dict]:
        """(tokens of the prompt, {pixel_values, image_tokens and the inputs of the fusion} of this sample alone)."""
        before, after = self.turns(sample)
        shown = self.processor(
            images=[[picture(i) for i in sample.shown]],
            text=[before],
            return_tensors="pt",
            padding=False,
            add_special_tokens=False,
        )
        ids = shown["input_ids"][0].tolist()
        if ids[: len(self.begin)] != self.begin:
            ids = [*self.begin, *ids]
        parts = {"pixel_values": shown["pixel_values"], "image_tokens": ids.count(self.image_token_id)}
        if sample.reference:
            other = self.processor(
                images=[[picture(sample.reference)]],
                text=[self.image_token],
                return_tensors="pt",
                padding=False,
                add_special_tokens=False,
            )
            parts |= {
                "reference_pixel_values": other["pixel_values"],
                "reference_tokens": other["input_ids"][0].tolist().count(self.image_token_id),
            }
        if sample.facts:
            parts |= {"facts": [self.fact(f) for f in sample.facts]}
        vectors = [self.image_token_id] * len(sample.facts)
        if self.settings.fusion == "released":
            return [*vectors, *ids, *self.tokens(after)], parts
        return [*ids, *vectors, *self.tokens(after)], parts

    def fact(self, text: str) -> list[int]:
        """Tokens of a fact sentence; as released with BOS, and cut or padded to LINE_TOKENS, all of them pooled."""
        if self.settings.fusion != "released":
            return self.tokens(text)
        tokenizer = self.processor.tokenizer
        begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        ids = [*begin, *self.tokens(text)][:LINE_TOKENS]
        return ids + [tokenizer.pad_token_id] * (LINE_TOKENS - len(ids))

    def batch(
        self, samples: Sequence[SageSample], answers: Sequence[Sequence[str]] = ((),), left: bool = False
    ) -> dict:
        """Inputs of `model.embedded`, and completion_mask (S, L): 1 = token of an answer.

        answers: rounds of one answer per sample, [[a of every sample], [b of every sample]]; the sequences come in
        that order and share the images. One empty round: prompts alone. left: pad before instead of behind.
        """
        prompts, parts = zip(*(self.prompt(s) for s in samples), strict=True)
        rows = [
            (p, self.answer(s, a))
            for answered in answers
            if answered
            for p, s, a in zip(prompts, samples, answered, strict=True)
        ] or [(p, []) for p in prompts]
        blank = self.processor.tokenizer.pad_token_id
        inputs = {
            "input_ids": padded([p + a for p, a in rows], blank, left),
            "attention_mask": padded([[1] * (len(p) + len(a)) for p, a in rows], 0, left),
            "completion_mask": padded([[0] * len(p) + [1] * len(a) for p, a in rows], 0, left),
        }
        for pixels, counts in (("pixel_values", "image_tokens"), ("reference_pixel_values", "reference_tokens")):
            if pixels in parts[0]:
                inputs |= {
                    pixels: torch.cat([p[pixels] for p in parts]),
                    counts: torch.tensor([p[counts] for p in parts]),
                }
        if "facts" in parts[0]:
            facts = [f for p in parts for f in p["facts"]]
            inputs |= {
                "fact_ids": padded(facts, blank),
                "fact_mask": padded([[1] * len(f) for f in facts], 0),
                "fact_counts": torch.tensor([len(p["facts"]) for p in parts]),
            }
        return inputs


def padded(rows: Sequence[list[int]], blank: int, left: bool = False) -> Tensor:
    """Rows of unequal length -> (rows, longest) int64."""
    longest = max(map(len, rows))
    gaps = [[blank] * (longest - len(r)) for r in rows]
    return torch.tensor([g + r if left else r + g for r, g in zip(rows, gaps, strict=True)])


def picture(image: Image) -> Pil.Image:
    """Pillow's image. Raises ImageError."""
    return Pil.fromarray(load_rgb(image.file))


def refuse_too_long(
    encoder: PromptEncoder, samples: Sequence[SageSample], answers: Sequence[Sequence[str]], limit: int
) -> None:
    """Raises InputError when a prompt with its longest answer exceeds `limit` tokens: cutting it would take image
    tokens or the end of the answer. answers: those of each sample."""
    lengths = [
        encoder.length(s) + max(len(encoder.answer(s, a)) for a in given)
        for s, given in zip(samples, answers, strict=True)
    ]
    over = [n for n in lengths if n > limit]
    if not over:
        return
    longest = samples[lengths.index(max(over))]
    images = sum(encoder.image_tokens(i) for i in longest.shown)
    raise InputError(
        f"{len(over)} of {len(samples)} samples are longer than {limit} tokens, the longest is question"
        f" {longest.question_id} with {max(over)}, {images} of them of images: a larger --max-length (if"
        " the model's context has room), fewer --tiles, or leave these questions out"
    )
