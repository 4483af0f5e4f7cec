"""SAGE's training: what is learned, E-DPO against TRL's DPO, the reference, resuming bit for bit, two processes."""

import math
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stages.artifacts.reader import read_table
from stages.artifacts.tables import ENCODERS
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.sage.edpo import run as edpo
from stages.sage.entropy import pairs_of
from stages.sage.sfe import run as sfe
from tests.processes import Started, by_torchrun, together
from tests.sage_world import (
    QUIET,
    SCORES,
    asked,
    edpo_config,
    log_probabilities,
    losses,
    sfe_config,
    tensors,
    trainer_for,
)
from tests.saved import until_saved

pytestmark = pytest.mark.slow

GAPS = [p.gap for p in pairs_of([sum(s) / 3 for s in SCORES])]


@pytest.mark.parametrize("rank", [4, 0])
def test_sfe_lowers_the_loss_and_trains_what_it_should(sfe_models, internvl, rank):
    from safetensors.torch import load_file

    (row,) = read_table(sfe_models[rank], ENCODERS).to_pylist()
    assert (row["dataset"], row["category"], row["n"], row["steps"], row["error"]) == ("tiles", "all", 12, 9, None)
    assert row["last_loss"] < row["first_loss"] - 0.1
    curve = losses(sfe_models[rank])
    assert [r["step"] for r in curve] == [str(n) for n in range(1, 10)]
    assert [float(r["learning_rate"]) for r in curve[:4]] == pytest.approx([0, 5e-4, 1e-3, 1e-3 * 6 / 7])
    assert not (sfe_models[rank] / "_training").exists() and (sfe_models[rank] / "_checkpoint" / "losses.png").exists()
    own, old = tensors(sfe_models[rank]), load_file(internvl / "model.safetensors")
    moved = {
        n
        for n, t in own.items()
        if n.startswith("fusion/")
        and n.endswith("weight")
        and t.std() > 0
        and not (t == t.diag().diag() if t.ndim == 2 else t == t[0]).all()
    }
    assert {"fusion/value.weight", "fusion/project.weight", "fusion/norm.weight"} <= moved, "they start as identity"
    if rank:
        kinds = {
            "lora_A" if "lora_A" in n else "lora_B" if "lora_B" in n else n.split(".")[-2]
            for n in own
            if n.startswith("adapter_model/")
        }
        assert kinds == {"lora_A", "lora_B", "layer_norm", "linear_1", "linear_2"}
        return
    for name, tensor in old.items():
        same = (own[f"model/{name}"] == tensor).all()
        assert same == ("vision_tower" in name), name
    from transformers import AutoModelForImageTextToText

    AutoModelForImageTextToText.from_pretrained(sfe_models[rank] / "_checkpoint")


def test_the_loss_is_that_of_the_answers_tokens(tiles, sfe_models):
    """Eq. 8, mean over the tokens of a batch, whatever the micro-batches."""
    import torch

    from stages.sage.checkpoint import load_sage
    from stages.sage.data import PromptEncoder
    from stages.sage.sfe import sfe_trainer
    from stages.sage.train import training_arguments

    loaded = load_sage(sfe_models[4], trainable=True)
    rows, questions = asked(tiles, loaded.settings)
    samples, answers = [questions.sample(q) for q in rows[:2]], [rows[0].answer, "Yes"]
    encoder = PromptEncoder(loaded.processor, loaded.settings)
    trainer = sfe_trainer(
        loaded.model,
        encoder,
        samples,
        answers,
        training_arguments(sfe_config(tiles, "", Path("x")), 2, "cpu", "fp32"),
    )
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


@pytest.mark.parametrize("rank", [4, 0])
def test_edpo_trains_the_adapter_and_the_language_model_only(sfe_models, edpo_models, rank):
    before, after = tensors(sfe_models[rank]), tensors(edpo_models[rank])
    assert before.keys() == after.keys(), "the reference is not saved"
    for name, tensor in before.items():
        same = bool((after[name] == tensor).all())
        assert same == (name.startswith("fusion/") or "vision_tower" in name), name
    (row,) = read_table(edpo_models[rank], ENCODERS).to_pylist()
    assert (row["n"], row["steps"]) == (24, 6), "two pairs of each of 12 questions"
    small, large = (math.log1p(math.exp(g)) for g in GAPS)
    starts = [((4 - k) * small + k * large) / 4 for k in range(5)]  # by how many of a step's pairs are (first, last)
    curve = losses(edpo_models[rank])
    for r in curve[:2]:
        assert min(abs(float(r["loss"]) - s) for s in starts) < 0.02, "as at the reference"
    rewards = np.mean([float(r["rewards/margins"]) for r in curve])
    assert rewards > 0.02 - np.mean(GAPS), (
        "over the whole epoch, which has as many of both pairs; without training -2.67"
    )


