"""`adcli data describe` on a terminal of 80 columns and with --json; inputs that are gone."""

import json
import shutil

import pyarrow.parquet as pq
import pytest

from adcli.describe import rate_of
from adcli.main import run
from stages.artifacts.tables import CAPTIONS, MANIFEST
from tests.artifacts.test_origin import make, manifest


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A manifest and captions below the working directory; the commands are said to be these."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "pictures").mkdir()
    monkeypatch.setattr("sys.argv", ["adcli", "data", "index", "folder", "pictures", "--out", "runs/m"])
    m = manifest(tmp_path / "runs" / "m", root=tmp_path / "pictures")
    monkeypatch.setattr("sys.argv", ["adcli", "caption", "runs/m", "--vlm", "a-model", "--out", "runs/c"])
    rows = [{"image_id": str(i), "prompt_id": "p", "sample": 0, "text": "A"} for i in range(3)]
    make(tmp_path / "runs" / "c", CAPTIONS, "caption", {"manifest": (m, MANIFEST)}, rows, notes={"caveat": "it is odd"})
    return tmp_path


def test_what_is_said(made, capsys):
    assert run(["data", "describe", "runs/c"]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert lines[:2] == ["runs/c", "  table     captions, 3 rows"]
    assert "  command   adcli caption runs/m --vlm a-model --out runs/c" in lines
    assert "  settings  a 1" in lines and "  seed      7" in lines and "  note      it is odd" in lines
    assert "    manifest runs/m (unchanged)" in lines
    assert "      command   adcli data index folder pictures --out runs/m" in lines
    assert "        root pictures (still there)" in lines
    assert "caption of adcli" in text and max(map(len, lines)) <= 80


def test_commands_of_several_runs_are_shown(tmp_path, monkeypatch, capsys):
    """A table that was made in shards, or gone on with by another command line, names each of them."""
    from stages.base.config import RunOptions

    for shard in ("0/2", "1/2"):
        monkeypatch.setattr("sys.argv", ["adcli", "data", "index", "--shard", shard])
        manifest(tmp_path / "m", 4, RunOptions(quiet=True, shard=shard))
    assert run(["data", "describe", str(tmp_path / "m")]) == 0
    text = capsys.readouterr().out
    assert "adcli data index --shard 0/2\n" in text and "adcli data index --shard 1/2\n" in text


def test_what_a_row_took_and_what_others_would_take():
    """Of the runs that wrote rows: 100 + 300 of them in 40 + 160 s, with 2,000 tokens."""
    runs = [
        {"rows": 100, "seconds": 40.0, "tokens": 500},
        {"rows": 300, "seconds": 160.0, "tokens": 1500},
        {"rows": 0, "seconds": 50.0, "tokens": 0},
    ]
    said = rate_of(runs, 400, 10_000)
    assert said.startswith("0.5 s a row, 2 rows/s, 10 tokens/s of one process, its start included; the 9,600 missing")
    assert said.endswith(" take 80.0 min, divided by the number of shards")
    assert "; 1,000 more take 8.3 min, " in rate_of(runs, 400, 400)
    plain = [{"rows": 4, "seconds": 0.02, "tokens": 0}]
    assert "rows/s of one process" in rate_of(plain, 4, 4) and "1,000 more take 5 s," in rate_of(plain, 4, 4)
    assert rate_of(plain, 4, 4_000_004).endswith("the 4,000,000 missing take 5.6 h, divided by the number of shards")
    assert rate_of(runs[2:], 0, 5) == "", "nothing was written"


def test_a_missing_input_is_said_and_no_error(made, capsys):
    shutil.rmtree(made / "runs" / "m")
    assert run(["data", "describe", "runs/c"]) == 0
    assert "    manifest runs/m (no longer there)\n" in capsys.readouterr().out
    assert run(["data", "describe", "runs/m"]) == 2
    assert "runs/m: no such file" in capsys.readouterr().err


def test_what_belongs_to_a_table(made, capsys):
    weights = made / "runs" / "c" / "_encoders" / "d"
    weights.mkdir(parents=True)
    assert run(["data", "describe", "runs/c/_encoders/d"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["runs/c/_encoders/d belongs to", "runs/c", "  table     captions, 3 rows"]
    assert run(["data", "describe", "runs"]) == 0
    assert "belongs to" not in capsys.readouterr().out


def test_one_line_of_json(made, capsys):
    assert run(["data", "describe", "runs/c", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    captions, images = json.loads(line)["artifacts"]
    where = str(made / "runs" / "m")
    assert captions["record"]["stage"] == "caption" and captions["rows"] == 3
    assert captions["inputs"] == [{"name": "manifest", "path": where, "state": "unchanged", "tables": [where]}]
    assert images["path"] == where and images["inputs"][0]["state"] == "still there"


def test_a_table_made_elsewhere(made, capsys):
    (part,) = (made / "runs" / "c").glob("part-*")
    pq.write_table(pq.read_table(part).replace_schema_metadata(), made / "theirs.parquet")
    assert run(["data", "describe", "theirs.parquet"]) == 0
    text = capsys.readouterr().out
    assert "  table     made elsewhere, 3 rows" in text and "image_id (string), prompt_id (string)" in text


def test_names_cannot_steer_the_terminal(made, capsys):
    (made / "runs" / "c").rename(made / "runs" / "\x1b[31mred")
    assert run(["data", "describe", "runs/\x1b[31mred"]) == 0
    assert "\x1b" not in capsys.readouterr().out
