"""`--shard slurm`: which share a task of a Slurm array does."""

import json

import pytest

from stages.artifacts.shards import parse_shard, resolved
from stages.base.errors import InputError
from tests.processes import called


def task(number, first, last, count, **more):
    numbers = {"ID": number, "MIN": first, "MAX": last, "COUNT": count} | more
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in numbers.items()}


@pytest.mark.parametrize(
    ("environment", "shard"),
    [
        (task(1, 1, 16, 16), "0/16"),
        (task(16, 1, 16, 16, STEP=1), "15/16"),
        (task(0, 0, 15, 16), "0/16"),
        (task(15, 0, 15, 16), "15/16"),
        (task(6, 0, 30, 16, STEP=2), "3/16"),
        (task(10, 1, 16, 6, STEP=3), "3/6"),  # --array=1-17:3
        (task(3, 3, 3, 1), "0/1"),  # --array=3 alone: all that is missing
    ],
)
def test_the_share_of_a_task_counts_from_the_arrays_first(environment, shard):
    assert resolved("slurm", environment) == shard
    assert parse_shard(shard)
    assert resolved("3/16", environment) == "3/16"


@pytest.mark.parametrize("environment", [{}, {"SLURM_JOB_ID": "7"}, task("", 1, 16, 16), {"SLURM_ARRAY_TASK_ID": "1"}])
def test_outside_an_array_it_is_an_error(environment):
    with pytest.raises(InputError, match=r"--shard slurm: this is no task of a Slurm array .* sbatch --array=1-16"):
        resolved("slurm", environment)


@pytest.mark.parametrize("environment", [task(5, 1, 6, 3), task(5, 1, 6, 3, STEP=1), task(4, 1, 7, 3, STEP=3)])
def test_an_array_with_gaps_says_nothing_of_shares(environment):
    """--array=1,5,6: a task does not know that it is the second one."""
    if environment["SLURM_ARRAY_TASK_MAX"] == "7":
        environment["SLURM_ARRAY_TASK_ID"] = "5"
    with pytest.raises(InputError, match="not evenly spaced"):
        resolved("slurm", environment)


def test_each_task_of_an_array_does_its_share(tmp_path, monkeypatch):
    """By the command line: the record names the shares, and outside an array nothing is written."""
    assert (
        called("data", "synth", "surfaces", "--out", tmp_path / "s", "--good", "6", "--new", "3", "--quiet").returncode
        == 0
    )
    assert (
        called("data", "index", "folder", tmp_path / "s" / "good", "--out", tmp_path / "m", "--quiet").returncode == 0
    )
    command = ("caption", tmp_path / "m", "--out", tmp_path / "c", "--workers", "1", "--shard", "slurm")
    for name in ("ID", "MIN", "MAX", "COUNT", "STEP"):
        monkeypatch.delenv(f"SLURM_ARRAY_TASK_{name}", raising=False)
    refused = called(*command)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and not (tmp_path / "c").exists()
    for number in (3, 1, 2):
        for name, value in task(number, 1, 3, 3).items():
            monkeypatch.setenv(name, value)
        assert called(*command, "--quiet").returncode == 0
    record = json.loads((tmp_path / "c" / "_adcli.json").read_text())
    assert [run["shard"] for run in record["runs"]] == ["2/3", "0/3", "1/3"] and record["rows"] == 6
