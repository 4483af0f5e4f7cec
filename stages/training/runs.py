"""What trainings on transformers' Trainer have in common: the artifact around one, and states that a killed run goes on
from."""

import csv
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import nan
from pathlib import Path
from typing import Any

from stages.artifacts.digests import Files
from stages.artifacts.files import flush_files
from stages.artifacts.reader import COMPLETE, PARTIAL
from stages.artifacts.record import recorded_key
from stages.artifacts.tables import ENCODERS
from stages.artifacts.writer import Artifact, Spec, Summary
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.base.interrupts import answered_by, handlers
from stages.training import distributed
from stages.training.curves import loss_curves
from stages.training.saved_models import FOLDER
from stages.training.trained import folder_fingerprint, lost_checkpoints

STATE = "_training"  # saved states while training, below the artifact


def run_training(
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

    datasets: their names; n: samples; left_out: why other images are not among them; the first few are listed.
    train: from a saved state (None = from the start) to (the Trainer at its end, what writes the checkpoint). parts:
    names of the logged values that losses.csv keeps beside the loss. files: those it reads, to be remembered.
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

        pending, saved = distributed.broadcast_from_main(open_artifact)
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
    distributed.broadcast_from_main(lambda: None)  # nobody leaves before the checkpoint is written
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


def write_checkpoint(
    artifact: Artifact, save: Callable[[Path], None], history: list[dict], parts: tuple[str, ...]
) -> None:
    """The checkpoint with its loss curve, below the artifact: wholly there or not at all.

    Raises:
        InputError: another command has made another artifact of it in the meantime.
    """
    with artifact.current():
        pass  # before anything is written below what may be another one's
    target = artifact.out / f".tmp-{FOLDER}"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    save(target)
    seen = tuple(p for p in parts if any(p in h for h in history))
    history = [dict.fromkeys(seen, nan) | h for h in history]
    with (target / "losses.csv").open("w", newline="") as f:
        writer = csv.DictWriter(f, ("step", "loss", *seen, "learning_rate"), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(history)
    (target / "losses.png").write_bytes(loss_curves(history, seen))
    put_in_place(target, artifact.out / FOLDER, artifact)


def put_in_place(made: Path, target: Path, artifact: Artifact) -> None:
    """Flush what is in the folder `made` to disk and rename it to `target`, in place of what is there, with the
    artifact locked. Raises InputError when another command has replaced the artifact."""
    flush_files(made)
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

    with answered_by(note, handlers()):
        yield lambda: bool(came)
