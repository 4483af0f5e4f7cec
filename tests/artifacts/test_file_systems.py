"""Network file systems of clusters: without locks, with late listings; and a root that was moved."""

import json
import subprocess
from pathlib import Path

import pytest

from stages.artifacts.reader import read_table
from stages.artifacts.tables import CAPTIONS
from stages.artifacts.writer import Artifact
from stages.base.config import RunOptions
from stages.base.errors import InputError
from tests.artifacts.test_artifacts import KEYS, SPEC, row
from tests.artifacts.test_writers import write
from tests.processes import Started, adcli

# As on NFS without its lock service: calls for locks fail, of this process and of all that it starts.
WITHOUT_LOCKS = """
import errno, fcntl, os, sys
def refused(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
fcntl.flock = fcntl.lockf = refused
from adcli.main import main
main()
"""


def rows(out):
    return read_table(out, CAPTIONS).drop_columns(list(CAPTIONS.volatile)).to_pylist()


@pytest.fixture
def pictures(tmp_path):
    """A manifest of twelve surfaces."""
    made = adcli("data", "synth", "surfaces", "--out", tmp_path / "s", "--good", 12, "--new", 4, "--quiet")
    indexed = adcli("data", "index", "folder", tmp_path / "s/good", "--out", tmp_path / "m", "--quiet")
    assert made.returncode == indexed.returncode == 0
    return tmp_path / "m"


@pytest.mark.slow
def test_shards_on_a_file_system_without_locks(pictures, tmp_path):
    """Real processes at once: four shards, two of them twice, as when a task is requeued while its first run lives. Two
    that complete the table at one moment may be in each other's way, which is said; the table is whole all the same."""
    (tmp_path / "program.py").write_text(WITHOUT_LOCKS)
    command = ("caption", pictures, "--out", tmp_path / "c", "--workers", "1", "--quiet")
    running = [
        Started(*command, "--shard", f"{i}/4", program=(tmp_path / "program.py",), stderr=subprocess.PIPE, text=True)
        for i in (0, 1, 2, 3, 1, 3)
    ]
    said = [process.communicate()[1] for process in running]
    for process, line in zip(running, said, strict=True):
        assert process.returncode == 0 or (process.returncode == 2 and "run the same command again" in line), line
    last = adcli(*command, program=(tmp_path / "program.py",))  # whoever comes last completes it, if none has
    assert last.returncode == 0, last.stderr
    assert adcli(*command[:2], "--out", tmp_path / "whole", "--workers", "1", "--quiet").returncode == 0
    assert rows(tmp_path / "c") == rows(tmp_path / "whole") and len(rows(tmp_path / "c")) == 12
    assert not [p.name for p in (tmp_path / "c").iterdir() if p.name.startswith(".")]


class Late:
    """Path.glob and rglob that do not list what is in `hidden`, while it can be opened by name."""

    def __init__(self, monkeypatch):
        self.hidden = set()
        for name in ("glob", "rglob"):
            monkeypatch.setattr(Path, name, self.without(getattr(Path, name)))

    def without(self, real):
        return lambda path, pattern: (p for p in real(path, pattern) if p not in self.hidden)


def test_a_table_whose_last_files_are_not_listed_yet_is_read_whole(tmp_path, monkeypatch):
    """The next stage starts on a node that has listed the folder while it was written."""
    out = tmp_path / "c"
    write(out, shard="0/2")
    before = set(out.iterdir())
    write(out, shard="1/2")
    whole, late = read_table(out, CAPTIONS), Late(monkeypatch)
    late.hidden = set(out.iterdir()) - before
    assert len(late.hidden) == 2, "the second part and the record"
    assert len(whole) == 20 and read_table(out, CAPTIONS).equals(whole)
    assert write(out).up_to_date
    (out / "part-00001-of-00002-000000.parquet").unlink()
    with pytest.raises(InputError, match="this part of the artifact is gone"):
        read_table(out, CAPTIONS)


def test_a_shard_that_does_not_see_the_others_rows_leaves_the_table_open(tmp_path, monkeypatch):
    """None of the two completes it; any shard that is run later does, without making a row again."""
    out, late = tmp_path / "c", Late(monkeypatch)
    write(out, shard="0/2")
    late.hidden = set(out.glob("part-*"))
    assert not write(out, shard="1/2").complete
    with pytest.raises(InputError, match="not complete .* run that command again"):
        read_table(out, CAPTIONS)
    late.hidden = set()
    last = write(out, shard="0/2")
    assert last.complete and last.written == 0 and len(read_table(out, CAPTIONS)) == 20


def test_a_requeued_shard_that_does_not_see_its_own_rows_makes_them_again(tmp_path, monkeypatch):
    """Its parts take the same names: rows of the first run are replaced, none is there twice, none is lost."""
    out, late = tmp_path / "c", Late(monkeypatch)
    with Artifact(out, CAPTIONS, SPEC, KEYS, RunOptions(quiet=True, shard="0/2"), flush_rows=3) as first:
        for key in first.pending[:6]:
            first.write(row(key, text="text"))
    late.hidden = set(out.glob("part-*"))
    with Artifact(out, CAPTIONS, SPEC, KEYS, RunOptions(quiet=True, shard="0/2"), flush_rows=4) as again:
        for n, key in enumerate(again.pending):
            if n == 5:
                late.hidden = set()  # the listing comes in the middle
            again.write(row(key, text="text"))
    assert write(out, shard="1/2").complete
    write(tmp_path / "whole")
    assert read_table(out, CAPTIONS).equals(read_table(tmp_path / "whole", CAPTIONS))


@pytest.mark.slow
def test_a_project_that_was_moved_goes_on_where_it_is(pictures, tmp_path):
    """Data and runs, in the middle of the captions: the images are found below --root, finished rows stay."""
    old, new = tmp_path / "scratch", tmp_path / "project"
    old.mkdir()
    for name in ("s", "m"):
        (tmp_path / name).rename(old / name)
    caption = ("--workers", "1", "--quiet", "--json")
    half = adcli("caption", old / "m", "--root", old / "s/good", "--out", old / "c", "--shard", "0/2", *caption)
    assert half.returncode == 0 and json.loads(half.stdout)["written"] == 6, half.stderr
    old.rename(new)
    rest = adcli("caption", new / "m", "--root", new / "s/good", "--out", new / "c", *caption)
    assert rest.returncode == 0 and json.loads(rest.stdout)["written"] == 6, rest.stderr
    assert len(rows(new / "c")) == 12
