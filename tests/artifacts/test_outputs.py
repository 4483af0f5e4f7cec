"""What evaluate and augment write for people: where it lies, and what stays of earlier runs."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.artifacts import outputs
from stages.artifacts.outputs import INDEX, MARK, exactly, overwritten, write_page
from stages.artifacts.paths import for_image
from stages.artifacts.reader import read_table
from stages.artifacts.tables import MANIFEST, SCORES
from stages.base.errors import InputError
from stages.datasets.augment import AugmentConfig
from stages.datasets.augment import run as augment
from stages.evaluate.images import run
from tests.hostile import HOSTILE, QUIET, TEXT, images, listing, write

# -- places -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@given(st.lists(TEXT, min_size=2, max_size=2, unique=True), st.sampled_from([".png", ".jpg"]))
def test_image_ids_lie_apart_below_and_none_in_another(ids, suffix):
    one, other = (for_image(Path("/o"), i, suffix) for i in ids)
    assert one != other and one not in other.parents and other not in one.parents
    for path in (one, other):
        assert path.parts[:2] == ("/", "o") and ".." not in path.parts and path.suffix == suffix
        assert len(str(path).encode()) < 4000 and "\0" not in str(path)
        assert all(n[0] not in "._- " and len(n.encode()) <= 204 for n in path.parts[2:])


def test_an_image_id_of_any_length_is_a_path(tmp_path):
    for n, image_id in enumerate(("a/" * 5000, "é/" * 300, "../" * 200)):
        path = for_image(tmp_path / str(n), image_id, ".png")
        path.parent.mkdir(parents=True)
        path.write_text("x")
    assert for_image(Path("o"), "d/good/000.jpg", ".png") == Path("o/d/good/000.jpg.png")


@pytest.mark.slow
@pytest.mark.parametrize("dataset, method", [("../../x", "../..")])
def test_evaluate_touches_its_outputs_alone(tmp_path, dataset, method):
    """Foreign tables with every hostile value as image, category, defect, data set and method."""
    names = list(dict.fromkeys(v for v in HOSTILE if v is not None))
    (tmp_path / "a").mkdir()
    config = images(
        tmp_path / "a" / "b",
        names,
        ["c", "..", "../../c"],
        dataset,
        method,
    )
    other = [{"image_id": "lone", "path": "i.png", "dataset": "other", "category": "<i>", "split": "test", "label": 0}]
    write(config.manifest, MANIFEST, pq.read_table(config.manifest).to_pylist() + other)
    write(
        config.scores,
        SCORES,
        [*pq.read_table(config.scores).to_pylist(), {"image_id": "lone", "method": method, "score": 0.5}],
    )
    before = listing(tmp_path)
    run(config, QUIET)
    after = listing(tmp_path)
    assert {p: d for p, d in after.items() if not p.startswith("a/b/out")} == before
    pictures = list(config.heatmaps.rglob("*.png"))
    assert len(pictures) == len(names)
    assert {p.relative_to(config.heatmaps).as_posix() for p in pictures} | {INDEX} == {
        p.relative_to(config.heatmaps).as_posix() for p in config.heatmaps.rglob("*") if p.is_file()
    }
    assert (config.tables / "pixels.csv").exists() and len(list(config.tables.glob("tasks-*.csv"))) == 2


def test_augment_touches_its_outputs_alone(tmp_path):
    names = [v for v in HOSTILE if v not in ("x.png",)] + ["d/x.png", "x.png"]
    config = images(tmp_path / "a", names)
    rows = [r | {"mask_paths": ["k.png"] * (n % 3)} for n, r in enumerate(pq.read_table(config.manifest).to_pylist())]
    rows = [r for r in rows if r["image_id"] != "d/x.png"]
    write(config.manifest, MANIFEST, rows)
    before = listing(tmp_path)
    summary = augment(
        AugmentConfig(
            manifest=config.manifest,
            kind="rotate90",
            root=config.root,
            workers=1,
            out=tmp_path / "a" / "out" / "m",
            images=tmp_path / "a" / "out" / "i",
        ),
        QUIET,
    )
    assert summary.errors == 0 and summary.rows == len(rows)
    after = listing(tmp_path)
    assert {p: d for p, d in after.items() if not p.startswith("a/out")} == before
    made = read_table(tmp_path / "a" / "out" / "m", MANIFEST).to_pylist()
    files = [p for r in made for p in (r["path"], *r["mask_paths"])]
    written = {p.removeprefix("a/out/i/") for p, d in after.items() if p.startswith("a/out/i/") and d}
    assert len(set(files)) == len(files) and written == {*files, MARK}


def test_a_heat_map_never_takes_the_place_of_an_image(tmp_path):
    config = images(tmp_path / "a", ["x", "y"], heatmaps=tmp_path / "data")
    (tmp_path / "data" / "m").mkdir(parents=True)
    (config.root / "i.png").rename(tmp_path / "data" / "m" / "x.png")
    rows = [r | {"path": str(tmp_path / "data" / "m" / "x.png")} for r in pq.read_table(config.manifest).to_pylist()]
    write(config.manifest, MANIFEST, rows)
    before = listing(tmp_path)
    with pytest.raises(InputError, match="--heatmaps .*x.png is an image of the manifest, and would be overwritten"):
        run(config, QUIET)
    assert listing(tmp_path) == before
    assert overwritten([Path("a/b")], [Path("a/c")]) is None


# -- what stays of earlier runs -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_folder_holds_the_last_run_and_what_others_put_there(tmp_path):
    from dataclasses import replace

    config = images(tmp_path / "a", ["x", "y", "z/1", "z/2"], ["c", "c2"])
    run(config, QUIET)
    (config.tables / "mine.csv").write_text("mine")
    (config.heatmaps / "m" / "z" / "mine.png").write_text("mine")
    first = listing(config.heatmaps)
    assert {"m/x.png", "m/y.png", "m/z/1.png", "m/z/2.png"} <= set(first)
    write(
        config.manifest,
        MANIFEST,
        [r | {"category": "c"} for r in pq.read_table(config.manifest).to_pylist() if r["image_id"] in ("x", "z/1")],
    )
    (config.tables / ".tmp-123-pixels.csv").write_text("half")
    (config.tables / ".tmp-123-mine.csv").write_text("of another program")
    (config.heatmaps / "m" / ".tmp-77-y.png").write_text("half")
    (config.report.parent / ".tmp-5-r.html").write_text("half")
    rows = pq.read_table(config.manifest).to_pylist()
    write(config.manifest, MANIFEST, [rows[0] | {"label": 0}, rows[1] | {"label": 1, "mask_paths": ["k.png"]}])
    run(replace(config, out=config.out.with_name("e2"), thresholds=None), QUIET)
    assert set(listing(config.heatmaps)) == {INDEX, "m", "m/x.png", "m/z", "m/z/1.png", "m/z/mine.png"}
    there = set(listing(config.tables))
    assert "mine.csv" in there and ".tmp-123-mine.csv" in there and ".tmp-123-pixels.csv" not in there
    assert set(json.loads((config.tables / INDEX).read_text())["files"]) == there - {
        INDEX,
        "mine.csv",
        ".tmp-123-mine.csv",
    }
    assert not list(config.report.parent.glob(".tmp-*"))


def test_what_a_killed_run_wrote_is_known_to_the_next(tmp_path):
    class Killed(BaseException):
        pass

    def written(names, killed_after=99):
        with exactly(tmp_path, names):
            for n, name in enumerate(names):
                if n == killed_after:
                    raise Killed
                (tmp_path / name).write_text("x")

    written(["a", "b"])
    with pytest.raises(Killed):
        written(["c", "d"], 1)
    assert set(listing(tmp_path)) == {INDEX, "a", "b", "c"}, "nothing goes before the new ones are there"
    written(["b", "e"])
    assert set(listing(tmp_path)) == {INDEX, "b", "e"}


def test_an_index_of_others_making_removes_nothing_outside(tmp_path):
    (tmp_path / "keep").write_text("x")
    (tmp_path / "t" / "sub").mkdir(parents=True)
    (tmp_path / "t" / "link").symlink_to(tmp_path)
    for noted in (
        {"files": ["../keep", str(tmp_path / "keep"), "link/keep", "sub/../../keep", "sub", ".", 3]},
        {"files": 3},
        [],
        "x",
        {"other": 1},
    ):
        (tmp_path / "t" / INDEX).write_text(json.dumps(noted))
        with exactly(tmp_path / "t", ["new"]):
            (tmp_path / "t" / "new").write_text("x")
        (tmp_path / "t" / "new").unlink()
        assert (tmp_path / "keep").read_text() == "x" and (tmp_path / "t" / "link").is_symlink()
    (tmp_path / "t" / INDEX).write_text("{")
    with exactly(tmp_path / "t", []):
        pass


def test_a_page_is_whole_or_the_old_one(tmp_path, monkeypatch):
    write_page(tmp_path / "sub" / "r.html", "old")
    monkeypatch.setattr("os.replace", lambda *paths: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_page(tmp_path / "sub" / "r.html", "new \udcff")
    assert (tmp_path / "sub" / "r.html").read_text() == "old"
    outputs.remove_unfinished(tmp_path / "no" / "x")  # nothing there is no error
