"""VMAD as stages: training that resumes bit for bit and in two processes, scores, maps, answers, what is refused."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.artifacts.maps import read_maps
from stages.artifacts.reader import read_provenance, read_table
from stages.artifacts.tables import ENCODERS, MANIFEST, MAPS, QUESTIONS, SCORES
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.evaluate.images import EvaluateConfig
from stages.evaluate.images import run as evaluate
from stages.vmad.ask import AskConfig, Conversation
from stages.vmad.score import ScoreVmadConfig
from stages.vmad.score import run as score
from stages.vmad.train import FinetuneVmadConfig
from stages.vmad.train import run as train
from tests.saved import until_saved
from tests.tiny import tiny_deep_llava, tiny_sam

QUIET = RunOptions(quiet=True)
ROOT = Path(__file__).parents[2]
FAST = {
    "heads": 4,
    "depth": 1,
    "boxes": 2,
    "box_size": 16,
    "drawn": 1,
    "batch_size": 4,
    "micro_batch": 2,
    "epochs": 2,
    "learning_rate": 3e-3,
    "device": "cpu",
    "precision": "fp32",
}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """LLaVA and SAM."""
    return {
        "llava": str(tiny_deep_llava(tmp_path_factory.mktemp("llava"))),
        "sam": str(tiny_sam(tmp_path_factory.mktemp("sam"))),
    }


@pytest.fixture(scope="module")
def spots(tmp_path_factory):
    """12 grey noise images of 48 x 64 of two categories, half of them with a bright square and its mask."""
    from PIL import Image

    folder, rng, rows = tmp_path_factory.mktemp("spots"), np.random.default_rng(0), []
    for n in range(12):
        pixels = cv2.GaussianBlur(rng.normal(110, 25, (48, 64)).astype(np.float32), (0, 0), 1)
        mask = np.zeros((48, 64), np.uint8)
        if n % 2:
            top, left = rng.integers(0, 28), rng.integers(0, 44)
            mask[top : top + 20, left : left + 20] = 255
            pixels[mask > 0] += 100
            Image.fromarray(mask).save(folder / f"{n}_mask.png")
        Image.fromarray(np.repeat(pixels.clip(0, 255).astype(np.uint8)[:, :, None], 3, 2)).save(folder / f"{n}.png")
        rows.append(
            {
                "image_id": f"i{n:02d}",
                "path": f"{n}.png",
                "dataset": "spots",
                "category": f"grey_{n // 6}",
                "split": "train",
                "label": n % 2,
                "defect": "bright_spot" if n % 2 else None,
                "width": 64,
                "height": 48,
                "mask_paths": [f"{n}_mask.png"] if n % 2 else [],
            }
        )
    pq.write_table(pa.Table.from_pylist(rows, schema=MANIFEST.schema), folder / "m.parquet")
    asked = [
        {
            "question_id": f"q{n}",
            "image_id": f"i{n:02d}",
            "level": level,
            "question": "Why?",
            "choices": [],
            "answer": "It is bright.",
        }
        for n, level in ((1, "impact"), (3, "other"))
    ]
    pq.write_table(pa.Table.from_pylist(asked, schema=QUESTIONS.schema), folder / "q.parquet")
    return folder / "m.parquet"


def config(spots, models, out, **more):
    return FinetuneVmadConfig(
        **{"manifest": spots, "root": spots.parent, "out": out, "questions": spots.parent / "q.parquet"}
        | models
        | FAST
        | more
    )


def scoring(spots, checkpoint, out, **more):
    return ScoreVmadConfig(
        **{
            "manifest": spots,
            "root": spots.parent,
            "checkpoint": checkpoint,
            "out": out / "s",
            "maps": out / "maps",
            "splits": "train",
            "max_tokens": 8,
            "device": "cpu",
            "precision": "fp32",
        }
        | more
    )


def weights(out):
    return [
        (out / "_checkpoint" / name).read_bytes() for name in ("vmad.safetensors", "adapter/adapter_model.safetensors")
    ]


def losses(out):
    with open(out / "_checkpoint/losses.csv") as f:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(f)]


@pytest.fixture(scope="module")
def trained(spots, models, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "v"
    train(config(spots, models, out), QUIET)
    return out


@pytest.fixture(scope="module")
def learned(spots, models, tmp_path_factory):
    """Long enough to answer and to segment: one task, without DSSL, since that takes most of the time."""
    out = tmp_path_factory.mktemp("learned") / "v"
    train(
        config(spots, models, out, epochs=40, tasks="segmentation", no_dssl=True, merged=out.parent / "merged"), QUIET
    )
    return out


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


def test_training_lowers_the_mask_loss_and_learns_to_end_with_seg(learned, spots, tmp_path):
    lines = losses(learned)
    first, last = lines[0], lines[-1]
    assert last["bce"] < 0.7 * first["bce"] and last["text"] < 0.1 * first["text"]
    c = scoring(spots, learned, tmp_path)
    summary = score(c, QUIET)
    rows = {r["image_id"]: r for r in read_table(c.out, SCORES).to_pylist()}
    from transformers import AutoTokenizer

    count = (
        len(
            AutoTokenizer.from_pretrained(json.loads((learned / "_checkpoint/vmad.json").read_text())["llava"])(
                "It is"
            ).input_ids
        )
        + 2
    )  # the blank and <seg>
    assert {r["completion_tokens"] for r in rows.values()} == {count} and summary.errors == 0
    assert summary.tokens == 12 * count
    (record,) = read_provenance(c.out)
    assert record["notes"]["vmad"] == {"projector": "ltc", "dssl": False, "tokens": 4}, "4 x 4 patches, rho 2"
    assert {(r["response"], r["parsed"]) for r in rows.values()} == {("It is <seg>", "strict")}
    maps = dict(read_maps(c.maps, {(i, "vmad") for i in rows}))
    assert len(maps) == 12 and {(m.shape, m.dtype.name) for m in maps.values()} == {((24, 32), "float32")}
    assert all(0 < m.min() <= m.max() <= 1 for m in maps.values())
    for (image_id, _), anomaly_map in maps.items():
        top = np.sort(anomaly_map.astype(float), axis=None)[-8:]  # 1 % of 768, rounded up
        assert rows[image_id]["score"] == pytest.approx(top.mean(), abs=1e-6) and rows[image_id]["seconds"] > 0
    assert score(c, QUIET).up_to_date
    tests = read_table(spots, MANIFEST).to_pandas().assign(split="test")
    pq.write_table(pa.Table.from_pandas(tests, MANIFEST.schema, preserve_index=False), tmp_path / "test.parquet")
    e = EvaluateConfig(
        scores=c.out,
        manifest=tmp_path / "test.parquet",
        root=spots.parent,
        maps=c.maps,
        out=tmp_path / "e",
        resamples=0,
    )
    evaluate(e, QUIET)
    from stages.artifacts.tables import METRICS

    found = [r["value"] for r in read_table(e.out, METRICS).to_pylist() if r["metric"] == "pixel_auroc"]
    assert min(found) > 0.8, "seen in training, and bright"


def test_batches_and_merged_weights_change_nothing(learned, spots, tmp_path):
    def scores_of(name, **more):
        c = scoring(spots, more.pop("checkpoint", learned), tmp_path / name, **more)
        score(c, QUIET)
        return {r["image_id"]: (r["score"], r["response"]) for r in read_table(c.out, SCORES).to_pylist()}

    first = scores_of("a", batch_size=5)
    for other in (scores_of("b", batch_size=1), scores_of("c", checkpoint=learned.parent / "merged")):
        assert all(
            other[i][1] == text and other[i][0] == pytest.approx(value, abs=1e-5) for i, (value, text) in first.items()
        )
    halved = scores_of("bf16", precision="bf16")
    assert all(
        halved[i][1] == text and halved[i][0] == pytest.approx(value, abs=0.05) for i, (value, text) in first.items()
    )
    assert scores_of("d", query="description", max_tokens=3)["i00"][1].endswith("<seg>"), "appended where it is missing"


def test_bad_images_are_rows_in_both_tables(trained, spots, tmp_path):
    shutil.copytree(spots.parent, tmp_path / "spots")
    (tmp_path / "spots" / "3.png").write_text("no image")
    c = scoring(tmp_path / "spots" / "m.parquet", trained, tmp_path, root=tmp_path / "spots")
    assert score(c, QUIET).errors == 1
    for table, at in ((SCORES, c.out), (MAPS, c.maps)):
        (bad,) = (r for r in read_table(at, table).to_pylist() if r["error"])
        assert bad["image_id"] == "i03" and "3.png" in bad["error"]


def command(spots, models, out, **more):
    options = {n.replace("_", "-"): v for n, v in (FAST | models | more).items()}
    flat = [w for name, value in options.items() for w in (f"--{name}", value)]
    return list(
        map(
            str,
            [
                "finetune-mllm",
                spots,
                "--method",
                "vmad",
                "--out",
                out,
                "--root",
                spots.parent,
                "--questions",
                spots.parent / "q.parquet",
                *flat,
            ],
        )
    )


def launched(prefix, arguments):
    return subprocess.Popen(
        [sys.executable, *prefix, "-m", "adcli", *arguments],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )


def test_killed_and_run_again_gives_the_same_weights_bit_for_bit(trained, spots, models, tmp_path):
    killed = tmp_path / "killed"
    process = launched([], command(spots, models, killed, save_steps=3))
    until_saved(killed, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (killed / "_checkpoint").exists(), "killed before the end"
    _, said = (again := launched([], command(spots, models, killed, save_steps=3))).communicate()
    assert again.returncode == 0 and "going on from step" in said, said
    assert weights(trained) == weights(killed)


def test_two_processes_train_as_one_does(spots, models, tmp_path):
    """Without DSSL and dropout, which draw from each process's own generator."""
    more = {"dropout": 0, "epochs": 1}
    train(config(spots, models, tmp_path / "one", no_dssl=True, **more), QUIET)
    prefix = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29631"]
    _, said = (two := launched(prefix, [*command(spots, models, tmp_path / "two", **more), "--no-dssl"])).communicate()
    assert two.returncode == 0 and said.count("1 of 1 rows") == 1, said
    from safetensors.torch import load_file

    a, b = (load_file(tmp_path / name / "_checkpoint/vmad.safetensors") for name in ("one", "two"))
    assert max(float((a[n] - b[n]).abs().max()) for n in a) < 2e-4
    for x, y in list(zip(losses(tmp_path / "one"), losses(tmp_path / "two"), strict=True))[:-1]:  # 26 = 6 x 4 + 2
        assert x == pytest.approx(y, abs=2e-5)


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


