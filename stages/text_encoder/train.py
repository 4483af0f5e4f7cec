"""Contrastive fine-tuning of one text encoder per task (VID-AD, sections 4.3 and 5.1).

A killed run goes on within a task from its last saved state, on a CPU to the very same weights.
"""

import copy
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean as mean

from stages.training.prepared import torch

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from stages.artifacts.files import make_folder
from stages.artifacts.paths import below
from stages.artifacts.reader import COMPLETE, fingerprint, read_table
from stages.artifacts.tables import ENCODERS, NEGATIVES
from stages.artifacts.writer import Artifact, Spec, Summary, parse_shard
from stages.base.config import RunOptions, named_paths
from stages.base.errors import InputError
from stages.base.seeds import row_seed
from stages.datasets.manifest import Task, by_task, read_manifest
from stages.text_encoder.config import TrainEncoderConfig, encoder_fingerprint
from stages.text_encoder.loss import nt_xent
from stages.text_encoder.model import load_encoder, longest_text, mean_pool, save_encoder
from stages.training.distributed import spread, world
from stages.training.runs import STATE, forget, last_saved, put_in_place, recorded_key, require_current, stop_asked
from stages.training.torch_setup import resolved_precision
from stages.training.trained import folder_fingerprint, lost_checkpoints
from stages.training.trainer import StepsCallback, TimedSaving, TrainableOnlyCheckpoints, one_gpu

FOLDER = "_encoders"  # below the artifact; readers of Parquet pass over names with an underscore


@dataclass(frozen=True)
class Pair:
    """One training row: token ids of a normal caption and of its contradiction."""

    text: list[int]
    negative: list[int]


def run(config: TrainEncoderConfig, options: RunOptions) -> Summary | None:
    """Train one encoder per task; a task without any usable negative becomes a row with `error`. Under torchrun every
    process trains its share of the tasks; the one that ends last returns the summary.

    Raises:
        InputError: a setting without sense, no such device, nothing that can be loaded as --encoder, or negatives of
            other images than the manifest's; all before anything is written.
    """
    config.check()
    one_of_several = world() > 1
    options = spread(options)
    device, precision = resolved_precision(config.device, config.precision)
    manifest = read_manifest(config.manifest)
    table = read_table(config.negatives, NEGATIVES)
    rows = [r for r in table.to_pylist() if r["error"] is None]
    tasks = _rows_of_tasks(rows, manifest.images, config.negatives)
    spec = _spec(config, precision, {"negatives": fingerprint(table, NEGATIVES), "manifest": manifest.fingerprint})
    lost = lost_checkpoints(config.out, spec.key, options.overwrite)
    finished = not lost and recorded_key(config.out / COMPLETE) == spec.key
    base = None if finished else load_encoder(config.encoder)  # before the artifact: it may be refused
    with Artifact(config.out, ENCODERS, spec, list(tasks), options, 1, lost) as artifact:
        _remove_leftovers(config.out / FOLDER, options.shard)
        artifact.ran_on = f"{device} {precision}"
        for task in artifact.pending:
            row = dict(zip(ENCODERS.key, task, strict=True)) | {"n": len(tasks[task])}
            if not tasks[task]:
                artifact.write(row | {"error": "no caption with a valid contradiction to train on", "retry": False})
                continue
            base = base or load_encoder(config.encoder)
            row |= _train_task(tasks[task], task, copy.deepcopy(base[0]), base[1], config, artifact)
            artifact.write(row)
            forget(_states(config.out, spec, task))
            artifact.progress.say(
                f"{_named(task)}: loss {row['first_loss']:.3f} -> {row['last_loss']:.3f} in {row['seconds']:.0f} s"
            )
    if not artifact.summary.complete:
        return None if one_of_several else artifact.summary
    forget(config.out / STATE)
    return artifact.summary


def _spec(config: TrainEncoderConfig, precision: str, inputs: dict[str, str]) -> Spec:
    names = ("epochs", "batch_size", "learning_rate", "weight_decay", "max_grad_norm")
    return Spec(
        "train-encoder",
        {"temperature": config.loss_temperature}
        | {n: getattr(config, n) for n in names}
        | {"precision": precision, "encoder": config.encoder, "weights": encoder_fingerprint(config.encoder)},
        inputs,
        config.seed,
        paths=named_paths(config),
    )


def _named(task: Task) -> str:
    return " / ".join(filter(None, task))


def _states(out: Path, spec: Spec, task: Task) -> Path:
    """Where a task's states are saved while it trains. The key keeps those of other settings apart."""
    return below(out / STATE / spec.key, *task)


def _work_name(shard: str) -> str:
    """Of the folder in which a shard makes its encoders: one at a time."""
    i, n = parse_shard(shard)
    return f".tmp-{i:05d}-of-{n:05d}"


def _remove_leftovers(folder: Path, shard: str) -> None:
    """Take away what killed runs were making: those of this shard, which is locked by us, and of other numbers of
    shards, which do not run at the same time. Those of our neighbours may be in use."""
    own = _work_name(shard)
    for left in folder.glob(".tmp-*"):
        if left.name == own or left.name.rpartition("-of-")[2] != own.rpartition("-of-")[2]:
            shutil.rmtree(left, ignore_errors=True)


