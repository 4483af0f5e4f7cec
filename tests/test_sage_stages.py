"""SAGE as stages: SFE, E-DPO against TRL's DPO, resuming bit for bit, two processes, answers, what is refused."""

import csv
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from stages.artifacts.reader import read_table
from stages.artifacts.tables import ANSWERS, CAPTIONS, ENCODERS, JUDGEMENTS, MANIFEST, QUESTIONS
from stages.datasets.manifest import read_manifest
from stages.errors import InputError
from stages.questions.table import read_questions
from stages.sage.edpo import EdpoConfig, preference_pairs
from stages.sage.edpo import run as edpo
from stages.sage.entropy import edpo_loss, pairs_of
from stages.sage.score import ScoreSageConfig
from stages.sage.score import run as score
from stages.sage.sfe import SfeConfig
from stages.sage.sfe import run as sfe
from stages.sage.settings import Settings
from stages.settings import RunOptions
from tests.sage_world import SCORES, build, write
from tests.tiny import tiny_internvl

QUIET = RunOptions(quiet=True)
ROOT = Path(__file__).parents[1]
FAST = {"batch_size": 4, "micro_batch": 2, "learning_rate": 1e-3, "warmup": 2, "device": "cpu", "precision": "fp32"}
GAPS = [p.gap for p in pairs_of([sum(s) / 3 for s in SCORES])]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_internvl(tmp_path_factory.mktemp("internvl"))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return build(tmp_path_factory.mktemp("world"), 12)


def sfe_config(world, base, out, **more):
    return SfeConfig(**{"manifest": world.manifest, "questions": world.questions, "facts": world.facts, "out": out,
                        "root": world.manifest.parent, "base": str(base), "heads": 4, "patches": 4, "lora_rank": 4,
                        "epochs": 3} | FAST | more)


def edpo_config(world, checkpoint, out, **more):
    return EdpoConfig(**{"manifest": world.manifest, "questions": world.questions, "facts": world.facts, "out": out,
                         "root": world.manifest.parent, "judgements": world.judgements, "checkpoint": checkpoint,
                         "epochs": 1} | FAST | more)


@pytest.fixture(scope="module")
def trained(world, base, tmp_path_factory):
    """SFE models: LoRA, and all weights."""
    outs = {}
    for rank in (4, 0):
        outs[rank] = tmp_path_factory.mktemp("sfe") / "model"
        sfe(sfe_config(world, base, outs[rank], lora_rank=rank), QUIET)
    return outs


@pytest.fixture(scope="module")
def aligned(world, trained, tmp_path_factory):
    outs = {}
    for rank in (4, 0):
        outs[rank] = tmp_path_factory.mktemp("edpo") / "model"
        edpo(edpo_config(world, trained[rank], outs[rank]), QUIET)
    return outs


def losses(out):
    return list(csv.DictReader((out / "_checkpoint" / "losses.csv").open()))


def tensors(out):
    from safetensors.torch import load_file

    found = {}
    for f in sorted((out / "_checkpoint").glob("*.safetensors")):
        found |= {f"{f.stem}/{n}": t for n, t in load_file(f).items()}
    return found


def asked(world, settings):
    from stages.sage.data import Asked

    questions = read_questions(world.questions)
    return questions.rows, Asked(questions, read_manifest(world.manifest, world.manifest.parent), world.facts, settings)


@pytest.mark.parametrize("rank", [4, 0])
def test_sfe_lowers_the_loss_and_trains_what_it_should(trained, base, rank):
    from safetensors.torch import load_file

    row, = read_table(trained[rank], ENCODERS).to_pylist()
    assert (row["dataset"], row["category"], row["n"], row["steps"], row["error"]) == ("tiles", "all", 12, 9, None)
    assert row["last_loss"] < row["first_loss"] - 0.1
    curve = losses(trained[rank])
    assert [r["step"] for r in curve] == [str(n) for n in range(1, 10)]
    assert [float(r["learning_rate"]) for r in curve[:4]] == pytest.approx([0, 5e-4, 1e-3, 1e-3 * 6 / 7])
    assert not (trained[rank] / "_training").exists() and (trained[rank] / "_checkpoint" / "losses.png").exists()
    own, old = tensors(trained[rank]), load_file(base / "model.safetensors")
    moved = {n for n, t in own.items() if n.startswith("fusion/") and n.endswith("weight") and t.std() > 0
             and not (t == t.diag().diag() if t.ndim == 2 else t == t[0]).all()}
    assert {"fusion/value.weight", "fusion/project.weight", "fusion/norm.weight"} <= moved, "they start as identity"
    if rank:
        kinds = {"lora_A" if "lora_A" in n else "lora_B" if "lora_B" in n else n.split(".")[-2] for n in own
                 if n.startswith("adapter_model/")}
        assert kinds == {"lora_A", "lora_B", "layer_norm", "linear_1", "linear_2"}
        return
    for name, tensor in old.items():
        same = (own[f"model/{name}"] == tensor).all()
        assert same == ("vision_tower" in name), name
    from transformers import AutoModelForImageTextToText

    AutoModelForImageTextToText.from_pretrained(trained[rank] / "_checkpoint")


