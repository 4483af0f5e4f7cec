"""Two folders as one manifest: what is held out, what folder names say, kinds of pictures, and places."""

from itertools import pairwise
from pathlib import Path

import pytest

from stages.artifacts.reader import read_provenance, read_table
from stages.artifacts.tables import MANIFEST
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.datasets.good_and_new import GoodAndNewConfig, held_out, kinds_of, run, says


@pytest.fixture
def index(tmp_path, save_image, capsys):
    """index({relative path: seed}, good=..., test=...) -> (path -> row of the manifest, what was said)."""

    def index(files, good="good", test="new", **more):
        for n, name in enumerate(files):
            save_image(tmp_path / name, n)
        config = GoodAndNewConfig(good=tmp_path / good, test=tmp_path / test, out=tmp_path / "m", **more)
        run(config, RunOptions(overwrite=True))
        rows = read_table(tmp_path / "m", MANIFEST).to_pylist()
        return {r["path"]: r for r in rows}, capsys.readouterr().err

    return index


def many(folder, count):
    return [f"{folder}/{n:03d}.png" for n in range(count)]


@pytest.mark.parametrize(
    ("count", "which"),
    [
        (24, []),
        (25, [4, 9, 14, 19, 24]),
        (99, [*range(4, 99, 5)]),
        (100, [8, 9, 18, 19, 28, 29, 38, 39, 48, 49, 58, 59, 68, 69, 78, 79, 88, 89, 98, 99]),
    ],
)
def test_a_fifth_is_held_out_in_runs_of_neighbours(count, which):
    assert sorted(held_out(count)) == which


def test_from_a_hundred_on_ten_runs(count=757):
    out = sorted(held_out(count))
    runs = 1 + sum(b - a > 1 for a, b in pairwise(out))
    assert runs == 10 and len(out) == 150


@pytest.mark.parametrize(
    "name", ["scratch", "Scratches", "deep_scratch-2", "NG", "paintDents", "broken large", "not ok"]
)
def test_names_of_defects(name):
    assert says(name) == "defect"


@pytest.mark.parametrize(
    "name", ["2024-11-03", "camera 1", "bolt", "accident", "identical", "scraper", "Halter", "new"]
)
def test_names_that_say_nothing(name):
    assert says(name) == ""


def test_good_ones_are_held_out_and_new_ones_have_no_label(index):
    rows, said = index([*many("good", 25), *many("new/2024-11", 2)])
    splits = [rows[p]["split"] for p in many("good", 25)]
    assert splits == ["train", "train", "train", "train", "val"] * 5
    assert {rows[p]["label"] for p in many("good", 25)} == {0}
    assert {(rows[p]["split"], rows[p]["label"], rows[p]["category"]) for p in many("new/2024-11", 2)} == {
        ("test", None, "all")
    }
    assert "20 good pictures to fit to; 5 held out" in said and "2024-11: --defects" in said


def test_few_good_ones_are_all_fitted_to_and_that_is_said(index):
    rows, said = index([*many("good", 5), *many("new", 2)])
    assert [r["split"] for r in rows.values()].count("train") == 5
    assert "only 5 good pictures: the line is a rough guess" in said


def test_a_folder_is_beside_the_good_ones_of_its_own_kind_alone(index):
    files = [*many("good/nut", 2), *many("good/bolt", 2), "new/nut/ok/a.png", "new/nut/x/b.png", "new/bolt/x/c.png"]
    rows, said = index(files)
    labels = [rows[f"new/{p}.png"]["label"] for p in ("nut/ok/a", "nut/x/b", "bolt/x/c")]
    assert labels == [0, 1, None] and "; 1 picture in neither" in said


def test_folder_names_are_labels(index):
    """Beside a folder called good every other one holds defects."""
    files = [*many("good", 3), "new/a.png", "new/ok/b.png", "new/blob/c.png", "new/scratch/x/d.png"]
    rows, said = index(files)
    found = {p: (r["label"], r["defect"]) for p, r in rows.items() if p.startswith("new")}
    assert found == {
        "new/a.png": (None, None),
        "new/ok/b.png": (0, None),
        "new/blob/c.png": (1, "blob"),
        "new/scratch/x/d.png": (1, "scratch"),
    }, "the folder that says it counts, not the one in it"
    assert "folders of defects: blob, scratch; of good pictures: ok; 1 picture in neither" in said


