"""What has the name of a file and is none (pipes, sockets, devices), and reads that never come back."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from stages.artifacts.digests import read_state, states_of
from stages.artifacts.reader import read_table
from stages.artifacts.tables import MANIFEST
from stages.base.errors import ImageError, InputError
from stages.base.texts import read_text
from stages.datasets.masks import load_mask
from stages.datasets.opening import opened
from stages.training.saved_models import header_of
from tests.processes import Started

ROOT = Path(__file__).parents[2]
SAID = "a pipe, a socket or a device, not a file"


def fifo(path):
    os.mkfifo(path)


def listening(path):
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(path))


def endless(path):
    path.symlink_to("/dev/zero")


def blocked(path):
    path.symlink_to("/dev/tty")


@pytest.fixture(params=[fifo, listening, endless, blocked])
def none(request, tmp_path, monkeypatch):
    """A path, short enough for a socket."""
    monkeypatch.chdir(tmp_path)
    request.param(Path("x.png"))
    return Path("x.png")


def test_whoever_opens_files_refuses_what_is_none(none):
    assert read_state(none) is None
    assert states_of({none: ()}, quiet=True) == {none: None}
    for use, error in ((opened(none).__enter__, ImageError), (lambda: load_mask(none), ImageError)):
        with pytest.raises(error, match=f"x.png: {SAID}"):
            use()
    for use in (read_text, header_of):
        with pytest.raises(InputError, match=f"x.png.*{SAID}"):
            use(none)


def adcli(*arguments):
    return Started(*arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def said_by(process):
    """Its output; a process that hangs is a failed test."""
    try:
        return process.communicate(timeout=60)[0]
    finally:
        process.kill()


@pytest.mark.slow
def test_a_pipe_among_images_is_one_failed_row(tmp_path, save_image):
    save_image(tmp_path / "d" / "good" / "1.png")
    os.mkfifo(tmp_path / "d" / "good" / "2.png")
    (tmp_path / "d" / "good" / "3.png").symlink_to("/dev/zero")
    process = adcli("data", "index", "folder", tmp_path / "d", "--out", tmp_path / "m")
    said_by(process)
    assert process.returncode == 3
    rows = read_table(tmp_path / "m", MANIFEST).to_pylist()
    assert [bool(r["error"]) for r in rows] == [False, True, True]
    assert all(SAID in r["error"] for r in rows[1:])


def test_a_pipe_for_labels_is_one_line(tmp_path, save_image):
    save_image(tmp_path / "d" / "1.png")
    os.mkfifo(tmp_path / "labels.csv")
    process = adcli(
        "data", "index", "folder", tmp_path / "d", "--labels", tmp_path / "labels.csv", "--out", tmp_path / "m"
    )
    said = said_by(process)
    assert process.returncode == 2 and said.count("\n") == 1 and SAID in said


BLOCKED = """
import os, sys
from adcli.ending import end_on_signals, exit_code_of, leave
from stages.base.threads import threads
end_on_signals()
read, write = os.pipe()
def work():
    with threads(2) as pool:
        print("ready", flush=True)
        list(pool.map(lambda n: os.read(read, 1), range(5)))
leave(exit_code_of(work, False))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_ends_a_command_whose_threads_hang_in_a_read(number):
    process = subprocess.Popen(
        [sys.executable, "-c", BLOCKED], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert said_by(process) == "adcli: interrupted; the same command goes on from here\n"
    assert process.returncode == 130
