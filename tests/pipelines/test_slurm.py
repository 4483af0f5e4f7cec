"""The scripts of pipelines/slurm/ on a real Slurm of four nodes, two CPUs each, all on this machine: `make test-slurm`
installs and starts it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from stages.artifacts.reader import read_table
from stages.artifacts.tables import CAPTIONS, ENCODERS, METRICS, NEGATIVES, SCORES, TRUTH
from tests.pipelines.recorded import ROOT
from tests.processes import adcli
from tests.spots import make_spots
from tests.tiny import tiny_clip_vision

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not os.environ.get("ADCLI_SLURM"), reason="needs a Slurm: make test-slurm"),
]
SETTINGS = {
    "SCENARIOS": "fruits",
    "CONDITIONS": "white_bg",
    "SIZE": "200",
    "RUN": "runs/v",
    "TRAIN": "--epochs 2",
    "SHARDS": "3",
    "SHARD_GPUS": "1",
    "CPUS": "1",
    "JOBS": "1",
}
TABLES = {
    "captions.parquet/fruits": CAPTIONS,
    "negatives.parquet/fruits": NEGATIVES,
    "encoders.parquet/fruits": ENCODERS,
    "scores.parquet/fruits": SCORES,
    "metrics.parquet": METRICS,
}
STAGES = {"captions": "caption-", "negatives": "rewrite-negatives-", "encoders": "train-encoder-", "scores": "score-"}


class Cluster:
    """A folder in which the pipelines are run, and the queue."""

    def __init__(self, folder: Path) -> None:
        shutil.copytree(ROOT / "pipelines", folder / "pipelines")
        (folder / "bin").mkdir()
        for name, more in (("adcli", "-P -m adcli"), ("python", "")):
            (folder / "bin" / name).write_text(f'#!/bin/sh\nexec {sys.executable} {more} "$@"\n')
            (folder / "bin" / name).chmod(0o755)
        own = {"BIN": str(folder / "bin"), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        self.folder, self.environment = folder, os.environ | own | SETTINGS

    def run(self, script: str, *arguments: object, **settings: str) -> str:
        done = subprocess.run(
            [f"pipelines/{script}", *map(str, arguments)],
            cwd=self.folder,
            env=self.environment | settings,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def queue(self, stage: str = "", states: str = "PD,CF,R,S,CG", reason: str = "") -> list[str]:
        """JOB or JOB_TASK of what is in the queue, of one stage alone where it is named."""
        asked = ["squeue", "--noheader", "--array", f"--states={states}", "--format=%i %Z %j %r"]
        lines = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
        mine = [line.split() for line in lines if line.split()[1] == str(self.folder)]
        return [job for job, _, name, why, *_ in mine if name.startswith(stage) and reason in why]

    def empty(self) -> bool:
        """Whether nothing of it is in the queue, where a requeued job is missing for a moment."""
        return not (self.queue() or time.sleep(3) or self.queue())

    def until(self, what, seconds: float = 1500):
        """Its first result that is true."""
        end, since = time.monotonic() + seconds, {}
        while not (found := what()):
            assert time.monotonic() < end, self.logs()
            for job in self.queue(states="PD", reason="BeginTime"):  # Slurm's two minutes before a second start
                if time.monotonic() > since.setdefault(job, time.monotonic()) + 15:  # the first one has been cleared up
                    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"])
            time.sleep(0.3)
        return found

    def at_work(self, stage: str, task: int) -> tuple[str, int]:
        """(JOB_TASK, pid of adcli) of a task whose shard is being written."""
        lock = f".lock-part-{task - 1:05d}-of-{int(SETTINGS['SHARDS']):05d}"
        self.until(lambda: list((self.folder / "runs/v").glob(f"{stage}.parquet/fruits/{lock}")))
        (job,) = [job for job in self.queue(STAGES[stage], "R") if job.endswith(f"_{task}")]
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes().decode().split("\0")
                environment = (process / "environ").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            wanted = {f"SLURM_ARRAY_JOB_ID={job.split('_')[0]}", f"SLURM_ARRAY_TASK_ID={task}"}
            if "-m" in command and wanted <= set(environment):
                return job, int(process.name)
        raise AssertionError(f"{job} has no process")

    def lose(self, node: str) -> None:
        """All that runs on a node is gone at once: its slurmd, what started the tasks there, and the tasks."""
        tasks = [p for p in Path("/proc").glob("[0-9]*") if f"SLURMD_NODENAME={node}" in words(p / "environ")]
        parents = {int(status(p)["PPid"]) for p in tasks}
        starters = [p for p in parents if status(Path(f"/proc/{p}")).get("Name") == "slurmstepd"]
        assert starters, f"nothing runs on {node}"
        for pid in (int(slurmd(node).read_text()), *starters, *(int(p.name) for p in tasks)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def logs(self) -> str:
        return "\n".join(f"{p.name}: {p.read_text()}" for p in sorted(self.folder.glob("runs/logs/*")))

    def log(self, stage: str, task: int) -> str:
        return "".join(p.read_text() for p in sorted(self.folder.glob(f"runs/logs/{stage}-*_{task}.log")))


def slurmd(node: str) -> Path:
    """The file with its number."""
    return Path(f"/run/slurmd-{node}.pid")


def words(file: Path) -> list[str]:
    """Of /proc; none of a process that is gone."""
    try:
        return file.read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def status(process: Path) -> dict[str, str]:
    """Name, PPid and the like."""
    lines = "".join(words(process / "status")).splitlines()
    return {"PPid": "0"} | {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def states() -> dict[str, str]:
    """node -> idle, mixed, allocated, down, ..."""
    lines = subprocess.run(["sinfo", "--noheader", "--Node", "--format=%N %T"], capture_output=True, text=True).stdout
    return dict(line.split() for line in lines.splitlines())


@pytest.fixture
def cluster(tmp_path):
    cluster = Cluster(tmp_path)
    yield cluster
    if jobs := {job.split("_")[0] for job in cluster.queue()}:
        subprocess.run(["scancel", *jobs])
    for node, state in states().items():
        if state.startswith("down") or not Path(f"/proc/{slurmd(node).read_text().strip()}").exists():
            subprocess.run(["slurmd", "-N", node], check=True)
    cluster.until(lambda: set(states().values()) == {"idle"}, 120)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The tables of the plain script, without Slurm."""
    plain = Cluster(tmp_path_factory.mktemp("plain"))
    plain.run("vidad.sh", JOBS="2")  # trainings of one thread each, as with CPUS=1
    return tables(plain.folder)


