"""Contrastive fine-tuning of one text encoder per task (VID-AD, sections 4.3 and 5.1).

The unit of resuming is the task: a checkpoint inside one would write weights and two Adam moments, more
bytes than its 80 steps of training are worth.
"""

import copy
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.artifacts.files import make_folder
from stages.artifacts.reader import fingerprint, read_table
from stages.artifacts.tables import ENCODERS, NEGATIVES
from stages.artifacts.writer import Artifact, Spec, Summary
from stages.datasets.manifest import Task, by_task, read_manifest
from stages.errors import InputError
from stages.seeds import row_seed
from stages.settings import RunOptions, argument, named_paths, option
from stages.text_encoder.loss import nt_xent
from stages.text_encoder.model import encoder_fingerprint, load_encoder, longest, mean_pool, save_encoder
from stages.torch_setup import device_and_precision

FOLDER = "_encoders"       # below the artifact; readers of Parquet pass over names with an underscore


@dataclass(frozen=True, kw_only=True)
class TrainEncoderConfig:
    negatives: Path = argument("captions with their contradictions, from rewrite-negatives")
    manifest: Path = option("which image belongs to which task")
    out: Path = option("the table of encoders; checkpoints go below it")
    encoder: str = option("minilm (packaged), a hub id such as the paper's bert-base-uncased, or a"
                          " directory", "minilm")
    epochs: int = option("passes over the task's captions", 20)
    batch_size: int = option("captions per step, each encoded three times", 16)
    learning_rate: float = option("of Adam, constant", 2e-5)
    weight_decay: float = option("L2 term in Adam's gradient", 1e-5)
    temperature: float = option("tau of Eq. 4", 0.5)
    max_grad_norm: float = option("gradient clipping", 1.0)
    precision: str = option("fp32, bf16, or auto = bf16 where the processor has it", "auto")
    device: str = option("auto, cpu or cuda", "auto")
    seed: int = option("of data order and dropout", 0)


@dataclass(frozen=True)
class Pair:
    """One training row: token ids of a normal caption and of its contradiction."""

    text: list[int]
    negative: list[int]


def run(config: TrainEncoderConfig, options: RunOptions) -> Summary:
    """Train one encoder per task; a task without any usable negative becomes a row with `error`."""
    manifest = read_manifest(config.manifest)
    table = read_table(config.negatives, NEGATIVES)
    rows = [r for r in table.to_pylist() if r["error"] is None]
    tasks = _rows_of_tasks(rows, manifest.images, config.negatives)
    spec = _spec(config, {"negatives": fingerprint(table, NEGATIVES), "manifest": manifest.fingerprint})
    with Artifact(config.out, ENCODERS, spec, list(tasks), options, flush_rows=1) as artifact:
        if artifact.pending:
            base = load_encoder(config.encoder)
            artifact.ran_on = " ".join(device_and_precision(config.device, config.precision))
        for task in artifact.pending:
            row = dict(zip(ENCODERS.key, task, strict=True)) | {"n": len(tasks[task])}
            if not tasks[task]:
                artifact.write(row | {"error": "no caption with a valid contradiction to train on"})
                continue
            row |= train_task(tasks[task], task, copy.deepcopy(base[0]), base[1], config)
            artifact.write(row)
            artifact.progress.say(f"{' / '.join(filter(None, task))}: loss {row['first_loss']:.3f} ->"
                                  f" {row['last_loss']:.3f} in {row['seconds']:.0f} s")
    return artifact.summary


def _spec(config: TrainEncoderConfig, inputs: dict[str, str]) -> Spec:
    if config.precision not in ("auto", "fp32", "bf16"):
        raise InputError(f"--precision {config.precision}: expected auto, fp32 or bf16")
    names = ("epochs", "batch_size", "learning_rate", "weight_decay", "temperature", "max_grad_norm",
             "precision")
    return Spec("train-encoder", {n: getattr(config, n) for n in names} | {
        "encoder": config.encoder, "weights": encoder_fingerprint(config.encoder)}, inputs, config.seed,
        paths=named_paths(config))


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


