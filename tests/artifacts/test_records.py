"""Records that are not what adcli wrote, and what others put beside a table: one line, and a way out."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stages.artifacts.digests import KEPT, read_kept
from stages.artifacts.outputs import INDEX, exactly
from stages.artifacts.reader import content_key, read_provenance, read_table, scan
from stages.artifacts.record import recorded_key
from stages.artifacts.tables import CAPTIONS, MANIFEST
from stages.artifacts.writer import Artifact, Spec
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.datasets import mvtec
from stages.datasets.manifest import read_manifest
from tests.artifacts.test_artifacts import KEYS, QUIET, SPEC
from tests.artifacts.test_damage import OTHER, OVERWRITE, PART, write

ROOT = Path(__file__).parents[2]
DEEP = '{"a":' * 100_000
DELETED = object()
VALUES = (None, 5, "x", "two", [], {}, [5], {"x": "y"}, DELETED)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Whether complete -> a folder with an artifact."""
    folder = tmp_path_factory.mktemp("records")
    spec = Spec("caption", {"prompt": "a", "sizes": {1: 2, 10: 3}}, {"manifest": "m"}, notes={"root": "/data"})
    write(folder / "whole", spec)
    write(folder / "half", spec, RunOptions(quiet=True, shard="0/2"))
    return {True: folder / "whole", False: folder / "half"}, spec


def uses(out):
    yield lambda: read_table(out, CAPTIONS)
    yield lambda: read_table(out, CAPTIONS, partial=True)
    yield lambda: list(scan(out, CAPTIONS))
    yield lambda: read_provenance(out)
    yield lambda: content_key(out, CAPTIONS)


@pytest.mark.slow
@pytest.mark.parametrize("complete", [True, False])
def test_any_value_of_a_record_may_be_damaged(complete, records, tmp_path):
    """Each is read and written as if nothing was, or refused in one line; --overwrite mends all."""
    (folders, spec), name = records, "_adcli.json" if complete else "_adcli.partial.json"
    real = json.loads((folders[complete] / name).read_text())
    for n, (field, value) in enumerate((f, v) for f in real for v in VALUES):
        out = tmp_path / str(n)
        shutil.copytree(folders[complete], out)
        record = real | {field: value}
        if value is DELETED:
            del record[field]
        (out / name).write_text(json.dumps(record))
        refused = 0
        for use in (*uses(out), lambda out=out: write(out, spec)):
            try:
                use()
            except InputError as e:
                refused += "\n" not in str(e) and str(tmp_path) in str(e)
            else:
                refused += 1
        assert refused == 6, (field, value)
        if VALUES.index(value) != list(real).index(field) % len(VALUES):
            continue  # mending writes, which takes long
        assert write(out, spec, OVERWRITE)[0].complete, (field, value)
        assert len(read_table(out, CAPTIONS)) == 20 and write(out, spec)[0].up_to_date, (field, value)


@pytest.mark.parametrize("text", [DEEP, "\0", "[" * 100_000])
@pytest.mark.parametrize("name", ["_adcli.json", "_adcli.partial.json"])
def test_a_record_that_is_no_record_is_damaged_to_all(name, text, tmp_path):
    write(tmp_path / "c")
    (tmp_path / "c" / name).write_text(text)
    for use in (*uses(tmp_path / "c"), lambda: write(tmp_path / "c")):
        if name == "_adcli.json" or use.__name__ != "<lambda>":
            with pytest.raises(InputError, match=f"{name}: damaged.*--overwrite"):
                use()
    assert recorded_key(tmp_path / "c" / name) is None
    assert write(tmp_path / "c", options=OVERWRITE)[0].complete


def test_notes_of_files_that_are_damaged_count_as_none(tmp_path):
    for text in (DEEP, '{"a": [1, 2, 3]}', '{"a": ["1", 2, "x"]}', '{"a": 5}', "[]", '{"a": [1, 2]}'):
        (tmp_path / KEPT).write_text(text)
        assert read_kept(tmp_path) == {}
    (tmp_path / INDEX).write_text(DEEP)
    with exactly(tmp_path, ["a.txt"]):
        pass
    assert json.loads((tmp_path / INDEX).read_text())["files"] == ["a.txt"]


@pytest.mark.parametrize("notes", [{}, {"root": 5}, {"root": None}, {"root": "a\0b"}, {"root": ""}, {"root": [1]}])
def test_a_manifest_whose_root_is_damaged(notes, tmp_path):
    row = {"image_id": "d/1", "path": "1.png", "dataset": "d", "category": "c", "split": "test", "mask_paths": []}
    spec = Spec("data index", {}, {}, notes={"root": str(tmp_path)})

    def index(options):
        with Artifact(tmp_path / "m", MANIFEST, spec, [("d/1",)], options) as artifact:
            artifact.write_all([row])
        return artifact.summary

    index(QUIET)
    record = tmp_path / "m" / "_adcli.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"notes": notes}))
    with pytest.raises(InputError, match=r"m/_adcli.json: damaged \(`notes` names no root\); give --root, or run"):
        read_manifest(tmp_path / "m")
    assert read_manifest(tmp_path / "m", root=tmp_path).images[0].file == tmp_path / "1.png"
    assert index(OVERWRITE).complete
    assert read_manifest(tmp_path / "m").images[0].file == tmp_path / "1.png"


