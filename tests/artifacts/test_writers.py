"""Several commands at one artifact: real processes, stopped and continued."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pyarrow.parquet as pq
import pytest

from stages.artifacts.reader import read_table
from stages.artifacts.tables import CAPTIONS
from stages.artifacts.writer import Artifact, Spec
from stages.base.config import RunOptions
from stages.base.errors import InputError
from tests.artifacts.test_artifacts import KEYS, SPEC, row

ROOT = Path(__file__).parents[2]
OTHER = Spec("caption", {"prompt": "b"}, {"manifest": "m"})

# writes its rows one by one: a line on stdin lets it write the next one, its end all the others
WRITER = """
import os, sys
from pathlib import Path
from tests.artifacts.test_artifacts import KEYS, SPEC, row
from tests.artifacts.test_writers import OTHER
from stages.artifacts import parts
from stages.artifacts.tables import CAPTIONS
from stages.artifacts.writer import Artifact
from stages.base.errors import InputError
from stages.base.config import RunOptions
out, which, shard, halt = sys.argv[1:]
if halt:        # stop in the middle of a part: it is written, and not yet in place
    prepare = parts.prepare
    def stopping(*arguments):
        temporary = prepare(*arguments)
        print("prepared", flush=True)
        sys.stdin.readline()
        return temporary
    parts.prepare = stopping
try:
    with Artifact(Path(out), CAPTIONS, SPEC if which == "old" else OTHER, KEYS,
                  RunOptions(quiet=True, shard=shard, overwrite=which == "overwrite"), flush_rows=2) as artifact:
        print("open", flush=True)
        for key in list(artifact.pending):
            if not halt:
                sys.stdin.readline()
            artifact.write(row(key, text=which))
            print("row", flush=True)
except InputError as e:
    print(f"refused: {e}", flush=True)
    sys.exit(2)
