"""The blocks of docs/python.md, as they stand there, on a folder of made-up pictures."""

import re
from pathlib import Path

import numpy as np
import pytest

from stages.artifacts.reader import read_table
from stages.artifacts.tables import NEGATIVES, SCORES

TEXT = (Path(__file__).parents[1] / "docs" / "python.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S)


@pytest.fixture
def photos(tmp_path, save_image):
    """Bright plates with one dark spot; the new ones have one or three."""
    for name, spots in (("normal/0", 1), ("normal/1", 1), ("normal/2", 1), ("new/0", 1), ("new/1", 3)):
        plate = np.full((96, 96, 3), 200, np.uint8)
        for n in range(spots):
            plate[40:52, 12 + 28 * n : 24 + 28 * n] = 30
        save_image(tmp_path / "photos" / f"{name}.png", plate)


@pytest.mark.slow
def test_the_blocks_run_one_after_the_other(photos, tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch", reason="the text encoder needs torch")
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "script"}
    for block in BLOCKS:
        exec(compile(block, "docs/python.md", "exec"), names)
    rows = {r["image_id"]: r["score"] for r in read_table(Path("runs/photos/scores.parquet"), SCORES).to_pylist()}
    assert len(rows) == 5 and rows["photos/new/1.png"] > rows["photos/new/0.png"]
    mine = read_table(Path("runs/photos/my-negatives.parquet"), NEGATIVES).to_pylist()
    assert [r["negative"] for r in mine] == ["A dark part."] * 3
    assert Path("runs/photos/report.html").exists()
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "5 captions, 0 of them failed ()" and "photos/new/1.png" in said[2]
    assert "nowhere.parquet" in said[-1]
