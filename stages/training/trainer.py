"""transformers' Trainer as all trainings here use it: small saved states, progress, stops, one GPU a process."""

import time
from collections.abc import Callable
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from typing import Any

from stages.training.prepared import torch

from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.integrations import TensorBoardCallback
from transformers.trainer_callback import PrinterCallback

from stages.base.errors import InputError
from stages.base.progress import PLAIN_LINE_SECONDS, Progress, Steps
from stages.training.runs import STATE

WEIGHTS = "trained.safetensors"  # of a saved state
LOADERS = 4  # processes that load images while a GPU works: 8 images of 50 ms are then there in 0.1 s
SAVE_SECONDS = 60  # between saved states of a training that has no --save-steps: what a kill costs at most


def common_arguments(
    out: Path, device: str, precision: str, seed: int, workers: int | None, save_steps: int, steps: int
) -> dict[str, Any]:
    """Keywords of TrainingArguments that all trainings with --save-steps share. workers: processes that load images,
    None: LOADERS of them beside a GPU, none beside a CPU; steps: in all; about 200 of them are logged."""
    if workers is None:
        workers = 0 if device == "cpu" else LOADERS
    return {
        "output_dir": str(out / STATE),
        "bf16": precision == "bf16",
        "use_cpu": device == "cpu",
        "seed": seed,
        "data_seed": seed,
        "logging_steps": max(steps // 200, 1),
        "save_strategy": "steps",
        "save_steps": save_steps,
        "save_total_limit": 2,
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_num_workers": workers,
        "dataloader_pin_memory": device != "cpu",
        "label_names": ["labels"],
    }


def one_gpu(arguments: TrainingArguments) -> TrainingArguments:
    """The same with one GPU for each process: Trainer would multiply the batch by the GPUs that it sees."""
    arguments._n_gpu = min(arguments.n_gpu, 1)
    return arguments


def steps_of(samples: int, batch_size: int, epochs: float) -> int:
    """Optimiser steps of a training."""
    return ceil(ceil(samples / batch_size) * epochs)


def run_trainer(trainer: Trainer, saved: Path | None, say: Callable[[str], None], out: Path, warmup: int = 0) -> None:
    """Train, from a saved state if there is one, saying how far it is; TensorBoard's files go below the artifact.

    Raises:
        InputError: what a loader process raised, such as an image that cannot be decoded, in its own words.
    """
    trainer.remove_callback(PrinterCallback)
    for callback in (ProgressCallback(say, warmup), *tensorboard(out / "_tensorboard")):
        trainer.add_callback(callback)
    try:
        trainer.train(resume_from_checkpoint=str(saved) if saved else None)
    except InputError as e:  # torch writes a loader process's whole traceback into the message
        raise type(e)(str(e).rpartition(f"{type(e).__name__}: ")[2].strip()) from e


def tensorboard(folder: Path) -> list[TrainerCallback]:
    """Callbacks of a transformers Trainer that write its losses to FOLDER, where TensorBoard is installed."""
    if find_spec("tensorboard") is None:
        return []
    callback = TensorBoardCallback()
    callback.logging_dir = str(folder)
    return [callback]


class TrainableOnlyCheckpoints:
    """For a Trainer: saved states hold what is trained, not the frozen weights. DeepSpeed's engine saves and loads its
    own."""

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """state_dict: gathered by the caller where the model is sharded."""
        if self.is_deepspeed_enabled:
            super()._save(output_dir, state_dict)
            return
        Path(output_dir).mkdir(parents=True, exist_ok=True)
        state = self.model.state_dict() if state_dict is None else state_dict
        own = {n: state[n].detach().contiguous() for n, p in self.model.named_parameters() if p.requires_grad}
        save_file(own, Path(output_dir) / WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        load_trained(model or self.model, load_file(Path(resume_from_checkpoint) / WEIGHTS))


def load_trained(model: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> None:
    """Put whole tensors into a model that may be sharded; the others stay."""
    set_model_state_dict(model, tensors, options=StateDictOptions(full_state_dict=True, strict=False))


class ProgressCallback(TrainerCallback):
    """Says how far a training is, at most every 30 s, and before that whether its warm-up ends. warmup: steps."""

    def __init__(self, say: Callable[[str], None], warmup: int = 0) -> None:
        self.say, self.warmup, self.last = say, warmup, time.monotonic()

    def on_train_begin(self, args, state, control, **more):
        if state.max_steps < self.warmup:
            self.say(
                f"{state.max_steps} steps in all are fewer than the --warmup of {self.warmup}: the learning rate will"
                " not reach its peak"
            )

    def on_log(self, args, state, control, logs=None, **more):
        if "loss" in (logs or {}) and time.monotonic() - self.last > PLAIN_LINE_SECONDS:
            self.last = time.monotonic()
            self.say(f"step {state.global_step} of {state.max_steps}, loss {logs['loss']:.4f}")


class TimedSaving(TrainerCallback):
    """Saves a state every SAVE_SECONDS, at the end of a step; and one more when a stop is asked for, and stops.
    check: called before each, may raise."""

    def __init__(self, stop_asked: Callable[[], bool], check: Callable[[], None]) -> None:
        self.stop_asked, self.check, self.last = stop_asked, check, time.monotonic()

    def on_step_end(self, args, state, control, **more):
        if self.stop_asked() or time.monotonic() - self.last >= SAVE_SECONDS:
            self.check()
            control.should_save = True
        control.should_training_stop |= self.stop_asked()

    def on_save(self, args, state, control, **more):
        self.last = time.monotonic()


class StepsCallback(TrainerCallback):
    """Shows steps and the time left."""

    steps: Steps

    def __init__(self, progress: Progress, label: str) -> None:
        self.progress, self.label = progress, label

    def on_train_begin(self, args, state, control, **more):
        self.steps = self.progress.steps(self.label, state.max_steps, state.global_step)

    def on_step_end(self, args, state, control, **more):
        self.steps.advance()

    def on_train_end(self, args, state, control, **more):
        self.steps.stop()
