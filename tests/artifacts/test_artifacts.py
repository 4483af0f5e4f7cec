"""The artifact contract: nothing lost, nothing twice, nothing mixed."""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.artifacts.reader import fingerprint, read_provenance, read_table
from stages.artifacts.record import new_record
from stages.artifacts.tables import CAPTIONS, SCORES
from stages.artifacts.writer import Artifact, Spec, parse_shard, shard_of
from stages.base.config import RunOptions
from stages.base.errors import InputError, TooManyErrors

QUIET = RunOptions(quiet=True)
SPEC = Spec("caption", {"prompt": "a"}, {"manifest": "m"})
KEYS = [(f"d/{i:03d}.jpg", "p", 0) for i in range(20)]


def row(key, **more):
    return dict(zip(CAPTIONS.key, key, strict=True)) | {"text": f"text of {key[0]}"} | more


def write_all(out, spec=SPEC, options=QUIET, keys=KEYS, failing=(), **more):
    with Artifact(out, CAPTIONS, spec, keys, options, **more) as artifact:
        todo = list(artifact.pending)
        for key in todo:
            artifact.write(row(key, error="bad", text=None) if key in failing else row(key))
    return artifact.summary, todo


def test_round_trip_and_up_to_date(tmp_path):
    summary, _ = write_all(tmp_path / "c", flush_rows=7)
    assert (summary.rows, summary.errors, summary.complete, summary.up_to_date) == (20, 0, True, False)
    assert len(list((tmp_path / "c").glob("*.parquet"))) == 3
    table = read_table(tmp_path / "c", CAPTIONS)
    assert table["image_id"].to_pylist() == [k[0] for k in KEYS]
    old = (tmp_path / "c" / "_adcli.json").stat().st_mtime_ns
    again, todo = write_all(tmp_path / "c")
    assert again.up_to_date and todo == [] and again.written == 0
    assert (tmp_path / "c" / "_adcli.json").stat().st_mtime_ns > old  # make has seen it


def test_opens_with_the_usual_readers(tmp_path):
    import pandas as pd

    write_all(tmp_path / "c" / "one")
    assert len(pd.read_parquet(tmp_path / "c" / "one")) == 20
    assert len(pq.read_table(tmp_path / "c")) == 20  # a directory of artifacts is a table too


def test_a_change_of_settings_is_named_and_never_mixed(tmp_path):
    write_all(tmp_path / "c")
    other = Spec("caption", {"prompt": "b"}, {"manifest": "n"}, seed=3)
    with pytest.raises(InputError, match=r"prompt was 'a', now 'b'; the manifest has changed; seed was 0"):
        write_all(tmp_path / "c", other)
    assert read_provenance(tmp_path / "c")[0]["parameters"] == {"prompt": "a"}
    summary, _ = write_all(tmp_path / "c", other, RunOptions(quiet=True, overwrite=True), KEYS[:5])
    assert summary.rows == 5 and len(read_table(tmp_path / "c", CAPTIONS)) == 5


def test_overwrite_leaves_foreign_files_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="holds other files"):
        write_all(tmp_path, options=RunOptions(quiet=True, overwrite=True))
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_failed_rows_stay_and_are_tried_again(tmp_path):
    bad = KEYS[3:5]
    summary, _ = write_all(tmp_path / "c", failing=bad, flush_rows=4)
    assert summary.errors == 2 and summary.complete and "bad" in summary.first_errors[0]
    assert read_table(tmp_path / "c", CAPTIONS)["error"].to_pylist().count("bad") == 2
    summary, todo = write_all(tmp_path / "c")
    assert todo == bad and summary.errors == 0 and summary.rows == 20
    assert read_table(tmp_path / "c", CAPTIONS)["error"].null_count == 20


