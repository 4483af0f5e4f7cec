"""What trainings on transformers' Trainer have in common: the artifact around one, and states that a killed run goes on
from."""

import csv
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import nan
from pathlib import Path
from typing import Any

from stages.artifacts.reader import COMPLETE, PARTIAL
from stages.artifacts.record import recorded_key
from stages.artifacts.tables import ENCODERS
from stages.artifacts.writer import Artifact, Spec, Summary
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.base.progress import PLAIN_LINE_SECONDS, Progress
from stages.datasets.files import Files
from stages.training import distributed as processes
from stages.training.saved_models import folder_fingerprint, lost_checkpoints

FOLDER = "_checkpoint"  # below the artifact; readers of Parquet pass over names with an underscore
STATE = "_training"  # saved states while training, below the artifact
WEIGHTS = "trained.safetensors"
SAVE_SECONDS = 60  # between saved states of a training that has no --save-steps: what a kill costs at most


def trained(
    out: Path,
    spec: Spec,
    datasets: str,
    n: int,
    options: RunOptions,
    parts: tuple[str, ...],
    train: Callable[[Path | None, Callable[[str], None]], tuple[Any, Callable[[Path], None]]],
    left_out: Sequence[str] = (),
    files: Files | None = None,
) -> Summary | None:
    """Run a training inside its artifact; of several processes the first one alone opens it and returns a summary.

    datasets: their names; n: samples; left_out: why others are none, the first few are said. train: from a saved state
    (None = from the start) to (the Trainer at its end, what writes the checkpoint). parts: names of the logged
    values that losses.csv keeps beside the loss. files: those it reads, to be remembered.
    """
    key = (datasets, "all", None)
    with ExitStack() as stack:
        opened: list[Artifact] = []

        def open_artifact() -> tuple[bool, Path | None]:
            lost = lost_checkpoints(out, spec.key, options.overwrite)
            opened.append(stack.enter_context(Artifact(out, ENCODERS, spec, [key], options, 1, lost)))
            if files:
                files.keep(out)
            return bool(opened[0].pending), last_saved(out / STATE)

        pending, saved = processes.from_first(open_artifact)
        say = opened[0].progress.say if opened else lambda text: None
        for line in left_out[:3]:
            say(f"not trained on: {line}")
        if len(left_out) > 3:
            say(f"not trained on: {len(left_out)} images in all, listed under `notes` in the record")
        if pending:
            started = time.monotonic()
            if saved:
                say(f"going on from step {saved.name.rpartition('-')[2]}")
            trainer, save = train(saved, say)
            if opened:
                opened[0].ran_on = f"{trainer.args.device.type} {'bf16' if trainer.args.bf16 else 'fp32'}"
                history = [h for h in trainer.state.log_history if "loss" in h]
                write_checkpoint(opened[0], save, history, parts)
                opened[0].write(
                    dict(zip(ENCODERS.key, key, strict=True))
                    | {
                        "path": FOLDER,
                        "weights": folder_fingerprint(out / FOLDER),
                        "n": n,
                        "steps": trainer.state.global_step,
                        "first_loss": history[0]["loss"],
                        "last_loss": history[-1]["loss"],
                        "seconds": time.monotonic() - started,
                    }
                )
    if opened and opened[0].summary.complete:
        forget(out / STATE)  # after the row: until then a killed run needs them
    processes.from_first(lambda: None)  # nobody leaves before the checkpoint is written
    return opened[0].summary if opened else None


def require_current(out: Path, spec: Spec) -> None:
    """Before weights are put into an artifact: another command may have replaced it in the meantime.

    Raises:
        InputError: its record is of other settings, or gone.
    """
    if spec.key not in (recorded_key(out / COMPLETE), recorded_key(out / PARTIAL)):
        raise InputError(
            f"{out}: has been replaced by a command with other settings since this training began; nothing"
            " of it is kept"
        )


def run_trainer(trainer: Any, saved: Path | None, say: Callable[[str], None], out: Path, warmup: int = 0) -> None:
    """Train, from a saved state if there is one, saying how far it is; TensorBoard's files go below the artifact."""
    from transformers.trainer_callback import PrinterCallback

    from stages.training.torch_setup import tensorboard

    trainer.remove_callback(PrinterCallback)
    for callback in (telling(say, warmup), *tensorboard(out / "_tensorboard")):
        trainer.add_callback(callback)
    trainer.train(resume_from_checkpoint=str(saved) if saved else None)


