"""How scores were made: a row per method from the records of the whole chain, what is no model said on real data."""

import re
import shutil

import pyarrow.parquet as pq
import pytest

from stages.artifacts.reader import fingerprint, read_table
from stages.artifacts.tables import CAPTIONS, ENCODERS, JUDGEMENTS, MANIFEST, NEGATIVES, SCORES
from stages.artifacts.writer import Artifact, Spec
from stages.base.config import RunOptions
from stages.evaluate.config import EvaluateConfig
from stages.evaluate.images import run
from stages.report.made import COLUMNS, how_made
from stages.report.vidad import of_whom, table4

QUIET = RunOptions(quiet=True)
TABLES = {"manifest": MANIFEST, "captions": CAPTIONS, "negatives": NEGATIVES, "encoders": ENCODERS}


def make(out, table, stage, parameters, inputs, rows, options=QUIET, **more):
    """An artifact. inputs: name -> path."""
    prints = {n: fingerprint(read_table(p, TABLES[n]), TABLES[n]) for n, p in inputs.items() if n in TABLES}
    spec = Spec(stage, parameters, prints, 3, paths={n: str(p) for n, p in inputs.items()}, **more)
    with Artifact(out, table, spec, [tuple(r.get(k) for k in table.key) for r in rows], options) as artifact:
        artifact.write_all(rows)
    return out


def captions(world, vlm, options=QUIET):
    rows = [{"image_id": str(i), "prompt_id": "p", "sample": 0, "text": f"By {vlm}"} for i in range(4)]
    settings = {"vlm": vlm, "prompts": {f"vidad/{n}": "0" * 32 for n in "abcde"}}
    inputs = {"manifest": world / "m"}
    return make(world / "c", CAPTIONS, "caption", settings, inputs, rows, options, notes={"caveat": "it is odd"})


@pytest.fixture
def world(tmp_path):
    """Manifest -> captions -> negatives -> encoders -> scores by text-knn."""
    rows = [
        {"image_id": str(i), "path": f"{i}.png", "dataset": "tiles", "category": "c", "mask_paths": []}
        | {"split": "test" if i > 1 else "train", "label": i % 2 if i > 1 else 0}
        for i in range(4)
    ]
    m = make(tmp_path / "m", MANIFEST, "data index", {"dataset": "tiles"}, {}, rows, notes={"root": str(tmp_path)})
    c = captions(tmp_path, "scene")
    negative = {"image_id": "0", "sample": 0, "text": "A", "negative": "B", "edits": [], "attempts": 1}
    inputs = {"captions": c, "manifest": m}
    n = make(tmp_path / "n", NEGATIVES, "rewrite-negatives", {"rewriter": "rules"}, inputs, [negative])
    task = {"dataset": "tiles", "category": "c", "condition": None, "path": "_encoders/x", "n": 1}
    settings = {"epochs": 20, "batch_size": 16, "learning_rate": 2e-5, "encoder": "minilm", "precision": "fp32"}
    e = make(tmp_path / "e", ENCODERS, "train-encoder", settings, {"negatives": n, "manifest": m}, [task])
    scores = [{"image_id": str(i), "method": "text-knn", "score": i / 4} for i in range(4)]
    inputs = {"manifest": m, "captions": c, "encoders": e}
    make(tmp_path / "s", SCORES, "score", {"method": "text-knn", "k": 5}, inputs, scores)
    return tmp_path


def row(world, *datasets, name="s"):
    (found,) = how_made([world / name], datasets or ("tiles",)).table.rows
    return dict(zip(COLUMNS, found, strict=True))


def test_every_part_of_the_chain_is_named(world):
    assert row(world) == {
        "method": "text-knn",
        "captioner": "scene",
        "rewriter": "rules",
        "encoder": "minilm",
        "prompt set": "vidad/a, vidad/b, vidad/c, 2 more",
        "model": "-",
        "trained on": "tiles",
        "recipe": "train-encoder: epochs 20, batch_size 16, learning_rate 2e-05; score: k 5",
        "remarks": "scene reads adcli's rendered scenes and is no model of real photographs; rules swaps words that"
        " adcli's own vocabulary has and is no language model; minilm is the packaged all-MiniLM-L6-v2, the paper's"
        " encoder is bert-base-uncased",
    }


def test_on_rendered_data_they_are_what_is_meant(world):
    assert row(world, "vidad-synthetic")["remarks"] == "-"
    assert "scene reads" in row(world, "vidad-synthetic", "tiles")["remarks"]


