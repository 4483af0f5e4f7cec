"""SAGE as stages: settings that matter, plain fine-tuning, answers, what is refused."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from stages.artifacts.reader import read_provenance, read_table
from stages.artifacts.tables import ANSWERS, CAPTIONS, ENCODERS, JUDGEMENTS, MANIFEST, QUESTIONS
from stages.base.errors import InputError
from stages.questions.table import read_questions
from stages.sage.config import SageSettings, ScoreSageConfig
from stages.sage.edpo import run as edpo
from stages.sage.score import run as score
from stages.sage.sfe import run as sfe
from tests.sage_world import QUIET, asked, edpo_config, sfe_config, tensors, write


@pytest.mark.slow
def test_seeds_bf16_and_recomputed_activations(tiles, internvl, tmp_path):
    outs = {}
    for name, more in (
        ("a", {}),
        ("b", {}),
        ("seed", {"seed": 1}),
        ("recompute", {"checkpoint_activations": True}),
        ("bf16", {"precision": "bf16"}),
        ("zero-shot", {"shots": 0}),
        ("min", {"similarity": "min"}),
    ):
        sfe(sfe_config(tiles, internvl, tmp_path / name, epochs=1, **more), QUIET)
        outs[name] = tensors(tmp_path / name)

    def distance(x, y):
        return max(float((outs[x][n] - outs[y][n]).abs().max()) for n in outs[x])

    assert distance("a", "b") == 0 < 1e-3 < distance("a", "seed")
    assert distance("a", "recompute") < 1e-4 and 0 < distance("a", "bf16") < 0.02
    assert distance("a", "zero-shot") > 0 and distance("a", "min") > 0
    edpo(edpo_config(tiles, tmp_path / "bf16", tmp_path / "edpo_models", precision="bf16"), QUIET)
    c = ScoreSageConfig(
        manifest=tiles.manifest,
        questions=tiles.questions,
        facts=tiles.facts,
        device="cpu",
        root=tiles.manifest.parent,
        checkpoint=tmp_path / "edpo_models",
        out=tmp_path / "s",
        choose="likelihood",
        precision="bf16",
    )
    assert score(c, QUIET).errors == 0


@pytest.mark.slow
def test_plain_fine_tuning_and_facts_as_text(tiles, internvl, tmp_path):
    from transformers import AutoModelForImageTextToText

    for fusion in ("none", "text"):
        out, merged = tmp_path / fusion, tmp_path / f"{fusion}-merged"
        c = sfe_config(
            tiles,
            internvl,
            out,
            fusion=fusion,
            facts=tiles.facts if fusion == "text" else None,
            epochs=1,
            merged=merged,
        )
        sfe(c, QUIET)
        assert not any(n.startswith("fusion") for n in tensors(out))
        assert type(AutoModelForImageTextToText.from_pretrained(merged)).__name__ == "InternVLForConditionalGeneration"
        stamp = (merged / "config.json").stat().st_mtime_ns
        assert sfe(c, QUIET).up_to_date and (merged / "config.json").stat().st_mtime_ns == stamp
    before = (merged / "model.safetensors").read_bytes()
    sfe(replace(c, epochs=2), replace(QUIET, overwrite=True))
    assert (merged / "model.safetensors").read_bytes() != before, "the copy is of what was trained anew"
    rows, questions = asked(tiles, SageSettings(fusion="text"))
    text = questions.sample(rows[0])
    assert "Tiles may have holes.\nThey may be cracked.\nThe tile is grey." in text.text and text.facts == ()
    assert [i.image_id for i in text.shown] == ["whole", "t000"] and "The first image is the reference" in text.text
    with pytest.raises(InputError, match="--merged: a fusion layer"):
        sfe(sfe_config(tiles, internvl, tmp_path / "f", merged=tmp_path / "m"), QUIET)


def test_a_fact_or_question_with_a_zero_byte_marks_no_place(tiles, tmp_path):
    """Models with tokens for bytes wrote such facts, and the chat template was blamed for every such question."""
    from stages.sage.data import PLACE

    facts = write(
        tmp_path / "f.parquet", [{"image_id": "t000", "prompt_id": "p", "sample": 0, "text": "A \0 hole."}], CAPTIONS
    )
    rows, questions = asked(replace(tiles, facts=facts), SageSettings(fusion="text"))
    assert "A   hole." in questions.sample(rows[0]).text and PLACE not in questions.sample(rows[0], "Why\0?").text
    rows, questions = asked(replace(tiles, facts=facts), SageSettings())
    assert questions.sample(rows[0], "Why\0?").text.count(PLACE) == 1


def answers(out):
    return {r["question_id"]: r for r in read_table(out, ANSWERS).to_pylist()}


@pytest.mark.slow
@pytest.mark.parametrize("shots", [1, 0])
def test_answers_by_likelihood_and_by_reply(tiles, sfe_models, tmp_path, shots):
    from stages.sage.checkpoint import load_sage
    from stages.sage.score import Answering

    c = ScoreSageConfig(
        manifest=tiles.manifest,
        questions=tiles.questions,
        facts=tiles.facts,
        device="cpu",
        root=tiles.manifest.parent,
        checkpoint=sfe_models[4],
        out=tmp_path / "likelihood",
        shots=shots,
        choose="likelihood",
        precision="fp32",
    )
    assert score(c, QUIET).errors == 0
    rows = answers(c.out)
    model = read_provenance(c.out)[0]["notes"]["model"]
    assert (model["patches"], model["sentences"], model["shots"], model["stage"]) == (4, 0, shots, "sfe")
    settings = replace(load_sage(sfe_models[4]).settings, shots=shots)
    model = Answering(load_sage(sfe_models[4], settings=settings), "cpu", 8)
    for q, questions in ((q, asked(tiles, settings)[1]) for q in read_questions(tiles.questions).rows[:4]):
        values, tokens = model.likelihoods(questions.sample(q), q.choices)
        row = rows[q.question_id]
        assert row["choice_tokens"] == tokens
        assert row["choice"] == int(np.argmax(values)) and row["correct"] == (row["choice"] == 0)
        assert row["method"] == f"sage-sfe/{shots}-shot+likelihood" and row["response"] is row["parsed"] is None
    replies = replace(c, out=tmp_path / "replies", choose="generate", max_tokens=8, batch_size=5)
    assert score(replies, QUIET).rows == 12
    one = replace(replies, out=tmp_path / "one", batch_size=1)
    score(one, QUIET)
    assert {i: r["response"] for i, r in answers(one.out).items()} == {
        i: r["response"] for i, r in answers(replies.out).items()
    }, "batches change nothing"
    assert all(r["parsed"] for r in answers(replies.out).values())
    assert score(c, QUIET).up_to_date
    with pytest.raises(InputError, match="made with other settings .shots"):
        score(replace(c, shots=1 - shots, name=f"sage-sfe/{shots}-shot+likelihood"), QUIET)


def changed(tiles, folder, table, change):
    """A copy of the tiles with one table's rows changed in place by `change`."""
    shutil.copytree(tiles.manifest.parent, folder)
    copy = replace(tiles, **{n: folder / f"{n}.parquet" for n in ("manifest", "questions", "facts", "judgements")})
    name = {MANIFEST: "manifest", QUESTIONS: "questions", CAPTIONS: "facts", JUDGEMENTS: "judgements"}[table]
    rows = pq.read_table(folder / f"{name}.parquet").to_pylist()
    write(folder / f"{name}.parquet", change(rows), table)
    return copy