def test_the_loss_is_that_of_the_answers_tokens(world, trained):
    """Eq. 8, mean over the tokens of a batch, whatever the micro-batches."""
    import torch

    from stages.sage.checkpoint import load_sage
    from stages.sage.data import Encoder
    from stages.sage.trainers import sfe_trainer
    from stages.sage.training import arguments

    loaded = load_sage(trained[4], trainable=True)
    rows, questions = asked(world, loaded.settings)
    samples, answers = [questions.sample(q) for q in rows[:2]], [rows[0].answer, "Yes"]
    encoder = Encoder(loaded.processor, loaded.settings)
    trainer = sfe_trainer(loaded.model, encoder, samples, answers,
                          arguments(sfe_config(world, "", Path("x")), 2, "cpu", "fp32"))
    batch = trainer.data_collator(list(trainer.train_dataset))
    inputs = {n: t for n, t in batch.items() if n != "labels"}
    with torch.no_grad():
        logs = loaded.model(**inputs).logits.log_softmax(-1)
        found = float(loaded.model(**batch).loss)
    total, n = 0.0, 0
    for i, (s, answer) in enumerate(zip(samples, answers, strict=True)):
        start = encoder.length(s)
        for k, token in enumerate(encoder.answer(s, answer)):
            total, n = total - float(logs[i, start + k - 1, token]), n + 1
    assert n == int((batch["labels"] != -100).sum()) and found == pytest.approx(total / n, abs=1e-5)


def trainer_for(world, checkpoint, out, printed=False, eta=1.0, beta=0.1):
    from stages.sage.checkpoint import load_sage
    from stages.sage.data import Encoder
    from stages.sage.trainers import edpo_trainer
    from stages.sage.training import arguments

    loaded = load_sage(checkpoint, trainable=True)
    reference = None if loaded.settings.lora_rank else load_sage(checkpoint).model
    rows, questions = asked(world, loaded.settings)
    judged = read_table(world.judgements, JUDGEMENTS).to_pylist()
    pairs = preference_pairs(rows[:2], judged, eta, world.judgements)
    return edpo_trainer(loaded.model, reference, Encoder(loaded.processor, loaded.settings),
                        [questions.sample(q) for q in rows], pairs, beta, printed,
                        arguments(edpo_config(world, checkpoint, out, epochs=4), 4, "cpu", "fp32"))


def shaken(trainer):
    """The policy away from its reference; and a batch of the trainer's pairs."""
    import torch

    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in trainer.model.parameters():
            if p.requires_grad:
                p.add_(torch.randn(p.shape, generator=generator) * 0.02)
    return trainer.data_collator(list(trainer.train_dataset))


def log_probabilities(model, batch):
    """(winners, losers) by plain logits. batch: of the trainer's collator."""
    import torch

    inputs = {n: t for n, t in batch.items() if n not in ("completion_mask", "margin")}
    with torch.no_grad():
        logs = model(**inputs, use_cache=False).logits[:, :-1].log_softmax(-1)
    found = logs.gather(-1, batch["input_ids"][:, 1:, None])[..., 0] * batch["completion_mask"][:, 1:]
    return [half.tolist() for half in found.sum(1).chunk(2)]


