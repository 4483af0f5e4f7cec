"""VMAD's training: what it records, resuming bit for bit, two processes, what is refused."""

import json
import shutil
import signal
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.artifacts.reader import read_provenance, read_table
from stages.artifacts.tables import ENCODERS, MANIFEST
from stages.base.errors import InputError
from stages.vmad.score import run as score
from stages.vmad.train import run as train
from tests.processes import by_torchrun
from tests.saved import until_saved
from tests.vmad_stages_world import QUIET, command, config, launched, losses, scoring, weights


@pytest.mark.slow
def test_training_says_what_it_did(trained, spots):
    (row,) = read_table(trained, ENCODERS).to_pylist()
    assert (row["dataset"], row["steps"], row["error"]) == ("spots", 14, None)
    assert row["n"] == 12 + 12 + 2, "segmentation, answering (one by a question), two questions"
    lines = losses(trained)
    assert list(lines[0]) == ["step", "loss", "text", "bce", "dice", "pbsd", "learning_rate"] and len(lines) == 14
    rates = [line["learning_rate"] for line in lines]
    assert rates[0] == pytest.approx(3e-3) and rates[7] == pytest.approx(1.5e-3, rel=1e-3)
    assert rates == sorted(rates)[::-1]
    record = json.loads((trained / "_checkpoint/vmad.json").read_text())
    assert record["settings"]["projector"] == "ltc" and record["weights"]["bce"] == 2
    assert not (trained / "_training").exists() and (trained / "_checkpoint/losses.png").stat().st_size > 1000


@pytest.mark.slow
def test_killed_and_run_again_gives_the_same_weights_bit_for_bit(trained, spots, models, tmp_path):
    killed = tmp_path / "killed"
    process = launched(command(spots, models, killed, save_steps=3))
    until_saved(killed, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (killed / "_checkpoint").exists(), "killed before the end"
    _, said = (again := launched(command(spots, models, killed, save_steps=3))).communicate()
    assert again.returncode == 0 and "going on from step" in said, said
    assert weights(trained) == weights(killed)


@pytest.mark.slow
def test_two_processes_train_as_one_does(spots, models, tmp_path):
    """On two nodes, an agent of torchrun each; without DSSL and dropout: each process draws for itself."""
    more = {"dropout": 0, "epochs": 1}
    train(config(spots, models, tmp_path / "one", no_dssl=True, **more), QUIET)
    code, said = by_torchrun(2, 29631, *command(spots, models, tmp_path / "two", **more), "--no-dssl")
    assert code == 0 and said.count("1 of 1 rows") == 1, said
    from safetensors.torch import load_file

    a, b = (load_file(tmp_path / name / "_checkpoint/vmad.safetensors") for name in ("one", "two"))
    assert max(float((a[n] - b[n]).abs().max()) for n in a) < 2e-4
    for x, y in list(zip(losses(tmp_path / "one"), losses(tmp_path / "two"), strict=True))[:-1]:  # 26 = 6 x 4 + 2
        assert x == pytest.approx(y, abs=2e-5)


@pytest.mark.slow
def test_seeds_variants_and_bf16(trained, spots, models, tmp_path):
    outs = {}
    for name, more in (
        ("same", {"epochs": 2}),
        ("seed", {"seed": 1}),
        ("bf16", {"precision": "bf16"}),
        ("recompute", {"checkpoint_activations": True}),
        ("mlp", {"projector": "mlp"}),
    ):
        train(config(spots, models, tmp_path / name, **{"epochs": 1} | more), QUIET)
        outs[name] = losses(tmp_path / name)
    assert weights(tmp_path / "same") == weights(trained) and outs["seed"][0] != outs["same"][0]
    assert outs["bf16"][0]["text"] == pytest.approx(outs["recompute"][0]["text"], rel=0.02)
    assert outs["recompute"][-1]["loss"] == pytest.approx(outs["same"][6]["loss"], rel=0.2)


@pytest.mark.slow
def test_a_changed_mask_is_noticed_and_missing_files_are_said(trained, spots, models, tmp_path):
    from PIL import Image

    shutil.copytree(spots.parent, tmp_path / "spots")
    m, made = tmp_path / "spots" / "m.parquet", tmp_path / "made"
    few = {"tasks": "segmentation", "no_dssl": True, "questions": None, "epochs": 0.2, "root": m.parent}
    train(config(m, models, made, **few), QUIET)
    assert train(config(m, models, made, **few), QUIET).up_to_date
    Image.fromarray(np.eye(48, 64, dtype=np.uint8) * 255).save(m.parent / "1_mask.png")
    with pytest.raises(InputError, match="mask files"):
        train(config(m, models, made, **few), QUIET)
    (m.parent / "0.png").unlink()
    train(config(m, models, tmp_path / "eleven", **few), QUIET)
    assert read_table(tmp_path / "eleven", ENCODERS).to_pylist()[0]["n"] == 11
    (m.parent / "1_mask.png").unlink()
    train(config(m, models, tmp_path / "ten", **few), QUIET)
    assert read_table(tmp_path / "ten", ENCODERS).to_pylist()[0]["n"] == 10, "an image without its mask is left out"
    left_out = read_provenance(tmp_path / "ten")[0]["notes"]["left out"]
    assert any("i01: " in line and "1_mask.png" in line for line in left_out)


@pytest.mark.slow
def test_what_is_refused(spots, models, trained, tmp_path):
    rows = pq.read_table(spots).to_pylist()

    def manifest(**change):
        rows_now = [rows[0], rows[1] | change]
        pq.write_table(pa.Table.from_pylist(rows_now, schema=MANIFEST.schema), tmp_path / "m.parquet")
        return tmp_path / "m.parquet"

    for change, said in (({"label": None}, "i01 has no label"),):
        with pytest.raises(InputError, match=said):
            train(config(manifest(**change), models, tmp_path / "o", root=spots.parent, questions=None), QUIET)
    for more, said in (
        ({"splits": "test"}, "the split 'test' has no usable image"),
        ({"tasks": "vqa,x"}, "--tasks x"),
        ({"max_length": 50}, "of 26 samples are longer than --max-length 50"),
        ({"max_length": 5000}, "the model's context has 512 tokens"),
        ({"memory": 0}, "--memory 0"),
        ({"batch_size": 3}, "no multiple of --micro-batch 2"),
        ({"projector": "x"}, "--projector x"),
        ({"sam": models["llava"]}, "expected SAM"),
        ({"llava": models["sam"]}, "a sam model"),
        ({"precision": "fp8"}, "--precision fp8"),
    ):
        with pytest.raises(InputError, match=said):
            train(config(spots, models, tmp_path / "p", **more), QUIET)
        assert not (tmp_path / "p").exists(), "refused before anything is written"
    with pytest.raises(InputError, match="made with other settings .levels was 4, now 3"):
        train(config(spots, models, trained, levels=3), QUIET)
    c = scoring(spots, trained, tmp_path)
    for wrong, said in (
        (replace(c, checkpoint=tmp_path), "no vmad.safetensors here"),
        (replace(c, query="cause"), "--query cause: expected description"),
        (replace(c, max_tokens=500), "--max-tokens 500: with a prompt of .* context of 512"),
        (replace(c, llava=str(tmp_path / "gone")), "--llava .*gone: no such directory"),
        (replace(c, sam=models["llava"]), "expected SAM"),
    ):
        with pytest.raises(InputError, match=said):
            score(replace(wrong, out=tmp_path / "q"), QUIET)
        assert not (tmp_path / "q").exists(), "refused before anything is written"