@pytest.mark.parametrize("rank", [4, 0])
def test_the_reference_stays_the_sfe_model(tiles, sfe_models, tmp_path, rank):
    """Not the base model, and with the image adapter of the SFE model, also after the policy's has moved."""
    from stages.sage.checkpoint import load_sage

    trainer = trainer_for(tiles, sfe_models[rank], tmp_path)
    batch = trainer.data_collator(list(trainer.train_dataset))
    trainer.train()
    sfe_model = load_sage(sfe_models[rank]).model
    found = [t.tolist() for t in trainer.compute_ref_log_probs(trainer.ref_model or trainer.model, batch)]
    expected, moved = log_probabilities(sfe_model, batch), log_probabilities(trainer.model, batch)
    assert np.allclose(found, expected, atol=1e-4)
    assert np.abs(np.subtract(moved, expected)).max() > 1e-2
    if rank:
        with sfe_model.disable_adapter():
            assert np.abs(np.subtract(log_probabilities(sfe_model, batch), expected)).max() > 1e-2, "the base differs"


def killed_after_a_state(out, command):
    process = Started("finetune-mllm", *command, models=True, stderr=subprocess.PIPE, text=True)
    until_saved(out, process)
    process.send_signal(signal.SIGKILL)
    _, said = process.communicate()
    assert not (out / "_checkpoint").exists(), said


@pytest.mark.parametrize("method", ["sage-sfe", "sage-edpo"])
def test_killed_and_run_again_gives_the_same_weights_bit_for_bit(tiles, internvl, sfe_models, tmp_path, capfd, method):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    if method == "sage-sfe":
        config, run = sfe_config(tiles, internvl, whole, epochs=6.0, save_steps=3), sfe
        own = ["--facts", tiles.facts, "--base", internvl, "--heads", 4, "--patches", 4, "--lora-rank", 4]
    else:
        config, run = edpo_config(tiles, sfe_models[4], whole, epochs=3.0, save_steps=3), edpo
        own = ["--facts", tiles.facts, "--checkpoint", sfe_models[4], "--judgements", tiles.judgements]
    command = [
        tiles.manifest,
        "--method",
        method,
        "--questions",
        tiles.questions,
        "--root",
        tiles.manifest.parent,
        *own,
        "--out",
        killed,
        "--batch-size",
        4,
        "--micro-batch",
        2,
        "--learning-rate",
        1e-3,
        "--warmup",
        2,
        "--schedule",
        "linear",
        "--epochs",
        config.epochs,
        "--save-steps",
        3,
        "--device",
        "cpu",
        "--precision",
        "fp32",
    ]
    run(config, QUIET)
    killed_after_a_state(killed, command)
    newest = max((killed / "_training").glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]))
    half = newest.with_name("checkpoint-9999")
    half.mkdir()  # as if killed while it was being written
    (half / "trained.safetensors").write_bytes((newest / "trained.safetensors").read_bytes()[:100])
    run(replace(config, out=killed), RunOptions())
    assert "going on from step" in capfd.readouterr().err
    first, second = tensors(whole), tensors(killed)
    assert first.keys() == second.keys() and all((second[n] == t).all() for n, t in first.items())
    assert run(replace(config, out=killed), QUIET).up_to_date


def by_two(tiles, out, method, port, *own, program=None):
    """What two processes say that train together on CPUs: those of two nodes, an agent of torchrun each; or running
    `program` on one."""
    command = [
        tiles.manifest,
        "--method",
        method,
        "--questions",
        tiles.questions,
        "--facts",
        tiles.facts,
        "--root",
        tiles.manifest.parent,
        *own,
        "--out",
        out,
        "--batch-size",
        4,
        "--micro-batch",
        2,
        "--learning-rate",
        1e-3,
        "--warmup",
        2,
        "--schedule",
        "linear",
        "--device",
        "cpu",
        "--precision",
        "fp32",
    ]
    if program:
        return together(2, port, "finetune-mllm", *command, program=program)
    return by_torchrun(2, port, "finetune-mllm", *command)