@pytest.mark.parametrize("rank", [4, 0])
def test_the_loss_of_edpo(world, trained, tmp_path, rank):
    """Without a margin TRL's own DPO loss; with it Eq. 6 and 7, in both forms, from log-probabilities of two models."""
    import torch
    from trl import DPOTrainer

    from stages.sage.checkpoint import load_sage

    sfe_model = load_sage(trained[rank]).model
    plain = trainer_for(world, trained[rank], tmp_path, eta=0.0)
    batch = shaken(plain)
    found = float(plain.compute_loss(plain.model, batch).detach())
    stock = {n: t for n, t in batch.items() if n != "margin"}
    plain.precompute_ref_logps = False
    with torch.no_grad():
        expected = float(DPOTrainer._compute_loss(plain, plain.model, stock, False))
    assert found == pytest.approx(expected, abs=1e-6) and abs(found - math.log(2)) > 1e-3

    for printed in (False, True):
        trainer = trainer_for(world, trained[rank], tmp_path, printed, eta=2.0, beta=0.3)
        batch = shaken(trainer)
        assert batch["margin"].tolist() == pytest.approx([2 * g for g in GAPS] * 2)
        winners, losers = log_probabilities(trainer.model, batch)
        if not printed:
            theirs = log_probabilities(sfe_model, batch)
            winners, losers = ([0.3 * (own - other) for own, other in zip(a, b, strict=True)]
                               for a, b in zip((winners, losers), theirs, strict=True))
        expected = np.mean([edpo_loss(*v) for v in zip(winners, losers, batch["margin"].tolist(), strict=True)])
        assert float(trainer.compute_loss(trainer.model, batch).detach()) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("rank", [4, 0])
def test_edpo_trains_the_adapter_and_the_language_model_only(trained, aligned, rank):
    before, after = tensors(trained[rank]), tensors(aligned[rank])
    assert before.keys() == after.keys(), "the reference is not saved"
    for name, tensor in before.items():
        same = bool((after[name] == tensor).all())
        assert same == (name.startswith("fusion/") or "vision_tower" in name), name
    row, = read_table(aligned[rank], ENCODERS).to_pylist()
    assert (row["n"], row["steps"]) == (24, 6), "two pairs of each of 12 questions"
    start = np.mean([math.log1p(math.exp(g)) for g in GAPS])
    curve = losses(aligned[rank])
    assert np.mean([float(r["loss"]) for r in curve[:2]]) == pytest.approx(start, abs=0.02), "as at the reference"
    assert float(curve[-1]["rewards/margins"]) > float(curve[0]["rewards/margins"])


@pytest.mark.parametrize("rank", [4, 0])
def test_the_reference_stays_the_sfe_model(world, trained, tmp_path, rank):
    """Not the base model, and with the image adapter of the SFE model, also after the policy's has moved."""
    from stages.sage.checkpoint import load_sage

    trainer = trainer_for(world, trained[rank], tmp_path)
    batch = trainer.data_collator(list(trainer.train_dataset))
    trainer.train()
    sfe_model = load_sage(trained[rank]).model
    found = [t.tolist() for t in trainer.compute_ref_log_probs(trainer.ref_model or trainer.model, batch)]
    expected, moved = log_probabilities(sfe_model, batch), log_probabilities(trainer.model, batch)
    assert np.allclose(found, expected, atol=1e-4)
    assert np.abs(np.subtract(moved, expected)).max() > 1e-2
    if rank:
        with sfe_model.disable_adapter():
            assert np.abs(np.subtract(log_probabilities(sfe_model, batch), expected)).max() > 1e-2, "the base differs"


