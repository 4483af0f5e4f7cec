"""What is damaged, refused or out of reach is named in one line, with the way out."""

import builtins
import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from stages.artifacts.files import write_atomically
from stages.artifacts.reader import content_key, read_provenance, read_table, scan
from stages.artifacts.record import FORMAT, command_line, difference
from stages.artifacts.tables import CAPTIONS, METRICS, NEGATIVES
from stages.artifacts.writer import Artifact, Spec
from stages.base.config import RunOptions
from stages.base.errors import InputError
from tests.artifacts.test_artifacts import KEYS, QUIET, SPEC, row

OTHER = Spec("caption", {"prompt": "b"}, {"manifest": "m"})
OVERWRITE = RunOptions(quiet=True, overwrite=True)
PART = "part-00000-of-00001-000001.parquet"


def write(out, spec=SPEC, options=QUIET, flush_rows=7, **more):
    with Artifact(out, CAPTIONS, spec, KEYS, options, flush_rows) as artifact:
        todo = list(artifact.pending)
        for key in todo:
            artifact.write(row(key, **more))
    return artifact.summary, todo


def without(name):
    def damage(text):
        record = json.loads(text)
        del record[name]
        return json.dumps(record)

    return damage


RECORDS = {
    "truncated": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "a list": lambda text: "[]",
    "nul bytes": lambda text: "\0" * 40,
} | {f"no {name}": without(name) for name in ("stage", "key", "parameters", "inputs", "notes")}


@pytest.mark.parametrize("damage", RECORDS.values(), ids=RECORDS)
def test_a_damaged_record(tmp_path, damage):
    out = tmp_path / "c"
    write(out)
    record = out / "_adcli.json"
    record.write_text(damage(record.read_text()))
    for use in (
        lambda: write(out),
        lambda: read_table(out, CAPTIONS),
        lambda: list(scan(out, CAPTIONS)),
        lambda: read_provenance(out),
        lambda: content_key(out, CAPTIONS),
    ):
        with pytest.raises(InputError, match=r"c/_adcli.json: damaged .* with --overwrite"):
            use()
    summary, todo = write(out, options=OVERWRITE)
    assert summary.complete and len(todo) == 20 and len(read_table(out, CAPTIONS)) == 20


def test_a_damaged_partial_record(tmp_path):
    out = tmp_path / "c"
    write(out, options=RunOptions(quiet=True, shard="0/2"))
    (out / "_adcli.partial.json").write_text("{")
    with pytest.raises(InputError, match=r"partial.json: damaged.* --overwrite"):
        read_table(out, CAPTIONS)
    with pytest.raises(InputError, match=r"partial.json: damaged.* --overwrite"):
        write(out)
    assert write(out, options=OVERWRITE)[0].complete


PARTS = {
    "truncated": lambda p: p.write_bytes(p.read_bytes()[:-9]),
    "empty": lambda p: p.write_bytes(b""),
    "gone": os.unlink,
    "holes": lambda p: p.write_bytes(b"PAR1" + b"\0" * (p.stat().st_size - 8) + b"PAR1"),
    "fewer rows": lambda p: pq.write_table(pq.read_table(p).slice(1), p),
}


@pytest.mark.parametrize("damage", PARTS.values(), ids=PARTS)
def test_a_damaged_part(tmp_path, damage):
    """Only its rows are done again."""
    out = tmp_path / "c"
    write(out)
    damage(out / PART)
    with pytest.raises(InputError, match=f"{PART}: .*--overwrite"):
        write(out)
    if "fewer" not in repr(damage) and damage is not PARTS["fewer rows"]:
        for use in (lambda: read_table(out, CAPTIONS), lambda: list(scan(out, CAPTIONS))):
            with pytest.raises(InputError, match=f"{PART}: .*--overwrite"):
                use()
    summary, todo = write(out, options=OVERWRITE)
    assert summary.complete and todo == (KEYS[7:14] if damage is not PARTS["fewer rows"] else KEYS[7:8])
    assert read_table(out, CAPTIONS)["image_id"].to_pylist() == [k[0] for k in KEYS]
    assert write(out)[0].up_to_date