"""


class Writer:
    """A writer in a process of its own."""

    def __init__(self, out, which="old", shard="0/1", halt=""):
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(out), which, shard, halt],
            cwd=ROOT,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def line(self):
        return self.process.stdout.readline().strip()

    def rows(self, n):
        for _ in range(n):
            print(file=self.process.stdin, flush=True)
            assert self.line() == "row"

    def signal(self, number):
        self.process.send_signal(number)
        if number == signal.SIGSTOP:
            while Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "T":
                time.sleep(0.005)

    def end(self):
        """(exit code, its last line), after all its rows."""
        self.process.stdin.close()
        lines = self.process.stdout.read().splitlines()
        return self.process.wait(), lines[-1] if lines else ""


@pytest.fixture
def writer(tmp_path):
    started = []

    def start(*arguments, **more):
        started.append(Writer(tmp_path / "c", *arguments, **more))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


def write(out, spec=SPEC, said="text", **options):
    with Artifact(out, CAPTIONS, spec, KEYS, RunOptions(quiet=True, **options)) as artifact:
        for key in list(artifact.pending):
            artifact.write(row(key, text=said))
    return artifact.summary


def said(out):
    return {r["text"] for r in read_table(out, CAPTIONS).to_pylist()}


@pytest.mark.slow
@pytest.mark.parametrize("rows", [0, 1, 4])
def test_a_stopped_writer_of_old_settings_stops_when_it_goes_on(writer, tmp_path, rows):
    """An array job is submitted again with another seed while a task of the old one still ends."""
    out, old = tmp_path / "c", writer("old", "0/2")
    assert old.line() == "open"
    old.rows(rows)
    old.signal(signal.SIGSTOP)
    assert not write(out, OTHER, "new", overwrite=True, shard="1/2").complete
    old.signal(signal.SIGCONT)
    code, last = old.end()
    assert code == 2 and "another command has replaced this artifact" in last and str(out) in last
    assert write(out, OTHER, "new", shard="0/2").complete
    assert said(out) == {"new"} and len(read_table(out, CAPTIONS)) == 20
    assert not [n for n in os.listdir(out) if n.startswith(".")]


@pytest.mark.slow
def test_a_part_that_was_under_way_is_not_put_in_place(writer, tmp_path):
    out, old = tmp_path / "c", writer("old", "0/2", halt="halt")
    assert [old.line() for _ in range(3)] == ["open", "row", "prepared"]
    old.signal(signal.SIGSTOP)
    write(out, OTHER, "new", overwrite=True, shard="1/2")
    old.signal(signal.SIGCONT)
    code, last = old.end()
    assert code == 2 and "another command has replaced this artifact" in last
    assert write(out, OTHER, "new", shard="0/2").complete and said(out) == {"new"}
    assert not [n for n in os.listdir(out) if n.startswith(".")]


@pytest.mark.slow
def test_an_artifact_removed_while_it_is_written(writer, tmp_path):
    import shutil

    out, old = tmp_path / "c", writer()
    assert old.line() == "open"
    old.rows(3)
    old.signal(signal.SIGSTOP)
    shutil.rmtree(out)
    old.signal(signal.SIGCONT)
    code, last = old.end()
    assert code == 2 and "gone, something removed it meanwhile; run the same command again" in last
    assert not out.exists()


@pytest.mark.slow
def test_shards_of_another_count_wait_for_living_ones(writer, tmp_path):
    out, old = tmp_path / "c", writer("old", "0/2")
    assert old.line() == "open"
    old.rows(3)
    for shard in ("0/3", "2/3", "0/1"):
        with pytest.raises(InputError, match=f"another process is writing shard 0/2 .* --shard {shard} would write"):
            write(out, shard=shard)
    old.signal(signal.SIGSTOP)  # a stopped process lives, too
    with pytest.raises(InputError, match="another process is writing shard 0/2"):
        write(out, OTHER, overwrite=True, shard="1/3")
    old.signal(signal.SIGKILL)
    old.process.wait()
    assert [write(out, shard=f"{i}/3").complete for i in range(3)] == [False, False, True]
    assert len(read_table(out, CAPTIONS)) == 20
    assert not [n for n in os.listdir(out) if n.startswith(".")]


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_what_is_double_is_removed_at_completion(tmp_path, monkeypatch, code):
    def no_locks(handle, how):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    out = tmp_path / "c"
    with Artifact(out, CAPTIONS, SPEC, KEYS, RunOptions(quiet=True, shard="0/2"), flush_rows=3) as old:
        todo = list(old.pending)
        for key in todo[:5]:
            old.write(row(key, text="first"))
        for i in range(3):  # all of them, while shard 0/2 is still at work
            write(out, said="second", shard=f"{i}/3")
        for key in todo[5:]:
            old.write(row(key, text="first"))
    rows = read_table(out, CAPTIONS).to_pylist()
    assert len(rows) == 20
    assert sum(pq.read_metadata(p).num_rows for p in out.glob("*.parquet")) == 20
    assert write(out).up_to_date
    assert not [n for n in os.listdir(out) if n.startswith(".")]


def test_without_locks_parts_of_other_settings_are_removed(tmp_path, monkeypatch):
    """Between its check and its rename a writer cannot notice, where nothing is locked, that it has lost."""
    from stages.artifacts import parts

    def no_locks(handle, how):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    out = tmp_path / "c"
    write(out, OTHER, "new", shard="0/2")
    late = parts.prepare(out / "late", [row(k, text="old") for k in KEYS], CAPTIONS, SPEC.key)
    parts.add(late, out, "part-00000-of-00001")
    assert write(out, OTHER, "new", shard="1/2").complete
    assert said(out) == {"new"} and len(read_table(out, CAPTIONS)) == 20


@pytest.mark.slow
def test_two_failures_tried_again_by_two_shards_at_once(writer, tmp_path):
    """Both rows lie in one part, which each shard rewrites."""
    out = tmp_path / "c"
    with Artifact(out, CAPTIONS, SPEC, KEYS, RunOptions(quiet=True, max_errors=0)) as artifact:
        for key in list(artifact.pending):
            artifact.write(row(key, text=None, error="bad"))
    both = [writer("old", f"{i}/2") for i in range(2)]
    assert [b.line() for b in both] == ["open", "open"]
    for _ in range(5):
        for b in both:
            b.rows(1)
        assert len(read_table(out, CAPTIONS)) == 20  # complete and readable all the time
    assert [b.end()[0] for b in both] == [0, 0]
    assert said(out) == {"old"}


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 4, 16])
def test_shards_in_any_order_twice_killed_and_beside_an_older_setting(n, writer, tmp_path):
    """An array is submitted with other settings while a task of the old one still ends; of the new tasks some are
    killed and run again, some are run twice, in any order. The table is that of one run of the new settings."""
    rng, out = Random(n), tmp_path / "c"
    old = writer("old", f"{n - 1}/{n}")
    assert old.line() == "open"
    old.rows(1)
    old.signal(signal.SIGSTOP if n > 1 else signal.SIGKILL)  # of one shard there is one process
    if n == 1:
        old.process.wait()
    first = [*range(n - 1), *rng.choices(range(n - 1), k=n // 2)] if n > 1 else [0, 0]
    rng.shuffle(first)
    killed = set(rng.sample(first, min(3, len(first))))
    for shard in first:
        if shard in killed:
            write(out, OTHER, "new", shard=f"{shard}/{n}", overwrite=True, limit=1)  # the old rows go
            one = writer("new", f"{shard}/{n}")
            if one.line() == "open" and n < 16:  # of 20 rows in 16 shards nothing may be left to do
                one.rows(1)
            one.signal(signal.SIGKILL)
            one.process.wait()
            killed.discard(shard)
        write(out, OTHER, "new", shard=f"{shard}/{n}", overwrite=True)
    if n > 1:
        old.signal(signal.SIGCONT)
        code, last = old.end()
        assert code == 2 and "another command has replaced this artifact" in last
    write(out, OTHER, "new", shard=f"{n - 1}/{n}")
    write(tmp_path / "whole", OTHER, "new")
    assert write(out, OTHER, "new").up_to_date
    assert read_table(out, CAPTIONS).equals(read_table(tmp_path / "whole", CAPTIONS))
    assert said(out) == {"new"} and not [name for name in os.listdir(out) if name.startswith(".")]
