"""A scheduler's SIGTERM while a model answers: real processes, a tiny random Qwen2-VL."""

import os
import signal
from pathlib import Path

import pytest

from stages.artifacts.reader import read_table
from stages.artifacts.tables import CAPTIONS
from stages.base.interrupts import finishing
from tests.processes import Started, adcli

# The first batch waits for a line on stdin, as if it took minutes; `shape` of each batch is said.
SLOW = """
import sys
from stages.vlm.transformers_engine import LoadedModel
from adcli.main import main

real = LoadedModel._generate

def slow(self, batch, sampling):
    print("batch of", len(batch), flush=True)
    sys.stdin.readline()
    return real(self, batch, sampling)

LoadedModel._generate = slow
main()
"""


@pytest.fixture
def caption(qwen, images, tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)

    def command(out):
        more = ("--vlm", qwen, "--device", "cpu", "--batch-size", "2", "--max-tokens", "6", "--quiet")
        return ("caption", images, "--root", tmp_path, "--prompt", "general", *more, "--out", tmp_path / out)

    return command


def started(command, tmp_path) -> Started:
    pipes = {"stdin": -1, "stdout": -1, "stderr": -1}
    process = Started(*command, program=(tmp_path / "slow.py",), models=True, text=True, **pipes)
    assert process.stdout.readline() == "batch of 2\n", process.stderr.read()
    return process


def written(out: Path) -> int:
    import pyarrow.parquet as pq

    return sum(pq.read_metadata(p).num_rows for p in out.glob("part-*.parquet"))


@pytest.mark.slow
def test_sigterm_finishes_the_batch_in_hand(caption, tmp_path):
    """Six images in batches of two. Both copies of the signal, a scheduler's and a trap's, come in the first batch."""
    process = started(caption("c"), tmp_path)
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
    out, said = process.communicate("\n", timeout=300)  # the first batch ends; the next one would find no line
    assert (process.returncode, out, said) == (130, "", "adcli: interrupted; the same command goes on from here\n")
    assert written(tmp_path / "c") == 2
    assert adcli(*caption("c"), models=True).returncode == adcli(*caption("whole"), models=True).returncode == 0
    both = [read_table(tmp_path / name, CAPTIONS).drop_columns(["seconds"]) for name in ("c", "whole")]
    assert both[0].num_rows == 6 and both[0].sort_by("image_id").equals(both[1].sort_by("image_id"))


@pytest.mark.slow
def test_ctrl_c_does_not_wait_for_the_batch(caption, tmp_path):
    process = started(caption("c"), tmp_path)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 130 and "interrupted" in said and written(tmp_path / "c") == 0


def test_what_a_signal_broke_is_an_interruption():
    """vLLM's own processes, say, get the signal, too, and end."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), finishing() as asked:
            assert not asked()
            os.kill(os.getpid(), signal.SIGTERM)
            assert asked()
            raise RuntimeError("the engine is dead")
        with pytest.raises(RuntimeError, match="alive"), finishing():
            raise RuntimeError("the engine is alive")
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)