def killed_after_a_state(out, command):
    process = subprocess.Popen([sys.executable, "-m", "adcli", "finetune-mllm", *map(str, command)], cwd=ROOT,
                               stderr=subprocess.PIPE, text=True,
                               env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)})
    while not list(out.glob("_training/checkpoint-*/trainer_state.json")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    _, said = process.communicate()
    assert not (out / "_checkpoint").exists(), said


@pytest.mark.parametrize("method", ["sage-sfe", "sage-edpo"])
def test_killed_and_run_again_gives_the_same_weights_bit_for_bit(world, base, trained, tmp_path, capfd, method):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    if method == "sage-sfe":
        config, run = sfe_config(world, base, whole, epochs=6.0, save_steps=3), sfe
        own = ["--facts", world.facts, "--base", base, "--heads", 4, "--patches", 4, "--lora-rank", 4]
    else:
        config, run = edpo_config(world, trained[4], whole, epochs=3.0, save_steps=3), edpo
        own = ["--facts", world.facts, "--checkpoint", trained[4], "--judgements", world.judgements]
    command = [world.manifest, "--method", method, "--questions", world.questions, "--root", world.manifest.parent,
               *own, "--out", killed, "--batch-size", 4, "--micro-batch", 2, "--learning-rate", 1e-3, "--warmup", 2,
               "--epochs", config.epochs, "--save-steps", 3, "--device", "cpu", "--precision", "fp32"]
    run(config, QUIET)
    killed_after_a_state(killed, command)
    newest = max((killed / "_training").glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]))
    half = newest.with_name("checkpoint-9999")
    half.mkdir()                                                # as if killed while it was being written
    (half / "trained.safetensors").write_bytes((newest / "trained.safetensors").read_bytes()[:100])
    run(replace(config, out=killed), RunOptions())
    assert "going on from step" in capfd.readouterr().err
    first, second = tensors(whole), tensors(killed)
    assert first.keys() == second.keys() and all((second[n] == t).all() for n, t in first.items())
    assert run(replace(config, out=killed), QUIET).up_to_date