def _rows_of_tasks(rows: list[dict], images: tuple, path: Path) -> dict[Task, list[dict]]:
    task_of = {image.image_id: task for task, group in by_task(images).items() for image in group}
    strangers = [r["image_id"] for r in rows if r["image_id"] not in task_of]
    if rows and len(strangers) == len(rows):
        raise InputError(f"{path}: none of its images is in the manifest (first: {strangers[0]})")
    tasks: dict[Task, list[dict]] = {task: [] for task in by_task(images)}
    for row in rows:
        if row["image_id"] in task_of:
            tasks[task_of[row["image_id"]]].append(row)
    return tasks


def _train_task(
    rows: list[dict],
    task: Task,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    config: TrainEncoderConfig,
    artifact: Artifact,
) -> dict:
    """Train `model` on one task's captions and save it; returns the columns of its ENCODERS row.

    Raises:
        KeyboardInterrupt: a stop was asked for; the state is saved.
        InputError: another command has replaced the artifact.
    """
    started = time.monotonic()
    pairs = [
        Pair(*tokenizer([r["text"], r["negative"]], truncation=True, max_length=longest_text(model))["input_ids"])
        for r in sorted(rows, key=lambda r: (r["image_id"], r["sample"]))
    ]
    states = _states(config.out, artifact.spec, task)
    saved = last_saved(states)
    if saved:
        artifact.progress.say(f"{_named(task)}: going on from step {saved.name.rpartition('-')[2]}")
    with stop_asked() as asked:
        callbacks = [
            TimedSaving(asked, lambda: require_current(config.out, artifact.spec)),
            StepsCallback(artifact.progress, _named(task)),
        ]
        seed = row_seed(config.seed, *task) % 2**31
        trainer = trainer_of(model, tokenizer, pairs, states, seed, config, callbacks)
        trainer.train(resume_from_checkpoint=str(saved) if saved else None)
        if asked():
            raise KeyboardInterrupt
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]  # one a step
    epoch = len(losses) // config.epochs
    target = below(config.out / FOLDER, *task)
    work = config.out / FOLDER / _work_name(artifact.options.shard)
    _save(model.float(), tokenizer, target, work, artifact)
    return {
        "path": target.relative_to(config.out).as_posix(),
        "weights": folder_fingerprint(target),
        "steps": trainer.state.global_step,
        "first_loss": mean(losses[:epoch]),
        "last_loss": mean(losses[-epoch:]),
        "seconds": time.monotonic() - started,
    }


def _save(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, target: Path, work: Path, artifact: Artifact
) -> None:
    """Wholly or not at all. Raises InputError where the artifact is no longer ours."""
    try:
        make_folder(work)
        save_encoder(model, tokenizer, work)
        put_in_place(work, target, artifact)
    finally:
        shutil.rmtree(work, ignore_errors=True)


class ContrastiveTrainer(TrainableOnlyCheckpoints, Trainer):
    """The loss is Eq. 4. temperature: tau."""

    def __init__(self, temperature: float, **keywords) -> None:
        super().__init__(**keywords)
        self.temperature = temperature

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss = contrastive_loss(model, inputs, self.temperature)
        return (loss, None) if return_outputs else loss


def trainer_of(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: list[Pair],
    states: Path,
    seed: int,
    config: TrainEncoderConfig,
    callbacks: list[TrainerCallback],
) -> Trainer:
    """transformers' Trainer with Adam as the paper has it (L2 in the gradient, not AdamW's decoupled decay); it brings
    devices, mixed precision and clipping. Several GPUs: see `spread`."""
    device, precision = resolved_precision(config.device, config.precision)
    arguments = TrainingArguments(
        output_dir=str(states),
        per_device_train_batch_size=config.batch_size,
        num_train_epochs=config.epochs,
        learning_rate=config.learning_rate,
        lr_scheduler_type="constant",
        max_grad_norm=config.max_grad_norm,
        bf16=precision == "bf16",
        use_cpu=device == "cpu",
        seed=seed,
        data_seed=seed,
        save_strategy="no",
        save_total_limit=1,  # TimedSaving says when
        logging_steps=1,
        logging_nan_inf_filter=False,  # epoch means of a resumed run are those of a whole one
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    adam = torch.optim.Adam(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    trainer = ContrastiveTrainer(
        config.loss_temperature,
        model=model,
        args=one_gpu(arguments),
        train_dataset=pairs,
        data_collator=Collator(tokenizer.pad_token_id),
        optimizers=(adam, torch.optim.lr_scheduler.ConstantLR(adam, 1.0)),
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


@dataclass(frozen=True)
class Collator:
    """Pairs -> one batch of 3B texts [anchors; positives; negatives], padded to its own longest."""

    pad_token_id: int

    def __call__(self, pairs: list[Pair]) -> dict[str, Tensor]:
        texts = [p.text for p in pairs] * 2 + [p.negative for p in pairs]
        length = max(map(len, texts))
        ids = torch.full((len(texts), length), self.pad_token_id)
        for i, text in enumerate(texts):
            ids[i, : len(text)] = torch.tensor(text)
        mask = torch.tensor([[1] * len(t) + [0] * (length - len(t)) for t in texts])
        return {"input_ids": ids, "attention_mask": mask}


def contrastive_loss(model: PreTrainedModel, inputs: dict[str, Tensor], temperature: float) -> Tensor:
    """Eq. 2 to Eq. 5 with one forward pass for the three encodings: dropout draws its mask for every row of the
    batch, so that anchor and positive, though the same text, are independent draws."""
    hidden = model(**inputs).last_hidden_state
    anchor, positive, negative = mean_pool(hidden, inputs["attention_mask"]).chunk(3)  # Eq. 2, Eq. 3
    return nt_xent(anchor, positive, negative, temperature)