def tables(folder: Path) -> dict:
    """What a reader sees, but for seconds and the like."""
    found = {}
    for name, table in TABLES.items():
        rows = read_table(folder / "runs/v" / name, table).drop_columns(list(table.volatile)).to_pylist()
        found[name] = sorted(rows, key=lambda row: [str(row[k]) for k in table.key])
    return found


def same_tables(ours: dict, theirs: dict) -> None:
    for one, other in zip(ours["scores.parquet/fruits"], theirs["scores.parquet/fruits"], strict=True):
        assert one.pop("score") == pytest.approx(other["score"], abs=1e-6), "which texts share a batch, rounds it"
        del one["neighbours"]  # of equals another one may come first
    theirs = theirs | {"scores.parquet/fruits": [without(row) for row in theirs["scores.parquet/fruits"]]}
    assert ours == theirs


def without(row: dict) -> dict:
    return {name: value for name, value in row.items() if name not in ("score", "neighbours")}


def test_a_pipeline_with_a_kill_a_requeue_and_a_cancellation(cluster, plain):
    """The first submission loses a task to SIGKILL and has another one requeued, the second one is cancelled in the
    training, the third one goes on from there. The tables are those of the plain script."""
    assert cluster.run("slurm/reproduce-vidad.sh").count("\njob ") == 7
    assert "\njob" not in (said := cluster.run("slurm/reproduce-vidad.sh")) and said.count("in the queue as job") == 8
    job, pid = cluster.at_work("captions", 2)
    other = job.replace("_2", "_3")
    subprocess.run(["scontrol", "requeue", other], check=True)
    os.kill(pid, signal.SIGKILL)
    cluster.until(cluster.empty)
    assert "ended with exit code 137" in cluster.log("caption", 2) and not list(
        cluster.folder.glob("runs/v/negatives*")
    )
    assert cluster.log("caption", 3).count(": adcli caption ") == 2, "it was requeued"

    cluster.run("slurm/reproduce-vidad.sh")
    cluster.until(lambda: list(cluster.folder.glob("runs/v/encoders.parquet/fruits/.lock-part-*")))
    subprocess.run(["scancel", *{job.split("_")[0] for job in cluster.queue("train-encoder-", "R")}], check=True)
    cluster.until(cluster.empty)
    assert "after SIGTERM" in cluster.logs() and "goes back into the queue" not in cluster.logs()
    assert not list(cluster.folder.glob("runs/v/scores*")), "what waited for it went, too"

    cluster.run("slurm/reproduce-vidad.sh")
    cluster.until(cluster.empty)
    same_tables(tables(cluster.folder), plain)


