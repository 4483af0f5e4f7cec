"""What SFE and E-DPO have in common: their options, the artifact, states that a killed run goes on from."""

import csv
import json
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from stages import processes
from stages.artifacts.tables import ENCODERS
from stages.artifacts.writer import Artifact, Spec, Summary
from stages.errors import InputError
from stages.progress import PLAIN_LINE_SECONDS
from stages.prompts import load_prompt
from stages.sage.checkpoint import FOLDER
from stages.sage.data import PLAIN
from stages.settings import RunOptions, option

STATE = "_training"          # saved states while training, below the artifact
WEIGHTS = "trained.safetensors"
SAME_RESULT = ("epochs", "batch_size", "learning_rate", "warmup", "schedule", "clip", "weight_decay", "max_length",
               "precision")


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
    fsdp: str = option("transformers' --fsdp, for example full_shard", "")
    deepspeed: Path | None = option("DeepSpeed configuration, JSON, as transformers' --deepspeed takes it", None)
    save_steps: int = option("steps between saved states, from which a killed run goes on", 100)
    device: str = option("auto, cpu or cuda", "auto")
    workers: int = option("processes that load images; 0 = in this one", 0)
    root: Path | None = option("where the manifest's paths start, if not where it was indexed", None)
    seed: int = option("of initialisation and data order", 0)


def check(config: TrainingOptions) -> int:
    """Micro-batches that are accumulated per step and process. Raises InputError for numbers that do not fit."""
    if config.schedule not in ("linear", "cosine", "constant"):
        raise InputError(f"--schedule {config.schedule}: expected linear, cosine or constant")
    for name, least in (("batch_size", 1), ("micro_batch", 1), ("warmup", 0), ("save_steps", 1), ("max_length", 0)):
        if getattr(config, name) < least:
            raise InputError(f"--{name.replace('_', '-')} {getattr(config, name)}: at least {least}")
    if config.epochs <= 0 or config.learning_rate <= 0:
        raise InputError("--epochs and --learning-rate must be above 0")
    if config.deepspeed and not config.deepspeed.is_file():
        raise InputError(f"--deepspeed {config.deepspeed}: no such file")
    own = processes.share(config.batch_size)
    if own % config.micro_batch:
        raise InputError(f"--batch-size {config.batch_size}: {own} per process are no multiple of --micro-batch"
                         f" {config.micro_batch}")
    return own // config.micro_batch


def context(model_config: Any, config: TrainingOptions) -> int:
    """Longest sample, tokens. Raises InputError for a --max-length beyond the model's context."""
    room = model_config.get_text_config().max_position_embeddings
    if config.max_length > room:
        raise InputError(f"--max-length {config.max_length}: the model's context has {room} tokens")
    return config.max_length or room


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
        "output_dir": str(config.out / STATE), "per_device_train_batch_size": config.micro_batch,
        "gradient_accumulation_steps": check(config), "num_train_epochs": config.epochs,
        "learning_rate": config.learning_rate, "warmup_steps": config.warmup, "weight_decay": config.weight_decay,
        "lr_scheduler_type": "constant_with_warmup" if config.schedule == "constant" else config.schedule,
        "max_grad_norm": config.clip, "optim": "adamw_torch", "bf16": precision == "bf16", "use_cpu": device == "cpu",
        "seed": config.seed, "data_seed": config.seed, "logging_steps": max(steps // 200, 1),
        "logging_first_step": True, "logging_nan_inf_filter": False, "ddp_find_unused_parameters": False,
        "save_strategy": "steps", "save_steps": config.save_steps, "save_total_limit": 2, "disable_tqdm": True,
        "report_to": "none", "remove_unused_columns": False,
        "dataloader_num_workers": config.workers, "dataloader_pin_memory": device != "cpu", "label_names": ["labels"],
        "gradient_checkpointing": config.checkpoint_activations, "fsdp": config.fsdp or None,
        "deepspeed": str(config.deepspeed) if config.deepspeed else None}


