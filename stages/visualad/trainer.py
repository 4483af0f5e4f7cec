"""The loop that trains VisualAD: transformers' Trainer with our loss, optimiser and small saved states."""

from collections.abc import Callable
from math import ceil, cos, pi
from pathlib import Path
from typing import Any

import torch

from stages.training.distributed import share
from stages.training.runs import STATE, SmallStates
from stages.training.torch_setup import device_and_precision, tensorboard
from stages.visualad import checkpoint
from stages.visualad.backbone import load_backbone
from stages.visualad.config import Settings
from stages.visualad.data import Look, TrainingSet
from stages.visualad.loss import losses
from stages.visualad.model import VisualAD
from stages.visualad.train import PARTS, TrainVisualadConfig

LEAST_RATE = 1e-4  # released code: where the cosine schedule ends, and the rate of SCA, SAF and norm


def fit(images: tuple, settings: Settings, config: TrainVisualadConfig, saved: Path | None) -> tuple[Any, Callable]:
    """Train from a saved state, or from the start; (the trainer at its end, what writes the checkpoint)."""
    torch.manual_seed(config.seed)
    backbone, mean, deviation = load_backbone(config.backbone, config.revision, config.checkpoint_activations)
    look = Look(settings.size, tuple(mean), tuple(deviation))
    model = VisualAD(backbone, settings)
    trainer = trainer_of(model, TrainingSet(images, look), config)
    trainer.train(resume_from_checkpoint=str(saved) if saved else None)
    return trainer, lambda folder: checkpoint.save(model, folder, config.backbone, config.revision, look)


def trainer_of(model: VisualAD, data: TrainingSet, config: TrainVisualadConfig) -> Any:
    """transformers' Trainer with Eq. 13 as its loss, and the variant's optimiser and schedule."""
    from transformers import Trainer, TrainingArguments
    from transformers.trainer_callback import PrinterCallback

    device, precision = device_and_precision(config.device, config.precision)
    if precision == "bf16":
        model.backbone.in_bf16()

    class VisualadTrainer(SmallStates, Trainer):
        parts: dict[str, list[torch.Tensor]]

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            found = losses(model(inputs["pixels"]), inputs["masks"], inputs["labels"], config.variant)
            for name in PARTS:
                self.parts[name].append(found[name].detach())
            return (found["loss"], None) if return_outputs else found["loss"]

        def log(self, logs, *more):
            if "loss" in logs:
                means = {n: torch.stack(v).mean() for n, v in self.parts.items() if v}
                logs |= {n: float(v) for n, v in self.accelerator.reduce(means, "mean").items()}
                self.parts = {n: [] for n in PARTS}
            super().log(logs, *more)

    steps = ceil(len(data) / config.batch_size)
    arguments = TrainingArguments(
        output_dir=str(config.out / STATE),
        per_device_train_batch_size=share(config.batch_size),
        num_train_epochs=config.epochs,
        max_grad_norm=0,
        bf16=precision == "bf16",
        use_cpu=device == "cpu",
        seed=config.seed,
        data_seed=config.seed,
        logging_steps=max(steps * config.epochs // 200, 1),
        save_strategy="steps",
        save_steps=config.save_steps,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=config.workers,
        torch_compile=config.compile,
        dataloader_pin_memory=device != "cpu",
        label_names=["labels"],
        ddp_find_unused_parameters=False,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # one GPU a process
    optimiser, schedule = optimiser_of(model, config, steps)
    trainer = VisualadTrainer(
        model=model,
        args=arguments,
        train_dataset=data,
        optimizers=(optimiser, schedule),
        callbacks=tensorboard(config.out / "_tensorboard"),
    )
    trainer.parts = {n: [] for n in PARTS}
    trainer.remove_callback(PrinterCallback)
    return trainer


def optimiser_of(model: VisualAD, config: TrainVisualadConfig, steps: int) -> tuple[Any, Any]:
    """code: AdamW, the tokens at `learning_rate`, the rest at 1e-4, each token's gradient clipped to norm 1, cosine per
    epoch down to 1e-4. paper: Adam at one constant rate. steps: per epoch."""
    code = config.variant == "code"
    own = [p for p in (model.tokens, model.positions) if p.requires_grad]
    ours = {id(p) for p in own}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in ours]
    rest_rate = LEAST_RATE if code else config.learning_rate
    groups = [{"params": own, "lr": config.learning_rate}, {"params": rest, "lr": rest_rate}]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.01) if code else torch.optim.Adam(groups)
    if code:
        optimiser.register_step_pre_hook(lambda *_: clip_each(model.tokens))

    def factor(rate: float) -> Callable[[int], float]:
        def at(step: int) -> float:
            if not code:
                return 1.0
            least = min(LEAST_RATE, rate)
            return (least + (rate - least) * (1 + cos(pi * (step // steps) / config.epochs)) / 2) / rate

        return at

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, [factor(g["lr"]) for g in groups])
    return optimiser, schedule


def clip_each(tokens: torch.nn.Parameter) -> None:
    """Scale each row's gradient to norm 1 at most."""
    if tokens.grad is not None:
        tokens.grad *= (1 / (tokens.grad.norm(dim=1, keepdim=True) + 1e-6)).clamp(max=1)