def test_ask_keeps_the_conversation(learned, spots, tmp_path):
    image = tmp_path / "1.png"
    shutil.copy(spots.parent / "1.png", image)
    talk = Conversation(AskConfig(checkpoint=learned, image=image, object="grey", device="cpu", max_tokens=6))
    first = talk.ask("")
    assert first.text.endswith("<seg>") and first.mask.shape == (48, 64)
    before = list(talk.said)
    second = talk.ask("And why?")
    assert talk.said[: len(before)] == before and len(talk.said) > len(before)
    assert (second.mask is None) == ("<seg>" not in second.text)
    with pytest.raises(InputError, match="--max-tokens 0: at least 1"):
        Conversation(AskConfig(checkpoint=learned, image=image, max_tokens=0))
    with pytest.raises(InputError, match="holds <image> or <seg>"):
        talk.ask("What is <image>?")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "adcli",
            "ask",
            "--checkpoint",
            learned,
            "--image",
            image,
            "--object",
            "grey",
            "--max-tokens",
            "6",
            "--device",
            "cpu",
            "--json",
        ],
        input="And why?\n\n",
        text=True,
        capture_output=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and [line["answer"] for line in lines] == [first.text, second.text], done.stderr
    from PIL import Image

    written = np.asarray(Image.open(tmp_path / "1.vmad.png"))
    assert (written == (first.mask * 255).round()).all() or second.mask is not None
    assert image.read_bytes() == (spots.parent / "1.png").read_bytes()