def train_task(rows: list[dict], task: Task, model: Any, tokenizer: Any,
               config: TrainEncoderConfig) -> dict:
    """Train `model` on one task's captions and save it; returns the columns of its ENCODERS row."""
    started = time.monotonic()
    pairs = [Pair(*tokenizer([r["text"], r["negative"]], truncation=True,
                             max_length=longest(model))["input_ids"])
             for r in sorted(rows, key=lambda r: (r["image_id"], r["sample"]))]
    folder = Path(FOLDER, *(part.replace("/", "_") for part in task[1:] if part))
    target = config.out / folder
    work = target.with_name(f".tmp-{os.getpid()}-{target.name}")
    make_folder(work)
    try:
        trainer = _trainer(model, tokenizer, pairs, work, row_seed(config.seed, *task) % 2 ** 31, config)
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        save_encoder(model.float(), tokenizer, work)
        shutil.rmtree(target, ignore_errors=True)
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return {"path": folder.as_posix(), "steps": trainer.state.global_step, "first_loss": losses[0],
            "last_loss": losses[-1], "seconds": time.monotonic() - started}


def _trainer(model: Any, tokenizer: Any, pairs: list[Pair], folder: Path, seed: int,
             config: TrainEncoderConfig) -> Any:
    """transformers' Trainer with Eq. 4 as its loss and Adam as the paper has it (L2 in the gradient, not
    AdamW's decoupled decay); it brings devices, mixed precision and clipping. Several GPUs: one --shard each."""
    import torch
    from transformers import Trainer, TrainingArguments
    from transformers.trainer_callback import PrinterCallback

    device, precision = device_and_precision(config.device, config.precision)

    class ContrastiveTrainer(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            loss = contrastive_loss(model, inputs, config.temperature)
            return (loss, None) if return_outputs else loss

    arguments = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=config.batch_size,
        num_train_epochs=config.epochs, learning_rate=config.learning_rate, lr_scheduler_type="constant",
        max_grad_norm=config.max_grad_norm, bf16=precision == "bf16", use_cpu=device == "cpu",
        seed=seed, data_seed=seed, logging_strategy="epoch", save_strategy="no", report_to="none", disable_tqdm=True,
        remove_unused_columns=False, dataloader_pin_memory=False)
    arguments._n_gpu = min(arguments.n_gpu, 1)      # Trainer would multiply the batch by the GPUs it sees
    adam = torch.optim.Adam(model.parameters(), lr=config.learning_rate,
                            weight_decay=config.weight_decay, fused=True)
    trainer = ContrastiveTrainer(
        model=model, args=arguments, train_dataset=pairs, data_collator=Collator(tokenizer.pad_token_id),
        optimizers=(adam, torch.optim.lr_scheduler.ConstantLR(adam, 1.0)))
    trainer.remove_callback(PrinterCallback)
    return trainer


@dataclass(frozen=True)
class Collator:
    """Pairs -> one batch of 3B texts [anchors; positives; negatives], padded to its own longest."""

    pad_token_id: int

    def __call__(self, pairs: list[Pair]) -> dict:
        import torch

        texts = [p.text for p in pairs] * 2 + [p.negative for p in pairs]
        length = max(map(len, texts))
        ids = torch.full((len(texts), length), self.pad_token_id)
        for i, text in enumerate(texts):
            ids[i, :len(text)] = torch.tensor(text)
        mask = torch.tensor([[1] * len(t) + [0] * (length - len(t)) for t in texts])
        return {"input_ids": ids, "attention_mask": mask}


def contrastive_loss(model: Any, inputs: dict, temperature: float) -> Any:
    """Eq. 2-5 with one forward pass for the three encodings: dropout draws its mask for every row of the
    batch, so that anchor and positive, though the same text, are independent draws."""
    hidden = model(**inputs).last_hidden_state
    anchor, positive, negative = mean_pool(hidden, inputs["attention_mask"]).chunk(3)
    return nt_xent(anchor, positive, negative, temperature)