def test_a_data_set_that_was_moved_is_found_where_it_is(tmp_path, save_image):
    """The same images elsewhere change no row; the place from which their paths start is written anew."""
    for name in ("good", "hole"):
        save_image(tmp_path / "old" / "nut" / "test" / name / "0.png")
    save_image(tmp_path / "old" / "nut" / "train" / "good" / "0.png")

    def index(place):
        return mvtec.run(mvtec.MvtecConfig(root=tmp_path / place, out=tmp_path / "m"), QUIET)

    assert index("old").written == 3
    (tmp_path / "old").rename(tmp_path / "new")
    assert index("new").written == 0 and index("new").up_to_date
    assert all(i.file.is_file() for i in read_manifest(tmp_path / "m").images)


def folder_at(path):
    path.unlink(missing_ok=True)
    (path / "inside").mkdir(parents=True)


def pipe_at(path):
    path.unlink(missing_ok=True)
    os.mkfifo(path)


@pytest.mark.parametrize("put", [folder_at, pipe_at])
@pytest.mark.parametrize("name", ["_adcli.json", "_adcli.partial.json", PART])
def test_something_else_in_a_files_place(name, put, tmp_path):
    out = tmp_path / "c"
    write(out)
    put(out / name)
    for use in (lambda: read_table(out, CAPTIONS), lambda: write(out)):
        with pytest.raises(InputError, match=f"{name}: .*--overwrite"):
            use()
    assert write(out, options=OVERWRITE)[0].complete and len(read_table(out, CAPTIONS)) == 20


# -- what others put there ------------------------------------------------------------------------------

FOREIGN = ("_notes.md", "part-list.txt", "part-mine.txt", "_mine/f", ".tmp-mine.txt", "_mine/.tmp-1-f", ".lock.bak")


@pytest.mark.parametrize("name", [".tmp-mine.txt", ".tmp-notes", ".lock.bak", ".locked"])
def test_a_folder_with_something_like_a_temporary_file_is_a_foreign_one(name, tmp_path):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        write(tmp_path)
    assert (tmp_path / name).read_text() == "mine" and os.listdir(tmp_path) == [name]


def test_overwrite_takes_away_what_adcli_made_and_nothing_else(tmp_path, capfd):
    out = tmp_path / "c"
    write(out)
    for name in (*FOREIGN, "_encoders/x/model.safetensors", ".tmp-99-part-00000-of-00001-000003.parquet"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("text")
    assert write(out)[0].up_to_date and write(out, OTHER, OVERWRITE)[0].complete
    assert all((out / name).read_text() == "text" for name in FOREIGN)
    assert not (out / "_encoders").exists() and not list(out.glob(".tmp-99*"))
    said = f"adcli: {out}: not made by adcli and left there: .lock.bak, .tmp-mine.txt, _mine, _notes.md, part-list.txt"
    assert said in capfd.readouterr().err
    assert len(read_table(out, CAPTIONS)) == 20


def test_a_refused_start_takes_away_nothing_of_others(tmp_path):
    with pytest.raises(InputError), Artifact(tmp_path / "c", CAPTIONS, SPEC, KEYS, QUIET):
        (tmp_path / "c" / "_notes.md").write_text("mine")
        raise InputError("no GPU")
    assert os.listdir(tmp_path / "c") == ["_notes.md"]


HOLDER = """
import sys, time
from pathlib import Path
from stages.artifacts import locks
lock = locks.take(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_long_wait_for_a_lock_is_said_once(tmp_path, monkeypatch, capfd):
    from stages.artifacts import locks

    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path / ".lock"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    holder.stdout.readline()
    holder.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    real = locks._say_waiting

    def then_release(*arguments):
        real(*arguments)
        holder.kill()

    monkeypatch.setattr(locks, "_say_waiting", then_release)
    with locks.held(tmp_path / ".lock", keep=lambda: False):
        holder.wait()
    said = capfd.readouterr().err
    assert said.startswith(f"adcli: waiting for another process that has {tmp_path} open") and said.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("at_release", [False, True])
def test_an_interrupt_leaves_no_lock_behind(tmp_path, number, at_release):
    """One that came while the folder was locked left it locked, and the command waited for itself as it cleaned up."""
    from stages.artifacts import locks

    def interrupt():
        os.kill(os.getpid(), number)
        done.append("interrupted")
        return False

    def plain(number, frame):
        raise KeyboardInterrupt

    done, before = [], signal.signal(number, plain)
    try:
        with pytest.raises(KeyboardInterrupt), locks.held(tmp_path / ".lock", interrupt if at_release else bool):
            if not at_release:
                interrupt()
            done.append("to its end")
        assert sorted(done) == ["interrupted", "to its end"] and signal.getsignal(number) is plain
        assert not (tmp_path / ".lock").exists()
        lock = locks.take(tmp_path / ".lock")
        assert lock is not None
        lock.release()
    finally:
        signal.signal(number, before)


def test_an_interrupt_ends_the_wait_for_a_lock(tmp_path):
    from stages.artifacts import locks

    first = locks.take(tmp_path / ".lock")
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt), locks.held(tmp_path / ".lock", keep=lambda: False):
        raise AssertionError("it is another's")
    first.release()