@pytest.mark.parametrize("method", ["sage-sfe", "sage-edpo"])
def test_two_processes_train_as_one_does(world, base, trained, aligned, tmp_path, method):
    own = ["--base", base, "--heads", 4, "--patches", 4, "--lora-rank", 4, "--epochs", 3] if method == "sage-sfe" else [
        "--checkpoint", trained[4], "--judgements", world.judgements, "--epochs", 1]
    command = [world.manifest, "--method", method, "--questions", world.questions, "--facts", world.facts, "--root",
               world.manifest.parent, *own, "--out", tmp_path / "two", "--batch-size", 4, "--micro-batch", 2,
               "--learning-rate", 1e-3, "--warmup", 2, "--device", "cpu", "--precision", "fp32"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port",
              "29611" if method == "sage-sfe" else "29612", "-m", "adcli", "finetune-mllm"]
    done = subprocess.run([*launch, *map(str, command)], cwd=ROOT, capture_output=True, text=True,
                          env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0 and done.stderr.count("1 of 1 rows") == 1, done.stderr
    one = (trained if method == "sage-sfe" else aligned)[4]
    for a, b in zip(losses(one), losses(tmp_path / "two"), strict=True):
        assert a["step"] == b["step"] and float(a["loss"]) == pytest.approx(float(b["loss"]), abs=2e-5)
    first, second = tensors(one), tensors(tmp_path / "two")
    for name, tensor in first.items():
        np.testing.assert_allclose(second[name], tensor, atol=2e-4, err_msg=name)


def test_seeds_bf16_and_recomputed_activations(world, base, tmp_path):
    outs = {}
    for name, more in (("a", {}), ("b", {}), ("seed", {"seed": 1}), ("recompute", {"checkpoint_activations": True}),
                       ("bf16", {"precision": "bf16"}), ("zero-shot", {"shots": 0}), ("min", {"similarity": "min"})):
        sfe(sfe_config(world, base, tmp_path / name, epochs=1, **more), QUIET)
        outs[name] = tensors(tmp_path / name)

    def distance(x, y):
        return max(float((outs[x][n] - outs[y][n]).abs().max()) for n in outs[x])

    assert distance("a", "b") == 0 < 1e-3 < distance("a", "seed")
    assert distance("a", "recompute") < 1e-4 and 0 < distance("a", "bf16") < 0.02
    assert distance("a", "zero-shot") > 0 and distance("a", "min") > 0
    edpo(edpo_config(world, tmp_path / "bf16", tmp_path / "aligned", precision="bf16"), QUIET)
    c = ScoreSageConfig(manifest=world.manifest, questions=world.questions, facts=world.facts, device="cpu",
                        root=world.manifest.parent, checkpoint=tmp_path / "aligned", out=tmp_path / "s",
                        choose="likelihood", precision="bf16")
    assert score(c, QUIET).errors == 0


def test_plain_fine_tuning_and_facts_as_text(world, base, tmp_path):
    from transformers import AutoModelForImageTextToText

    for fusion in ("none", "text"):
        out, merged = tmp_path / fusion, tmp_path / f"{fusion}-merged"
        c = sfe_config(world, base, out, fusion=fusion, facts=world.facts if fusion == "text" else None, epochs=1,
                       merged=merged)
        sfe(c, QUIET)
        assert not any(n.startswith("fusion") for n in tensors(out))
        assert type(AutoModelForImageTextToText.from_pretrained(merged)).__name__ == "InternVLForConditionalGeneration"
        stamp = (merged / "config.json").stat().st_mtime_ns
        assert sfe(c, QUIET).up_to_date and (merged / "config.json").stat().st_mtime_ns == stamp
    rows, questions = asked(world, Settings(fusion="text"))
    text = questions.sample(rows[0])
    assert "Tiles may have holes.\nThey may be cracked.\nThe tile is grey." in text.text and text.facts == ()
    assert [i.image_id for i in text.shown] == ["whole", "t000"] and "The first image is the reference" in text.text
    with pytest.raises(InputError, match="--merged: a fusion layer"):
        sfe(sfe_config(world, base, tmp_path / "f", merged=tmp_path / "m"), QUIET)


def answers(out):
    return {r["question_id"]: r for r in read_table(out, ANSWERS).to_pylist()}


@pytest.mark.parametrize("shots", [1, 0])
def test_answers_by_likelihood_and_by_reply(world, trained, tmp_path, shots):
    from stages.sage.checkpoint import load_sage
    from stages.sage.scoring import Answering

    c = ScoreSageConfig(manifest=world.manifest, questions=world.questions, facts=world.facts, device="cpu",
                        root=world.manifest.parent, checkpoint=trained[4], out=tmp_path / "likelihood", shots=shots,
                        choose="likelihood", precision="fp32")
    assert score(c, QUIET).errors == 0
    rows = answers(c.out)
    settings = replace(load_sage(trained[4]).settings, shots=shots)
    model = Answering(load_sage(trained[4], settings=settings), "cpu", 8)
    for q, questions in ((q, asked(world, settings)[1]) for q in read_questions(world.questions).rows[:4]):
        values = model.likelihoods(questions.sample(q), q.choices)
        row = rows[q.question_id]
        assert row["choice"] == int(np.argmax(values)) and row["correct"] == (row["choice"] == 0)
        assert row["method"] == f"sage-sfe/{shots}-shot+likelihood" and row["response"] is row["parsed"] is None
    replies = replace(c, out=tmp_path / "replies", choose="generate", max_tokens=8, batch_size=5)
    assert score(replies, QUIET).rows == 12
    one = replace(replies, out=tmp_path / "one", batch_size=1)
    score(one, QUIET)
    assert {i: r["response"] for i, r in answers(one.out).items()} == {
        i: r["response"] for i, r in answers(replies.out).items()}, "batches change nothing"
    assert all(r["parsed"] for r in answers(replies.out).values())
    assert score(c, QUIET).up_to_date
    with pytest.raises(InputError, match="made with other settings .shots"):
        score(replace(c, shots=1 - shots, name=f"sage-sfe/{shots}-shot+likelihood"), QUIET)


def changed(world, folder, table, change):
    """A copy of the world with one table's rows changed in place by `change`."""
    shutil.copytree(world.manifest.parent, folder)
    copy = replace(world, **{n: folder / f"{n}.parquet" for n in ("manifest", "questions", "facts", "judgements")})
    name = {MANIFEST: "manifest", QUESTIONS: "questions", CAPTIONS: "facts", JUDGEMENTS: "judgements"}[table]
    rows = pq.read_table(folder / f"{name}.parquet").to_pylist()
    write(folder / f"{name}.parquet", change(rows), table)
    return copy


def without(rows, **values):
    return [r for r in rows if not all(r[k] == v for k, v in values.items())]


def test_what_sfe_refuses(world, base, tmp_path):
    def first(**values):
        return lambda rows: [rows[0] | values, *rows[1:]]

    for n, (table, change, said) in enumerate((
            (QUESTIONS, first(choices=["yes"], answer="yes"), "q000: a preference set needs two answers or more"),
            (QUESTIONS, first(reference_id=None), "q000: no `reference_id`, and tile has no normal training image"),
            (QUESTIONS, first(ranked=False, answer=None), "q000: no `answer` to learn from"),
            (QUESTIONS, first(image_id="elsewhere"), "q000: its test image elsewhere is not in the manifest"),
            (MANIFEST, first(error="not an image"), "whole: not an image"),
            (CAPTIONS, lambda rows: without(rows, image_id="t003"), "q003: --facts has none for t003"),
    )):
        with pytest.raises(InputError, match=said):
            sfe(sfe_config(changed(world, tmp_path / str(n), table, change), base, tmp_path / "o"), QUIET)
    for more, said in (({"facts": None}, "q000: --facts has none for t000"),
                       ({"fusion": "both"}, "--fusion both"), ({"shots": 2}, "--shots 2"),
                       ({"similarity": "mean"}, "--similarity mean"), ({"schedule": "step"}, "--schedule step"),
                       ({"patches": 0}, "--patches 0: at least 1"),
                       ({"micro_batch": 3}, "4 per process are no multiple of --micro-batch 3"),
                       ({"max_length": 5000}, "--max-length 5000: the model's context has 1024"),
                       ({"max_length": 60}, "^12 of 12 samples are longer than 60 tokens"),
                       ({"deepspeed": Path("nowhere.json")}, "--deepspeed nowhere.json: no such file"),
                       ({"precision": "fp8"}, "--precision fp8"), ({"heads": 7}, "--heads 7: does not divide")):
        with pytest.raises(InputError, match=said):
            sfe(sfe_config(world, base, tmp_path / f"o-{next(iter(more))}", **more), QUIET)
    failed = changed(world, tmp_path / "failed", QUESTIONS, first(error="the writer failed"))
    assert sfe(sfe_config(failed, base, tmp_path / "f", epochs=1), QUIET).errors == 0
    assert read_table(tmp_path / "f", ENCODERS).to_pylist()[0]["n"] == 11


def test_what_edpo_refuses(world, base, trained, aligned, tmp_path):
    def unranked(rows):
        return [rows[0] | {"ranked": False}, *rows[1:]]

    def half_judged(rows):
        return [r | {"logic": None} if r["question_id"] == "q001" and r["method"] == "choice/1" else r for r in rows]

    for n, (table, change, said) in enumerate((
            (JUDGEMENTS, lambda rows: without(rows, question_id="q002"),
             "no scores for 4 answers, the first is question q002, choice/0"),
            (JUDGEMENTS, half_judged, "no scores for 1 answers, the first is question q001, choice/1"),
            (QUESTIONS, unranked, "q000: its answers are not ranked"))):
        with pytest.raises(InputError, match=said):
            edpo(edpo_config(changed(world, tmp_path / str(n), table, change), trained[4], tmp_path / "o"), QUIET)
    for more, said in (({"checkpoint": aligned[4]}, "was trained with sage-edpo; E-DPO starts from"),
                       ({"checkpoint": base}, "no sage.json here"), ({"beta": 0}, "--beta must be above 0"),
                       ({"objective": "ipo"}, "--objective ipo"), ({"max_length": 60}, "12 of 12 samples are longer")):
        with pytest.raises(InputError, match=said):
            edpo(edpo_config(world, trained[4], tmp_path / "o") if not more else
                 replace(edpo_config(world, trained[4], tmp_path / "p"), **more), QUIET)


def test_answers_that_fail_are_rows(world, trained, tmp_path):
    def change(rows):
        return [rows[0] | {"reference_id": None}, rows[1] | {"question": "why " * 1200}, rows[2] | {
            "choices": [], "answer": None, "ranked": False}, rows[3] | {"error": "the writer failed"}, *rows[4:]]

    bad = changed(world, tmp_path / "bad", QUESTIONS, change)
    (tmp_path / "bad" / "t004.png").write_text("no image")
    facts = pq.read_table(bad.facts).to_pylist()
    write(bad.facts, without(facts, image_id="t005"), CAPTIONS)
    c = ScoreSageConfig(manifest=bad.manifest, questions=bad.questions, facts=bad.facts, root=tmp_path / "bad",
                        checkpoint=trained[4], out=tmp_path / "s", choose="likelihood", device="cpu", precision="fp32")
    assert score(c, QUIET).errors == 6
    found = answers(c.out)
    for name, said in (("q000", "no `reference_id`"), ("q001", "exceed the model's context by"), ("q002", "no choices"),
                       ("q003", "the writer failed"), ("q004", "t004.png"), ("q005", "--facts has none for t005")):
        assert said in found[name]["error"] and found[name]["choice"] is None
    assert found["q006"]["error"] is None
    with pytest.raises(InputError, match="--choose letters"):
        score(replace(c, choose="letters"), QUIET)
