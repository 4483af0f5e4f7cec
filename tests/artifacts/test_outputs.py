"""What evaluate and augment write for people: where it lies, what stays of earlier runs, that values are text."""

import csv
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stages.artifacts import outputs
from stages.artifacts.maps import to_row
from stages.artifacts.outputs import INDEX, exactly, overwritten, write_page
from stages.artifacts.paths import for_image
from stages.artifacts.reader import read_table
from stages.artifacts.tables import ANSWERS, MANIFEST, MAPS, METRICS, QUESTIONS, SCORES
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.datasets.augment import AugmentConfig
from stages.datasets.augment import run as augment
from stages.evaluate.images import EvaluateConfig, run
from stages.evaluate.questions import EvaluateQaConfig
from stages.evaluate.questions import run as evaluate_qa
from stages.report.grid import Grid, as_csv, as_markdown, as_text

QUIET = RunOptions(quiet=True)
HOSTILE = [
    "",
    ".",
    "..",
    "...",
    "/",
    "a/b",
    "a_b",
    "../../x",
    "../../../../x",
    "/etc/x",
    "~",
    "-rf",
    "_hidden",
    "a\0b",
    ".hidden",
    "a\\b",
    "C:\\x",
    "CON ",
    "é",
    "e\u0301",
    "가",
    "x" * 300,
    "x" * 299 + "y",
    "%none",
    "%empty",
    "a\nb",
    "a.",
    "a ",
    "x.png",
    "x",
    "x.png/y",
    "x/y",
    "patches",
    "%~",
    "<script>alert(1)</script>",
    "a|b",
    "=1+1",
    "+1",
    "@x",
    "`x`",
    "#x",
    "$x_{",
    "$\\frac{$",
    "'\"><img src=x onerror=alert(1)>",
    "[x](javascript:alert(1))",
    "mean",
]
TEXT = st.sampled_from(HOSTILE) | st.text(max_size=40)


def listing(folder):
    """Path -> digest of a file, None for a folder, of all that lies below."""
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else None
        for p in folder.rglob("*")
    }


def write(path, table, rows):
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    return path


