"""Scores and maps of other programs: joined by path or name, nothing made up, evaluated like any others."""

import csv
import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from stages.artifacts.maps import read_maps
from stages.artifacts.reader import read_table
from stages.artifacts.tables import MANIFEST, MAPS, SCORES
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.evaluate.config import EvaluateConfig
from stages.evaluate.images import run as evaluate
from stages.results.config import ImportScoresConfig
from stages.results.import_scores import run

QUIET = RunOptions(quiet=True)


@pytest.fixture
def world(tmp_path):
    """fruits/white_bg: one training image, two normal and two anomalous test images; two of them called 1.png."""
    places = [("train/good/0.png", "train", 0)]
    places += [(f"test/{kind}/{n}.png", "test", kind == "quantity") for kind in ("good", "quantity") for n in (1, 2)]
    places.append(("test/good/only.png", "test", 0))
    rows = [
        {"image_id": f"vidad/{path}", "path": path, "dataset": "vidad", "category": "fruits", "mask_paths": []}
        | {"condition": "white_bg", "split": split, "label": int(label)}
        for path, split, label in places
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=MANIFEST.schema), tmp_path / "m.parquet")
    return tmp_path


def imported(world, text, name="s.csv", options=QUIET, **settings):
    """(summary, image_id without the data set's name -> row)"""
    (world / name).write_text(text)
    given = {"manifest": world / "m.parquet", "out": world / "s", "root": world, "name": "CSAD"} | settings
    summary = run(ImportScoresConfig(source=world / name, **given), options)
    rows = read_table(world / "s", SCORES).to_pylist()
    return summary, {r["image_id"].removeprefix("vidad/"): r for r in rows}


WHOLE = "image,score\ntest/good/1.png,0.1\ntest/good/2.png,0.3\ntest/quantity/1.png,0.2\ntest/quantity/2.png,9e-1\n"


def test_csv_by_path_by_absolute_path_and_by_a_name_that_is_unique(world):
    text = f"file;s\n{world}/test/good/1.png;0.5\nonly.png;-2\ntest\\quantity\\2.png;1e3\n"
    summary, rows = imported(world, text, image_column="file", score_column="s")
    assert {i: r["score"] for i, r in rows.items()} == {
        "test/good/1.png": 0.5,
        "test/good/only.png": -2.0,
        "test/quantity/2.png": 1000.0,
    }
    assert {r["method"] for r in rows.values()} == {"CSAD"} and summary.errors == 0 and summary.complete


def test_json_lines_with_columns_by_name(world):
    lines = [{"path": "test/good/2.png", "pred": 0.25, "more": [1]}, {"path": "only.png", "pred": "0.5"}]
    text = "\n".join(map(json.dumps, lines))
    _, rows = imported(world, text, "s.jsonl", image_column="path", score_column="pred")
    assert {i: r["score"] for i, r in rows.items()} == {"test/good/2.png": 0.25, "test/good/only.png": 0.5}


def test_what_does_not_match_is_a_failed_row_and_has_no_score(world, capfd):
    text = "image,score\n1.png,0.5\nnone.png,0.5\nonly.png,\ntest/good/2.png,nan\ntest/good/1.png,0.1\n"
    summary, rows = imported(world, text, options=RunOptions())
    assert summary.errors == 4 and [i for i, r in rows.items() if r["score"] is not None] == ["test/good/1.png"]
    assert "2 images of the manifest" in rows["1.png"]["error"] and "no image" in rows["none.png"]["error"]
    assert rows["test/good/only.png"]["error"] == "no score in the file"
    assert rows["test/good/2.png"]["error"] == "the score 'nan' is no finite number"
    said = " ".join(capfd.readouterr().err.split())
    assert "2 images not found in the manifest: 1.png, none.png" in said
    assert "2 test images of the manifest without a line in" in said and "vidad/test/quantity/1.png" in said


@pytest.mark.parametrize(
    ("text", "name", "part"),
    [
        ("image,points\nonly.png,1\n", "s.csv", "no column `score`; it has image, points"),
        ("image,score\nonly.png,1\ntest/good/only.png,1\n", "s.csv", "lines 2 and 3 are about one image"),
        ("image,score\nnone.png,1\n", "s.csv", "none of its 1 image is in the manifest"),
        ("image,score\nonly.png,1,2\n", "s.csv", "more cells than the first line has columns"),
        ("image,score,score\nonly.png,1,2\n", "s.csv", "`score` is there twice"),
        ("image,score\n", "s.csv", "holds no scores"),
        ("[1]", "s.jsonl", "expected an object"),
        ('{"image": 3, "score": 1}', "s.jsonl", "names no image"),
        ("image,score\nonly.png,1\n", "s.xlsx", "expected a name that ends in .csv"),
    ],
)
def test_files_that_cannot_be_used_are_refused_before_anything_is_written(world, text, name, part):
    with pytest.raises(InputError, match=part):
        imported(world, text, name)
    assert not (world / "s").exists()


