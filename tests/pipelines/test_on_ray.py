"""pipelines/on_ray.py on a real Ray cluster of three nodes on this machine: `make test-ray` installs Ray."""

import os
import re
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from stages.artifacts.reader import read_table
from stages.artifacts.tables import CAPTIONS
from tests.pipelines.recorded import ROOT
from tests.processes import adcli

HERE = str(Path(sys.executable).parent) if find_spec("ray") else ""
RAY = os.environ.get("ADCLI_RAY", HERE)  # folder of `ray` and of a python that has it
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not RAY, reason="needs Ray: make test-ray")]
PORT = "6397"
# The command of a shard, which waits before its work until it may go on: so that there is somebody to kill.
COMMAND = r"""#!/bin/sh
echo $$ >> {folder}/pids
exec {python} -c '
import os, sys, time
sys.argv[0] = "adcli"
while os.path.exists("{folder}/wait"): time.sleep(0.1)
from adcli.main import main
main()' "$@"
"""


def ray(*arguments: str) -> subprocess.CompletedProcess:
    own = {"RAY_DISABLE_IMPORT_WARNING": "1", "RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "300"}
    own["PYTHONPATH"] = str(ROOT)  # workers run the adcli that is tested, also where another one is installed
    return subprocess.run([f"{RAY}/ray", *arguments], env=os.environ | own, capture_output=True, text=True)


@pytest.fixture
def cluster(tmp_path_factory):
    """Three nodes of two CPUs; yields the raylets' pids, the head's first."""
    session = tmp_path_factory.mktemp("ray")
    memory = ("--object-store-memory", str(80 * 2**20), "--num-cpus", "2", "--disable-usage-stats")
    short = Path("/tmp/adcli-ray-test")  # sockets have short names
    short.unlink(missing_ok=True)
    short.symlink_to(session)
    try:
        before = raylets()
        head = ray("start", "--head", "--port", PORT, "--include-dashboard=false", f"--temp-dir={short}", *memory)
        assert head.returncode == 0, head.stdout + head.stderr
        for _ in range(2):
            more = ray("start", "--address", f"127.0.0.1:{PORT}", *memory)
            assert more.returncode == 0, more.stdout + more.stderr
        yield sorted(raylets() - before)
    finally:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                ours = str(short) in (process / "cmdline").read_text()
            except OSError:
                continue
            if ours:
                os.kill(int(process.name), signal.SIGKILL)
        short.unlink()


def raylets() -> set[int]:
    found = subprocess.run(["pgrep", "-x", "raylet"], capture_output=True, text=True).stdout
    return set(map(int, found.split()))


def parent(pid: int) -> int:
    return int(re.search(r"^PPid:\s*(\d+)", Path(f"/proc/{pid}/status").read_text(), re.M)[1])


def test_a_killed_worker_and_a_killed_node_cost_nothing(cluster, tmp_path):
    """Six shards at work on three nodes; one loses its worker, two lose their node, one its own process."""
    pictures, manifest = tmp_path / "s", tmp_path / "m"
    assert adcli("data", "synth", "surfaces", "--out", pictures, "--good", 12, "--new", 4, "--quiet").returncode == 0
    assert adcli("data", "index", "folder", pictures / "good", "--out", manifest, "--quiet").returncode == 0
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/adcli").write_text(COMMAND.format(folder=tmp_path, python=sys.executable))
    (tmp_path / "bin/adcli").chmod(0o755)
    (tmp_path / "wait").touch()
    caption = ["caption", str(manifest), "--workers", "1"]
    environment = os.environ | {
        "BIN": str(tmp_path / "bin"),
        "PYTHONPATH": str(ROOT),
        "RAY_ADDRESS": f"127.0.0.1:{PORT}",
    }
    driver = subprocess.Popen(
        [f"{RAY}/python", ROOT / "pipelines/on_ray.py", "--shards", "6", "--gpus", "0", "--", *caption, "--out", "c"],
        cwd=tmp_path,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )

    def started() -> list[int]:
        path = tmp_path / "pids"
        return list(map(int, path.read_text().split())) if path.exists() else []

    def until(count: int) -> None:
        end = time.monotonic() + 120
        while len(started()) < count:
            assert time.monotonic() < end and driver.poll() is None, driver.communicate()[0]
            time.sleep(0.1)

    until(6)
    of = {node: [p for p in started() if parent(parent(p)) == node] for node in cluster}
    assert [len(p) for p in of.values()] == [2, 2, 2]
    first, second, third = cluster
    os.kill(third, signal.SIGKILL)
    os.kill(parent(of[second][0]), signal.SIGKILL)
    os.kill(of[first][0], signal.SIGKILL)
    until(6 + 2)  # the lost node's wait for a place
    (tmp_path / "wait").unlink()
    said = driver.communicate(timeout=300)[0]
    assert driver.returncode == 0, said
    assert "6 of 6 shards" in said and "c: 12 of 12 rows, 12 new, 0 failed" in said
    assert adcli(*caption, "--out", tmp_path / "plain", "--quiet").returncode == 0
    both = [read_table(tmp_path / name, CAPTIONS).drop_columns(list(CAPTIONS.volatile)) for name in ("c", "plain")]
    assert both[0].sort_by("image_id").equals(both[1].sort_by("image_id"))
    assert not [name for name in os.listdir(tmp_path / "c") if name.startswith(".")]
