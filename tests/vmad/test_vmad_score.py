"""VMAD's scoring and its conversation: scores, maps, answers, whatever the batch, the precision and the process."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.artifacts.maps import read_maps
from stages.artifacts.reader import read_provenance, read_table
from stages.artifacts.tables import MANIFEST, MAPS, SCORES
from stages.base.errors import InputError
from stages.evaluate.images import EvaluateConfig
from stages.evaluate.images import run as evaluate
from stages.vmad.ask import Conversation
from stages.vmad.config import AskConfig
from stages.vmad.score import run as score
from tests.processes import adcli
from tests.vmad_stages_world import QUIET, launched, losses, scoring

pytestmark = pytest.mark.slow


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
    assert record["notes"]["vmad"] == {"projector": "ltc", "dssl": False, "boxes": 0, "tokens": 4}, (
        "4 x 4 patches, rho 2"
    )
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


def test_a_new_process_and_merged_weights_answer_as_the_model_in_memory(trained, spots, models, tmp_path):
    """Every trained weight moved at random first, so that the answers differ from image to image."""
    import torch

    from stages.datasets.images import load_rgb
    from stages.datasets.manifest import read_manifest
    from stages.vmad.build import new_model
    from stages.vmad.checkpoint import save_vmad
    from stages.vmad.config import LossWeights, VmadSettings
    from stages.vmad.model import trainable
    from stages.vmad.score import model_input, predict, prompt_about
    from stages.vmad.train import write_merged

    torch.manual_seed(0)
    model, text = new_model(models["llava"], models["sam"], VmadSettings(heads=4, depth=1), LossWeights())
    with torch.no_grad():
        for p in trainable(model.eval()).values():
            p += 0.1 * torch.randn_like(p)
    save_vmad(model, text, tmp_path / "saved", models["llava"], models["sam"])
    write_merged(tmp_path / "saved", tmp_path / "merged")
    images = read_manifest(spots, spots.parent).images
    in_memory = predict(
        model,
        text,
        [model_input(model, load_rgb(i.file)) for i in images],
        [text.prompt(prompt_about(i, "impact")) for i in images],
        12,
        "fp32",
    )
    assert len({a.response for a in in_memory}) > 3 and max(float(a.map.std()) for a in in_memory) > 1e-3
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
        process = launched(["score", str(spots), "--method", "vmad", *words])
        assert (process.communicate(), process.returncode)[1] == 0
        texts = {r["image_id"]: r["response"] for r in read_table(tmp_path / name / "s", SCORES).to_pylist()}
        maps = dict(read_maps(tmp_path / name / "maps", {(i.image_id, "vmad") for i in images}))
        for image, one in zip(images, in_memory, strict=True):
            assert texts[image.image_id] == one.response
            assert abs(maps[image.image_id, "vmad"] - one.map.numpy()).max() < 1e-4


def test_ask_keeps_the_conversation(learned, spots, tmp_path):
    image = tmp_path / "1.png"
    shutil.copy(spots.parent / "1.png", image)
    talk = Conversation(AskConfig(checkpoint=learned, image=image, object="grey", device="cpu", max_tokens=6))
    first = talk.ask("")
    assert first.text.endswith("<seg>") and first.mask.shape == (48, 64)
    before = list(talk.history)
    second = talk.ask("And why?")
    assert talk.history[: len(before)] == before and len(talk.history) > len(before)
    assert (second.mask is None) == ("<seg>" not in second.text)
    with pytest.raises(InputError, match="--max-tokens 0: at least 1"):
        Conversation(AskConfig(checkpoint=learned, image=image, max_tokens=0))
    with pytest.raises(InputError, match="holds <image> or <seg>"):
        talk.ask("What is <image>?")
    options = ["--object", "grey", "--max-tokens", 6, "--device", "cpu", "--json"]
    done = adcli("ask", "--checkpoint", learned, "--image", image, *options, models=True, text_in="And why?\n\n")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and [line["answer"] for line in lines] == [first.text, second.text], done.stderr
    from PIL import Image

    written = np.asarray(Image.open(tmp_path / "1.vmad.png"))
    assert (written == (first.mask * 255).round()).all() or second.mask is not None
    assert image.read_bytes() == (spots.parent / "1.png").read_bytes()