def test_stops_when_everything_fails(tmp_path):
    with pytest.raises(TooManyErrors, match="4 rows failed in succession"):
        write_all(tmp_path / "c", options=RunOptions(quiet=True, max_errors=4), failing=KEYS)
    summary, todo = write_all(tmp_path / "c")
    assert len(todo) == 20 and summary.errors == 0  # the four failed ones as well


@pytest.mark.parametrize("n", [1, 3, 20, 31])
def test_shards_are_a_partition_that_ignores_order(n):
    shares = [shard_of(KEYS, i, n) for i in range(n)]
    assert sorted(key for share in shares for key in share) == sorted(KEYS)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    shuffled = random.Random(0).sample(KEYS, len(KEYS))
    assert [set(shard_of(shuffled, i, n)) for i in range(n)] == [set(s) for s in shares]


def test_shards_make_one_artifact_even_when_their_number_changes(tmp_path):
    out = tmp_path / "c"
    first, _ = write_all(out, options=RunOptions(quiet=True, shard="1/3"))
    assert not first.complete
    with pytest.raises(InputError, match="not complete"):
        read_table(out, CAPTIONS)
    for i in range(2):
        last, _ = write_all(out, options=RunOptions(quiet=True, shard=f"{i}/2"))
    assert last.complete and last.rows == 20
    write_all(tmp_path / "whole")
    assert read_table(out, CAPTIONS).equals(read_table(tmp_path / "whole", CAPTIONS))


@pytest.mark.parametrize("text", ["3", "2/2", "-1/2", "a/b", "1/0"])
def test_shard_spelling(text):
    with pytest.raises(InputError, match="--shard"):
        parse_shard(text)


def test_two_processes_cannot_write_one_shard(tmp_path):
    with Artifact(tmp_path / "c", CAPTIONS, SPEC, KEYS, QUIET), pytest.raises(InputError, match="another process"):
        write_all(tmp_path / "c")


def test_two_images_with_one_id(tmp_path):
    with pytest.raises(InputError, match="two rows with the key d/000.jpg"):
        write_all(tmp_path / "c", keys=[*KEYS, KEYS[0]])


def test_fingerprint_is_of_the_content(tmp_path):
    rows = [
        {
            "image_id": f"i{n}",
            "method": "m",
            "score": n / 7,
            "seconds": float(n),
            "neighbours": [{"image_id": "x", "distance": 0.5, "text": "t", "missing": [], "extra": ["a"]}],
        }
        for n in range(9)
    ]
    a = pa.Table.from_pylist(rows, schema=SCORES.schema)
    later = [r | {"seconds": 99.0} for r in reversed(rows)]
    b = pa.concat_tables(
        [pa.Table.from_pylist(later[:4], schema=SCORES.schema), pa.Table.from_pylist(later[4:], schema=SCORES.schema)]
    )
    c = pa.Table.from_pylist([rows[0] | {"score": 1e-9}, *rows[1:]], schema=SCORES.schema)
    assert fingerprint(a, SCORES) == fingerprint(b, SCORES) != fingerprint(c, SCORES)


def foreign(tmp_path, **columns):
    path = tmp_path / "foreign.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def test_foreign_tables_are_accepted(tmp_path):
    path = foreign(
        tmp_path,
        image_id=pa.array(["b", "a"], pa.large_string()),
        prompt_id=["p", "p"],
        sample=pa.array([0, 0], pa.int64()),
        text=["two", "one"],
        more=[1, 2],
    )
    table = read_table(path, CAPTIONS)
    assert table.schema.equals(CAPTIONS.schema) and table["text"].to_pylist() == ["one", "two"]
    assert table["error"].to_pylist() == [None, None]