def write_checkpoint(
    artifact: Artifact, save: Callable[[Path], None], history: list[dict], parts: tuple[str, ...]
) -> None:
    """The checkpoint with its loss curve: wholly there or not at all. Raises InputError when another command has
    replaced the artifact."""
    from stages.training.curves import loss_curves

    out = artifact.out
    with artifact.current():
        pass  # before the work of saving
    target = out / f".tmp-{FOLDER}"
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
    put_in_place(target, out / FOLDER, artifact)


def put_in_place(made: Path, target: Path, artifact: Artifact) -> None:
    """Flush what is in the folder `made` to disk and rename it to `target`, in place of what is there, with the
    artifact locked. Raises InputError when another command has replaced the artifact."""
    for file in made.rglob("*"):
        if file.is_file():
            with open(file, "rb") as f:
                os.fsync(f.fileno())
    with artifact.current():
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        made.rename(target)


def forget(states: Path) -> None:
    """Take saved states away, first of all what makes each of them a whole one: killed on the way, none is left that
    `last_saved` would take for one."""
    for last in states.rglob("trainer_state.json"):
        last.unlink(missing_ok=True)
    shutil.rmtree(states, ignore_errors=True)


def last_saved(state: Path) -> Path | None:
    """The newest saved state that was written to its end: trainer_state.json comes last. Others are taken away."""
    for folder in sorted(state.glob("checkpoint-*"), key=lambda p: -int(p.name.rpartition("-")[2])):
        try:
            json.loads((folder / "trainer_state.json").read_text())
            return folder
        except (OSError, ValueError):
            shutil.rmtree(folder, ignore_errors=True)
    return None


def accumulated(batch_size: int, micro_batch: int) -> int:
    """Micro-batches of a process per step. Raises InputError where they do not add up to the batch."""
    own = processes.share(batch_size)
    if own % micro_batch:
        raise InputError(f"--batch-size {batch_size}: {own} per process are no multiple of --micro-batch {micro_batch}")
    return own // micro_batch


def context(model_config: Any, max_length: int) -> int:
    """Longest sample, tokens; max_length: 0 = the model's own. Raises InputError for one beyond the model's context."""
    room = model_config.get_text_config().max_position_embeddings
    if max_length > room:
        raise InputError(f"--max-length {max_length}: the model's context has {room} tokens")
    return max_length or room


class SmallStates:
    """For a Trainer: saved states hold what is trained, not the frozen weights. DeepSpeed's engine saves and loads its
    own."""

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


def telling(say: Callable[[str], None], warmup: int = 0) -> Any:
    """A callback of Trainer that says how far it is, at most every 30 s, and before that whether its warm-up ends."""
    from transformers import TrainerCallback

    class Telling(TrainerCallback):
        last = time.monotonic()

        def on_train_begin(self, args, state, control, **more):
            if state.max_steps < warmup:
                say(
                    f"{state.max_steps} steps in all are fewer than the --warmup of {warmup}: the learning rate will"
                    " not reach its peak"
                )

        def on_log(self, args, state, control, logs=None, **more):
            if "loss" in (logs or {}) and time.monotonic() - self.last > PLAIN_LINE_SECONDS:
                self.last = time.monotonic()
                say(f"step {state.global_step} of {state.max_steps}, loss {logs['loss']:.4f}")

    return Telling()


@contextmanager
def stop_asked() -> Iterator[Callable[[], bool]]:
    """Within it the first Ctrl-C or SIGTERM waits for the end of the step in hand: the function given tells whether
    one came. A second one ends the run at once, as KeyboardInterrupt. Signals that the process ignores, and other
    threads than the main one (which gets them), stay as they are."""
    came = []

    def note(*_: object) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(True)

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
        before = {s: handler for s, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def saving(asked: Callable[[], bool], check: Callable[[], None]) -> Any:
    """A callback of Trainer that saves a state every SAVE_SECONDS, at the end of a step; and one more when a stop is
    asked for, and stops. check: called before each, may raise."""
    from transformers import TrainerCallback

    class Saving(TrainerCallback):
        last = time.monotonic()

        def on_step_end(self, args, state, control, **more):
            if asked() or time.monotonic() - self.last >= SAVE_SECONDS:
                check()
                control.should_save = True
            control.should_training_stop |= asked()

        def on_save(self, args, state, control, **more):
            self.last = time.monotonic()

    return Saving()


def showing(progress: Progress, label: str) -> Any:
    """A callback of Trainer that shows steps and the time left."""
    from transformers import TrainerCallback

    class Showing(TrainerCallback):
        def on_train_begin(self, args, state, control, **more):
            self.steps = progress.steps(label, state.max_steps, state.global_step)

        def on_step_end(self, args, state, control, **more):
            self.steps.advance()

        def on_train_end(self, args, state, control, **more):
            self.steps.stop()

    return Showing()
