"""pipelines/slurm/ without a Slurm: what is submitted, with which options. On a real one: test_slurm.py."""

import subprocess

import pytest

from tests.command_lines import check
from tests.pipelines.recorded import BOTH, NEEDED, ROOT, SCRIPTS, Run, value

ARRAYS = {"caption", "rewrite-negatives", "train-encoder", "score"}
TRAININGS = {"train-visualad", "finetune-mllm"}


def jobs(run: Run) -> list[tuple[dict[str, str], list[str]]]:
    """(options of sbatch, what task.sh gets) of each job; the last of options that are given twice counts."""
    found = []
    for _, *words in run.of("sbatch"):
        at = words.index("pipelines/slurm/task.sh")
        found.append((dict(w.partition("=")[::2] for w in words[:at]), words[at + 1 :]))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("script", [s for s in SCRIPTS if s != "demo.sh"])
def test_every_command_of_a_pipeline_is_a_job_after_the_one_before(script, tmp_path):
    """The same commands as without Slurm, in their order; nothing runs here."""
    settings = NEEDED.get(script, {}) | {"PARTITION": "gpu", "ACCOUNT": "me", "SHARDS": "8", "TRAIN_NODES": "2"}
    run = Run(tmp_path, f"slurm/reproduce.sh {script.removesuffix('.sh')}", **settings).done()
    assert run.code == 0, run.output
    submitted = jobs(run)
    assert len(submitted) > 3 and len(run.commands) == len(submitted), "and nothing else"
    for number, (options, (kind, *command)) in enumerate(submitted, 1):
        assert options["--partition"] == "gpu" and options["--account"] == "me"
        assert options.get("--dependency") == (f"afterok:{number - 1}" if number > 1 else None)
        stage = command[1] if command[0] == "adcli" else ""
        assert kind == ("shard" if stage in ARRAYS else "training" if stage in TRAININGS else "once")
        assert ("--array" in options) == (kind == "shard") and options.get("--array", "1-8") == "1-8"
        assert options["--nodes"] == ("2" if kind == "training" else "1") and "--shard" not in command
        no_gpu = (
            kind == "once"
            or "rules" in command
            or "words" in command
            or value([*command, "--vlm", ""], "--vlm") == "scene"
        )
        assert options.get("--gres") == (None if no_gpu else "gpu:1")
        if stage:
            check(command[1:])


def test_what_is_in_the_queue_is_not_submitted_again(tmp_path):
    run = Run(tmp_path, "slurm/reproduce.sh visualad", QUEUED="train-visualad", **BOTH).done()
    assert (
        run.code == 0 and run.output.count("in the queue as job 77: adcli train-visualad") == 4
    )  # two models, two sets
    submitted = jobs(run)
    assert not any(command[2] == "train-visualad" for _, command in submitted)
    (first, *_) = [options for options, command in submitted if command[2] == "score"]
    assert first["--dependency"] == "afterok:77"


@pytest.mark.slow
def test_the_same_command_has_the_same_name_and_another_one_another(tmp_path):
    def names(**settings):
        return [
            options["--job-name"] for options, _ in jobs(Run(tmp_path, "slurm/reproduce-vidad.sh", **settings).done())
        ]

    assert names() == names() and len(set(names())) == len(names()) == 8
    assert names(SEED="1")[0] != names()[0]


@pytest.mark.parametrize("arguments", ["slurm/reproduce.sh", "slurm/reproduce.sh nothing", "slurm/submit.sh"])
def test_without_a_pipeline_or_a_command_the_script_says_how_it_is_called(arguments, tmp_path):
    run = Run(tmp_path, arguments).done()
    assert run.code == 2 and "PARTITION=gpu ACCOUNT=me" in run.output and not run.commands


CAPTION = "slurm/submit.sh adcli caption m.parquet --out c.parquet"


@pytest.mark.parametrize(
    ("settings", "more", "said"),
    [
        ({"SHARDS": "four"}, "", "SHARDS=four: a whole number is expected"),
        ({"SHARD_GPUS": "one"}, "", "SHARD_GPUS=one: a whole number is expected"),
        ({"BIN": "/nowhere", "PATH": "/usr/bin:/bin"}, "", "no adcli in /nowhere"),
        ({}, " --shard 0/4", "--shard: tasks take their own, SHARDS=16 says how many"),
        *(({"TIME": time}, "", f"TIME={time} is all GRACE=120") for time in ("2", "1:59", "00:02:00", "0-0:02")),
    ],
)
def test_a_setting_that_cannot_be_meant_submits_nothing(settings, more, said, tmp_path):
    run = Run(tmp_path, CAPTION + more, **settings).done()
    assert run.code == 2 and said in run.output and not run.of("sbatch"), run.output


@pytest.mark.parametrize("time", ["3", "2:01", "00:02:01", "1-0", "1-08:09", "2-08:09:08", "0", "UNLIMITED", "soon"])
def test_a_time_that_is_longer_than_the_grace_is_that_of_the_job(time, tmp_path):
    ((options, _),) = jobs(Run(tmp_path, CAPTION, TIME=time).done())
    assert options["--time"] == time and options["--export"] == "ALL"


def test_help_lists_the_settings():
    done = subprocess.run(["pipelines/slurm/submit.sh", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert all(name in done.stdout for name in ("SHARDS=16", "TRAIN_NODES=1", "GRACE=120")), done.stdout