def test_sixteen_tasks_and_a_node_that_fails(cluster, plain):
    """As docs/cluster.md says: Slurm notices, starts what ran there elsewhere, and the stages after it follow, to the
    final table."""
    cluster.run("slurm/reproduce-vidad.sh", SHARDS="16")
    on = ["squeue", "--noheader", "--array", "--states=R", "--nodelist=node3", "--format=%i %j"]

    def there() -> list[str]:
        lines = subprocess.run(on, capture_output=True, text=True, check=True).stdout.splitlines()
        return [line.split()[0].split("_")[1] for line in lines if line.split()[1].startswith("caption-")]

    lost = cluster.until(there)
    time.sleep(2)
    lost = there() or lost
    cluster.lose("node3")
    cluster.until(lambda: states()["node3"].startswith("down"), 120)
    cluster.until(cluster.empty)
    logs = {task: cluster.log("caption", int(task)) for task in map(str, range(1, 17))}
    again = [task for task, log in logs.items() if log.count(": adcli caption ") > 1]
    assert set(lost) <= set(again) and len(again) <= 2, "those of the node that failed, and no others"
    assert all(log.rstrip().endswith("ended with exit code 0") for log in logs.values()), cluster.logs()
    assert len(list(cluster.folder.glob("runs/logs/score-*_*.log"))) == 16
    same_tables(tables(cluster.folder), plain)


def test_a_task_goes_on_after_its_time_limit(cluster, tmp_path_factory):
    """Rendering takes longer than a minute, of which Slurm keeps to within half a one."""
    synth = ("adcli", "data", "synth", "vidad", "--scenarios", "fruits", "--conditions", "white_bg", "--workers", "1")
    more = ("--size", "900", "--out", "runs/s")
    cluster.run("slurm/submit.sh", *synth, *more, TIME="00:01:00", GRACE="20")
    cluster.until(cluster.empty)
    assert "ended with exit code 130 after SIGTERM" in cluster.logs() and "goes back into the queue" in cluster.logs()
    assert cluster.logs().count(": adcli data synth") >= 2 and "ended with exit code 0" in cluster.logs()
    other = tmp_path_factory.mktemp("plain")
    assert adcli(*synth[1:], *more, cwd=other).returncode == 0
    both = [read_table(folder / "runs/s/truth.parquet", TRUTH) for folder in (cluster.folder, other)]
    assert both[0].equals(both[1]) and len(both[0]) == 200


@pytest.mark.parametrize(("nodes", "gpus"), [(1, 2), (2, 2), (2, 0)])
def test_a_training_of_several_processes_is_that_of_one(cluster, tmp_path_factory, nodes, gpus):
    """srun and torchrun over the GPUs of a node, and over nodes; without GPUs one process each. One of two nodes fails
    on the way: the training goes on from its last saved state on others."""
    from safetensors.torch import load_file

    pictures = make_spots(tmp_path_factory.mktemp("spots"), 24)
    clip = tiny_clip_vision(tmp_path_factory.mktemp("clip"))
    own = {"backbone": clip, "size": 56, "layers": "2,4", "batch-size": 4, "epochs": 8 if gpus and nodes > 1 else 2}
    own |= {"device": "cpu", "precision": "fp32", "variant": "paper", "save-steps": 4}
    command = ("train-visualad", pictures, "--root", pictures.parent, *(w for n in own for w in (f"--{n}", own[n])))
    settings = {"TRAIN_NODES": str(nodes), "TRAIN_GPUS": str(gpus)}
    cluster.run("slurm/submit.sh", "adcli", *command, "--out", "runs/t", **settings)
    if fails := gpus and nodes > 1:
        cluster.until(lambda: list(cluster.folder.glob("runs/t/_training/checkpoint-*/trainer_state.json")))
        cluster.lose("node2")
    cluster.until(cluster.empty)
    log = cluster.logs()
    assert log.rstrip().endswith("ended with exit code 0") and log.count("1 of 1 rows") == 1, log
    # said by srun, by the step or by both: whoever hears of it first ends the others
    assert ("node failure" in log.lower() and "going on from step" in log) == bool(fails), log
    assert adcli(*command, "--out", cluster.folder / "one", models=True).returncode == 0
    one, both = (load_file(cluster.folder / n / "_checkpoint/visualad.safetensors") for n in ("one", "runs/t"))
    for name, tensor in one.items():
        assert (both[name] - tensor).abs().max() < 5e-5, name
