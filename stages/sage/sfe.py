"""Self-guided fact enhancement: fine-tuning on the best answers (section 3.2, Eq. 8).

The loop is transformers' Trainer. The loss is the mean over the answers' tokens of a whole batch, however it is cut
into micro-batches and processes; questions, images and facts are read, not learned.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from stages.training.prepared import torch

from transformers import Trainer, TrainingArguments

from stages.artifacts.writer import Spec, Summary
from stages.base.config import RunOptions, named_paths
from stages.datasets.files import look_at
from stages.datasets.manifest import read_manifest
from stages.questions.table import read_questions
from stages.sage.checkpoint import base_fingerprint, load_processor, merge, prepare, save
from stages.sage.config import SAME_RESULT, SfeConfig, hub_id
from stages.sage.data import (
    IGNORED,
    PromptEncoder,
    QuestionSet,
    SageSample,
    best_answer,
    refuse_too_long,
)
from stages.sage.learnable import learnable, left_out_said
from stages.sage.model import check_heads
from stages.sage.recipes import counted, filled
from stages.sage.train import (
    fit,
    frozen_dtype,
    planned,
    prompt_texts,
    read_weights_once,
    sharded_in_float32,
    training_arguments,
)
from stages.training import distributed
from stages.training.runs import run_training
from stages.training.saved_models import context_length
from stages.training.torch_setup import resolved_precision
from stages.training.trainer import TrainableOnlyCheckpoints


def run(config: SfeConfig, options: RunOptions) -> Summary | None:
    """Train on every question but those whose row, image or facts have an `error`, or whose images cannot be decoded:
    they are left out and counted.
    Under torchrun every process runs this; only the first opens the artifact and returns a summary.

    Raises:
        InputError: unusable settings, a question without answer, image, reference or facts, samples that are too long,
            or no such base model.
    """
    config.check()
    device, precision = resolved_precision(config.device, config.precision)
    with distributed.process_group(device):
        return _run(config, options, device, precision)


def _run(config: SfeConfig, options: RunOptions, device: str, precision: str) -> Summary | None:
    settings, config = config.settings(), filled(config)
    manifest, questions = read_manifest(config.manifest, config.root), read_questions(config.questions)
    question_set = QuestionSet(questions, manifest, config.facts, settings)
    rows, samples, left_out = learnable(question_set, questions, options.quiet)
    answers = [best_answer(q) for q in rows]
    config = counted(config, len(samples))
    base = hub_id(config.base)
    weights = distributed.broadcast_from_main(lambda: base_fingerprint(base, config.revision))
    processor, model_config = load_processor(base, config.revision, settings.tiles)
    check_heads(settings, model_config.get_text_config().hidden_size)
    encoder = PromptEncoder(processor, settings)
    refuse_too_long(encoder, samples, [(a,) for a in answers], context_length(model_config, config.max_length))
    own = asdict(settings) | {n: getattr(config, n) for n in (*SAME_RESULT, "method")}
    files = distributed.broadcast_from_main(lambda: look_at(config.out, options.quiet, images=question_set.watched))
    spec = Spec(
        "finetune-mllm",
        own | {"precision": precision, "base": base, "weights": weights, "prompts": prompt_texts()},
        question_set.inputs | {"image files": files.images},
        config.seed,
        {"left out": left_out, "recipe": config.recipe},
        named_paths(config),
    )
    record = {"stage": "sfe", "base": base, "revision": config.revision, "weights": weights}

    def train(saved: Path | None, say: Callable[[str], None]) -> tuple[SfeTrainer, Callable[[Path], None]]:
        if left_out:
            say(left_out_said(left_out))
        say(planned(config, len(samples)))
        read_weights_once(config)
        model = prepare(
            base, config.revision, settings, config.seed, frozen_dtype(config, bool(settings.lora_rank), precision)
        )
        trainer = sfe_trainer(
            model, encoder, samples, answers, training_arguments(config, len(samples), device, precision)
        )
        state = fit(trainer, saved, say, config)
        return trainer, lambda folder: save(model, state, processor, folder, record, settings)

    summary = run_training(config.out, spec, question_set.datasets, len(samples), options, (), train, files=files)
    if config.merged:
        distributed.broadcast_from_main(lambda: merge(config.out, config.merged, base))
    return summary


class SfeTrainer(TrainableOnlyCheckpoints, Trainer):
    """Eq. 8 is the model's own loss."""


def sfe_trainer(
    model: torch.nn.Module,
    encoder: PromptEncoder,
    samples: Sequence[SageSample],
    answers: Sequence[str],
    keywords: dict,
) -> SfeTrainer:
    """keywords: see `train.training_arguments`."""

    def collate(rows: list[tuple[SageSample, str]]) -> dict:
        samples, answers = zip(*rows, strict=True)
        inputs = encoder.batch(samples, [answers])
        learned = inputs.pop("completion_mask").bool()
        return inputs | {"labels": inputs["input_ids"].masked_fill(~learned, IGNORED)}

    arguments = sharded_in_float32(TrainingArguments(**keywords))
    data = list(zip(samples, answers, strict=True))
    return SfeTrainer(model=model, args=arguments, train_dataset=data, data_collator=collate)
