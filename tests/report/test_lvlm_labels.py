"""The LVLM paper's Figures 6 and 9, and what its Table 3 misprints."""

import io

import numpy as np
import pytest

from stages.datasets.manifest import Image
from stages.report.grid import published
from stages.report.lvlm import misprints
from stages.report.lvlm_labels import BINS, contradicted, counted, distributions, with_thresholds
from stages.results.scores import Scored, TaskScores


def scored(name, split, label, score, prediction=None, said=None):
    image = Image(name, None, "visa", "pcb1", None, split, label, None, (), None, None, None)
    return Scored(image, {"score": score, "prediction": prediction, "response": said, "error": None})


def task(*rows, method="m", condition=None):
    return TaskScores("visa", "pcb1", condition, method, rows, 0)


@pytest.fixture
def whole():
    """Training scores 0 and 10; normal 0, 5; anomalous 30: bins of 1 from 0 to 30."""
    train = [scored("t0", "train", 0, 0.0), scored("t1", "train", 0, 10.0)]
    return task(*train, scored("a", "test", 0, 0.0), scored("b", "test", 0, 5.0), scored("c", "test", 1, 30.0))


def test_shares_of_training_and_test_images_in_the_same_bins(whole):
    found = counted(whole)
    assert list(found) == ["training", "test, normal", "test, anomalous"]
    assert all(np.allclose(edges, np.arange(31)) for _, edges in found.values()) and BINS == 30
    where = {name: {int(i): share[i] for i in np.flatnonzero(share)} for name, (share, _) in found.items()}
    assert where == {"training": {0: 0.5, 10: 0.5}, "test, normal": {0: 0.5, 5: 0.5}, "test, anomalous": {29: 1.0}}


def test_the_picture_has_a_panel_for_each_task_with_thresholds(whole):
    import PIL.Image

    bare = task(*[s for s in whole.rows if s.image.split == "test"])
    turned = task(*whole.rows, condition="rotate90")
    assert with_thresholds([whole, bare, turned]) == [whole] and distributions([bare, turned]) is None
    one = PIL.Image.open(io.BytesIO(distributions([whole, bare])))
    two = PIL.Image.open(io.BytesIO(distributions([whole, whole])))
    assert one.format == "PNG" and two.width > 1.5 * one.width


def test_images_that_answers_contradict_are_listed_with_how_many_do():
    one = task(
        scored("a", "test", 0, 0.9, 1, "Yes.\nA  chip."), scored("b", "test", 1, 0.8, 1), scored("d", "test", 1, 0.2, 0)
    )
    two = task(scored("a", "test", 0, 0.7, 0), scored("d", "test", 1, None, 0, "No."), method="n")
    turned = task(scored("r", "test", 0, 0.9, 1), condition="rotate90")
    (table,) = contradicted([one, two, turned])
    assert table.rows == (
        ("visa", "pcb1", "d", "anomalous", "normal", "2 of 2", "0.200", ""),
        ("visa", "pcb1", "a", "normal", "anomalous", "1 of 2", "0.900", "Yes. A chip."),
    )
    assert contradicted([task(scored("b", "test", 1, 0.8, 1))]) == []


def test_average_drops_that_the_papers_own_columns_do_not_give_are_named():
    """AnomalyGPT: 85.6 - (85.1 + 70.0 + 72.8) / 3 = 9.63, and 77.6 - (69.2 + 74.2 + 55.3) / 3 = 11.37."""
    lines = [(p["dataset"], f"{p['method']} (published)", p["drop"]) for p in published("lvlm_tables1_4")]
    said = "AnomalyGPT on mvtec-ad 10.3 (9.6), AnomalyGPT on visa 11.6 (11.4)."
    assert misprints(lines).endswith(said) and misprints(lines).count("GLASS") == 0
    assert "visa" not in misprints(lines[:4]) and misprints([(*line[:2], "-") for line in lines]) == ""
