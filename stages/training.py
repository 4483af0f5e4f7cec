"""What trainings of large models have in common: the artifact around one, and states that a killed run goes on from."""

import csv
import json
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from math import nan
from pathlib import Path
from typing import Any

from stages import processes
from stages.artifacts.tables import ENCODERS
from stages.artifacts.writer import Artifact, Spec, Summary
from stages.progress import PLAIN_LINE_SECONDS
from stages.settings import RunOptions

FOLDER = "_checkpoint"       # below the artifact; readers of Parquet pass over names with an underscore
STATE = "_training"          # saved states while training, below the artifact
WEIGHTS = "trained.safetensors"


def trained(out: Path, spec: Spec, datasets: str, n: int, options: RunOptions, parts: tuple[str, ...],
            train: Callable[[Path | None, Callable[[str], None]],
                            tuple[Any, Callable[[Path], None]]]) -> Summary | None:
    """Run a training inside its artifact; of several processes the first one alone opens it and returns a summary.
    datasets: their names; n: samples.

    train: from a saved state (None = from the start) to (transformers' Trainer at its end, what writes the
    checkpoint). parts: names of the logged values that losses.csv keeps beside the loss.
    """
    key = (datasets, "all", None)
    with ExitStack() as stack:
        opened: list[Artifact] = []

        def open_artifact() -> tuple[bool, Path | None]:
            opened.append(stack.enter_context(Artifact(out, ENCODERS, spec, [key], options, flush_rows=1)))
            return bool(opened[0].pending), last_saved(out / STATE)

        pending, saved = processes.from_first(open_artifact)
        say = opened[0].progress.say if opened else lambda text: None
        if pending:
            started = time.monotonic()
            if saved:
                say(f"going on from step {saved.name.rpartition('-')[2]}")
            trainer, save = train(saved, say)
            if opened:
                opened[0].ran_on = f"{trainer.args.device.type} {'bf16' if trainer.args.bf16 else 'fp32'}"
                history = [h for h in trainer.state.log_history if "loss" in h]
                write_checkpoint(out, save, history, parts)
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
    seen = tuple(p for p in parts if any(p in h for h in history))
    history = [dict.fromkeys(seen, nan) | h for h in history]
    with open(target / "losses.csv", "w", newline="") as f:
        writer = csv.DictWriter(f, ("step", "loss", *seen, "learning_rate"), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(history)
    (target / "losses.png").write_bytes(loss_curves(history, seen))
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


class SmallStates:
    """For a Trainer: saved states hold what is trained, not the frozen weights."""

    def _save(self, output_dir=None, state_dict=None):
        from safetensors.torch import save_file

        Path(output_dir).mkdir(parents=True, exist_ok=True)
        own = {n: p.detach().contiguous() for n, p in self.model.named_parameters() if p.requires_grad}
        save_file(own, Path(output_dir) / WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        from safetensors.torch import load_file

        self.model.load_state_dict(load_file(Path(resume_from_checkpoint) / WEIGHTS), strict=False)


def telling(say: Callable[[str], None]) -> Any:
    """A callback of Trainer that says how far it is, at most every 30 s."""
    from transformers import TrainerCallback

    class Telling(TrainerCallback):
        last = time.monotonic()

        def on_log(self, args, state, control, logs=None, **more):
            if "loss" in (logs or {}) and time.monotonic() - self.last > PLAIN_LINE_SECONDS:
                self.last = time.monotonic()
                say(f"step {state.global_step} of {state.max_steps}, loss {logs['loss']:.4f}")

    return Telling()