def images(at, names, categories=("c",), dataset="d", method="m", **config):
    """A manifest of one image per name, every second one anomalous with a mask, with scores and maps."""
    at.mkdir(exist_ok=True)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(at / "i.png")
    mask = np.zeros((8, 8), np.uint8)
    mask[:4] = 255
    Image.fromarray(mask).save(at / "k.png")
    manifest = [
        {
            "image_id": name,
            "path": "i.png",
            "dataset": dataset,
            "category": categories[n % len(categories)],
            "split": "test",
            "label": int(n // len(categories) % 2),
            "width": 8,
            "height": 8,
            "mask_paths": ["k.png"] * (n // len(categories) % 2),
            "defect": name,
        }
        for n, name in enumerate(names)
    ]
    scores = [
        {
            "image_id": name,
            "method": method,
            "score": float(n),
            "response": name,
            "neighbours": [{"image_id": name, "distance": 0.0, "text": name, "missing": [], "extra": []}],
        }
        for n, name in enumerate(names)
    ]
    maps = [to_row((name, method), np.full((8, 8), n) + mask / 255) for n, name in enumerate(names)]
    return EvaluateConfig(
        **{
            "scores": write(at / "s.parquet", SCORES, scores),
            "manifest": write(at / "m.parquet", MANIFEST, manifest),
            "maps": write(at / "p.parquet", MAPS, maps),
            "out": at / "out" / "e",
            "root": at,
            "resamples": 0,
            "tables": at / "out" / "t",
            "report": at / "out" / "r.html",
            "heatmaps": at / "out" / "h",
            "thresholds": at / "out" / "x",
        }
        | config
    )


# -- places -------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("dataset, method", [("../../x", "../..")])
def test_evaluate_touches_its_outputs_alone(tmp_path, dataset, method):
    """Foreign tables with every hostile value as image, category, defect, data set and method."""
    names = list(dict.fromkeys(v for v in HOSTILE if v is not None))
    config = images(
        tmp_path / "a" / "b" if (tmp_path / "a").mkdir() else tmp_path / "a" / "b",
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
        pq.read_table(config.scores).to_pylist() + [{"image_id": "lone", "method": method, "score": 0.5}],
    )
    before = listing(tmp_path)
    run(config, QUIET)
    after = listing(tmp_path)
    assert {p: d for p, d in after.items() if not p.startswith("a/b/out")} == before
    pictures = [p for p in config.heatmaps.rglob("*.png")]
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
    assert len(set(files)) == len(files) == sum(d is not None for p, d in after.items() if p.startswith("a/out/i/"))
    assert all((tmp_path / "a" / "out" / "i" / p).is_file() for p in files)


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


# -- values are text ------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Elements, attributes that run code, and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.handlers, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append(tag)
        self.handlers += [n for n, v in attributes if n.startswith("on") or (v or "").startswith("javascript")]

    def handle_data(self, data):
        self.words.append(data)


OURS = {
    "html",
    "head",
    "meta",
    "title",
    "style",
    "body",
    "h1",
    "h2",
    "h3",
    "p",
    "b",
    "div",
    "span",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "img",
    "figure",
    "figcaption",
    "section",
    "details",
    "summary",
    "mark",
    "ul",
    "li",
}


def cells(line):
    return [c.strip() for c in re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1]]


VALUES = [
    "<script>alert(1)</script>",
    "'\"><img src=x onerror=alert(1)>",
    "a|b",
    "=1+1",
    "`x|y`",
    "#x\n# y",
    "$x_{",
    "_x",
    "[a](javascript:alert(1))",
    "-1+1",
    "\x1b[31mred",
    "a\\|b",
    "＝1",
]


@pytest.mark.parametrize("value", ["<script>alert(1)</script>", "=a|b\n# $x_{"])
def test_reports_and_tables_hold_values_as_text(tmp_path, value):
    """As data set, category, method, defect, caption and image, in pages, CSV, Markdown and figures."""
    names = [f"{v}{n}" for n in range(2) for v in VALUES]
    config = images(tmp_path / "a", names, VALUES, value, value, heatmaps=None)
    run(config, QUIET)
    page = Page(config.report.read_text())
    assert set(page.elements) <= OURS and not page.handlers
    assert all(any(v.split("\n")[0] in w for w in page.words) for v in (value, *VALUES))
    lines = (config.tables / "pixels.md").read_text().splitlines()
    rows = [cells(line) for line in lines if line.startswith("|")]
    assert len({len(r) for r in rows}) == 1 and len(rows) == len(VALUES) + 3
    assert sum(line.startswith("#") for line in lines) == 1
    assert "<" not in "".join(lines) and not re.search(r"(?<!\\)\]\(", "".join(lines))
    with open(config.tables / "pixels.csv", newline="") as f:
        heads, *found = csv.reader(f)
    assert {len(r) for r in found} == {len(heads)} and {r[0].removeprefix("'") for r in found} == {value}
    assert {r[3].removeprefix("'") for r in found} == {*VALUES, "mean"}
    assert not [c for r in found for c in r if c[0] in "=+@＝" or c.startswith("-1+")]
    assert all(float(r[heads.index("pixel_auroc")]) > 0 for r in found)


def test_a_page_of_questions_holds_values_as_text(tmp_path):
    bad = "<script>alert(1)</script>"
    questions = [
        {
            "question_id": f"{bad}{n}",
            "image_id": f"d/{bad}/{n}",
            "level": bad,
            "question": bad,
            "choices": [bad, "no"],
            "answer": bad,
        }
        for n in range(2)
    ]
    answers = [
        {
            "question_id": q["question_id"],
            "method": bad,
            "response": bad,
            "parsed": "strict",
            "choice": n,
            "correct": not n,
        }
        for n, q in enumerate(questions)
    ]
    evaluate_qa(
        EvaluateQaConfig(
            questions=write(tmp_path / "q.parquet", QUESTIONS, questions),
            encoder="none",
            resamples=0,
            answers=write(tmp_path / "a.parquet", ANSWERS, answers),
            out=tmp_path / "e",
            report=tmp_path / "r.html",
            tables=tmp_path / "t",
        ),
        QUIET,
    )
    page = Page((tmp_path / "r.html").read_text())
    assert set(page.elements) <= OURS and any(bad in w for w in page.words)
    assert not any("<script" in p.read_text() for p in (tmp_path / "t").glob("*.md"))


@given(st.lists(TEXT.map(lambda t: t.replace("\r", "")), min_size=2, max_size=4))
def test_csv_round_trip_and_markdown_cells(values):
    grid = Grid("g", "t", tuple(values), (tuple(values), tuple(reversed(values))), "n")
    back = list(csv.reader(io.StringIO(as_csv(grid), newline="")))
    assert [[c[1:] if c.startswith("'") else c for c in line] for line in back] == [
        list(values),
        list(values),
        list(reversed(values)),
    ]
    table = [line for line in as_markdown(grid).split("\n") if line.startswith("|")]
    assert len(table) == 4 and all(len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == len(values) + 1 for line in table)
    assert len(as_text(grid).split("\n")) == 6


def test_figures_stay_figures():
    kept = (
        "-",
        "0.5",
        "-0.25",
        "-1e-05",
        "0.812 [0.700, 0.900]",
        "-0.1 [-0.2, 0.1]",
        "0.875±0.125",
        "12.5 %",
        "50.0 / -",
        "- / 100.0",
        "ours",
    )
    for text in kept:
        assert as_csv(Grid("g", "t", (text,), (), "")).strip().strip('"') == text
    for text in ("=1", "+x", "-x", "@a", "-1+1", "＝1", "'x"):
        assert as_csv(Grid("g", "t", (text,), (), "")).strip() == f"'{text}"
    text = as_markdown(Grid("g", "# a | <b>", ("a_b", "_a_"), (("1 < 2 & *x*", "# no\nline"),), "# note"))
    assert re.sub(" +", " ", re.sub("-+", "-", text)) == (
        "## \\# a \\| &lt;b&gt;\n\n| a_b | \\_a\\_ |\n|-|-|\n"
        "| 1 &lt; 2 &amp; \\*x\\* | \\# no line |\n\n\\# note\n"
    )


# -- what cannot be counted is said ----------------------------------------------------------------------------------


def metric(config, name, category="c"):
    rows = read_table(config.out, METRICS).to_pylist()
    return next(r for r in rows if (r["metric"], r["category"]) == (name, category))


def test_a_mask_that_is_missing_costs_the_pixel_metrics_of_its_image_alone(tmp_path, capsys):
    names = [f"i{n}" for n in range(20)]
    config = images(tmp_path / "a", names)
    rows = pq.read_table(config.manifest).to_pylist()
    for row in [r for r in rows if r["label"]][:4]:
        row["mask_paths"] = [f"gone/{row['image_id']}.png"]
    (config.root / "half.png").write_bytes((config.root / "k.png").read_bytes()[:40])
    rows[19]["mask_paths"] = ["half.png"]
    write(config.manifest, MANIFEST, rows)
    run(config, RunOptions())
    assert metric(config, "auroc")["n"] == 20 and metric(config, "auroc")["reason"] is None
    found = metric(config, "pixel_auroc")
    assert (found["n"], found["n_positive"]) == (15, 5) and 0 < found["value"] <= 1
    assert found["reason"].startswith("5 of 20 images left out: i1: ") and "gone/i1.png" in found["reason"]
    assert found["reason"].endswith(" and 2 more") and "i19: " in capsys.readouterr().err
    assert len(list(config.heatmaps.rglob("*.png"))) == 15


def test_a_normal_image_needs_no_mask_file(tmp_path):
    config = images(tmp_path / "a", ["i0", "i1"])
    rows = pq.read_table(config.manifest).to_pylist()
    write(config.manifest, MANIFEST, [rows[0] | {"mask_paths": ["gone.png"]}, rows[1]])
    run(config, QUIET)
    assert metric(config, "pixel_auroc")["n"] == 2 and metric(config, "pixel_auroc")["reason"] is None


def test_scores_that_are_no_numbers_are_named_and_not_averaged(tmp_path, capsys):
    config = images(tmp_path / "a", [f"i{n}" for n in range(8)], ["c", "c2"])
    rows = pq.read_table(config.scores).to_pylist()
    odd = {0: np.nan, 1: np.nan, 3: np.inf, 5: -np.inf, 7: np.nan}
    write(config.scores, SCORES, [r | {"score": odd.get(n, r["score"])} for n, r in enumerate(rows)])
    run(config, RunOptions())
    some, none = metric(config, "auroc"), metric(config, "auroc", "c2")
    assert (some["value"], some["n"]) == (0.5, 3) and some["reason"] == "1 of 4 scores are NaN or infinite: i0"
    assert (none["value"], none["n"]) == (None, 0)
    assert none["reason"] == "4 of 4 scores are NaN or infinite: i1, i3, i5 and 1 more"
    mean = [r["metric"] for r in read_table(config.out, METRICS).to_pylist() if r["category"] == "mean"]
    assert "auroc" not in mean, "one category has a value: there is nothing to average"
    said = capsys.readouterr().err
    assert "i0, i1, i3 and 2 more: `score` is NaN or infinite; counted as failed" in said.replace("\n", " ")
    assert "5</b><span>images without a score" in config.report.read_text()


def test_labels_and_manifests_that_cannot_be(tmp_path):
    config = images(tmp_path / "a", ["i0", "i1"])
    rows = pq.read_table(config.manifest).to_pylist()
    for label in (-1, 2):
        write(config.manifest, MANIFEST, [rows[0] | {"label": label}, rows[1]])
        with pytest.raises(InputError, match=f"m.parquet: column `label` holds {label}; expected 0 .normal., 1 "):
            run(config, QUIET)
    write(config.manifest, MANIFEST, [])
    with pytest.raises(InputError, match="m.parquet: an empty manifest; index the data set again"):
        run(config, QUIET)
    assert not (config.root / "out").exists()


def test_training_leaves_out_images_whose_masks_cannot_be_read(tmp_path):
    from stages.datasets.trainable import with_masks

    images(tmp_path / "a", ["x"])
    (tmp_path / "a" / "half.png").write_bytes((tmp_path / "a" / "k.png").read_bytes()[:40])

    def image(name, label, *masks):
        return SimpleNamespace(image_id=name, label=label, masks=tuple(tmp_path / "a" / m for m in masks))

    good, lacks = with_masks(
        [
            image("a", 1, "k.png"),
            image("b", 0),
            image("c", 1),
            image("d", 1, "gone.png"),
            image("e", 1, "k.png", "half.png"),
        ]
    )
    assert [i.image_id for i in good] == ["a", "b"] and [line[:2] for line in lacks] == ["c:", "d:", "e:"]
    assert lacks[0] == "c: anomalous, but has no mask" and "gone.png" in lacks[1] and "half.png" in lacks[2]