def without(rows, **values):
    return [r for r in rows if not all(r[k] == v for k, v in values.items())]


def failed_facts(image_id):
    return {"image_id": image_id, "prompt_id": "sage/facts", "sample": 0, "error": "the model gave an empty answer"}


@pytest.mark.slow
def test_what_sfe_refuses(tiles, internvl, tmp_path):
    def first(**values):
        return lambda rows: [rows[0] | values, *rows[1:]]

    for n, (table, change, said) in enumerate(
        (
            (QUESTIONS, first(choices=["yes"], answer="yes"), "q000: a preference set needs two answers or more"),
            (QUESTIONS, first(reference_id=None), "q000: no `reference_id`, and tile has no normal training image"),
            (QUESTIONS, first(ranked=False, answer=None), "q000: no `answer` to learn from"),
            (QUESTIONS, first(image_id="elsewhere"), "q000: its test image elsewhere is not in the manifest"),
            (MANIFEST, first(error="not an image"), "whole: not an image"),
            (CAPTIONS, lambda rows: without(rows, image_id="t003"), "q003: --facts has none for t003"),
        )
    ):
        with pytest.raises(InputError, match=said):
            sfe(sfe_config(changed(tiles, tmp_path / str(n), table, change), internvl, tmp_path / "o"), QUIET)
    for more, said in (
        ({"facts": None}, "--facts is missing: --fusion attention"),
        ({"root": tmp_path}, "q000: .*t000.png: no such image"),
        ({"fusion": "both"}, "--fusion both"),
        ({"shots": 2}, "--shots 2"),
        ({"similarity": "mean"}, "--similarity mean"),
        ({"schedule": "step"}, "--schedule step"),
        ({"patches": 0}, "--patches 0: at least 1"),
        ({"micro_batch": 3}, "4 per process are no multiple of --micro-batch 3"),
        ({"max_length": 5000}, "--max-length 5000: the model's context has 1024"),
        ({"max_length": 60}, "^12 of 12 samples are longer than 60 tokens"),
        ({"deepspeed": Path("nowhere.json")}, "--deepspeed nowhere.json: no such file"),
        ({"deepspeed": tiles.facts}, "--deepspeed needs the package deepspeed: pip install deepspeed"),
        ({"fsdp": "full_shard"}, "--fsdp shards over several processes"),
        ({"precision": "fp8"}, "--precision fp8"),
        ({"heads": 7}, "--heads 7: does not divide"),
    ):
        with pytest.raises(InputError, match=said):
            sfe(sfe_config(tiles, internvl, tmp_path / f"o-{next(iter(more))}", **more), QUIET)
    for n, (table, change) in enumerate(
        (
            (MANIFEST, lambda rows: [r | ({"error": "broken"} if r["image_id"] == "t003" else {}) for r in rows]),
            (CAPTIONS, lambda rows: [*without(rows, image_id="t003"), failed_facts("t003")]),
        )
    ):
        out = tmp_path / f"left-out-{n}"
        sfe(sfe_config(changed(tiles, tmp_path / f"l{n}", table, change), internvl, out, epochs=1), QUIET)
        assert read_table(out, ENCODERS).to_pylist()[0]["n"] == 11, "what failed before does not end the training"
        assert list(read_provenance(out)[0]["notes"]["left out"]) == ["q003"]
    failed = changed(tiles, tmp_path / "failed", QUESTIONS, first(error="the writer failed"))
    assert sfe(sfe_config(failed, internvl, tmp_path / "f", epochs=1), QUIET).errors == 0
    assert read_table(tmp_path / "f", ENCODERS).to_pylist()[0]["n"] == 11