class SmallStates:
    """For a Trainer: saved states hold what is trained, fusion included, not the base model. DeepSpeed's engine saves
    and loads its own."""

    def _save(self, output_dir=None, state_dict=None):
        """state_dict: gathered by the caller where the model is sharded."""
        if self.is_deepspeed_enabled:
            return super()._save(output_dir, state_dict)
        from safetensors.torch import save_file

        Path(output_dir).mkdir(parents=True, exist_ok=True)
        state = self.model.state_dict() if state_dict is None else state_dict
        own = {n: state[n].detach().contiguous() for n, p in self.model.named_parameters() if p.requires_grad}
        save_file(own, Path(output_dir) / WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        from safetensors.torch import load_file

        load_trained(model or self.model, load_file(Path(resume_from_checkpoint) / WEIGHTS))


def load_trained(model: Any, tensors: dict) -> None:
    """Put whole tensors into a model that may be sharded; the others stay."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    set_model_state_dict(model, tensors, options=StateDictOptions(full_state_dict=True, strict=False))


def trained(config: Any, spec: Spec, datasets: str, n: int, options: RunOptions, parts: tuple[str, ...],
            train: Callable[[Path | None, Callable[[str], None]], tuple[Any, Callable]]) -> Summary | None:
    """Run a training inside its artifact; the first process alone opens it and returns a summary.

    datasets: their names; n: samples. train: from a saved state (None = from the start) to (trainer at its end, what
    writes the checkpoint from a state dict into a folder). parts: names of the logged values that losses.csv keeps
    beside the loss.
    """
    key = (datasets, "all", None)
    with ExitStack() as stack:
        opened: list[Artifact] = []

        def open_artifact() -> tuple[bool, Path | None]:
            opened.append(stack.enter_context(Artifact(config.out, ENCODERS, spec, [key], options, flush_rows=1)))
            return bool(opened[0].pending), last_saved(config.out / STATE)

        pending, saved = processes.from_first(open_artifact)
        say = opened[0].progress.say if opened else lambda text: None
        if pending:
            started = time.monotonic()
            if saved:
                say(f"going on from step {saved.name.rpartition('-')[2]}")
            trainer, save = train(saved, say)
            state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
            if opened:
                opened[0].ran_on = f"{trainer.args.device.type} {'bf16' if trainer.args.bf16 else 'fp32'}"
                history = [h for h in trainer.state.log_history if "loss" in h]
                write_checkpoint(config.out, lambda folder: save(state, folder), history, parts)
                opened[0].write(dict(zip(ENCODERS.key, key, strict=True)) | {
                    "path": FOLDER, "n": n, "steps": trainer.state.global_step, "first_loss": history[0]["loss"],
                    "last_loss": history[-1]["loss"], "seconds": time.monotonic() - started})
    processes.from_first(lambda: None)              # nobody leaves before the checkpoint is written
    return opened[0].summary if opened else None


def write_checkpoint(out: Path, save: Callable[[Path], None], history: list[dict], parts: tuple[str, ...]) -> None:
    """The checkpoint with its loss curve, in place of the states it was trained through."""
    from stages.report.figures import loss_curves

    target = out / FOLDER
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    save(target)
    with open(target / "losses.csv", "w", newline="") as f:
        writer = csv.DictWriter(f, ("step", "loss", *parts, "learning_rate"), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(history)
    (target / "losses.png").write_bytes(loss_curves(history, parts))
    shutil.rmtree(out / STATE, ignore_errors=True)


def last_saved(state: Path) -> Path | None:
    """The newest saved state that was written to its end: trainer_state.json comes last. Others are taken away."""
    for folder in sorted(state.glob("checkpoint-*"), key=lambda p: -int(p.name.rpartition("-")[2])):
        try:
            json.loads((folder / "trainer_state.json").read_text())
            return folder
        except (OSError, ValueError):
            shutil.rmtree(folder, ignore_errors=True)
    return None


def telling(say: Callable[[str], None], warmup: int) -> Any:
    """A callback of Trainer that says how far it is, at most every 30 s, and before that whether its warm-up ends."""
    from transformers import TrainerCallback

    class Telling(TrainerCallback):
        last = time.monotonic()

        def on_train_begin(self, args, state, control, **more):
            if state.max_steps < warmup:
                say(f"{state.max_steps} steps in all are fewer than the --warmup of {warmup}: the learning rate will"
                    " not reach its peak")

        def on_log(self, args, state, control, logs=None, **more):
            if "loss" in (logs or {}) and time.monotonic() - self.last > PLAIN_LINE_SECONDS:
                self.last = time.monotonic()
                say(f"step {state.global_step} of {state.max_steps}, loss {logs['loss']:.4f}")

    return Telling()