def test_defects_can_be_named(index):
    files = [*many("good", 3), "new/scratch/a.png", "new/blob/b.png", "new/camera/c.png"]
    rows, _ = index(files, defects="blob, scratch")
    assert [rows[p]["label"] for p in files[3:]] == [1, 1, None]
    rows, _ = index(files)
    assert [rows[p]["label"] for p in files[3:]] == [1, None, None], "the names alone"
    with pytest.raises(InputError, match="--defects hole: no folder of this name"):
        index(files, defects="hole")


def test_the_same_folders_below_both_are_kinds(index):
    files = [
        *many("good/bolt", 2),
        *many("good/nut", 2),
        *many("good/lamp", 1),
        "new/bolt/scratch/a.png",
        "new/nut/b.png",
    ]
    rows, said = index(files)
    assert {p: r["category"] for p, r in rows.items()} == {
        **dict.fromkeys([*many("good/bolt", 2), "new/bolt/scratch/a.png"], "bolt"),
        **dict.fromkeys([*many("good/nut", 2), "new/nut/b.png"], "nut"),
    }
    assert rows["new/bolt/scratch/a.png"]["label"] == 1 and rows["new/nut/b.png"]["label"] is None
    assert "passed over: 1 of the 5 images" in said and "lamp" in said


def test_kinds_need_a_namesake_each_and_no_picture_beside_them():
    good = ["bolt/1.png", "nut/1.png"]

    def kinds(*test):
        return kinds_of(map(Path, good), map(Path, test))

    assert kinds("bolt/a.png", "nut/b.png") == {"bolt", "nut"} and kinds("bolt/a.png") == {"bolt"}
    assert kinds("bolt/a.png", "b.png") == kinds("bolt/a.png", "lamp/b.png") == set()


def test_kinds_that_have_no_good_ones_are_named(index):
    files = [*many("good/bolt", 2), "new/bolt/a.png", "new/lamp/b.png"]
    rows, said = index(files)
    assert {r["category"] for r in rows.values()} == {"all"} and "no folder lamp below" in said


def test_nothing_but_the_good_and_new_is_looked_at(index, tmp_path):
    """Their common root may be the whole disk."""
    files = [*many("a/good", 3), *many("b/c/new", 2), "other/x.png"]
    rows, said = index(files, "a/good", "b/c/new")
    assert sorted(rows) == sorted(files[:-1]) and "other" not in said and "passed over" not in said
    (record,) = read_provenance(tmp_path / "m")
    assert record["paths"]["good"] == str(tmp_path / "a/good") and record["paths"]["test"] == str(tmp_path / "b/c/new")


@pytest.mark.parametrize(
    ("good", "test", "said"),
    [
        ("p", "p", "the same folder; new pictures cannot be compared with themselves"),
        ("p", "p/new", "one lies in the other"),
        ("p/good", "p", "one lies in the other"),
        ("p/good", "p/nwe", "--test .*p/nwe: no such directory; did you mean .*p/new[?]"),
        ("p/god", "p/new", "--good .*p/god: no such directory; did you mean .*p/good[?]"),
        ("p/good", "q/new", "--test .*q/new: no such directory$"),
        ("p/good/1.png", "p/new", "--good .*1.png: a file, not a directory"),
    ],
)
def test_two_folders_that_are_not_there_and_apart_are_refused(index, good, test, said):
    with pytest.raises(InputError, match=said):
        index(["p/good/1.png", "p/new/2.png"], good, test)


def test_the_same_command_again_is_up_to_date(index, tmp_path):
    index([*many("good", 3), *many("new", 2)])
    config = GoodAndNewConfig(good=tmp_path / "good", test=tmp_path / "new", out=tmp_path / "m")
    assert run(config, RunOptions(quiet=True)).up_to_date
