"""Answering questions with a trained SAGE, zero-shot or one-shot.

Two ways to choose. `generate` shows the choices as lettered options and reads the reply, as `vlm-qa` does with plain
models. `likelihood` asks as in training, without options, and takes the choice that the model would rather say: the
highest mean log-probability of its tokens and the end of the turn. The mean, because choices differ in length and a
sum would favour the shortest; the end of the turn counts, because a choice that begins another one is a different
answer only by where it ends.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from stages.training.prepared import torch

from torch import Tensor
from transformers import GenerationConfig

from stages.artifacts.tables import ANSWERS
from stages.artifacts.writer import Artifact, Spec, Summary
from stages.base.config import RunOptions, named_paths
from stages.base.errors import ImageError, InputError
from stages.base.prompts import load_prompt
from stages.base.seeds import source_fingerprint
from stages.datasets.files import look_at
from stages.datasets.manifest import read_manifest
from stages.questions import answering
from stages.questions import yes_or_no as answers
from stages.questions.table import Question, read_questions
from stages.sage.checkpoint import Loaded, fingerprint, load_plain, load_sage
from stages.sage.config import ScoreSageConfig
from stages.sage.data import PLAIN, PromptEncoder, QuestionSet, SageSample
from stages.sage.model import core_of, embedded
from stages.training.torch_setup import resolved_precision

FINAL = {"retry": False}  # greedy replies and likelihoods: the same command would give them again


def run(config: ScoreSageConfig, options: RunOptions) -> Summary:
    """Answer every question. A question without facts, reference or readable image is a row with `error`; so is a
    prompt that leaves no room for the answer, and a reply that names no option; these two are final.

    Raises:
        InputError: unusable settings, questions about other images, no checkpoint or no base model.
    """
    config.check()
    _, settings, record = config.start()
    settings = config.at_test(settings)
    device, precision = resolved_precision(config.device, config.precision)
    questions, manifest = read_questions(config.questions), read_manifest(config.manifest, config.root)
    question_set = QuestionSet(questions, manifest, config.facts, settings)
    how = "" if config.choose == "generate" else f"+{config.choose}"
    method = config.name or f"sage-{record['stage']}/{config.shots}-shot{how}"
    prompts = ("sage/attention", "sage/text", *PLAIN.values(), answering.OPTIONS)
    files = look_at(config.out, options.quiet, images=question_set.watched)
    weights = fingerprint(config.checkpoint, config.base)
    base = record.get("weights", weights)
    spec = Spec(
        "score",
        {
            "method": method,
            "weights": weights,
            "shots": config.shots,
            "unfused": config.unfused,
            "choose": config.choose,
            "max_tokens": config.max_tokens,
            "precision": precision,
            "prompts": [load_prompt(p).fingerprint for p in prompts],
            "parser": [source_fingerprint(Path(m.__file__)) for m in (answers, answering)],
        },
        question_set.inputs | {"image files": files.images},
        config.seed,
        {"model": asdict(settings) | {"stage": record["stage"], "base": base, "choose": config.choose}},
        named_paths(config),
    )
    rows = {q.question_id: q for q in questions.rows}
    with Artifact(config.out, ANSWERS, spec, [(i, method) for i in (*rows, *questions.failed)], options) as artifact:
        files.keep(config.out)
        for key in artifact.pending:
            if key[0] in questions.failed:
                error = questions.failed[key[0]]
                artifact.write({"question_id": key[0], "method": method, "error": error}, tried=False)
        todo = [rows[k[0]] for k in artifact.pending if k[0] in rows]
        if todo:
            dtype = "bfloat16" if precision == "bf16" else "float32"
            loaded = (
                load_sage(config.checkpoint, config.base, dtype, settings=settings)
                if config.checkpoint
                else load_plain(config.base, dtype, settings)
            )
            artifact.ran_on = f"{device} {precision}"
            parsed: Counter = Counter()
            for row in answered(Answering(loaded, device, config.max_tokens), question_set, todo, method, config):
                parsed[row.get("parsed") or ("failed" if row.get("error") else "chosen or in words")] += 1
                artifact.write(row)
            artifact.progress.say("answers: " + ", ".join(f"{n} {how}" for how, n in parsed.most_common()))
    return artifact.summary


class Answering:
    """A model on its device, with what turns samples into its inputs."""

    def __init__(self, loaded: Loaded, device: str, max_tokens: int) -> None:
        self.model = loaded.model.to(device)
        self.settings, self.device, self.max_tokens = loaded.settings, device, max_tokens
        self.encoder = PromptEncoder(loaded.processor, loaded.settings)
        self.context = self.model.config.get_text_config().max_position_embeddings
        old, tokenizer = self.model.generation_config, loaded.processor.tokenizer
        self.model.generation_config = GenerationConfig(  # without the checkpoint's own sampling defaults
            eos_token_id=old.eos_token_id or tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
        )

    def room(self, sample: SageSample, choices: Sequence[str] | None) -> int:
        """Tokens of the context that are left beside the prompt and its longest answer; below 0 it does not fit.
        choices: the answers, or None for a reply of up to max_tokens."""
        longest = max(len(self.encoder.answer(sample, c)) for c in choices) if choices else self.max_tokens
        return self.context - self.encoder.length(sample) - longest

    @torch.inference_mode()
    def replies(self, samples: Sequence[SageSample]) -> list[str]:
        """What the model says, greedy. Raises ImageError."""
        inputs = self._inputs(samples, ((),), left=True)
        inputs.pop("completion_mask")
        ready = embedded(core_of(self.model), inputs, self.settings)
        tokens = self.model.generate(
            **{n: ready[n] for n in ("inputs_embeds", "attention_mask", "position_ids") if n in ready},
            max_new_tokens=self.max_tokens,
            do_sample=False,
        )
        return [t.strip() for t in self.encoder.processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)]

    @torch.inference_mode()
    def likelihoods(self, sample: SageSample, choices: Sequence[str]) -> tuple[list[float], list[int]]:
        """(exp of the mean log-probability of each choice's tokens, the end of the turn included; their numbers).
        Raises ImageError."""
        sums, lengths = self.log_probabilities([sample], [[c] for c in choices])
        return (sums / lengths).exp().tolist(), lengths.tolist()

    @torch.inference_mode()
    def log_probabilities(
        self, samples: Sequence[SageSample], answers: Sequence[Sequence[str]]
    ) -> tuple[Tensor, Tensor]:
        """(sum of the log-probabilities of an answer's tokens, their number), both (S,), in the order of
        `PromptEncoder.batch`."""
        inputs = self._inputs(samples, answers)
        mask, ids = inputs.pop("completion_mask")[:, 1:], inputs["input_ids"][:, 1:]
        logits = self.model(**inputs, use_cache=False).logits[:, :-1]
        values = logits.float().log_softmax(-1).gather(-1, ids[..., None])[..., 0]
        return (values * mask).sum(1), mask.sum(1)

    def _inputs(
        self, samples: Sequence[SageSample], answers: Sequence[Sequence[str]], left: bool = False
    ) -> dict[str, Tensor]:
        return {n: t.to(self.device) for n, t in self.encoder.batch(samples, answers, left).items()}


def answered(
    model: Answering, question_set: QuestionSet, questions: Sequence[Question], method: str, config: ScoreSageConfig
) -> Iterator[dict]:
    """Rows of ANSWERS, in batches."""
    ready = []
    for question in questions:
        try:
            text, order = answering.asked(question, config.seed, config.choose)
            if config.choose == "likelihood":
                text, order = question.question, tuple(range(len(question.choices)))
                if not order:
                    raise InputError("no choices to weigh: an open question needs --choose generate")
            sample = question_set.sample(question, text)
            room = model.room(sample, question.choices if config.choose == "likelihood" else None)
        except InputError as e:  # only an image may be readable another time
            yield answering.row(question, method, (), error=str(e)) | {
                "retry": None if isinstance(e, ImageError) else False
            }
            continue
        if room < 0:
            yield (
                answering.row(
                    question,
                    method,
                    (),
                    error=f"the prompt and its answer exceed the model's context by"
                    f" {-room} tokens (fewer --tiles in training)",
                )
                | FINAL
            )
            continue
        ready.append((question, sample, order))
        if len(ready) == (1 if config.choose == "likelihood" else config.batch_size):
            yield from _batch(model, ready, method, config)
            ready = []
    if ready:
        yield from _batch(model, ready, method, config)


def _batch(model: Answering, ready: list[tuple], method: str, config: ScoreSageConfig) -> Iterator[dict]:
    """Rows of one batch; one by one where an image cannot be read or memory runs out."""
    started = time.monotonic()
    try:
        if config.choose != "likelihood":
            replies = [
                {"response": text, "prefix": config.choose == "prefix"}
                for text in model.replies([sample for _, sample, _ in ready])
            ]
        else:
            ((question, sample, _),) = ready
            values, tokens = model.likelihoods(sample, question.choices)
            replies = [{"probabilities": dict(zip(answering.LETTERS, values, strict=False)), "tokens": tokens}]
    except (InputError, torch.OutOfMemoryError) as e:
        torch.cuda.empty_cache()
        if len(ready) == 1:
            error = str(e) if isinstance(e, InputError) else "out of GPU memory on this question alone"
            yield answering.row(ready[0][0], method, (), error=error)
        else:
            for one in ready:
                yield from _batch(model, [one], method, config)
        return
    seconds = (time.monotonic() - started) / len(ready)
    for (question, _, order), reply in zip(ready, replies, strict=True):
        row = answering.row(question, method, order, seconds=seconds, **reply)
        yield row | (FINAL if "error" in row else {})
