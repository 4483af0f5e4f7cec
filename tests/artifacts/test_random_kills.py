"""A small share of benchmarks.kills: random instants, SIGKILL and SIGTERM."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow


def kills(folder) -> str:
    """What 24 kills with seed 7 print. In a process of its own: kills.py forks, and a fork of a process that has
    threads (pytest's, once OpenCV or torch were used in it) may wait for one that is not there."""
    command = [sys.executable, "-m", "benchmarks.kills", str(folder), "--kills", "24", "--seed", "7", "--untrained"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_stages_killed_at_random_instants(tmp_path):
    said = kills(tmp_path)
    assert "24 kills" in said and kills(tmp_path) == said  # all done before: nothing is killed
