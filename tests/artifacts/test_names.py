"""Folders whose names are not UTF-8, as old disks and archives have them."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from stages.artifacts.checks import check_places
from stages.artifacts.origin import UNCHANGED, chain
from stages.artifacts.reader import COMPLETE, read_table, scan
from stages.artifacts.tables import SCORES, THRESHOLDS
from stages.artifacts.writer import Artifact, Spec
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.evaluate.images import run as evaluate
from stages.text_encoder.config import TrainEncoderConfig
from tests.adcli.test_inspect import surface

QUIET = RunOptions(quiet=True)
NAME = os.fsdecode(b"caf\xe9")
KEYS = [(f"d/{n}.png", "m") for n in range(5)]
ROOT = Path(__file__).parents[2]


def write(out, error=None, paths=None):
    """Five rows in three parts, the last one failed where there is an error."""
    with Artifact(out, SCORES, Spec("score", {}, {}, paths=paths or {}), KEYS, QUIET, 2) as artifact:
        for n, (image_id, method) in enumerate(artifact.pending):
            said = {"error": error} if error and n == 4 else {"score": float(n)}
            artifact.write({"image_id": image_id, "method": method} | said)
    return artifact.summary


def test_an_artifact_in_such_a_folder(tmp_path):
    out = tmp_path / NAME / "scores"
    assert write(out, "truncated").errors == 1
    assert write(out).written == 1 and write(out).up_to_date  # the failed row in place of the old one, then nothing
    assert read_table(out, SCORES)["score"].to_pylist() == [0, 1, 2, 3, 0]
    assert sum(len(rows) for rows in scan(out, SCORES)) == 5
    (out / COMPLETE).unlink()  # as a table of other tools
    assert len(read_table(out, SCORES)) == 5


@pytest.mark.slow
def test_where_a_table_in_such_a_folder_comes_from(two_categories, tmp_path):
    config, _ = two_categories
    place = tmp_path / NAME
    place.mkdir()
    for name in ("scores", "manifest", "maps"):
        getattr(config, name).rename(place / f"{name}.parquet")
    config = replace(
        config,
        **{n: place / f"{n}.parquet" for n in ("scores", "manifest", "maps")},
        **{n: place / n for n in ("out", "tables", "thresholds", "heatmaps")},
        report=place / "report.html",
    )
    evaluate(config, QUIET)
    assert evaluate(config, QUIET).up_to_date
    found = chain(place / "out")[str(place / "out")]
    assert {i.name: i.state for i in found.inputs if i.name != "root"} == dict.fromkeys(
        ("scores", "manifest", "maps"), UNCHANGED
    )
    assert len(read_table(place / "thresholds", THRESHOLDS)) == 4  # the best F1 of images and pixels, twice


@pytest.mark.parametrize("name", ["out", "encoder"])
def test_weights_are_refused_there_before_anything_is_written(tmp_path, name):
    config = TrainEncoderConfig(**{"negatives": tmp_path, "manifest": tmp_path, "out": tmp_path / "e", name: NAME})
    with pytest.raises(InputError, match=rf"--{name} caf\\udce9: this path is not UTF-8, .* rename the folder"):
        check_places(config)


@pytest.mark.slow
def test_own_pictures_whose_results_lie_there(tmp_path):
    for n in range(3):
        surface(tmp_path / "good" / f"{n}.png", n)
        surface(tmp_path / "new" / f"{n}.png", n + 9)
    words = ["inspect", "--good", "good", "--test", "new", "--out", NAME, "--method", "lvlm", "--vlm", "scene"]
    # `strict` is what a terminal in UTF-8 has
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(
        [sys.executable, "-m", "adcli", *words], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "page: caf\\udce9/report.html" in done.stdout
    assert (tmp_path / NAME / "report.html").is_file()