def test_a_new_process_and_merged_weights_answer_as_the_model_in_memory(trained, spots, models, tmp_path):
    """Every trained weight moved at random first, so that the answers differ from image to image."""
    import torch

    from stages.datasets.images import load_rgb
    from stages.datasets.manifest import read_manifest
    from stages.vmad.build import new_model
    from stages.vmad.checkpoint import save_vmad
    from stages.vmad.config import Settings, Weights
    from stages.vmad.model import trainable
    from stages.vmad.scoring import answered, asked, seen
    from stages.vmad.train import write_merged

    torch.manual_seed(0)
    model, text = new_model(models["llava"], models["sam"], Settings(heads=4, depth=1), Weights())
    with torch.no_grad():
        for p in trainable(model.eval()).values():
            p += 0.1 * torch.randn_like(p)
    save_vmad(model, text, tmp_path / "saved", models["llava"], models["sam"])
    write_merged(tmp_path / "saved", tmp_path / "merged")
    images = read_manifest(spots, spots.parent).images
    there = answered(
        model,
        text,
        [seen(model, load_rgb(i.file)) for i in images],
        [text.prompt(asked(i, "impact")) for i in images],
        12,
        "fp32",
    )
    assert len({a.response for a in there}) > 3 and max(float(a.map.std()) for a in there) > 1e-3
    for name in ("saved", "merged"):
        options = {
            "out": tmp_path / name / "s",
            "maps": tmp_path / name / "maps",
            "query": "impact",
            "splits": "train",
            "max-tokens": 12,
            "batch-size": 5,
            "precision": "fp32",
            "device": "cpu",
            "root": spots.parent,
            "checkpoint": tmp_path / name,
        }
        words = [str(w) for n, value in options.items() for w in (f"--{n}", value)]
        process = launched([], ["score", str(spots), "--method", "vmad", *words])
        assert (process.communicate(), process.returncode)[1] == 0
        texts = {r["image_id"]: r["response"] for r in read_table(tmp_path / name / "s", SCORES).to_pylist()}
        maps = dict(read_maps(tmp_path / name / "maps", {(i.image_id, "vmad") for i in images}))
        for image, one in zip(images, there, strict=True):
            assert texts[image.image_id] == one.response
            assert abs(maps[image.image_id, "vmad"] - one.map.numpy()).max() < 1e-4


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
        ({"split": "test"}, "the split 'test' has no usable image"),
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
