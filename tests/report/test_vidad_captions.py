"""VID-AD's Table 6 and the checklist that a person fills."""

import csv

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.artifacts.tables import MANIFEST, SCORES
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.evaluate.config import EvaluateConfig
from stages.evaluate.images import run
from stages.report.checklist import key_of, read_checklist, write_checklist
from tests.hostile import write

AGAIN = RunOptions(quiet=True, overwrite=True)
NEAR = [{"image_id": "x", "distance": 0.1, "text": "Two kiwis.", "missing": [], "extra": []}]


def given(tmp_path, captions, methods=("text-knn",)):
    """captions: (condition, split, label, caption) of images 00.png, 01.png, ..."""
    manifest, scores = [], []
    for n, (condition, split, label, caption) in enumerate(captions):
        place = {"dataset": "vidad", "category": "fruits", "condition": condition, "mask_paths": []}
        manifest.append({"image_id": f"{n:02}", "path": f"{n}.png", "split": split, "label": label} | place)
        found = {"score": n / 100, "response": caption, "neighbours": NEAR} if caption else {"error": "no caption"}
        scores += [{"image_id": f"{n:02}", "method": m} | found for m in methods]
    return EvaluateConfig(
        scores=write(tmp_path / "s.parquet", SCORES, scores),
        manifest=write(tmp_path / "m.parquet", MANIFEST, manifest),
        out=tmp_path / "metrics",
        tables=tmp_path / "tables",
        checklist=tmp_path / "check" / "list.csv",
        resamples=0,
    )


FRUITS = (
    ("white_bg", "train", 0, "Two kiwis, one pear."),
    ("white_bg", "train", 0, "Two kiwis."),
    ("white_bg", "test", 0, "Two kiwis."),
    ("white_bg", "test", 0, None),
    ("white_bg", "test", 1, "Four kiwis."),
    ("cable_bg", "train", 0, "Two kiwis, one pear."),
    ("cable_bg", "test", 0, "=2 kiwis"),
    ("cable_bg", "test", 1, "Four kiwis."),
    ("blurry", "test", 0, "Two apples."),
    ("blurry", "test", 1, "Four kiwis."),
)


def table6(config):
    run(config, AGAIN)
    return list(csv.reader((config.tables / "table6.csv").open()))


def test_captions_of_normal_images_and_how_many_differ(tmp_path):
    head, *lines = table6(given(tmp_path, FRUITS, ("text-knn/a", "text-knn/b")))
    assert head[2:] == ["condition", "caption", "right", "right of those checked", "different captions"]
    methods = "text-knn/a, text-knn/b"
    assert lines == [
        [methods, "fruits", "White BG", "Two kiwis, one pear.", "-", "-", "2 of 3 (67 %)"],
        [methods, "fruits", "Cable BG", "Same as White BG.", "-", "-", "2 of 2 (100 %)"],
        [methods, "fruits", "Blurry CD", "Two apples.", "-", "-", "1 of 1 (100 %)"],
    ], "the same captions by two methods are one row"


def test_captioners_that_agree_on_one_task_alone_stay_apart(tmp_path):
    config = given(tmp_path, FRUITS, ("text-knn/a", "text-knn/b"))
    rows = pq.read_table(config.scores).to_pylist()
    for row in rows:
        if (row["image_id"], row["method"]) == ("08", "text-knn/b"):
            row["response"] = "Two pears."
    pq.write_table(pa.Table.from_pylist(rows, schema=SCORES.schema), config.scores)
    _, *lines = table6(config)
    assert [(line[0], line[3]) for line in lines if line[2] == "Blurry CD"] == [
        ("text-knn/a", "Two apples."),
        ("text-knn/b", "Two pears."),
    ]
    assert len(lines) == 6


@pytest.mark.slow
def test_the_checklist_is_made_once_filled_by_hand_and_read_back(tmp_path, capfd):
    config = given(tmp_path, FRUITS)
    table6(config)
    made = list(csv.reader(config.checklist.open()))
    assert made[0] == ["image", "caption", "right", "remark"]
    assert [line[:2] for line in made[1:]] == [
        ["00", "Two kiwis, one pear."],
        ["01", "Two kiwis."],
        ["02", "Two kiwis."],
        ["05", "Two kiwis, one pear."],
        ["06", "'=2 kiwis"],
        ["08", "Two apples."],
    ]
    filled = {"00": "yes", "01": "NO", "02": "Yes ", "06": "no"}
    text = "\n".join(f"{i};{c};{filled.get(i, '')};what I saw" for i, c, *_ in made[1:])
    config.checklist.write_text("image;caption;right;remark\n" + text + "\n99;Gone.;yes;\n")
    before = config.checklist.read_bytes()
    _, *lines = table6(config)
    assert [line[4:6] for line in lines] == [["yes", "2 of 3"], ["-", "0 of 1"], ["-", "-"]]
    assert config.checklist.read_bytes() == before
    run(config, RunOptions(overwrite=True))
    said = " ".join(capfd.readouterr().err.split())
    assert "list.csv: 5 of 7 answered; 1 are of other captions than these scores' and do not count" in said


def test_more_than_five_normal_images_give_five_lines(tmp_path):
    config = given(tmp_path, [("white_bg", "test", int(n == 41), f"{n} kiwis.") for n in range(42)])
    table6(config)
    assert [line[0] for line in list(csv.reader(config.checklist.open()))[1:]] == ["00", "10", "20", "30", "40"]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("image,caption\n", "no column `right`"),
        ("image,caption,right\na,b,yes\nc,d,perhaps\n", "line 3: `right` holds 'perhaps'"),
    ],
)
def test_a_checklist_that_cannot_be_read_is_refused_before_anything_is_written(tmp_path, text, part):
    config = given(tmp_path, FRUITS)
    config.checklist.parent.mkdir()
    config.checklist.write_text(text)
    with pytest.raises(InputError, match=part):
        run(config, AGAIN)
    assert not config.tables.exists() and not config.out.exists()


def test_scores_without_captions_have_nothing_to_check(tmp_path):
    config = given(tmp_path, FRUITS)
    rows = [r | {"neighbours": None} for r in pq.read_table(config.scores).to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCORES.schema), config.scores)
    with pytest.raises(InputError, match="not about captions of VID-AD"):
        run(config, AGAIN)


def test_what_is_written_is_what_is_read(tmp_path):
    captions = [("a,b", 'says "x"\nand y'), ("'c", "-1 + 2"), ("d", "nul \0 here")]
    write_checklist(tmp_path / "c.csv", captions)
    assert read_checklist(tmp_path / "c.csv") == {key_of(*c): None for c in captions}