def save(path, values, dtype):
    path.parent.mkdir(exist_ok=True)
    array = np.array(values, dtype)
    np.save(path, array) if path.suffix == ".npy" else Image.fromarray(array).save(path)


def test_maps_are_the_numbers_of_their_files(world):
    maps = world / "maps"
    save(maps / "a.npy", [[[0.1, 2.0]]], "float32")
    save(maps / "b.png", [[0, 65535], [1, 2]], "uint16")
    save(maps / "c.tiff", [[-0.5, 1e5]], "float32")
    save(maps / "d.png", [[0, 255]], "uint8")
    Image.new("RGB", (2, 1)).save(maps / "e.png")
    ends = {"test/good/1": "a.npy", "test/good/2": "b.png", "test/quantity/1": "c.tiff", "test/quantity/2": "d.png"}
    text = "image,score,where\n" + "".join(f"{i}.png,0.5,maps/{f}\n" for i, f in ends.items())
    text += "only.png,0.5,maps/e.png\ntrain/good/0.png,0.5,\n"
    summary, rows = imported(world, text, maps=world / "out", map_column="where")
    assert summary.errors == 2 and not any(r["error"] for r in rows.values())
    found = dict(read_maps(world / "out", {(f"vidad/{i}.png", "CSAD") for i in ends}))
    by_file = {f: found[f"vidad/{i}.png", "CSAD"] for i, f in ends.items()}
    assert by_file["a.npy"].tolist() == np.array([[0.1, 2.0]], "float32").tolist(), "float16 would round 0.1"
    assert by_file["b.png"].tolist() == [[0, 65535], [1, 2]]
    assert by_file["c.tiff"].tolist() == [[-0.5, 1e5]]
    assert by_file["d.png"].tolist() == [[0, 255]] and by_file["d.png"].dtype == "float16"
    errors = {r["image_id"]: r["error"] for r in read_table(world / "out", MAPS).to_pylist() if r["error"]}
    assert "mode RGB" in errors["vidad/test/good/only.png"]
    assert errors["vidad/train/good/0.png"].endswith("no map in the file")


def test_it_is_kept_by_what_the_files_hold(world):
    save(world / "maps" / "a.npy", [[1.0]], "float32")
    text = "image,score,map\nonly.png,0.5,maps/a.npy\n"
    settings = {"maps": world / "out"}
    assert imported(world, text, **settings)[0].written == 1
    assert imported(world, text, **settings)[0].up_to_date
    save(world / "maps" / "a.npy", [[2.0]], "float32")
    with pytest.raises(InputError, match="map files"):
        imported(world, text, **settings)


def test_imported_scores_are_a_row_of_table_4_that_says_so(world):
    rows = pq.read_table(world / "m.parquet").to_pylist()
    rows += [r | {"category": "sticks"} | {k: f"sticks/{r[k]}" for k in ("image_id", "path")} for r in rows]
    pq.write_table(pa.Table.from_pylist(rows, schema=MANIFEST.schema), world / "m.parquet")
    text = WHOLE + "".join(f"sticks/{line}\n" for line in WHOLE.splitlines()[1:])
    imported(world, text)
    tables = world / "tables"
    evaluate(
        EvaluateConfig(scores=world / "s", manifest=world / "m.parquet", out=world / "x", tables=tables, resamples=0),
        QUIET,
    )
    table4 = list(csv.reader((tables / "table4.csv").open()))
    assert table4[1][:2] == ["CSAD, imported, 2 of 10 scenarios, 8 of 10 test images", "0.750"], (
        "of four pairs three are in order"
    )
    digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    (made,) = list(csv.reader((tables / "made.csv").open()))[1:]
    assert made[0] == "CSAD" and made[-1] == f"imported from s.csv, BLAKE2b {digest}"


def test_on_the_command_line(world):
    from adcli.main import build

    (world / "s.csv").write_text(WHOLE + "none.png,1\n")
    words = ["data", "import-scores", str(world / "s.csv"), "--manifest", str(world / "m.parquet"), "--name", "CSAD"]
    words += ["--out", str(world / "s"), "--root", str(world), "--quiet"]
    assert CliRunner().invoke(build(words), words).exit_code == 3
