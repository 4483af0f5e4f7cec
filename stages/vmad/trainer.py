"""The loop that trains VMAD: transformers' Trainer with our losses."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from stages.datasets.manifest import Image
from stages.training.runs import STATE, SmallStates, run_trainer
from stages.vmad.build import new_model
from stages.vmad.checkpoint import save_vmad
from stages.vmad.data import Sample, TrainingSet, collate
from stages.vmad.loss import PARTS
from stages.vmad.memory import choose_memory, remember
from stages.vmad.train import FinetuneVmadConfig, check


class VmadTrainer(SmallStates, Trainer):
    """Logs the parts of Eq. 6 and 7 beside the loss, each averaged over the batches, of all processes, that have it."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.parts = torch.zeros(len(PARTS), 2, device=self.args.device)  # sum, and how many batches

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        found = model(**inputs)
        for n, name in enumerate(PARTS):
            if name in found:
                self.parts[n] += torch.stack([found[name].float(), torch.ones_like(found[name]).float()])
        return (found["loss"], None) if return_outputs else found["loss"]

    def log(self, logs, *more):
        if "loss" in logs:
            sums = self.accelerator.reduce(self.parts, "sum").tolist()
            logs |= {name: total / count for name, (total, count) in zip(PARTS, sums, strict=True) if count}
            self.parts.zero_()
        super().log(logs, *more)


def fit(
    config: FinetuneVmadConfig,
    images: Sequence[Image],
    samples: Sequence[Sample],
    saved: Path | None,
    say: Callable[[str], None],
    device: str,
    precision: str,
) -> tuple[VmadTrainer, Callable[[Path], None]]:
    """Train from a saved state, or from the start; (the trainer at its end, what writes the checkpoint)."""
    revisions = (config.llava_revision, config.sam_revision)
    torch.manual_seed(config.seed)
    model, text = new_model(
        config.llava,
        config.sam,
        config.settings(),
        config.weights(),
        revisions,
        torch.bfloat16 if precision == "bf16" else torch.float32,
    )
    keywords = arguments(config, len(samples), device, precision)
    model.to(keywords.device)
    if config.checkpoint_activations:
        model.recompute_activations()
    chosen = choose_memory(images, config.memory, config.seed)
    if model.dssl:
        say(f"memory: {sum(map(len, chosen.values()))} images of {len(chosen)} classes")
        model.memory = remember(chosen, model, text, config.drawn)
    data = TrainingSet(samples, text, model.look, {name: n for n, name in enumerate(chosen)})
    trainer = VmadTrainer(model=model, args=keywords, train_dataset=data, data_collator=partial(collate, pad=text.pad))
    run_trainer(trainer, saved, say, config.out)
    return trainer, lambda folder: save_vmad(model, text, folder, config.llava, config.sam, revisions)


def arguments(config: FinetuneVmadConfig, n: int, device: str, precision: str) -> TrainingArguments:
    """n: samples."""
    from math import ceil

    steps = ceil(ceil(n / config.batch_size) * config.epochs)
    found = TrainingArguments(
        output_dir=str(config.out / STATE),
        per_device_train_batch_size=config.micro_batch,
        gradient_accumulation_steps=check(config),
        num_train_epochs=config.epochs,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        weight_decay=config.weight_decay,
        max_grad_norm=config.clip,
        optim="adamw_torch",
        bf16=precision == "bf16",
        use_cpu=device == "cpu",
        seed=config.seed,
        data_seed=config.seed,
        logging_steps=max(steps // 200, 1),
        logging_first_step=True,
        save_strategy="steps",
        save_steps=config.save_steps,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=config.workers,
        dataloader_pin_memory=device != "cpu",
        label_names=["labels"],
        ddp_find_unused_parameters=True,
    )  # a batch of questions alone has no mask and trains no decoder
    found._n_gpu = min(found.n_gpu, 1)  # one process, one GPU
    return found
