"""Where the pictures of a page go, and what stands beside them: without a browser."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stages.artifacts.outputs import INDEX, exactly, withdraw
from stages.base.errors import InputError
from stages.captions.wording import both_differ, differing_places
from stages.evaluate.images import run
from stages.report.coverage import coverage
from stages.report.page.gallery import Gallery
from stages.report.page.pictures import place
from stages.report.page.render import as_json
from stages.results.scores import TaskScores
from tests.hostile import HOSTILE, QUIET
from tests.pages import page_data
from tests.report.page_world import config, world


def put(page, run, contents, room):
    """What `place` gives the page."""
    got = {}
    names = [f"p{n}" for n in range(len(contents) + 2)]
    place(page, run, [(f"p{n}", c) for n, c in enumerate(contents)], names, room, got.update)
    return got


def test_pictures_lie_in_the_page_or_all_of_them_beside_it(tmp_path):
    page = tmp_path / "a b.html"
    assert put(page, "r1", [b"one", b"two"], 1000) == {
        "p0": "data:image/webp;base64,b25l",
        "p1": "data:image/webp;base64,dHdv",
    }
    assert not list(tmp_path.iterdir())
    assert put(page, "r1", [b"one", b"two"], 50) == {f"p{n}": f"a%20b_files/r1/p{n}.webp" for n in range(2)}
    assert (tmp_path / "a b_files/r1/p0.webp").read_bytes() == b"one"
    (tmp_path / "a b_files/mine.txt").write_text("kept")
    put(page, "r2", [b"three"], 0)
    assert sorted(p.name for p in (tmp_path / "a b_files").rglob("*")) == [INDEX, "mine.txt", "p0.webp", "r2"]
    put(page, "r3", [b"small"], 1000)
    assert [p.name for p in (tmp_path / "a b_files").iterdir()] == ["mine.txt"], "what others put there stays"


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "r_files").write_text("mine")
    with pytest.raises(
        InputError, match="r_files: a file is there, and the page's pictures need a folder of that name"
    ):
        put(tmp_path / "r.html", "r", [b"x"], 0)
    assert put(tmp_path / "r.html", "r", [b"x"], 1000) and (tmp_path / "r_files").read_text() == "mine"


def test_the_old_page_has_its_pictures_until_the_new_one_is_there(tmp_path):
    """A process that is killed while it writes pictures, or between them and the page, harms neither."""
    page = tmp_path / "r.html"
    put(page, "old", [b"1", b"2"], 0)
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from stages.report.page.pictures import place\n"
        "made = [('p0', b'3'), ('p1', b'4')]\n"
        "kill = lambda pictures: os.kill(os.getpid(), signal.SIGKILL)\n"
        "place(Path(sys.argv[1]), 'new', made, ['p0', 'p1'], 0, kill)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(page)], env={**os.environ, "PYTHONPATH": str(Path.cwd())})
    assert done.returncode == -signal.SIGKILL
    assert [(tmp_path / f"r_files/old/p{n}.webp").read_bytes() for n in range(2)] == [b"1", b"2"]
    put(page, "third", [b"5"], 0)
    assert sorted(p.name for p in (tmp_path / "r_files").iterdir()) == [INDEX, "third"], "nothing is left behind"


def test_withdraw_leaves_what_adcli_did_not_write(tmp_path):
    withdraw(tmp_path / "none")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/a").write_text("")
    withdraw(tmp_path / "mine")
    assert (tmp_path / "mine/a").exists()
    with exactly(tmp_path / "ours", ["x/y"]):
        (tmp_path / "ours/x").mkdir()
        (tmp_path / "ours/x/y").write_text("")
    withdraw(tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_no_text_ends_the_element_that_holds_it():
    values = [*HOSTILE, "</script><script>", "<!--", "]]>", "\u2028\u2029", "\ud800", "&lt;"]
    text = as_json(values)
    assert json.loads(text) == values and text.isascii() and not set("<>&") & set(text)
    with pytest.raises(ValueError):
        as_json(float("nan"))


def test_both_texts_are_marked_as_one_by_one():
    for a, b in (("a b c", "a c"), ("a b c.", "a x c"), ("", "a"), ("a b " * 300, "a c b " * 300)):
        assert both_differ(a, b) == (differing_places(a, b), differing_places(b, a))


def task(dataset, category, condition=None, method="m"):
    return TaskScores(dataset, category, condition, method, (), 0)


def test_coverage_is_said():
    known = [("vidad", "fruits", c) for c in ("white_bg", "blurry")] + [("d", c, None) for c in "abc"]
    vidad = [task("vidad", "fruits", c) for c in ("white_bg", "blurry", "blurry+pad20")] + [
        task("vidad", "new", "other")
    ]
    assert coverage(vidad, known) == "1 of 10 scenarios, 2 of 5 conditions"
    assert coverage([task("d", "a"), task("d", "b")], known) == "2 of 3 categories"
    assert (
        coverage([task("d", "a"), *vidad], known) == "d: 1 of 3 categories; vidad: 1 of 10 scenarios, 2 of 5 conditions"
    )
    both = [task("d", "a"), task("d", "a", method="n"), task("d", "b", method="n")]
    assert coverage(both, known) == "m: 1 of 3 categories; n: 2 of 3 categories"
    assert coverage([task("d", "a")], [("d", "a", None)]) == "", "own pictures of one kind: nothing to say"


def test_the_good_picture_most_like_each_stands_beside_it(tmp_path, save_image):
    """Good ones of grey 0, 20, ..., 80; new ones of 100, 120, ... are most like 80, and of 40 like 40."""
    manifest, rows, maps = world(tmp_path, save_image)
    save_image(tmp_path / "new-3.png", np.full((40, 60, 3), 43, np.uint8))
    for n in range(5):
        save_image(tmp_path / f"good-{n}.png", np.full((40, 60, 3), 20 * n, np.uint8))
    for n in (0, 1, 2, 4):
        save_image(tmp_path / f"new-{n}.png", np.full((40, 60, 3), 100 + n, np.uint8))
    made = config(tmp_path, manifest, rows, maps)
    run(made, QUIET)
    shown = page_data(made.report)
    near = {r["id"]: r["nearFile"].rpartition("/")[2] for r in shown.rows()}
    assert near == {**{f"d/new-{n}.png": "good-4.png" for n in (0, 1, 2, 4)}, "d/new-3.png": "good-2.png"} | {
        "d/new-5.png": "",
        "d/new-6.png": "good-4.png",
    }
    (method,) = shown.data["methods"]
    (of_task,) = method["tasks"]
    assert of_task["line"] == pytest.approx(2.8) and of_task["good"] == [1, 1.5, 2, 2.5, 3]
    outline = next(r["outline"] for r in shown.rows() if r["label"] == 1)
    corners = {tuple(map(int, p.split())) for p in outline.strip("MZ").split("L")}
    assert corners == {(20, 10), (20, 29), (39, 29), (39, 10)}, "the mask's corners"
    assert shown.rows()[0]["percentile"] == "100.0" and shown.rows()[4]["percentile"] == "40.0"


def test_numbers_of_images_and_texts():
    gallery = Gallery()
    assert [gallery.text(t) for t in ("a", None, "b", "a", "")] == [0, -1, 1, 0, -1]
    assert gallery.texts.values == ["a", "b"]
