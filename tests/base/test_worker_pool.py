"""Worker processes and Ctrl-C."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SCRIPT = """
import time

from stages.base.worker_pool import worker_pool

with worker_pool(2) as pool:
    print("started", flush=True)
    pool.map(time.sleep, [0.01, 0.01])
    print("at work", flush=True)
    pool.map(time.sleep, [60, 60])
"""


def interrupted(tmp_path: Path, when: str) -> str:
    """stderr of a script that gets SIGINT, with its workers as from a terminal, once it has printed `when`."""
    (tmp_path / "script.py").write_text(SCRIPT)
    with subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        start_new_session=True,
    ) as process:
        try:
            while (line := process.stdout.readline().strip()) != when:
                assert line, process.stderr.read()
            os.killpg(process.pid, signal.SIGINT)
            _, errors = process.communicate(timeout=30)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == -signal.SIGINT
    for _ in range(100):
        if not group_is_alive(process.pid):
            return errors
        time.sleep(0.1)
    raise AssertionError("a worker is left")


def group_is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_ctrl_c_ends_workers_that_work_without_their_tracebacks(tmp_path):
    errors = interrupted(tmp_path, "at work")
    assert errors.count("Traceback") == 1 and errors.rstrip().endswith("KeyboardInterrupt"), errors
    assert "Process " not in errors


@pytest.mark.slow
def test_ctrl_c_ends_workers_that_are_only_starting(tmp_path):
    errors = interrupted(tmp_path, "started")
    assert errors.count("Traceback") == 1 and "Process " not in errors, errors