def same_training(one, two, atol):
    """Curve and tensors."""
    for a, b in zip(losses(one), losses(two), strict=True):
        assert a["step"] == b["step"] and float(a["loss"]) == pytest.approx(float(b["loss"]), abs=2e-5)
    first, second = tensors(one), tensors(two)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        np.testing.assert_allclose(second[name], tensor, atol=atol, err_msg=name)


@pytest.mark.parametrize("method", ["sage-sfe", "sage-edpo"])
def test_two_processes_train_as_one_does(tiles, internvl, sfe_models, edpo_models, tmp_path, method):
    own = ["--checkpoint", sfe_models[4], "--judgements", tiles.judgements, "--epochs", 1]
    if method == "sage-sfe":
        own = ["--base", internvl, "--heads", 4, "--patches", 4, "--lora-rank", 4, "--epochs", 3]
    port = 29611 if method == "sage-sfe" else 29612
    code, said = by_two(tiles, tmp_path / "two", method, port, *own)
    assert code == 0 and said.count("1 of 1 rows") == 1, said
    same_training((sfe_models if method == "sage-sfe" else edpo_models)[4], tmp_path / "two", 2e-4)


@pytest.mark.parametrize(("method", "rank"), [("sage-sfe", 4), ("sage-edpo", 0)])
def test_two_processes_with_shards_train_as_one_does(tiles, internvl, sfe_models, edpo_models, tmp_path, method, rank):
    """LoRA and fusion layer sharded; all weights sharded, and the frozen reference model too. Saved whole."""
    from stages.sage.checkpoint import load_sage
    from stages.sage.score import Answering

    out, sfe_run = tmp_path / "two", method == "sage-sfe"
    own = ["--checkpoint", sfe_models[rank], "--judgements", tiles.judgements, "--epochs", 1]
    if sfe_run:
        own = ["--base", internvl, "--heads", 4, "--patches", 4, "--lora-rank", rank, "--epochs", 3]
    own += ["--fsdp", "full_shard"]
    code, said = by_two(tiles, out, method, 29613 if sfe_run else 29614, *own, program=("tests/sage/fsdp_on_cpu.py",))
    assert (out / "_checkpoint" / "losses.csv").exists(), f"{code} {said}"  # gloo may abort once all is done
    one = (sfe_models if sfe_run else edpo_models)[rank]
    same_training(one, out, 1e-5)
    rows, questions = asked(tiles, load_sage(one).settings)
    first, second = (
        Answering(load_sage(place), "cpu", 8).likelihoods(questions.sample(rows[1]), rows[1].choices)[0]
        for place in (one, out)
    )
    assert first == pytest.approx(second, abs=1e-5)


def test_nothing_is_sharded_on_cpus(tiles, sfe_models, tmp_path):
    config = edpo_config(tiles, sfe_models[4], tmp_path, fsdp="full_shard")
    from stages.sage.train import fit

    with pytest.raises(InputError, match="--fsdp: nothing is sharded on --device cpu; leave it out there"):
        fit(trainer_for(tiles, sfe_models[4], tmp_path), None, print, config)


def test_shards_in_bf16_hand_on_losses_in_float32(tiles, tmp_path, monkeypatch):
    import torch
    from transformers import TrainingArguments

    from stages.sage.train import sharded_in_float32, training_arguments

    config = sfe_config(tiles, "", tmp_path, fsdp="shard_grad_op")
    monkeypatch.setattr("stages.training.distributed.world", lambda: 2)
    with pytest.raises(InputError, match="--fsdp shard: expected words of full_shard, shard_grad_op"):
        replace(config, fsdp="full_shard shard").check()
    found = sharded_in_float32(TrainingArguments(**training_arguments(config, 4, "cpu", "bf16"))).fsdp_plugin_args
    policy = found["mixed_precision_policy"]
    assert (policy.param_dtype, policy.reduce_dtype, policy.output_dtype) == (torch.bfloat16, torch.float32, None)
    assert found["reshard_after_forward"] is False and not found.get("cpu_offload")
