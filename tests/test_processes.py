"""tests.processes: what it starts is as what `python -m adcli` starts."""

import os
import signal
import subprocess
import sys

import pytest

from tests.processes import ROOT, Started, adcli


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [("--version",), ("capton",), ("models", "--json"), ("caption", "none", "--out", "c")]
)
def test_it_says_and_ends_as_python_does(words, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    command = [sys.executable, "-m", "adcli", *words]
    real = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    done = adcli(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (real.returncode, real.stdout, real.stderr)


SCRIPT = """
import os, signal, sys, time
print(os.getpid(), os.getcwd(), os.environ["OWN"], sys.argv[1:], signal.getsignal(signal.SIGINT).__name__, flush=True)
sys.exit(int(input())) if sys.argv[1:] == ["7"] else time.sleep(600)
"""


def started(folder, *words):
    (folder / "script.py").write_text(SCRIPT)
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = Started(*words, program=(folder / "script.py",), env={"OWN": "x"}, cwd=folder, text=True, **pipes)
    handler = "default_int_handler"
    assert process.stdout.readline() == f"{process.pid} {folder} x {list(words)} {handler}\n"
    return process


def test_folder_environment_stdin_and_exit_code_are_its_own(tmp_path):
    process = started(tmp_path, "7")
    assert process.poll() is None
    assert process.communicate("5\n", timeout=60)[1] == "" and process.returncode == 5


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_closes_its_pipes(tmp_path, number):
    process, other = started(tmp_path), started(tmp_path)
    process.send_signal(number)
    assert process.stdout.read() == "" and process.wait(60) == -number
    assert other.poll() is None
    other.kill()
    assert other.communicate(timeout=60) and other.poll() == -signal.SIGKILL


def test_what_is_read_at_import_is_not_changed_in_vain():
    with pytest.raises(AssertionError, match="HF_HOME is read at import"):
        Started("models", env={"HF_HOME": "/elsewhere"})
