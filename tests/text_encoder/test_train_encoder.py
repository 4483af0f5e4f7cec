"""How train-encoder writes: tasks apart, killed and gone on from, refused, nothing left behind, nothing mixed."""

import fcntl
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from stages.artifacts.reader import read_table
from stages.artifacts.tables import ENCODERS
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.text_encoder import train
from stages.text_encoder.config import TrainEncoderConfig
from stages.text_encoder.train import FOLDER, run
from stages.training import runs as training
from stages.training import trainer
from tests.crash_points import killed_at_every_point
from tests.encoder_world import make_task, make_tasks
from tests.processes import Started, adcli

QUIET = RunOptions(quiet=True)
ROOT = Path(__file__).parents[2]
TEXTS = tuple(f"three oranges , {n} kiwis and two apples" for n in ("no", "one", "two", "six", "ten", "many"))
STEPS = 6  # 3 epochs of 2
CRASH_STEP = 23  # every 23rd point; 1 = all of them, for minutes


def config_of(folder, bert, out, texts=TEXTS, tasks=(("d", "c", "a"),), **more):
    values = {"epochs": 3, "batch_size": 4, "precision": "fp32", "device": "cpu"} | more
    return TrainEncoderConfig(**make_task(folder, texts, tasks), out=out, encoder=str(bert), **values)


def weights(out):
    """Path of an encoder below the artifact -> its weights' bytes."""
    return {str(f.parent.relative_to(out)): f.read_bytes() for f in (out / FOLDER).rglob("model.safetensors")}


def rows_of(out):
    return read_table(out, ENCODERS).drop_columns("seconds").to_pylist()


