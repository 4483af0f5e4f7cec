"""The ranking as a list, and the sentences about it, by hand; a page and pictures without labels and masks."""

import csv
import io

import numpy as np
import pytest

from stages.artifacts.checks import check_places
from stages.artifacts.maps import to_row
from stages.artifacts.reader import read_table
from stages.artifacts.tables import MANIFEST, MAPS, SCORES
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.datasets.manifest import read_manifest
from stages.evaluate.config import EvaluateConfig
from stages.evaluate.images import run
from stages.report import heatmaps
from stages.report.grid import as_csv
from stages.report.ranking import outcome, ranking
from stages.results.scores import collect, read_scores
from tests.pages import page_data
from tests.results.test_beside_good import task

GOOD = [0, 1, 2, 3, 4]


def files(grid):
    return [row[0].rpartition("/")[2] for row in grid.rows]


def test_one_kind_is_ranked_by_its_scores():
    found = ranking([task(val=GOOD, test=[3.7, 0.5, None, 12.345678])])
    assert found.columns == ("file", "score", "percentile among the good", "above the line")
    assert [row[1:] for row in found.rows] == [
        ("12.3457", "100.0", "yes"),
        ("3.7", "80.0", "yes"),
        ("0.5", "20.0", "no"),
        ("", "", "no score"),
    ]
    assert files(found) == ["test3.png", "test0.png", "test1.png", "test2.png"]


def test_kinds_are_brought_together_by_how_far_they_lie_above_their_line():
    """Scores of b are a hundred times those of a: 500 there is less unusual than 6 here."""
    found = ranking([task("a", val=GOOD, test=[6, 1]), task("b", val=[100 * g for g in GOOD], test=[500, 250])])
    assert found.columns[:3] == ("file", "category", "score")
    assert [row[1:3] for row in found.rows] == [("a", "6"), ("b", "500"), ("b", "250"), ("a", "1")]


def test_labels_stand_beside_where_they_are_known():
    found = ranking([task(val=GOOD, test=[(5, 1), (1, 0), 2])])
    assert found.columns[-1] == "label" and [row[-1] for row in found.rows] == ["anomalous", "", "normal"]


def test_a_name_that_a_spreadsheet_would_run_is_text(monkeypatch):
    from stages.report import ranking as module

    monkeypatch.setattr(module, "shown", lambda path: "=cmd|' /C calc'!A0.png")
    written = list(csv.reader(io.StringIO(as_csv(ranking([task(val=GOOD, test=[1])])))))
    assert written[1][0] == "'=cmd|' /C calc'!A0.png" and written[1][1] == "1"


def test_the_sentence_by_hand():
    """Line 3.6; 5 and 6 lie above it."""
    found = outcome([task(val=GOOD, test=[5, 6, *[2.1] * 18])])
    assert found.summary.startswith(
        "2 of 20 lie above 90 % of the good ones (line 3.6, drawn from 5 held out; 2 would be"
    )
    assert found.above == 2


def test_what_is_not_told_apart_is_said_with_what_to_try():
    good = list(range(40))
    found = outcome([task("a", val=good, test=good), task("b", val=good, test=[g + 30 for g in good])])
    assert found.lines[:2] == (
        "a: 4 of 40 lie above 90 % of the good ones (line 35.1, drawn from 40 held out; 4 would be chance)",
        "b: 34 of 40 lie above 90 % of the good ones (line 35.1, drawn from 40 held out; 4 would be chance)",
    )
    assert found.lines[2].startswith("a: m does not tell the new pictures from the good ones: AUROC 0.50 [0.")
    assert found.lines[2].endswith("0 of 40 lie above all good ones")
    assert found.lines[3].startswith("b: more than half lie above the line")
    assert "--method anomalib/patchcore" in found.lines[4] and len(found.lines) == 5
    assert found.summary == "38 of 80 lie above 90 % of the good ones of their kind"


