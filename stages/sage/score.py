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
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from stages.artifacts.tables import ANSWERS
from stages.artifacts.writer import Artifact, Spec, Summary
from stages.base.config import RunOptions, argument, named_paths, option, require_positive
from stages.base.errors import ImageError, InputError
from stages.base.prompts import load_prompt
from stages.base.seeds import source_fingerprint
from stages.datasets.files import look_at
from stages.datasets.manifest import read_manifest
from stages.questions import answering
from stages.questions import yes_or_no as answers
from stages.questions.table import Question, read_questions
from stages.sage.checkpoint import check_trained
from stages.sage.config import check
from stages.vlm.models import require_known

if TYPE_CHECKING:
    from stages.sage.data import Asked
    from stages.sage.scoring import Answering

WAYS = ("generate", "likelihood")
FINAL = {"retry": False}  # greedy replies and likelihoods: the same command would give them again


@dataclass(frozen=True, kw_only=True)
class ScoreSageConfig:
    manifest: Path = argument("the images: manifest artifact, a folder of them, or a Parquet file")
    questions: Path = option("the questions about them: artifact or Parquet file")
    checkpoint: Path = option("what finetune-mllm --method sage-sfe or sage-edpo wrote")
    out: Path = option("where the answers go")
    facts: Path | None = option("captions of the test images, their fact sentences; as in training", None)
    method: str = option("sage", "sage")
    name: str = option("what tables call this run; by default sage-edpo/1-shot and the like", "")
    base: str = option("where the base model lies, if not where it was trained", "")
    shots: int = option("1: compared with the reference image; 0: zero-shot, the test image alone", 1)
    choose: str = option("generate (the reply is read) or likelihood (the choice with the likeliest words)", "generate")
    max_tokens: int = option("longest reply, tokens", 256)
    batch_size: int = option("questions per forward pass of --choose generate", 8)
    precision: str = option("fp32, bf16, or auto = bf16 where the processor has it", "auto")
    device: str = option("auto, cpu or cuda", "auto")
    root: Path | None = option("where the manifest's paths start, if not where it was indexed", None)
    seed: int = option("of the order in which ranked choices are shown", 0)


def run(config: ScoreSageConfig, options: RunOptions) -> Summary:
    """Answer every question. A question without facts, reference or readable image is a row with `error`; so is a
    prompt that leaves no room for the answer, and a reply that names no option; these two are final.

    Raises:
        InputError: unusable settings, questions about other images, no checkpoint or no base model.
    """
    from stages.training.torch_setup import prepare_torch, resolved_precision

    require_positive(config, "max_tokens", "batch_size")
    if config.base:
        require_known(config.base, "--base")
    if config.choose not in WAYS:
        raise InputError(f"--choose {config.choose}: expected {' or '.join(WAYS)}")
    _, settings, record = check_trained(config.checkpoint, config.base)
    settings = replace(settings, shots=config.shots)
    check(settings)
    device, precision = resolved_precision(config.device, config.precision)
    prepare_torch()
    from stages.sage.checkpoint import fingerprint, load_sage
    from stages.sage.data import PLAIN, Asked

    questions, manifest = read_questions(config.questions), read_manifest(config.manifest, config.root)
    asked = Asked(questions, manifest, config.facts, settings)
    how = "" if config.choose == "generate" else f"+{config.choose}"
    method = config.name or f"sage-{record['stage']}/{config.shots}-shot{how}"
    prompts = ("sage/attention", "sage/text", *PLAIN.values(), answering.OPTIONS)
    files = look_at(config.out, options.quiet, images=asked.watched)
    spec = Spec(
        "score",
        {
            "method": method,
            "weights": fingerprint(config.checkpoint, config.base),
            "shots": config.shots,
            "choose": config.choose,
            "max_tokens": config.max_tokens,
            "precision": precision,
            "prompts": [load_prompt(p).fingerprint for p in prompts],
            "parser": [source_fingerprint(Path(m.__file__)) for m in (answers, answering)],
        },
        asked.inputs | {"image files": files.images},
        config.seed,
        {"model": asdict(settings) | {"stage": record["stage"], "base": record["weights"], "choose": config.choose}},
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
            from stages.sage.scoring import Answering

            dtype = "bfloat16" if precision == "bf16" else "float32"
            loaded = load_sage(config.checkpoint, config.base, dtype, settings=settings)
            artifact.ran_on = f"{device} {precision}"
            parsed: Counter = Counter()
            for row in answered(Answering(loaded, device, config.max_tokens), asked, todo, method, config):
                parsed[row.get("parsed") or ("failed" if row.get("error") else "chosen or in words")] += 1
                artifact.write(row)
            artifact.progress.say("answers: " + ", ".join(f"{n} {how}" for how, n in parsed.most_common()))
    return artifact.summary


def answered(
    model: "Answering", asked: "Asked", questions: Sequence[Question], method: str, config: ScoreSageConfig
) -> Iterator[dict]:
    """Rows of ANSWERS, in batches."""
    ready = []
    for question in questions:
        try:
            text, order = answering.shown(question, config.seed)
            if config.choose == "likelihood":
                text, order = question.question, tuple(range(len(question.choices)))
                if not order:
                    raise InputError("no choices to weigh: an open question needs --choose generate")
            sample = asked.sample(question, text)
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


def _batch(model: "Answering", ready: list[tuple], method: str, config: ScoreSageConfig) -> Iterator[dict]:
    """Rows of one batch; one by one where an image cannot be read or memory runs out."""
    import torch

    started = time.monotonic()
    try:
        if config.choose == "generate":
            said = [{"response": text} for text in model.replies([sample for _, sample, _ in ready])]
        else:
            ((question, sample, _),) = ready
            values, tokens = model.likelihoods(sample, question.choices)
            said = [{"probabilities": dict(zip(answering.LETTERS, values, strict=False)), "tokens": tokens}]
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
    for (question, _, order), found in zip(ready, said, strict=True):
        row = answering.row(question, method, order, seconds=seconds, **found)
        yield row | (FINAL if "error" in row else {})
