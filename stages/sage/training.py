"""What SFE and E-DPO have in common: their options, and what Trainer makes of them."""

from dataclasses import dataclass
from importlib.util import find_spec
from math import ceil
from pathlib import Path

from stages.base.config import option, require_at_least_zero, require_positive
from stages.base.errors import InputError
from stages.base.prompts import load_prompt
from stages.sage.data import PLAIN
from stages.training import distributed
from stages.training.distributed import accumulation_steps
from stages.training.runs import STATE

SAME_RESULT = ("epochs", "batch_size", "learning_rate", "warmup", "schedule", "clip", "weight_decay", "max_length")
FSDP = ("full_shard", "shard_grad_op", "offload", "auto_wrap")  # auto_wrap: what transformers does anyway


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Defaults are the paper's (section 5.1) where it names a value."""

    epochs: float = option("passes over the samples; the paper names none", 1.0)
    batch_size: int = option("samples per optimiser step, over all processes", 32)
    micro_batch: int = option("samples per forward pass and process; the rest of the batch is accumulated", 1)
    learning_rate: float = option("peak of AdamW; 2e-6 is the paper's, LoRA usually wants 1e-4", 2e-6)
    warmup: int = option("steps of linear warm-up", 1000)
    schedule: str = option("after the warm-up: linear or cosine to 0, or constant; the paper names none", "linear")
    clip: float = option("largest norm of the gradient", 1.0)
    weight_decay: float = option("of AdamW; the paper names none", 0.0)
    max_length: int = option("longest sample, tokens; 0 = the model's context; a longer one is refused, never cut", 0)
    precision: str = option("fp32, bf16 (the paper's), or auto = bf16 where the processor has it", "auto")
    checkpoint_activations: bool = option("recompute activations: less memory, more time", False)
    fsdp: str = option(
        "shard over the GPUs of torchrun: full_shard, or shard_grad_op = weights stay whole after the"
        " forward pass; 'full_shard offload' keeps shards in main memory; not tried on GPUs",
        "",
    )
    deepspeed: Path | None = option(
        "DeepSpeed configuration, JSON, as transformers' --deepspeed takes it; not tried", None
    )
    save_steps: int = option("steps between saved states, from which a killed run goes on", 100)
    device: str = option("auto, cpu or cuda", "auto")
    workers: int = option("processes that load images; 0 = in this one", 0)
    root: Path | None = option("where the manifest's paths start, if not where it was indexed", None)
    seed: int = option("of initialisation and data order", 0)


def check(config: TrainingOptions) -> int:
    """Micro-batches that are accumulated per step and process. Raises InputError for numbers that do not fit."""
    if config.schedule not in ("linear", "cosine", "constant"):
        raise InputError(f"--schedule {config.schedule}: expected linear, cosine or constant")
    require_positive(config, "epochs", "learning_rate", "batch_size", "micro_batch", "save_steps", "clip")
    require_at_least_zero(config, "warmup", "weight_decay", "max_length", "workers")
    if config.deepspeed and not config.deepspeed.is_file():
        raise InputError(f"--deepspeed {config.deepspeed}: no such file")
    if config.deepspeed and find_spec("deepspeed") is None:
        raise InputError("--deepspeed needs the package deepspeed: pip install deepspeed")
    if config.fsdp and (config.deepspeed or distributed.world() == 1):
        raise InputError("--fsdp shards over several processes (torchrun --nproc_per_node N), without --deepspeed")
    if unknown := [w for w in config.fsdp.split() if w not in FSDP]:
        raise InputError(f"--fsdp {unknown[0]}: expected words of {', '.join(FSDP)}")
    return accumulation_steps(config.batch_size, config.micro_batch)


def check_sharding(config: TrainingOptions, device: str) -> None:
    """Raises InputError where nothing would be sharded and whole copies be trained."""
    if config.fsdp and device == "cpu":
        raise InputError(f"--fsdp: nothing is sharded on --device {device}; leave it out there")


def prompt_texts() -> dict[str, str]:
    """Fingerprints of the prompts that the model is trained behind."""
    return {i: load_prompt(i).fingerprint for i in ("sage/attention", "sage/text", *PLAIN.values())}


def frozen_dtype(config: TrainingOptions, lora: bool, precision: str) -> str:
    """Type of the base weights: bfloat16 where most of them are frozen and a step computes in it; float32 where all of
    them are trained, or sharded, which wants one type."""
    sharded = config.fsdp or config.deepspeed
    return "bfloat16" if lora and precision == "bf16" and not sharded else "float32"


def arguments(config: TrainingOptions, n: int, device: str, precision: str) -> dict:
    """Keywords of transformers' TrainingArguments, and so of TRL's DPOConfig. n: samples."""
    steps = ceil(ceil(n / config.batch_size) * config.epochs)
    return {
        "output_dir": str(config.out / STATE),
        "per_device_train_batch_size": config.micro_batch,
        "gradient_accumulation_steps": check(config),
        "num_train_epochs": config.epochs,
        "learning_rate": config.learning_rate,
        "warmup_steps": config.warmup,
        "weight_decay": config.weight_decay,
        "lr_scheduler_type": "constant_with_warmup" if config.schedule == "constant" else config.schedule,
        "max_grad_norm": config.clip,
        "optim": "adamw_torch",
        "bf16": precision == "bf16",
        "use_cpu": device == "cpu",
        "seed": config.seed,
        "data_seed": config.seed,
        "logging_steps": max(steps // 200, 1),
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "ddp_find_unused_parameters": False,
        "save_strategy": "steps",
        "save_steps": config.save_steps,
        "save_total_limit": 2,
        "disable_tqdm": True,
        "report_to": "none",
        "remove_unused_columns": False,
        "dataloader_num_workers": config.workers,
        "dataloader_pin_memory": device != "cpu",
        "label_names": ["labels"],
        "gradient_checkpointing": config.checkpoint_activations,
        "fsdp": bool(config.fsdp),
        "fsdp_config": {
            "reshard_after_forward": "shard_grad_op" not in config.fsdp,
            "cpu_offload": "offload" in config.fsdp,
        }
        if config.fsdp
        else None,
        "deepspeed": str(config.deepspeed) if config.deepspeed else None,
    }