@pytest.fixture(scope="module")
def undisturbed(bert, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    run(config_of(folder, bert, folder / "e"), QUIET)
    return folder / "e"


@pytest.fixture
def at_step(monkeypatch):
    """at_step(n, do): call `do` in a training's n-th step."""
    from transformers import TrainerCallback

    def hook(n, do):
        class At(TrainerCallback):
            def on_step_begin(self, args, state, control, **more):
                if state.global_step == n - 1:
                    do()

        monkeypatch.setattr(train, "StepsCallback", lambda *_: At())

    return hook


# -- tasks

TASKS = (  # all images of a data set have a condition, or none
    ("d", "c", None),
    ("e", "c", "A"),
    ("e", "c", "none"),
    ("d", "a/b", None),
    ("d", "a_b", None),
    ("e", "..", ".."),
    ("..", "..", None),
)


@pytest.mark.slow
def test_every_task_has_its_own_encoder_and_nothing_outside_is_touched(tmp_path, bert):
    """The names of `..` deleted the folder above --out; (x, none) deleted (x, A); a/b and a_b shared one encoder."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "theirs").write_text("theirs")
    texts = {task: (f"{n} oranges , two kiwis",) * 2 for n, task in enumerate(TASKS)}
    config = TrainEncoderConfig(
        **make_tasks(tmp_path, texts), out=tmp_path / "deep" / "e", encoder=str(bert), epochs=1, device="cpu"
    )
    run(config, QUIET)
    found = weights(config.out)
    rows = read_table(config.out, ENCODERS).to_pylist()
    assert {r["path"] for r in rows} == set(found) and len(set(found.values())) == len(TASKS)
    assert (tmp_path / "deep" / "theirs").read_text() == "theirs"
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["e", "theirs"]
    for task, path in {(r["dataset"], r["category"], r["condition"]): r["path"] for r in rows}.items():
        alone = tmp_path / f"alone-{TASKS.index(task)}"
        alone.mkdir()
        if TASKS.index(task) in (1, 5):
            run(replace(config, **make_tasks(alone, {task: texts[task]}), out=alone / "e"), QUIET)
            assert list(weights(alone / "e").values()) == [found[path]]


# -- killed and gone on from


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 2, 3, STEPS])
def test_interrupted_at_a_step_and_run_again_gives_the_same_weights(
    step, at_step, undisturbed, bert, tmp_path, capfd, monkeypatch
):
    """In mid-epoch, at an epoch's end, and at the very last step. The state is saved though no minute has passed."""
    config = config_of(tmp_path, bert, tmp_path / "e")
    handler = signal.getsignal(signal.SIGINT)
    at_step(step, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        run(config, QUIET)
    assert signal.getsignal(signal.SIGINT) == handler and not weights(config.out)
    states = list((config.out / training.STATE).rglob("checkpoint-*"))
    assert [s.name for s in states] == [f"checkpoint-{step}"]
    monkeypatch.undo()
    run(config, RunOptions())
    assert f"d / c / a: going on from step {step}" in capfd.readouterr().err
    assert weights(config.out) == weights(undisturbed) and rows_of(config.out) == rows_of(undisturbed)
    assert not (config.out / training.STATE).exists()


@pytest.mark.slow
def test_the_second_interrupt_ends_at_once(at_step, bert, tmp_path):
    config = config_of(tmp_path, bert, tmp_path / "e")
    at_step(1, lambda: [os.kill(os.getpid(), signal.SIGTERM) for _ in range(2)])
    with pytest.raises(KeyboardInterrupt):
        run(config, QUIET)
    assert not list((config.out / training.STATE).rglob("checkpoint-*"))


@pytest.mark.slow
@pytest.mark.slow
def test_the_defaults_lower_the_loss(tmp_path):
    """Of the packaged encoder on 16 captions with one contradiction each: 20 steps."""
    numbers = ("no", "one", "three", "five")
    texts = tuple(f"{a} oranges, two kiwis, {b} apples." for a in numbers for b in numbers)
    run(TrainEncoderConfig(**make_task(tmp_path, texts), out=tmp_path / "e"), QUIET)
    (row,) = rows_of(tmp_path / "e")
    assert row["n"] == 16 and row["last_loss"] < row["first_loss"]


def test_losses_are_means_of_the_first_and_last_epoch(undisturbed, at_step, bert, tmp_path):
    """By the losses of single steps: 4 captions in the first, 2 in the second."""
    seen = []
    real = train.contrastive_loss
    train.contrastive_loss = lambda *a: [seen.append(loss := real(*a)), loss][1]
    try:
        run(config_of(tmp_path, bert, tmp_path / "e"), QUIET)
    finally:
        train.contrastive_loss = real
    losses = [float(x.detach()) for x in seen]
    (row,) = read_table(tmp_path / "e", ENCODERS).to_pylist()
    assert row["steps"] == len(losses) == STEPS and row["n"] == len(TEXTS)
    assert (row["first_loss"], row["last_loss"]) == pytest.approx((sum(losses[:2]) / 2, sum(losses[-2:]) / 2))


def command(config, *more):
    """Of the real program, without progress."""
    names = ("manifest", "out", "encoder", "epochs", "batch_size", "precision", "device", "seed")
    options = [str(x) for n in names for x in (f"--{n.replace('_', '-')}", getattr(config, n))]
    return ["train-encoder", str(config.negatives), *options, "--quiet", *more]


def begun(config):
    done = Started(*command(config, "--overwrite", "--shard", "1/2"), models=True).wait()
    assert done == 0


ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


AT_STEP = """
import os, signal
from stages.training import trainer
from stages.text_encoder import train
from transformers import TrainerCallback
from adcli.main import main

class At(TrainerCallback):
    def on_step_begin(self, args, state, control, **more):
        if state.global_step == {step}:
            os.kill(os.getpid(), signal.{signal})

train.StepsCallback = lambda *_: At()
trainer.SAVE_SECONDS = {every}
main()
"""


@pytest.mark.slow
def test_sigterm_and_sigkill_in_mid_task_cost_no_training(undisturbed, bert, tmp_path):
    """Real processes. SIGTERM comes with no state saved yet, SIGKILL after one that a minute's end saved."""
    config = config_of(tmp_path, bert, tmp_path / "e")
    states = config.out / training.STATE
    for name, step, every, code, saved in (("SIGTERM", 1, 60, 130, 2), ("SIGKILL", 4, 0, -9, 4)):
        script = AT_STEP.format(signal=name, step=step, every=every)
        (tmp_path / "at_step.py").write_text(script)
        done = adcli(*command(config), program=(tmp_path / "at_step.py",), models=True)
        said = "adcli: interrupted; the same command goes on from here\n" if code == 130 else ""
        assert (done.returncode, done.stderr) == (code, said)
        assert [p.name for p in states.rglob("checkpoint-*")] == [f"checkpoint-{saved}"] and not weights(config.out)
    run(config, QUIET)
    assert weights(config.out) == weights(undisturbed) and rows_of(config.out) == rows_of(undisturbed)
    assert not states.exists()


@pytest.mark.slow
def test_killed_before_any_file_operation(bert, tmp_path, monkeypatch):
    """Two tasks, a state saved after every step."""
    monkeypatch.setattr(trainer, "SAVE_SECONDS", 0)
    tasks = (("d", "c", "a"), ("e", "c", None))
    (tmp_path / "points").mkdir()

    def work(folder):
        run(config_of(tmp_path, bert, folder / "e", TEXTS[:4], tasks, epochs=2, batch_size=4), QUIET)

    def read(folder):
        return rows_of(folder / "e"), weights(folder / "e")

    assert killed_at_every_point(work, read, tmp_path / "points", step=CRASH_STEP) * CRASH_STEP > 30


@pytest.mark.slow
def test_a_state_is_saved_once_a_minute_and_the_one_before_goes(bert, tmp_path, monkeypatch, at_step):
    config = config_of(tmp_path, bert, tmp_path / "e")
    seen = []
    monkeypatch.setattr(trainer, "SAVE_SECONDS", 0)
    states = config.out / training.STATE
    at_step(STEPS, lambda: seen.extend(p.name for p in states.rglob("checkpoint-*")))
    run(config, QUIET)
    assert seen == [f"checkpoint-{STEPS - 1}"]
    monkeypatch.setattr(trainer, "SAVE_SECONDS", 60)
    run(replace(config, out=tmp_path / "f"), QUIET)
    assert len(seen) == 1, "six steps take no minute"


# -- refused


WRONG = {
    "epochs": 0,
    "batch_size": 0,
    "learning_rate": 0.0,
    "loss_temperature": 0.0,
    "weight_decay": -1.0,
    "max_grad_norm": float("nan"),
    "precision": "half",
    "device": "gpu",
    "encoder": "./no/such",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_refused_start_leaves_nothing_behind(name, bert, tmp_path):
    config = replace(config_of(tmp_path, bert, tmp_path / "e"), **{name: WRONG[name]})
    with pytest.raises(InputError, match=f"--{name.replace('_', '-')} {WRONG[name]}: "):
        run(config, QUIET)
    assert not config.out.exists()


def test_weights_that_cannot_be_loaded_leave_nothing_behind(bert, tmp_path):
    import shutil

    broken = shutil.copytree(bert, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"no weights")
    config = config_of(tmp_path, broken, tmp_path / "e")
    with pytest.raises(InputError, match="cannot be loaded"):
        run(config, QUIET)
    assert not config.out.exists()


def test_a_missing_gpu_and_a_wrong_directory_are_said_before_torch_is_loaded(bert, tmp_path):
    paths = make_task(tmp_path)
    code = f"""
import sys
from pathlib import Path
from stages.base.errors import InputError
from stages.text_encoder.config import TrainEncoderConfig
for wrong in ({{"device": "cuda:99", "encoder": {str(bert)!r}}}, {{"device": "cpu", "encoder": {str(tmp_path)!r}}}):
    try:
        TrainEncoderConfig(manifest=Path({str(paths["manifest"])!r}), negatives=Path({str(paths["negatives"])!r}),
                           out=Path({str(tmp_path / "e")!r}), **wrong).check()
    except InputError as e:
        print(e)
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True)
    device, encoder, loaded = done.stdout.splitlines()
    assert device.startswith("--device cuda:99: torch sees ") and "no *.safetensors" in encoder
    assert loaded == "False" or "no CUDA device" not in device, "torch is asked where there is a GPU's driver"
    assert not (tmp_path / "e").exists()


# -- what the key holds


@pytest.mark.slow
def test_the_key_holds_the_precision_that_was_used(bert, tmp_path, monkeypatch):
    from stages.training import torch_setup

    monkeypatch.setattr(torch_setup, "has_bf16", lambda device: False)
    config = config_of(tmp_path, bert, tmp_path / "e", precision="auto")
    run(config, QUIET)
    assert run(replace(config, precision="fp32"), QUIET).up_to_date
    assert run(config, QUIET).up_to_date
    monkeypatch.setattr(torch_setup, "has_bf16", lambda device: True)
    with pytest.raises(InputError, match="precision was 'fp32', now 'bf16'"):
        run(config, QUIET)
    assert run(replace(config, precision="fp32"), QUIET).up_to_date, "the way to share an artifact"


# -- leftovers and other writers


@pytest.mark.slow
def test_what_killed_runs_were_making_goes_and_a_neighbours_stays(bert, tmp_path):
    config = config_of(tmp_path, bert, tmp_path / "e", tasks=(("d", "c", "a"), ("d", "c", "b")))
    encoders = config.out / FOLDER
    run(config, replace(QUIET, shard="0/2"))
    for name in ("00000-of-00002", "00001-of-00002", "00000-of-00003"):
        (encoders / f".tmp-{name}" / "1_Pooling").mkdir(parents=True)
    with (config.out / ".lock-part-00001-of-00002").open("w") as neighbour:  # as a living process holds it
        fcntl.flock(neighbour, fcntl.LOCK_EX)
        run(config, replace(QUIET, shard="0/2"))
        assert [p.name for p in encoders.glob(".tmp-*")] == [".tmp-00001-of-00002"]
    run(config, replace(QUIET, shard="1/2"))
    assert not list(encoders.glob(".tmp-*")) and len(weights(config.out)) == 2


@pytest.mark.slow
def test_a_training_whose_artifact_was_replaced_stops_and_keeps_nothing(bert, tmp_path, at_step, monkeypatch):
    """While one shard trains, another process replaces the artifact by one of another seed."""
    config = config_of(tmp_path, bert, tmp_path / "e", tasks=(("d", "c", "a"), ("d", "c", "b")))
    other = replace(config, seed=7)
    at_step(1, lambda: begun(other))
    with pytest.raises(InputError, match="another command has replaced this artifact"):
        run(config, replace(QUIET, shard="0/2"))
    monkeypatch.undo()
    run(other, replace(QUIET, shard="0/2"))
    alone = replace(other, out=tmp_path / "alone")
    run(alone, QUIET)
    assert weights(config.out) == weights(alone.out) and rows_of(config.out) == rows_of(alone.out)


# -- shown


@pytest.mark.slow
def test_steps_and_time_left_are_shown(bert, tmp_path, monkeypatch, capfd):
    from stages.base import progress

    monkeypatch.setattr(progress, "PLAIN_LINE_SECONDS", 0)
    config = config_of(tmp_path, bert, tmp_path / "e")
    run(config, RunOptions())
    lines = [line for line in capfd.readouterr().err.splitlines() if "step" in line]
    assert len(lines) == STEPS and lines[1].startswith("d / c / a: step 2 of 6, ") and lines[1].endswith(" s left")
    run(replace(config, out=tmp_path / "f"), QUIET)
    assert capfd.readouterr().err == ""


def test_steps_are_a_second_bar_on_a_terminal(monkeypatch):
    from stages.base.progress import Progress

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    rows = Progress("train-encoder", 2, quiet=False)
    steps = rows.steps("d / c / a", 80, done=20)
    steps.advance()
    bar = rows._bar.tasks[1]
    assert (bar.description, bar.completed, bar.total) == ("d / c / a", 21, 80)
    steps.stop()
    assert len(rows._bar.tasks) == 1
    rows.stop()