def test_what_does_not_fit_is_said_with_its_column(tmp_path):
    with pytest.raises(InputError, match="no column `prompt_id`"):
        read_table(foreign(tmp_path, image_id=["a"]), CAPTIONS)
    with pytest.raises(InputError, match="column `sample` is string, a captions table has int32"):
        read_table(foreign(tmp_path, image_id=["a"], prompt_id=["p"], sample=["x"]), CAPTIONS)
    with pytest.raises(InputError, match="column `image_id` has 1 null;"):
        read_table(foreign(tmp_path, image_id=["a", None], prompt_id=["p"] * 2, sample=[0, 1]), CAPTIONS)
    with pytest.raises(InputError, match="2 rows with one key .image_id=a, prompt_id=p, sample=0"):
        read_table(foreign(tmp_path, image_id=["a", "a"], prompt_id=["p"] * 2, sample=[0, 0]), CAPTIONS)
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        read_table(tmp_path / "text.parquet", CAPTIONS)
    with pytest.raises(InputError, match="no such file"):
        read_table(tmp_path / "nowhere", CAPTIONS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no Parquet"):
        read_table(tmp_path / "empty", CAPTIONS)


SLOW_STAGE = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    from tests.artifacts.test_artifacts import KEYS, QUIET, SPEC, row
    from stages.artifacts.tables import CAPTIONS
    from stages.artifacts.writer import Artifact
    with Artifact(Path(sys.argv[1]), CAPTIONS, SPEC, KEYS, QUIET, flush_rows=3) as artifact:
        for key in list(artifact.pending):
            time.sleep(0.004)
            artifact.write(row(key))
""")


def test_what_killed_processes_left_is_removed(tmp_path):
    """Parts and records in the making, of every shard count, files of stages further down, and lock files."""
    out = tmp_path / "c"
    (out / "_encoders").mkdir(parents=True)
    left = [
        ".tmp-99-part-00000-of-00001-000003.parquet",
        ".tmp-99-_adcli.partial.json",
        ".tmp-99-_adcli.json",
        ".tmp-99-part-00001-of-00002-000000.parquet",
        "_encoders/.tmp-99-model",
        ".lock-part-00001-of-00003",
    ]
    (out / "_adcli.partial.json").write_text(json.dumps(new_record(SPEC, "captions", 20)))
    for name in left:
        (out / name).write_text("cut")
    write_all(out)
    assert sorted(os.listdir(out)) == ["_adcli.json", "_encoders", "part-00000-of-00001-000000.parquet"]
    assert not os.listdir(out / "_encoders")
    for name in left:  # left by a process that was killed at its very end
        (out / name).write_text("cut")
    again, _ = write_all(out)
    assert again.up_to_date and len(os.listdir(out)) == 3 and not os.listdir(out / "_encoders")


def test_what_a_living_process_has_in_the_making_stays(tmp_path):
    out = tmp_path / "c"
    with Artifact(out, CAPTIONS, SPEC, KEYS, RunOptions(quiet=True, shard="1/2")) as other:
        mine = [f".tmp-{os.getpid()}-part-00001-of-00002.parquet", f".tmp-{os.getpid()}-_encoder"]
        for name in mine:
            (out / name).write_text("growing")
        write_all(out, options=RunOptions(quiet=True, shard="0/2"))
        assert all((out / name).exists() for name in mine)
        for key in list(other.pending):
            other.write(row(key))
    assert not [n for n in os.listdir(out) if n.startswith(".")]


def test_killed_at_random_instants(tmp_path):
    """A plain writer killed again and again; whole stages are killed in test_kill.py."""
    out, rng = tmp_path / "c", random.Random(7)
    for _ in range(8):
        process = subprocess.Popen([sys.executable, "-c", SLOW_STAGE, str(out)], cwd=Path(__file__).parents[2])
        while not list(out.glob(".lock-*")) and process.poll() is None:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.09))
        process.send_signal(signal.SIGKILL)
        process.wait()
    write_all(out)
    write_all(tmp_path / "whole")
    assert read_table(out, CAPTIONS).equals(read_table(tmp_path / "whole", CAPTIONS))
    assert len(json.loads((out / "_adcli.json").read_text())["runs"]) >= 1
    assert not [n for n in os.listdir(out) if n.startswith(".tmp")]
