"""SIGKILL before every single file operation of the writer: nothing lost, nothing mixed, nothing left behind."""

import json
import os
import signal

import pytest

from stages.artifacts.reader import read_table
from stages.artifacts.tables import CAPTIONS
from stages.artifacts.writer import Artifact, Spec
from stages.base.config import RunOptions
from stages.base.errors import InputError
from tests.artifacts.test_artifacts import KEYS, SPEC, row
from tests.crash_points import in_child, killed_at_every_point

SEVEN = KEYS[:7]
OTHER = Spec("caption", {"prompt": "b"}, {"manifest": "m"})


def written(out, spec=SPEC, failing=(), said="text", flush_rows=3, final=(), **options):
    with Artifact(out, CAPTIONS, spec, SEVEN, RunOptions(quiet=True, **options), flush_rows=flush_rows) as artifact:
        for key in list(artifact.pending):
            failed = key in failing
            artifact.write(
                row(
                    key,
                    text=None if failed else f"{said} of {key[0]}",
                    error="bad" if failed else None,
                    retry=False if key in final else None,
                )
            )
    return artifact.summary


def texts(folder):
    return read_table(folder / "c", CAPTIONS).to_pylist()


@pytest.mark.slow
def test_writing(tmp_path):
    points = killed_at_every_point(lambda f: written(f / "c"), texts, tmp_path)
    assert points > 20  # three parts and two records, each with a flush and a rename


@pytest.mark.slow
def test_shards(tmp_path):
    def both(folder):
        for shard in ("0/2", "1/2"):
            written(folder / "c", shard=shard, flush_rows=2)

    assert killed_at_every_point(both, texts, tmp_path) > 30


@pytest.mark.slow
def test_overwrite(tmp_path):
    """At no point does what remains of the old artifact read as a table; the old one whole does, up to the first
    change."""
    points = killed_at_every_point(
        lambda f: written(f / "c", OTHER, said="new", overwrite=True), texts, tmp_path, start=lambda f: written(f / "c")
    )
    assert points > 25


@pytest.mark.slow
def test_a_killed_overwrite_goes_on_without_the_option(tmp_path):
    for n in range(1, 12):
        folder = tmp_path / str(n)
        written(folder / "c")
        assert in_child(lambda f: written(f / "c", OTHER, said="new", overwrite=True), folder, n) == -signal.SIGKILL
        try:
            written(folder / "c", OTHER, said="new")
        except InputError:  # it was killed before it changed anything: the old one is whole
            assert {r["text"] for r in texts(folder)} == {f"text of {k[0]}" for k in SEVEN}
        else:
            assert {r["text"] for r in texts(folder)} == {f"new of {k[0]}" for k in SEVEN}
        written(folder / "c", OTHER, said="new", overwrite=True)
        assert {r["text"] for r in texts(folder)} == {f"new of {k[0]}" for k in SEVEN}


@pytest.mark.slow
def test_failed_rows_tried_again(tmp_path):
    """The complete artifact reads as a whole at every point, each key once, with a row's old or its new state."""
    failing = (SEVEN[1], SEVEN[2], SEVEN[5])
    seen = []

    def read(folder):
        rows = texts(folder)  # raises InputError for a key twice, or a table that is not complete
        assert [r["image_id"] for r in rows] == [k[0] for k in SEVEN]
        sound = {r["image_id"] for r in rows if r["error"] is None}
        assert sound >= {k[0] for k in SEVEN} - {k[0] for k in failing}
        seen.append(len(sound))
        return len(sound) >= 4, len(sound) == 7 or "some still failed"

    def again(folder):
        assert written(folder / "c", flush_rows=1).errors == 0

    # every state in between is whole: read never refuses, and states before the end compare equal
    points = killed_at_every_point(again, read, tmp_path, start=lambda f: written(f / "c", failing=failing))
    assert points > 10 and set(seen) == {4, 5, 6, 7}


@pytest.mark.slow
def test_a_kill_in_the_middle_of_a_start_that_comes_to_nothing(tmp_path):
    """Wherever it is killed, a corrected command is not refused, and one refused again leaves nothing."""

    def refused(folder):
        with (
            pytest.raises(InputError, match="no GPU"),
            Artifact(folder / "c", CAPTIONS, SPEC, SEVEN, RunOptions(quiet=True)),
        ):
            raise InputError("no GPU")

    for n in range(1, 100):
        folder = tmp_path / str(n)
        folder.mkdir()
        code = in_child(refused, folder, kill_before=n)
        with pytest.raises(InputError):
            texts(folder)
        refused(folder)
        assert not any(p.is_file() for p in folder.rglob("*"))
        in_child(refused, folder, kill_before=n)
        written(folder / "c", OTHER)
        assert len(texts(folder)) == 7 and len(os.listdir(folder / "c")) == 4
        if code == 0:
            break
    assert 8 < n < 99


@pytest.mark.slow
def test_damage_being_mended(tmp_path):
    def start(folder):
        written(folder / "c")
        part = folder / "c" / "part-00000-of-00001-000001.parquet"
        part.write_bytes(part.read_bytes()[:-9])

    assert killed_at_every_point(lambda f: written(f / "c", overwrite=True), texts, tmp_path, start) > 5


def test_the_harness_sees_a_writer_that_is_not_safe(tmp_path):
    def careless(folder):
        for name in ("a.json", "b.json"):
            (folder / name).write_text(json.dumps(name))

    with pytest.raises(AssertionError, match="point 2: a reader sees"):
        killed_at_every_point(careless, lambda f: sorted(p.name for p in f.iterdir()), tmp_path)
