"""The builder of questions as a stage: rows, references, shards; with a model that writes; facts; real tiles."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from stages.artifacts.reader import read_table
from stages.artifacts.tables import CAPTIONS, MANIFEST, QUESTIONS
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.captions import caption
from stages.datasets import magnetic_tile
from stages.datasets.images import load_masks
from stages.datasets.manifest import read_manifest
from stages.questions.config import QuestionsConfig
from stages.questions.geometry import geometry_of, ways_to_say
from stages.questions.make import run, some_of
from stages.questions.table import check_images, read_questions
from stages.questions.writing import ATTEMPTS, NotInForm, answers_of
from tests.questions.test_questions_wording import rectangle
from tests.vlm.test_server_engine import Faulty, Handler

QUIET = RunOptions(quiet=True)
TILES = Path(__file__).parents[3] / "shared" / "data" / "magnetic-tile"


# -- the stage --------------------------------------------------------------------------------------------------


def tree(folder, save_image, rows):
    """rows: (name, split, label, defect, mask or None, category). Files and a manifest beside them."""
    records = []
    for n, (name, split, label, defect, mask, category) in enumerate(rows):
        save_image(folder / f"{name}.png", n)
        if mask is not None:
            save_image(folder / f"{name}_mask.png", mask.astype(np.uint8) * 255)
        records.append(
            {
                "image_id": f"d/{name}",
                "path": f"{name}.png",
                "dataset": "d",
                "category": category,
                "split": split,
                "label": label,
                "defect": defect,
                "mask_paths": [] if mask is None else [f"{name}_mask.png"],
            }
        )
    pq.write_table(pa.Table.from_pylist(records, schema=MANIFEST.schema), folder / "m.parquet")
    return QuestionsConfig(manifest=folder / "m.parquet", out=folder / "q", root=folder)


@pytest.fixture
def nuts(tmp_path, save_image):
    spot = rectangle(2, 2, 6, 6, (40, 60))
    return tree(
        tmp_path,
        save_image,
        [
            ("n0", "train", 0, None, None, "metal_nut"),
            ("n1", "train", 0, None, None, "metal_nut"),
            ("good", "test", 0, None, None, "metal_nut"),
            ("bent", "test", 1, "bent", spot, "metal_nut"),
            ("maskless", "test", 1, "bent", None, "metal_nut"),
            ("empty", "test", 1, "bent", spot * 0, "metal_nut"),
            ("unknown", "test", None, None, None, "metal_nut"),
            ("alone", "test", 0, None, None, "screw"),
        ],
    )


def test_some_of_the_images_are_drawn_by_the_seed(nuts):
    def asked(**more):
        run(replace(nuts, **more), RunOptions(quiet=True, overwrite=True))
        return {r["image_id"] for r in read_table(nuts.out, QUESTIONS).to_pylist()}

    every = asked()
    assert (
        len(asked(max_images=2)) == 2 and asked(max_images=2) == asked(max_images=2) and asked(max_images=99) == every
    )
    assert len({frozenset(asked(max_images=2, seed=n)) for n in range(6)}) > 1
    with pytest.raises(InputError, match="--max-images -1"):
        run(replace(nuts, max_images=-1), QUIET)


def test_a_draw_has_as_many_anomalous_as_normal_images_while_both_last():
    images = {str(n): SimpleNamespace(label=int(n < 5)) for n in range(35)}
    for limit, anomalous in ((8, 4), (20, 5), (0, 5), (99, 5)):
        drawn = [*some_of(images, limit, seed=3)]
        assert sum(images[i].label for i in drawn) == anomalous and drawn == sorted(drawn, key=int)
        assert len(drawn) == min(limit or 35, 35)
    assert abs(sum(images[i].label for i in some_of(images, 3, seed=3)) - 1.5) == 0.5


def test_five_questions_an_image_and_failures_as_rows(nuts):
    summary = run(nuts, QUIET)
    rows = {r["question_id"]: r for r in read_table(nuts.out, QUESTIONS).to_pylist()}
    assert (summary.rows, summary.errors) == (30, 20) and len(rows) == 30
    errors = {
        i: {r["error"] for r in rows.values() if r["image_id"] == f"d/{i}"}
        for i in ("good", "bent", "maskless", "empty", "unknown", "alone")
    }
    assert errors["good"] == errors["bent"] == {None}
    assert errors["maskless"] == {"d/maskless: an anomalous image without a mask"}
    assert "empty mask" in errors["empty"].pop() and "not known whether" in errors["unknown"].pop()
    assert errors["alone"] == {"d / screw has no normal training image to compare with"}
    questions = read_questions(nuts.out)
    assert Counter(q.level for q in questions.rows if q.group == "d/bent") == {
        "standard": 2,
        "identification": 2,
        "reasoning": 1,
    }
    assert all(q.ranked and len(q.choices) == 4 and q.reference_id in ("d/n0", "d/n1") for q in questions.rows)
    check_images(questions, read_manifest(nuts.manifest, nuts.root))
    best = next(q for q in questions.rows if q.question_id == "d/bent/defect").answer.lower()
    assert "a bent part" in best and "upper left" in best
    assert len({q.reference_id for q in questions.rows if q.group == "d/bent"}) == 1


def test_the_reference_is_drawn_per_image_and_is_never_the_image(tmp_path, save_image):
    rows = [(f"n{n}", "train", 0, None, None, "nut") for n in range(6)]
    config = tree(tmp_path, save_image, rows)
    run(replace(config, splits="train"), QUIET)
    shown = {q.image_id: q.reference_id for q in read_questions(config.out).rows}
    assert len(set(shown.values())) > 2 and all(i != r for i, r in shown.items())
    run(replace(config, splits="train", reference="first", out=tmp_path / "f"), QUIET)
    first = {q.image_id: q.reference_id for q in read_questions(tmp_path / "f").rows}
    assert first == {f"d/n{n}": "d/n0" if n else "d/n1" for n in range(6)}


def test_seed_shards_and_cache(nuts):
    run(nuts, QUIET)
    whole = read_table(nuts.out, QUESTIONS)
    for shard in ("2/3", "0/3", "1/3"):
        run(replace(nuts, out=nuts.root / "s"), replace(QUIET, shard=shard))
    assert read_table(nuts.root / "s", QUESTIONS).equals(whole)
    run(replace(nuts, out=nuts.root / "other", seed=1), QUIET)
    other = read_table(nuts.root / "other", QUESTIONS)
    assert (
        other["question_id"].equals(whole["question_id"])
        and other["choices"].to_pylist() != whole["choices"].to_pylist()
    )
    with pytest.raises(InputError, match="seed was 0, now 1"):
        run(replace(nuts, seed=1), QUIET)


def test_one_line_refusals(nuts, save_image):
    def refused(said, **changes):
        with pytest.raises(InputError, match=said):
            run(replace(nuts, **changes), QUIET)

    refused("--reference best: expected first, random, nearest", reference="best")
    refused("--vlm scene: it describes images and cannot write answers", vlm="scene")
    refused("--vlm qwen2-vl: also give the --captions", vlm="qwen2-vl")
    refused("--captions: templates do not read them", captions=nuts.out)
    refused("--splits tets", splits="tets")
    bare = tree(nuts.root / "bare", save_image, [("a", "train", 0, None, None, "x"), ("b", "test", 1, "c", None, "x")])
    with pytest.raises(InputError, match="none of the 1 anomalous images has a mask"):
        run(bare, QUIET)


# -- a model that writes ---------------------------------------------------------------------------------------------


def reply(*answers, verdicts="aaan"):
    words = {"a": "anomalous", "n": "normal"}
    return "\n".join(f"{n}. [{words[v]}] {a}" for n, (v, a) in enumerate(zip(verdicts, answers, strict=True), 1))


def test_replies_are_checked_for_form():
    assert answers_of("```\n" + reply("A", "B", "C", "D") + "\n```", True) == ["A", "B", "C", "D"]
    assert answers_of("1) [Normal] A\n\n2) [normal] B\n3) [NORMAL] C\n4) [Anomalous] D", False) == list("ABCD")
    for text, anomalous, said in (
        (reply("A", "B", "C", "D"), False, "verdicts do not fit"),
        ("Sure!\n" + reply(*"ABCD"), True, "four numbered"),
        (reply(*"ABCD").rsplit("\n", 1)[0], True, "four numbered"),
        (reply("A", "a", "C", "D"), True, "the same"),
        (reply("A", "", "C", "D"), True, "is empty"),
        ("", True, "four numbered"),
        (reply(*"ABCD", verdicts="anan"), True, "verdicts do not fit"),
        (reply(*"ABCD") + "\n5. [normal] E", True, "four numbered"),
    ):
        with pytest.raises(NotInForm, match=said):
            answers_of(text, anomalous)


class Writer(Handler):
    """Answers what `plan` says of (prompt, how often it has been asked)."""

    def answer(self, body, text, fault):
        self.send(
            200,
            {
                "id": "x",
                "object": "chat.completion",
                "created": 0,
                "model": "tiny",
                "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": fault}}],
                "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
            },
        )


def captions_at(path, **texts):
    rows = [
        {"image_id": f"d/{i}", "prompt_id": "p", "sample": 0, "text": t, "error": None if t else "refused"}
        for i, t in texts.items()
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=CAPTIONS.schema), path)
    return path


def test_a_model_writes_the_answers_and_is_asked_again_until_they_are_in_form(tmp_path, save_image):
    spot = rectangle(2, 2, 6, 6, (40, 60))
    config = tree(
        tmp_path,
        save_image,
        [
            ("n0", "train", 0, None, None, "nut"),
            ("good", "test", 0, None, None, "nut"),
            ("bent", "test", 1, "bent", spot, "nut"),
            ("uncaptioned", "test", 0, None, None, "nut"),
        ],
    )
    captions = captions_at(tmp_path / "c.parquet", good="a round nut", bent="a nut with a dent", uncaptioned=None)

    def plan(text):
        if "{" in text.replace("[", "{") and "a round nut" in text:
            return "I would rather not."  # never in form
        again = server.tries[text] > 1
        return reply("Bent.", "Odd.", "Cracked.", "Fine.", verdicts="aaan" if again else "nnna")

    server = Faulty(plan)
    server.RequestHandlerClass = Writer
    config = replace(config, vlm="tiny", engine="server", base_url=server.url, captions=captions, timeout=5.0)
    summary = run(config, QUIET)
    rows = {r["question_id"]: r for r in read_table(config.out, QUESTIONS).to_pylist()}
    assert (summary.rows, summary.errors) == (15, 10)
    bent = rows["d/bent/verdict"]
    assert bent["choices"] == ["Bent.", "Odd.", "Cracked.", "Fine."] and bent["answer"] == "Bent." and bent["ranked"]
    assert rows["d/good/verdict"]["error"] == (
        f"the reply is not four numbered lines with a verdict in brackets (last of {ATTEMPTS} replies)"
    )
    assert (rows["d/good/verdict"]["retry"], bent["retry"]) == (False, None), "five replies, all refused"
    assert rows["d/good/verdict"]["question"] and "has no caption" in rows["d/uncaptioned/extent"]["error"]
    asked = next(t for t in server.tries if "a nut with a dent" in t and bent["question"] in t)
    assert server.tries[asked] == 2 and "a bent part" in asked and "upper left" in asked and "{" not in asked
    seeds = [b["seed"] for b in server.bodies if b["messages"][0]["content"][-1]["text"] == asked]
    assert len(set(seeds)) == 2, "another seed for another try"
    assert max(server.tries.values()) == ATTEMPTS and len(server.tries) == 10


@pytest.mark.slow
def test_a_real_model_that_cannot_do_it_loses_no_row(tmp_path, save_image, qwen):
    config = tree(tmp_path, save_image, [("n0", "train", 0, None, None, "nut"), ("a", "test", 0, None, None, "nut")])
    captions = captions_at(tmp_path / "c.parquet", a="a nut")
    summary = run(replace(config, vlm=str(qwen), captions=captions, max_tokens=4, device="cpu"), QUIET)
    assert (summary.rows, summary.errors, summary.complete) == (5, 5, True)
    assert "not four numbered lines" in summary.first_errors[0]


# -- facts ------------------------------------------------------------------------------------------------------


def test_facts_are_captions(tmp_path, save_image, qwen):
    tree(tmp_path, save_image, [("a", "test", 0, None, None, "nut"), ("b", "test", 0, None, None, "nut")])
    config = caption.CaptionConfig(
        manifest=tmp_path / "m.parquet",
        out=tmp_path / "f",
        root=tmp_path,
        vlm=str(qwen),
        prompt="sage/facts",
        samples=3,
        temperature=0.9,
        max_tokens=8,
        device="cpu",
    )
    caption.run(config, QUIET)
    rows = read_table(tmp_path / "f", CAPTIONS).to_pylist()
    assert [(r["image_id"], r["prompt_id"], r["sample"]) for r in rows] == [
        (f"d/{i}", "sage/facts", n) for i in "ab" for n in range(3)
    ]
    texts = [r["text"] for r in rows if r["image_id"] == "d/a" and r["text"]]
    assert len(texts) > 1 and len(set(texts)) == len(texts), "three draws, not one three times"


def test_samples_that_would_all_be_the_same_are_refused(tmp_path, save_image, capsys, qwen):
    tree(tmp_path, save_image, [("a", "test", 0, None, None, "nut")])
    config = caption.CaptionConfig(
        manifest=tmp_path / "m.parquet", out=tmp_path / "f", root=tmp_path, prompt="sage/facts", samples=5
    )
    with pytest.raises(InputError, match="--samples 5: scene describes an image the same way every time"):
        caption.run(config, QUIET)
    with pytest.raises(InputError, match="--samples 5: greedy texts of one image are all the same"):
        caption.run(replace(config, vlm=str(qwen), temperature=0.0), QUIET)
    caption.run(replace(config, vlm=str(qwen), samples=2, temperature=1e-6, max_tokens=12, device="cpu"), RunOptions())
    assert "1 of 2 texts repeat another one of the same image" in capsys.readouterr().err
    caption.run(replace(config, samples=1, out=tmp_path / "s", workers=1), QUIET)
    assert read_table(tmp_path / "s", CAPTIONS)["text"][0].as_py().endswith(".")


# -- real tiles -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not TILES.is_dir(), reason="the magnetic tiles are not here")
def test_real_tiles(tmp_path):
    from adcli.main import build

    index = magnetic_tile.MagneticTileConfig(root=TILES, out=tmp_path / "m")
    magnetic_tile.run(index, QUIET)
    arguments = ["data", "questions", str(tmp_path / "m"), "--out", str(tmp_path / "q"), "--quiet", "--json"]
    done = CliRunner().invoke(build(arguments), arguments)
    summary = json.loads(done.stdout)
    assert done.exit_code == 0 and summary["errors"] == 0 and summary["rows"] % 5 == 0
    manifest, questions = read_manifest(tmp_path / "m"), read_questions(tmp_path / "q")
    images = check_images(questions, manifest)
    assert {q.image_id for q in questions.rows} == {i.image_id for i in manifest.images if i.split == "test"}
    assert all(images[q.reference_id].split == "train" and images[q.reference_id].label == 0 for q in questions.rows)
    for q in questions.rows[::7]:
        image = images[q.image_id]
        if image.label == 0:
            continue
        best = q.answer.lower()
        assert {"blowhole": "a blowhole", "break": "a break", "crack": "a crack"}[image.defect] in best
        mask = load_masks(image.masks)
        near = geometry_of(mask)
        assert any(p in best for p in ways_to_say(near.place)) and near.place not in near.free
