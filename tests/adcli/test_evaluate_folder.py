"""`adcli evaluate --out FOLDER` writes all of its outputs into that folder, and nothing beside it."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adcli.main import run
from stages.artifacts.maps import to_row
from stages.artifacts.tables import MANIFEST, MAPS, SCORES


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """Two normal training and four test images with scores and maps, in the working directory."""
    from PIL import Image

    rows = []
    for n in range(6):
        Image.fromarray(np.full((4, 6, 3), 40 * n, np.uint8)).save(tmp_path / f"{n}.png")
        rows.append(
            {
                "image_id": f"d/{n}",
                "path": f"{n}.png",
                "dataset": "d",
                "category": "c",
                "split": "test" if n > 1 else "train",
                "label": n % 2 if n > 1 else 0,
                "mask_paths": [],
                "width": 6,
                "height": 4,
            }
        )
    scores = [{"image_id": f"d/{n}", "method": "x", "score": n / 6} for n in range(6)]
    maps = [to_row((f"d/{n}", "x"), np.full((4, 6), n / 6)) for n in range(2, 6)]
    for name, table, content in (("m", MANIFEST, rows), ("s", SCORES, scores), ("p", MAPS, maps)):
        pq.write_table(pa.Table.from_pylist(content, schema=table.schema), tmp_path / f"{name}.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def evaluate(*more):
    return run(["evaluate", "s.parquet", "--manifest", "m.parquet", "--resamples", "0", "--quiet", *more])


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_a_folder_gets_everything(inputs):
    before = names(inputs)
    assert evaluate("--out", "results") == 0
    assert names(inputs) == sorted([*before, "results"])
    assert names(inputs / "results") == [
        "metrics.parquet",
        "ranking.csv",
        "report.html",
        "tables",
        "thresholds.parquet",
    ]
    assert json.loads((inputs / "results/metrics.parquet/_adcli.json").read_text())["table"] == "metrics"
    assert evaluate("--out", "results") == 0  # the same command again


def test_maps_give_pictures_and_a_named_output_goes_where_it_is_named(inputs):
    assert evaluate("--out", "results", "--maps", "p.parquet", "--report", "mine.html") == 0
    assert names(inputs / "results") == ["heatmaps", "metrics.parquet", "ranking.csv", "tables", "thresholds.parquet"]
    assert (inputs / "mine.html").is_file() and list((inputs / "results/heatmaps").rglob("*.*"))


def test_a_table_of_metrics_is_alone(inputs):
    """By its name, and where an artifact of an earlier version lies without the ending."""
    before = names(inputs)
    assert evaluate("--out", "e.parquet") == 0
    assert names(inputs) == sorted([*before, "e.parquet"]) and (inputs / "e.parquet/_adcli.json").is_file()
    (inputs / "e.parquet").rename(inputs / "old")
    assert evaluate("--out", "old") == 0
    assert not {"metrics.parquet", "report.html"} & set(names(inputs / "old"))
