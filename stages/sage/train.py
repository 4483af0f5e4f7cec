"""What SFE and E-DPO have in common: what transformers' Trainer makes of their options, and its run."""

import os
from collections.abc import Callable
from pathlib import Path

from stages.training.prepared import torch

from torch import Tensor
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import Trainer, TrainingArguments

from stages.base.errors import InputError
from stages.base.prompts import load_prompt
from stages.sage.config import SageTraining
from stages.sage.data import PLAIN
from stages.training.distributed import accumulation_steps
from stages.training.trainer import common_arguments, one_gpu, run_trainer, steps_of


def prompt_texts() -> dict[str, str]:
    """Fingerprints of the prompts that the model is trained behind."""
    return {i: load_prompt(i).fingerprint for i in ("sage/attention", "sage/text", "sage/stock-lines", *PLAIN.values())}


def frozen_dtype(config: SageTraining, lora: bool, precision: str) -> str:
    """Type of the base weights: bfloat16 where most of them are frozen and a step computes in it; float32 where all of
    them are trained, or sharded, which wants one type."""
    sharded = config.fsdp or config.deepspeed
    return "bfloat16" if lora and precision == "bf16" and not sharded else "float32"


def planned(config: SageTraining, n: int) -> str:
    """'recipe paper: 4 epochs of 8,610 samples, 1,080 steps, 1,000 of them warm-up'. config: of `recipes.counted`."""
    steps = steps_of(n, config.batch_size, config.epochs)
    return (
        f"recipe {config.recipe}: {config.epochs:g} epochs of {n:,} samples, {steps:,} steps, {config.warmup:,.0f} of"
        f" them warm-up, peak {config.learning_rate:g}"
    )


def training_arguments(config: SageTraining, n: int, device: str, precision: str) -> dict:
    """Keywords of transformers' TrainingArguments, and so of TRL's DPOConfig. n: samples; config: of
    `recipes.counted`."""
    steps = steps_of(n, config.batch_size, config.epochs)
    common = common_arguments(
        config.out, device, precision, config.seed, config.loader_workers, config.save_steps, steps
    )
    return common | {
        "per_device_train_batch_size": config.micro_batch,
        "gradient_accumulation_steps": accumulation_steps(config.batch_size, config.micro_batch),
        "num_train_epochs": config.epochs,
        "learning_rate": config.learning_rate,
        "warmup_steps": int(config.warmup),
        "weight_decay": config.weight_decay,
        "lr_scheduler_type": "constant_with_warmup" if config.schedule == "constant" else config.schedule,
        "max_grad_norm": config.clip,
        "optim": "adamw_torch",
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "ddp_find_unused_parameters": False,
        "gradient_checkpointing": config.checkpoint_activations,
        "fsdp": bool(config.fsdp),
        "fsdp_config": {
            "reshard_after_forward": "shard_grad_op" not in config.fsdp,
            "cpu_offload": "offload" in config.fsdp,
            "cpu_ram_efficient_loading": True,
        }
        if config.fsdp
        else None,
        "deepspeed": str(config.deepspeed) if config.deepspeed else None,
    }


def read_weights_once(config: SageTraining) -> None:
    """With --fsdp, and before a model is loaded: one process of a node reads the weights, not each of them all. To be
    called within `distributed.process_group`. transformers and accelerate look at these variables."""
    if config.fsdp:
        os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}


def sharded_in_float32(arguments: TrainingArguments) -> TrainingArguments:
    """One GPU for each process. With shards and bf16 gradients are summed, and losses and log-probabilities handed on,
    in float32: accelerate's own policy rounds them to bf16, by as much as pairs of answers differ."""
    if arguments.fsdp and arguments.bf16:
        arguments.fsdp_plugin_args["mixed_precision_policy"] = MixedPrecisionPolicy(torch.bfloat16, torch.float32)
    return one_gpu(arguments)


def fit(trainer: Trainer, saved: Path | None, say: Callable[[str], None], config: SageTraining) -> dict[str, Tensor]:
    """Train, from a saved state if there is one; the state dict at the end, whole where the model is sharded.

    Raises:
        InputError: --fsdp where accelerate does not shard (CPUs): it would train whole copies and say nothing.
    """
    if config.fsdp and not trainer.is_fsdp_enabled:
        raise InputError(f"--fsdp: nothing is sharded on --device {trainer.args.device.type}; leave it out there")
    run_trainer(trainer, saved, say, config.out, int(config.warmup))
    return trainer.accelerator.get_state_dict(trainer.model_wrapped)