def test_where_good_and_bad_are_labelled_their_own_metrics_say_how_well_they_are_told_apart():
    """Half of the new ones are good, so that new and good ones overlap, however well the defective ones stand out."""
    new = [*((g, 0) for g in GOOD), *((g + 90, 1) for g in GOOD[:2])]
    assert not outcome([task(val=GOOD, test=new)]).lines
    assert "does not tell the new pictures" in outcome([task(val=GOOD, test=[n for n, _ in new])]).lines[0]
    assert "does not tell the new pictures" in outcome([task(val=GOOD, test=[(g, 0) for g in GOOD])]).lines[0]


def test_pictures_without_any_score():
    assert outcome([task(val=GOOD, test=[None])]).summary == "no picture has a score"
    assert "without a line" in outcome([task(test=[1, 2])]).summary


@pytest.fixture
def unlabelled(tmp_path, save_image):
    """Five held out and six new images of 40 x 60, with maps of 4 x 6 whose maximum is the score."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows, scores, maps = [], [], []
    for n in range(11):
        save_image(tmp_path / f"{n}.png", n)
        new = n > 4
        rows.append(
            {
                "image_id": f"d/{n}.png",
                "path": f"{n}.png",
                "dataset": "d",
                "category": "c",
                "split": "test" if new else "val",
                "label": None if new else 0,
                "mask_paths": [],
            }
        )
        scores.append({"image_id": f"d/{n}.png", "method": "m", "score": float(n)})
        maps.append(to_row((f"d/{n}.png", "m"), np.linspace(0, n, 24).reshape(4, 6)))
    for name, table, content in (("m", MANIFEST, rows), ("s", SCORES, scores), ("p", MAPS, maps)):
        pq.write_table(pa.Table.from_pylist(content, schema=table.schema), tmp_path / f"{name}.parquet")
    return EvaluateConfig(
        scores=tmp_path / "s.parquet",
        manifest=tmp_path / "m.parquet",
        maps=tmp_path / "p.parquet",
        root=tmp_path,
        out=tmp_path / "metrics",
        report=tmp_path / "report.html",
        heatmaps=tmp_path / "heat",
        ranking=tmp_path / "ranking.csv",
        resamples=50,
    )


def test_unlabelled_pictures_get_heat_maps_a_page_and_a_ranking(unlabelled, tmp_path, monkeypatch, capsys):
    import cv2

    monkeypatch.setattr(heatmaps, "MOST", 4)
    run(unlabelled, RunOptions())
    assert "AUROC" not in capsys.readouterr().out, "there is nothing to say without labels"
    drawn = sorted(p.name for p in (tmp_path / "heat/m/d").iterdir())
    assert drawn == ["10.png.jpg", "7.png.jpg", "8.png.jpg", "9.png.jpg"], "the highest scores"
    assert cv2.imread(str(tmp_path / "heat/m/d/10.png.jpg")).shape == (40, 180, 3)
    page = (tmp_path / "report.html").read_text()
    assert "6 of 6 lie above 90 % of the good ones (line 3.6" in page
    shown = page_data(tmp_path / "report.html").rows()
    assert all(r["picture"] and r["heat"] for r in shown) and len(shown) == 6, "every picture, with its map"
    with (tmp_path / "ranking.csv").open() as f:
        assert [row["score"] for row in csv.DictReader(f)] == ["10", "9", "8", "7", "6", "5"]


def test_the_colours_of_most_pictures_do_not_pale_for_one(unlabelled):
    """98 % of 5, 6, ..., 10 is 9.9; every map begins at 0."""
    images = read_manifest(unlabelled.manifest, unlabelled.root).images
    (found,) = collect(read_scores(read_table(unlabelled.scores, SCORES), unlabelled.scores), images, unlabelled.scores)
    (scale,) = heatmaps.colour_scales([found], unlabelled.maps).values()
    assert scale == (0, pytest.approx(9.9, rel=1e-3))


def test_a_ranking_only_takes_the_place_of_a_ranking(unlabelled, tmp_path):
    unlabelled.ranking.write_text("my,own,list\n")
    with pytest.raises(InputError, match="--ranking .*did not write"):
        check_places(unlabelled)
    unlabelled.ranking.write_text("file,category,score,percentile among the good\n")
    check_places(unlabelled)
