"""The bar leaves the terminal as it was, also when the stage fails: on a real pseudo-terminal."""

import os
import pty
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HIDE, SHOW = b"\x1b[?25l", b"\x1b[?25h"  # the cursor
STAGE = """
import sys
from pathlib import Path
from tests.artifacts.test_artifacts import KEYS, SPEC, row
from stages.artifacts.tables import CAPTIONS
from stages.artifacts.writer import Artifact
from stages.base.config import RunOptions
with Artifact(Path(sys.argv[1]), CAPTIONS, SPEC, KEYS, RunOptions()) as artifact:
    artifact.write(row(artifact.pending[0]))
    raise {}("stopped here")
"""


@pytest.mark.slow
@pytest.mark.parametrize("error", ["ValueError", "KeyboardInterrupt", "SystemExit"])
def test_a_stage_that_raises_shows_the_cursor_again(tmp_path, error):
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(ROOT)
        os.execve(
            sys.executable,
            [sys.executable, "-c", STAGE.format(error), str(tmp_path / "c")],
            os.environ | {"TERM": "xterm", "PYTHONPATH": str(ROOT)},
        )
    said = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # Linux's way of saying that the other side is closed
            break
        if not piece:
            break
        said += piece
    os.close(terminal)
    assert os.waitpid(child, 0)[1] != 0
    assert HIDE in said and said.rindex(SHOW) > said.rindex(HIDE), said
    assert b"stopped here" in said[said.rindex(SHOW) :] or b"caption" not in said[said.rindex(SHOW) :]