def test_parts_that_adcli_brings_along_are_said_on_the_terminal_and_in_the_papers_rows(world, capsys):
    config = EvaluateConfig(scores=world / "s", manifest=world / "m", out=world / "metrics", resamples=0)
    run(config, RunOptions())
    assert "text-knn: scene reads adcli's rendered scenes and is no model of real photographs; rules" in (
        capsys.readouterr().err
    )
    embedded = how_made([world / "s"], {"tiles"}).embedded
    assert embedded == {"text-knn": ("scene", "rules", "minilm")}
    assert how_made([world / "s"], {"vidad-synthetic"}).embedded == {}
    auroc = {"method": "text-knn", "category": "fruits", "condition": "blurry", "metric": "auroc", "value": 0.5}
    rows = [{"dataset": d, **auroc} for d in ("vidad", "vidad-synthetic")]
    real, rendered, *_ = table4(rows, of_whom((), embedded)).rows
    assert real[0].startswith("text-knn, ours with scene, rules, minilm, 1 of")
    assert rendered[0].startswith("text-knn, ours, SYNTHETIC scenes, 1 of")


def test_lines_follow_what_they_were_made_from(world):
    lines = how_made([world / "s", world / "s"], {"tiles"}).lines
    assert [line.split(" with ")[0] for line in lines] == [
        "m: data index",
        "c: caption",
        "n: rewrite-negatives",
        "e: train-encoder",
        "s: score",
    ]
    assert lines[0].startswith("m: data index with dataset tiles; seed 3, adcli ") and lines[0].endswith("; 4 rows")
    assert lines[1].endswith("; 4 rows; it is odd") and lines[3].endswith("; 1 row")


def test_a_chain_that_is_no_longer_true_says_so(world):
    captions(world, "qwen2-vl", RunOptions(quiet=True, overwrite=True))
    shutil.rmtree(world / "e")
    found = row(world)
    assert found["captioner"] == "qwen2-vl" and (found["encoder"], found["trained on"]) == ("-", "-")
    assert found["remarks"] == "captions: changed since; encoders: no longer there"
    assert how_made([world / "s"], {"tiles"}).lines[-1].endswith("; captions changed since; encoders no longer there")


def test_models_and_what_they_were_trained_on(world):
    scores = [{"image_id": "3", "method": "m", "score": 1.0}]
    m = world / "m"
    for name, settings in (
        ("lvlm", {"method": "lvlm/x", "vlm": "/models/Qwen2-VL", "prompt": "specific", "shots": 1}),
        ("padim", {"method": "anomalib/padim", "backbone": "lite0", "layers": [1, 2], "training_scores": "loo"}),
    ):
        make(world / name, SCORES, "score", settings, {"manifest": m}, scores)
    task = {"dataset": "visa", "category": "all", "condition": None, "path": "_checkpoint", "n": 9}
    settings = {"epochs": 2, "backbone": "openai/clip-vit-large-patch14-336"}
    make(world / "t", ENCODERS, "train-visualad", settings, {"manifest": m}, [task])
    inputs = {"manifest": m, "checkpoint": world / "t"}
    make(world / "visualad", SCORES, "score", {"method": "visualad"}, inputs, scores)
    marks = [{"question_id": "q", "method": "x", "category": 5, "location": 5, "logic": 5}]
    make(world / "j", JUDGEMENTS, "score", {"method": "mle", "judge": "words"}, {"manifest": m}, marks)
    wanted = ("method", "prompt set", "model", "trained on", "recipe", "remarks")
    words = "words compares words with the expert's answer and is no judge model"
    for name, said in (
        ("lvlm", ("lvlm/x", "specific", "Qwen2-VL", "-", "score: shots 1", "-")),
        ("padim", ("anomalib/padim", "-", "lite0", "each task's normal pictures", "score: layers 1, 2", "-")),
        (
            "visualad",
            ("visualad", "-", "openai/clip-vit-large-patch14-336", "visa", "train-visualad: epochs 2", "-"),
        ),
        ("j", ("mle", "-", "words", "-", "-", words)),
    ):
        found = row(world, name=name)
        assert tuple(found[column] for column in wanted) == said


def test_scores_of_other_tools_have_no_row(world):
    table = read_table(world / "s", SCORES)
    pq.write_table(table, world / "theirs.parquet")
    made = how_made([world / "theirs.parquet"], {"tiles"})
    assert made.tables == [] and made.lines == ("theirs.parquet: made elsewhere, 4 rows",)


def test_the_page_and_the_tables_have_it(world, save_image):
    for n in range(4):
        save_image(world / f"{n}.png", n)
    page, tables = world / "report.html", world / "tables"
    config = EvaluateConfig(scores=world / "s", manifest=world / "m", out=world / "metrics", report=page, tables=tables)
    run(config, QUIET)
    assert (tables / "made.csv").read_text().startswith("method,captioner,rewriter,encoder,")
    how = page.read_text().partition("How the scores were made")[2]
    assert "scene reads adcli&#39;s rendered scenes" in how
    assert [len(re.findall(f">{line}", how)) for line in ("m: data index", "c: caption", "s: score")] == [1, 1, 1]