def test_a_file_that_the_record_does_not_name(tmp_path):
    out = tmp_path / "c"
    write(out)
    shutil.copy(out / PART, out / "copy.parquet")
    with pytest.raises(InputError, match="copy.parquet: the artifact's record does not name this file"):
        read_table(out, CAPTIONS)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("parser", "adcli's own code has changed .parser."),
        ("weights", "the weights have changed, or adcli's own code where that is the model"),
        ("vlm", "vlm was 1, now 2"),
    ],
)
def test_what_differs_is_said_without_digests(name, said):
    then, now = (Spec("caption", {name: value}, {}) for value in (1, 2))
    found = {"format": FORMAT, "stage": "caption", "parameters": then.parameters, "inputs": {}, "seed": 0}
    assert re.search(f"[(]{said}", difference(Path("c"), found, now))


def test_an_artifact_of_an_older_version(tmp_path):
    out = tmp_path / "c"
    write(out)
    record = json.loads((out / "_adcli.json").read_text())
    del record["format"], record["parts"]
    (out / "_adcli.json").write_text(json.dumps(record))
    with pytest.raises(
        InputError,
        match="made by an older adcli, whose cache keys differ: it can be read as it is;"
        " --overwrite replaces it, another --out keeps both",
    ):
        write(out)
    assert len(read_table(out, CAPTIONS)) == 20
    assert write(out, options=OVERWRITE)[0].written == 20


# -- starts that come to nothing ----------------------------------------------------------------------


@pytest.mark.parametrize("error", [InputError("no GPU"), KeyboardInterrupt()])
@pytest.mark.parametrize("shard", ["0/1", "1/2"])
def test_a_refused_start_leaves_nothing(tmp_path, error, shard):
    with (
        pytest.raises(type(error)),
        Artifact(tmp_path / "runs/new/c", CAPTIONS, SPEC, KEYS, RunOptions(quiet=True, shard=shard)),
    ):
        raise error
    assert os.listdir(tmp_path) == []
    assert write(tmp_path / "runs/new/c", OTHER)[0].complete


def test_a_refused_start_keeps_what_is_there(tmp_path):
    """Rows, another shard's start, states of a training, a folder that was there."""
    out = tmp_path / "c"

    def refuse(shard="0/2"):
        with (
            pytest.raises(InputError, match="no GPU"),
            Artifact(out, CAPTIONS, SPEC, KEYS, RunOptions(quiet=True, shard=shard)),
        ):
            raise InputError("no GPU")

    with Artifact(out, CAPTIONS, SPEC, KEYS, RunOptions(quiet=True, shard="1/2")) as other:
        refuse()
        other.write(row(other.pending[0]))
    refuse()
    assert len(read_table(out, CAPTIONS, partial=True)) == 1
    with pytest.raises(InputError, match="made with other settings"):
        write(out, OTHER)
    shutil.rmtree(out)
    (out / "_training").mkdir(parents=True)
    shutil.rmtree(out)
    with pytest.raises(InputError), Artifact(out, CAPTIONS, SPEC, KEYS, QUIET):
        (out / "_training").mkdir()
        (out / "_training" / "state").write_text("hours of work")
        raise InputError("no GPU")
    with pytest.raises(InputError, match="made with other settings"):
        write(out, OTHER)
    assert (out / "_training" / "state").exists()


def test_a_foreign_folder_stays_as_it_was(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="holds other files"):
        write(tmp_path)
    assert os.listdir(tmp_path) == ["mine.txt"]


# -- places that cannot be written --------------------------------------------------------------------

READ_ONLY = """
import subprocess, sys
subprocess.run(["mount", "--bind", sys.argv[1], sys.argv[1]], check=True)
subprocess.run(["mount", "-o", "remount,bind,ro", sys.argv[1]], check=True)
from pathlib import Path
from stages.base.errors import InputError
from tests.artifacts.test_damage import OTHER, write
out = Path(sys.argv[1], "c")
print(write(out)[0].up_to_date)
for again in (lambda: write(out, OTHER), lambda: write(out.with_name("new"))):
    try:
        again()
    except InputError as e:
        print(e)
"""


