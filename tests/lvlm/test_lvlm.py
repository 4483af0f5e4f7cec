"""One reference image, one question: prompts, references, rows; with the embedded engine and a real model."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from stages.artifacts.reader import read_provenance, read_table
from stages.artifacts.tables import MANIFEST, SCORES
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.datasets.manifest import read_manifest
from stages.datasets.references import references_for, thumbnail
from stages.lvlm.config import LvlmConfig
from stages.lvlm.score import method_name, question, row, run, score_of
from stages.vlm.engine import Reply

QUIET = RunOptions(quiet=True)
ONE_SHOT = (
    "The second image is for anomaly detection. Does the second image have any anomaly compared to the first"
    " image? Reply yes or no, then explain."
)


def table(path, rows):
    """rows: (image_id, category, condition, split, label); files beside the table."""
    records = [
        {
            "image_id": i,
            "path": f"{i}.png",
            "dataset": "mvtec-ad",
            "category": c,
            "condition": k,
            "split": s,
            "label": label,
            "mask_paths": [],
        }
        for i, c, k, s, label in rows
    ]
    pq.write_table(pa.Table.from_pylist(records, schema=MANIFEST.schema), path)
    return read_manifest(path, path.parent).images


def discs(path, save_image, *colours):
    """A white picture with one disc per colour."""
    import cv2

    picture = np.full((200, 300, 3), 255, np.uint8)
    for n, colour in enumerate(colours):
        cv2.circle(picture, (60 + 90 * n, 100), 30, colour, -1)
    return save_image(path, picture)


ORANGE, GREEN = (240, 130, 20), (40, 150, 40)


@pytest.fixture
def oranges(tmp_path, save_image):
    """Two oranges are normal; the test images show two oranges, and one orange and one green disc; `empty`
    has no training image; `broken` cannot be decoded."""
    rows = [
        ("t1", "cable", None, "train", 0),
        ("t0", "cable", None, "train", 0),
        ("good", "cable", None, "test", 0),
        ("bad", "cable", None, "test", 1),
        ("broken", "cable", None, "test", 1),
        ("alone", "empty", None, "test", 1),
    ]
    for name, *_ in rows:
        discs(tmp_path / f"{name}.png", save_image, ORANGE, GREEN if name == "bad" else ORANGE)
    (tmp_path / "broken.png").write_bytes((tmp_path / "broken.png").read_bytes()[:200])
    table(tmp_path / "m.parquet", rows)
    return LvlmConfig(manifest=tmp_path / "m.parquet", out=tmp_path / "s", root=tmp_path)


def test_the_papers_questions(tmp_path):
    rows = [
        ("a", "toothbrush", None, "test", 0),
        ("b", "toothbrush", "rotate90", "test", 0),
        ("c", "toothbrush", "pad20", "test", 0),
        ("d", "bottle", None, "test", 0),
        ("e", "wood", None, "test", 0),
        ("f", "wood", "rotate90+timestamp", "test", 0),
    ]
    rows.append(("g", "wood", "rotate90", "train", 0))
    a, b, c, d, e, f, g = table(tmp_path / "m.parquet", rows)
    bristles = "Ignore the color of the bristles for an anomaly."
    assert question(a, 1, "specific") == question(c, 1, "specific") == f"{ONE_SHOT} {bristles}"
    assert question(b, 1, "specific") == (
        f"{ONE_SHOT} {bristles} Ignore the angle of the toothbrush head for an anomaly."
    )
    assert question(a, 1, "generic") == question(d, 1, "specific") == question(e, 1, "specific") == ONE_SHOT
    assert question(f, 1, "specific") == (
        f"{ONE_SHOT} Ignore differences in vertical or horizontal grain pattern for an anomaly."
    )
    assert question(g, 1, "specific") == ONE_SHOT, "training images are not turned"
    assert question(a, 0, "generic") == "Does the image have any anomaly? Reply yes or no, then explain."
    assert question(a, 0, "description").endswith(question(a, 0, "generic")) and "toothbrush" in question(
        a, 0, "description"
    )
    assert "compared to the four images before it" in question(a, 4, "generic")
    with pytest.raises(InputError, match="no description of sofa"):
        question(replace(a, category="sofa"), 0, "description")


def test_every_category_of_both_data_sets_has_a_description(tmp_path):
    from stages.datasets.check import known_counts

    rows = [key for key in known_counts() if key[0] in ("mvtec-ad", "visa")]
    assert len(rows) == 27
    (image,) = table(tmp_path / "m.parquet", [("a", "x", None, "test", 0)])
    for dataset, category in rows:
        text = question(replace(image, dataset=dataset, category=category), 0, "description")
        assert len(text) > len(question(image, 0, "generic")) + 20


def test_references(tmp_path, save_image):
    rows = [(f"t{n}", "c", None, "train", 0) for n in (3, 1, 2, 0)] + [
        ("q", "c", None, "test", 1),
        ("v", "c", None, "train", 1),
    ]
    images = table(tmp_path / "m.parquet", rows)
    for n, grey in (("t0", 0), ("t1", 250), ("t2", 120), ("t3", 90), ("q", 100), ("v", 100)):
        save_image(tmp_path / f"{n}.png", np.full((50, 70, 3), grey, np.uint8))
    query = next(i for i in images if i.image_id == "q")

    def ids(shots, rule, seed=0, image=query):
        return [i.image_id for i in references_for(image, images, shots, rule, seed)]

    assert ids(2, "first") == ["t0", "t1"] and ids(0, "first") == []
    assert ids(3, "nearest") == ["t3", "t2", "t0"]
    own = next(i for i in images if i.image_id == "t0")
    assert ids(9, "first", image=own) == ["t1", "t2", "t3"], "an image is no reference of its own"
    drawn = {tuple(ids(2, "random", seed)) for seed in range(40)}
    assert len(drawn) > 4 and ids(2, "random", 7) == ids(2, "random", 7)
    assert {i for pair in drawn for i in pair} == {"t0", "t1", "t2", "t3"}, "anomalous training images never"
    (tmp_path / "t3.png").write_bytes(b"")
    thumbnail.cache_clear()
    assert ids(1, "nearest") == ["t2"]
    with pytest.raises(InputError, match="--reference best"):
        ids(1, "best")


def test_rows_by_hand():
    assert score_of({"yes": 0.3, "no": 0.1}) == pytest.approx(0.75)
    assert score_of({"yes": 0.0, "no": 0.0}) is None and score_of(None) is None
    key = ("i", "lvlm/m/1-shot")
    said = row(Reply(key, "Yes, a crack.", probabilities={"yes": 0.6, "no": 0.2}), ["t0"])
    assert (said["prediction"], said["score"], said["parsed"]) == (1, pytest.approx(0.75), "strict")
    assert said["neighbours"] == [{"image_id": "t0"}] and "error" not in said
    mumbled = row(Reply(key, "A tile.", probabilities={"yes": 0.6, "no": 0.2}), ["t0"])
    assert mumbled["response"] == "A tile." and mumbled["parsed"] == "unparsable" and "error" not in mumbled
    assert "prediction" not in mumbled and mumbled["score"] == pytest.approx(0.75), "the first token's, not the text's"
    refused = row(Reply(key, "I'm sorry, I cannot help.", probabilities={"yes": 0.001, "no": 0.003}), ["t0"])
    assert (refused["parsed"], refused["score"]) == ("refused", pytest.approx(0.25)) and "prediction" not in refused
    dumb = row(Reply(key, "A tile."), ["t0"])
    assert dumb["response"] == "A tile." and dumb["score"] is None and "gave no probabilities" in dumb["error"]
    without = row(Reply(key, "No."), [])
    assert (without["prediction"], without["score"]) == (0, None)
    failed = row(Reply(key, error="no such image"), ["t0"])
    assert failed["error"] == "no such image" and "parsed" not in failed


@pytest.mark.slow
def test_scene_compares_with_the_first_training_image(oranges):
    summary = run(oranges, QUIET)
    rows = {r["image_id"]: r for r in read_table(oranges.out, SCORES).to_pylist()}
    assert set(rows) == {"good", "bad", "broken", "alone"} and summary.errors == 2
    assert (rows["good"]["prediction"], rows["good"]["score"]) == (0, 0.0)
    assert rows["bad"]["prediction"] == 1 and 0.5 < rows["bad"]["score"] < 1
    assert "green" in rows["bad"]["response"].split("second image")[1]
    assert "green" not in rows["bad"]["response"].split("second image")[0]
    assert [n["image_id"] for n in rows["bad"]["neighbours"]] == ["t0"]
    assert rows["bad"]["method"] == "lvlm/scene/1-shot+specific"
    assert "broken.png" in rows["broken"]["error"]
    assert rows["alone"]["error"] == (
        "mvtec-ad / empty has 0 normal training images to compare with, --shots asks for 1"
    )
    assert method_name(replace(oranges, reference="nearest")) == "lvlm/scene/1-shot+specific+nearest"
    assert method_name(replace(oranges, name="mine")) == "mine"
    train = replace(oranges, splits="train,test", out=oranges.out.parent / "both")
    run(train, QUIET)
    both = {r["image_id"]: r for r in read_table(train.out, SCORES).to_pylist()}
    assert both["t0"]["neighbours"][0]["image_id"] == "t1" and both["t1"]["neighbours"][0]["image_id"] == "t0"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"shots": 5}, "--shots 5"),
        ({"prompt": "best"}, "--prompt best"),
        ({"splits": "test,tset"}, "--splits tset"),
        ({"splits": "val"}, "no image in the splits val"),
        ({"shots": 2}, "--shots 1"),
        ({"vlm": "sceen"}, "--vlm sceen: did you mean scene"),
        ({"engine": "vlm"}, "--engine vlm"),
        ({"top_p": 2.0}, "--top-p 2.0"),
        ({"max_tokens": 0}, "--max-tokens 0"),
    ],
)
def test_wrong_options(oranges, wrong, message):
    with pytest.raises(InputError, match=message):
        run(replace(oranges, **wrong), QUIET)
    assert not oranges.out.exists()


@pytest.mark.slow
def test_a_model_that_babbles_keeps_its_score_and_decides_nothing(oranges, qwen, capsys):
    config = replace(oranges, vlm=str(qwen), device="cpu", dtype="float32", max_tokens=6)
    summary = run(config, RunOptions())
    rows = {r["image_id"]: r for r in read_table(config.out, SCORES).to_pylist()}
    assert summary.errors == 2 and rows["good"]["parsed"] == "unparsable", "broken and alone"
    assert rows["good"]["response"] and 0 < rows["good"]["score"] < 1
    assert rows["good"]["prediction"] is None and rows["good"]["error"] is None and rows["good"]["retry"] is None
    said = capsys.readouterr().err
    assert "answers: 2 unparsable, 1 failed" in said, "alone was not asked"
    assert "2 answers are neither yes nor no: they have a score" in said
    assert rows["good"]["method"] == method_name(config) == f"lvlm/{qwen.name}/1-shot+specific"
    (record,) = read_provenance(config.out)
    assert ONE_SHOT in record["parameters"]["prompts"] and record["parameters"]["max_tokens"] == 6


def test_preset_and_what_is_given_beside_it(monkeypatch):
    import stages.lvlm.score
    from adcli import score

    seen = []

    def keep(config, options):
        seen.append(config)
        raise InputError("seen")

    monkeypatch.setattr(stages.lvlm.score, "run", keep)

    def parse(*more):
        import typer

        app = typer.Typer()
        app.callback()(lambda: None)
        arguments = ["score", "m", "--method", "lvlm", "--out", "o", *more]
        score.add_to(app, arguments)
        return CliRunner().invoke(app, arguments)

    parse("--preset", "paper")
    parse("--preset", "paper", "--engine", "transformers", "--max-tokens", "512")
    parse()
    paper, mixed, plain = seen
    assert (paper.vlm, paper.engine) == ("qwen2-vl-72b-awq", "vllm")
    assert paper.tensor_parallel == 0, "as many GPUs as it needs of those there"
    assert (paper.max_num_seqs, paper.max_model_len, paper.temperature, paper.max_tokens) == (5, 7000, 0.3, 1024)
    assert (paper.min_pixels, paper.max_pixels) == (768 * 28 * 28, 1024 * 28 * 28)
    assert (mixed.engine, mixed.max_tokens, mixed.vlm) == ("transformers", 512, "qwen2-vl-72b-awq"), "also the defaults"
    assert (plain.vlm, plain.engine) == ("scene", "transformers")
    wrong = parse("--preset", "papr")
    assert wrong.exit_code == 2 and "papr" in wrong.output