def test_a_question_with_a_judgement_that_failed_is_left_out():
    """Of 40,000 answers a judge fails some; one without any judgement is another matter, and refused."""
    from stages.questions.table import Question
    from stages.sage.edpo import unjudged

    questions = [Question(i, i, None, None, "standard", "?", ("a", "b"), "a", True) for i in ("q", "r")]
    rows = [
        {"question_id": "q", "method": "choice/1", "error": "no stated form"},
        {"question_id": "r", "method": "choice/0", "error": None},
        {"question_id": "r", "method": "sage/0-shot", "error": "of an answer to it"},
        {"question_id": "r", "method": "choice/2", "error": "no choice of this question"},
    ]
    assert unjudged(rows, questions) == {"q": "choice/1 was not judged: no stated form"}


@pytest.mark.slow
def test_what_edpo_refuses(tiles, internvl, sfe_models, edpo_models, tmp_path):
    def unranked(rows):
        return [rows[0] | {"ranked": False}, *rows[1:]]

    def half_judged(rows):
        return [r | {"logic": None} if r["question_id"] == "q001" and r["method"] == "choice/1" else r for r in rows]

    for n, (table, change, said) in enumerate(
        (
            (
                JUDGEMENTS,
                lambda rows: without(rows, question_id="q002"),
                "no scores for 4 answers, the first is question q002, choice/0",
            ),
            (JUDGEMENTS, half_judged, "no scores for 1 answers, the first is question q001, choice/1"),
            (QUESTIONS, unranked, "q000: its answers are not ranked"),
        )
    ):
        with pytest.raises(InputError, match=said):
            edpo(edpo_config(changed(tiles, tmp_path / str(n), table, change), sfe_models[4], tmp_path / "o"), QUIET)
    for more, said in (
        ({"checkpoint": edpo_models[4]}, "was trained with sage-edpo; E-DPO starts from"),
        ({"checkpoint": internvl}, "no sage.json here"),
        ({"beta": 0.0}, "--beta 0.0: expected a number"),
        ({"objective": "ipo"}, "--objective ipo"),
        ({"entropy": "sum"}, "--entropy sum: expected surprisal or term"),
        ({"pairs": "all"}, "--pairs all: expected eq5 or adjacent"),
        ({"sft_weight": -1.0}, "--sft-weight -1.0: expected 0 or more"),
        ({"objective": "mpo"}, "--objective mpo has no margin: give --eta 0"),
        ({"max_length": 60}, "12 of 12 samples are longer"),
    ):
        with pytest.raises(InputError, match=said):
            edpo(
                edpo_config(tiles, sfe_models[4], tmp_path / "o")
                if not more
                else replace(edpo_config(tiles, sfe_models[4], tmp_path / "p"), **more),
                QUIET,
            )