def test_a_read_only_disk(tmp_path):
    """A real one, in a mount namespace of its own."""
    write(tmp_path / "c")
    unshare = [shutil.which("unshare") or "unshare", "--mount", "--user", "--map-root-user"]
    try:
        able = subprocess.run([*unshare, "mount", "--bind", tmp_path, tmp_path], capture_output=True).returncode == 0
    except OSError:
        able = False
    if not able:
        pytest.skip("no mount namespaces here")
    done = subprocess.run([*unshare, sys.executable, "-c", READ_ONLY, tmp_path], capture_output=True, text=True)
    said = done.stdout.splitlines()
    assert said[0] == "True" and len(said) == 3, done.stderr
    assert all("may not be written (Read-only file system)" in line for line in said[1:])


def test_a_folder_that_takes_nothing(tmp_path, monkeypatch):
    """As above, where there are no mount namespaces: every opening for writing fails."""
    write(tmp_path / "c")
    real, real_open = os.open, io.open

    def refusing(path, flags, *more, **others):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return real(path, flags, *more, **others)

    def refusing_open(file, mode="r", *more, **others):
        if set(mode) & set("wax+"):
            raise OSError(errno.EROFS, "Read-only file system", str(file))
        return real_open(file, mode, *more, **others)

    monkeypatch.setattr(os, "open", refusing)
    for module in (builtins, io):  # io.open is what Path.open calls
        monkeypatch.setattr(module, "open", refusing_open)
    monkeypatch.setattr(os, "utime", lambda *a: refusing("x", os.O_CREAT))
    before = sorted(os.listdir(tmp_path / "c"))
    assert write(tmp_path / "c")[0].up_to_date
    for spec, out in ((OTHER, tmp_path / "c"), (SPEC, tmp_path / "new")):
        with pytest.raises(InputError, match="may not be written"):
            write(out, spec)
    assert sorted(os.listdir(tmp_path / "c")) == before


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.ESTALE])
def test_an_error_of_the_disk_is_one_line(tmp_path, monkeypatch, code):
    real = os.replace

    def failing(old, new):
        if str(new).endswith(".parquet"):
            raise OSError(code, os.strerror(code), str(new))
        return real(old, new)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(InputError, match="part-00000-of-00001-000000.parquet: .* the same command again"):
        write(tmp_path / "c")
    monkeypatch.undo()
    assert len(write(tmp_path / "c")[1]) == 20
    assert not [n for n in os.listdir(tmp_path / "c") if n.startswith(".")]


def test_the_content_is_on_the_disk_before_its_name_is(tmp_path, monkeypatch):
    """What a power cut would take away cannot be seen otherwise: flush of the file, rename, flush of the folder."""
    calls, target = [], tmp_path / "x" / "file"
    target.parent.mkdir()
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(handle):
        calls.append(("fsync", str(Path(f"/proc/self/fd/{handle}").readlink()), os.fstat(handle).st_size))
        real_fsync(handle)

    def replace(old, new):
        calls.append(("replace", str(old), str(new)))
        real_replace(old, new)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    write_atomically(target, lambda f: f.write(b"content"))
    temporary = f"{target.parent}/.tmp-{os.getpid()}-file"
    assert [c[:2] for c in calls] == [("fsync", temporary), ("replace", temporary), ("fsync", str(target.parent))]
    assert calls[0][2] == 7 and calls[1][2] == str(target)


# -- values and failures ------------------------------------------------------------------------------


def test_text_that_is_no_unicode_fails_its_row_alone(tmp_path):
    with Artifact(tmp_path / "n", NEGATIVES, SPEC, [("a", 0), ("b", 0), ("c", 0), ("d", 0)], QUIET) as artifact:
        for name, more in (
            ("a", {"negative": "fine"}),
            ("b", {"negative": "half \udc80"}),
            ("c", {"edits": [{"attribute": "x", "before": "\ud800", "after": "y"}]}),
            ("d", {"error": "server said \udcff"}),
        ):
            artifact.write({"image_id": name, "sample": 0, "edits": [], "attempts": 1, "text": "t"} | more)
    assert artifact.summary.errors == 3 and artifact.summary.complete
    a, b, c, d = read_table(tmp_path / "n", NEGATIVES).to_pylist()
    assert a["negative"] == "fine" and a["error"] is None
    assert b["error"] == "column `negative`: the text is not valid Unicode and cannot be kept"
    assert b["negative"] is None and b["text"] is None and b["attempts"] == 1
    assert c["error"].startswith("column `edits`") and c["edits"] == []
    assert d["error"] == "server said \\udcff"


def test_keys_and_tables_without_failed_rows_say_what_is_no_unicode(tmp_path):
    with pytest.raises(InputError, match=r"column `image_id`: d/\\udcff.jpg is not valid Unicode; rename"):
        Artifact(tmp_path / "c", CAPTIONS, SPEC, [("d/\udcff.jpg", "p", 0)], QUIET)
    key = ("d", "c", None, "m", "auroc")
    with (
        pytest.raises(InputError, match="column `reason`: the text is not valid"),
        Artifact(tmp_path / "m", METRICS, SPEC, [key], QUIET) as artifact,
    ):
        artifact.write(
            dict(zip(METRICS.key, key, strict=True)) | {"level": "image", "n": 1, "n_positive": 0, "reason": "\udcff"}
        )


def fail(out, keys, **options):
    """Rows of `keys` fail, for good where `final`; returns (summary, rows tried)."""
    final = options.pop("final", ())
    with Artifact(out, CAPTIONS, SPEC, KEYS, RunOptions(quiet=True, **options), 4) as artifact:
        todo = list(artifact.pending)
        for key in todo:
            failed = {"text": None, "error": "bad", "retry": False if key in final else None}
            artifact.write(row(key, **(failed if key in keys else {})))
    return artifact.summary, todo


def test_final_failures_are_left_alone(tmp_path):
    out, bad = tmp_path / "c", KEYS[3:6]
    first, _ = fail(out, bad, final=bad[:2])
    assert (first.errors, first.final, first.complete) == (3, 2, True)
    second, todo = fail(out, bad)
    assert todo == bad[2:] and (second.errors, second.final) == (3, 2) and not second.up_to_date
    third, todo = fail(out, (), retry="all")
    assert todo == bad and third.errors == third.final == 0
    fail(tmp_path / "d", bad, final=bad)
    again, todo = fail(tmp_path / "d", ())
    assert todo == [] and again.up_to_date and (again.errors, again.final, len(again.first_errors)) == (3, 3, 3)
    with pytest.raises(InputError, match="--retry never: expected possible or all"):
        fail(tmp_path / "d", (), retry="never")


def test_a_repeated_command_never_makes_a_finished_artifact_unfinished(tmp_path):
    """Rows that failed before do not count towards --max-errors; those of a new artifact do."""
    out = tmp_path / "c"
    fail(out, KEYS, max_errors=0)
    names = sorted(os.listdir(out))
    with Artifact(out, CAPTIONS, SPEC, KEYS, RunOptions(quiet=True, max_errors=4), 4) as artifact:
        for key in artifact.pending:
            artifact.write(row(key, text=None, error="still bad"))
            assert len(read_table(out, CAPTIONS)) == 20
    assert artifact.summary.complete and artifact.summary.errors == 20 and artifact.summary.written == 20
    assert sorted(os.listdir(out)) == names
    assert set(read_table(out, CAPTIONS)["error"].to_pylist()) == {"still bad"}
    assert [r["rows"] for r in json.loads((out / "_adcli.json").read_text())["runs"]] == [20, 20]


# -- the record ---------------------------------------------------------------------------------------


def test_the_record_says_what_made_it(tmp_path, monkeypatch):
    monkeypatch.setattr(
        sys,
        "argv",
        ["/x/adcli/__main__.py", "caption", "a b", "--base-url", "https://me:secret@host/v1", "--out", "c\udcff"],
    )
    write(tmp_path / "c", Spec("caption", {}, {}, paths={"manifest": "/data/m"}))
    record = json.loads((tmp_path / "c" / "_adcli.json").read_text())
    assert record["command"] == "adcli caption 'a b' --base-url 'https://***@host/v1' --out 'c\udcff'"
    assert record["date"].endswith("+00:00") and record["paths"] == {"manifest": "/data/m"}
    assert record["version"] and "commit" in record and record["parts"]
    assert "secret" not in (tmp_path / "c" / "_adcli.json").read_text()
    assert command_line([]) == "python"