@pytest.mark.slow
def test_answers_that_fail_are_rows(tiles, sfe_models, tmp_path):
    def change(rows):
        return [
            rows[0] | {"reference_id": None},
            rows[1] | {"question": "why " * 1200},
            rows[2] | {"choices": [], "answer": None, "ranked": False},
            rows[3] | {"error": "the writer failed"},
            *rows[4:],
        ]

    bad = changed(tiles, tmp_path / "bad", QUESTIONS, change)
    (tmp_path / "bad" / "t004.png").write_text("no image")
    facts = pq.read_table(bad.facts).to_pylist()
    write(bad.facts, without(facts, image_id="t005"), CAPTIONS)
    c = ScoreSageConfig(
        manifest=bad.manifest,
        questions=bad.questions,
        facts=bad.facts,
        root=tmp_path / "bad",
        checkpoint=sfe_models[4],
        out=tmp_path / "s",
        choose="likelihood",
        device="cpu",
        precision="fp32",
    )
    assert score(c, QUIET).errors == 6
    found = answers(c.out)
    for name, said in (
        ("q000", "no `reference_id`"),
        ("q001", "exceed the model's context by"),
        ("q002", "no choices"),
        ("q003", "the writer failed"),
        ("q004", "t004.png"),
        ("q005", "--facts has none for t005"),
    ):
        assert said in found[name]["error"] and found[name]["choice"] is None
        assert found[name]["retry"] is (None if name in ("q003", "q004") else False), said
    assert found["q006"]["error"] is None
    with pytest.raises(InputError, match="--choose letters"):
        score(replace(c, choose="letters"), QUIET)
