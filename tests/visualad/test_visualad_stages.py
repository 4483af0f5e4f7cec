"""VisualAD as stages: training that resumes bit for bit, checkpoints, maps and scores, what is refused."""

import os
import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.artifacts.maps import read_maps
from stages.artifacts.reader import read_table
from stages.artifacts.tables import ENCODERS, MANIFEST, MAPS, METRICS, SCORES
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.evaluate.images import EvaluateConfig
from stages.evaluate.images import run as evaluate
from stages.training.distributed import per_process_batch
from stages.visualad.config import ScoreVisualadConfig, TrainVisualadConfig
from stages.visualad.score import run as score
from stages.visualad.train import run as train
from tests.processes import Started, by_torchrun
from tests.saved import until_saved
from tests.spots import make_spots
from tests.tiny import tiny_clip_vision

QUIET = RunOptions(quiet=True)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return tiny_clip_vision(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def spots(tmp_path_factory):
    return make_spots(tmp_path_factory.mktemp("spots"), 24)


def config(spots, clip, out, **more):
    return TrainVisualadConfig(
        **{
            "manifest": spots,
            "root": spots.parent,
            "backbone": str(clip),
            "out": out,
            "size": 56,
            "layers": "2,4",
            "batch_size": 4,
            "epochs": 3,
            "device": "cpu",
            "precision": "fp32",
        }
        | more
    )


def weights(out):
    return (out / "_checkpoint" / "visualad.safetensors").read_bytes()


@pytest.fixture(scope="module")
def trained(spots, clip, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "v"
    train(config(spots, clip, out, epochs=12, learning_rate=1e-2), QUIET)
    return out


@pytest.mark.slow
def test_training_lowers_the_loss_and_says_so(trained):
    (row,) = read_table(trained, ENCODERS).to_pylist()
    assert (row["dataset"], row["n"], row["steps"], row["error"]) == ("spots", 24, 72, None)
    assert row["last_loss"] < row["first_loss"]
    lines = (trained / "_checkpoint" / "losses.csv").read_text().splitlines()
    assert lines[0] == "step,loss,cls,seg,ctr,learning_rate" and len(lines) == 73
    _, loss, *parts, _ = map(float, lines[5].split(","))
    assert loss == pytest.approx(sum(parts), abs=2e-4)
    assert not (trained / "_training").exists()
    import PIL.Image

    assert min(PIL.Image.open(trained / "_checkpoint" / "losses.png").size) > 200
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained / "_tensorboard")).Reload().Scalars("train/loss")
    assert [e.step for e in events] == list(range(1, 73)) and events[4].value == pytest.approx(loss, abs=1e-4)


@pytest.mark.slow
def test_scores_and_maps(trained, spots, tmp_path):
    c = ScoreVisualadConfig(
        manifest=spots,
        root=spots.parent,
        checkpoint=trained,
        out=tmp_path / "s",
        maps=tmp_path / "maps",
        batch_size=5,
        device="cpu",
        precision="fp32",
    )
    assert score(c, QUIET).errors == 0
    rows = {r["image_id"]: r for r in read_table(c.out, SCORES).to_pylist()}
    maps = dict(read_maps(c.maps, {(i, "visualad") for i in rows}))
    assert len(maps) == 24 and all(m.shape == (56, 56) for m in maps.values())
    for (image_id, _), anomaly_map in maps.items():
        top = np.sort(anomaly_map.astype(float), axis=None)[-32:]  # 1 % of 3136, rounded up
        assert rows[image_id]["score"] == pytest.approx(top.mean(), abs=2e-3)
    one = replace(c, batch_size=1, out=tmp_path / "s1", maps=None)
    score(one, QUIET)
    again = {r["image_id"]: r["score"] for r in read_table(one.out, SCORES).to_pylist()}
    assert all(again[i] == pytest.approx(r["score"], abs=1e-5) for i, r in rows.items()), "batches change nothing"
    assert score(c, QUIET).up_to_date
    other = tiny_clip_vision(tmp_path / "other", image_size=70)
    with pytest.raises(InputError, match="made with other settings .the weights have changed"):
        score(replace(c, backbone=str(other)), QUIET)
    import PIL.Image

    score(replace(c, out=tmp_path / "s2", maps=None, explain=tmp_path / "look"), QUIET)
    pages = sorted((tmp_path / "look" / "attention").glob("i*.png"))
    assert min(PIL.Image.open(tmp_path / "look" / "patches.png").size) > 300
    assert len(pages) == 24 and PIL.Image.open(pages[0]).size == (160 * 5, 160 * 2), "four anchors, two layers"
    e = EvaluateConfig(
        scores=c.out,
        manifest=spots,
        root=spots.parent,
        maps=c.maps,
        out=tmp_path / "e",
        resamples=0,
        report=tmp_path / "report.html",
    )
    evaluate(e, QUIET)
    assert f"<figcaption>{trained}</figcaption>".replace("</", "/_checkpoint/losses.png</", 1) in e.report.read_text()
    found = {r["metric"]: r["value"] for r in read_table(e.out, METRICS).to_pylist() if r["category"] == "grey"}
    assert found["pixel_auroc"] > 0.8 and found["auroc"] > 0.8, "bright squares are easy, also for a random backbone"


@pytest.mark.slow
def test_patch_clouds_hold_the_right_patches(trained, spots):
    import torch

    from stages.datasets.manifest import read_manifest
    from stages.visualad.checkpoint import load
    from stages.visualad.explain import PatchClouds, patch_features
    from stages.visualad.patch_clouds import apart

    model, look = load(trained)
    images = list(read_manifest(spots, spots.parent).images)[:4]
    pixels = torch.stack([look.pixels(i.file) for i in images])
    clouds = PatchClouds(model, look)
    with torch.no_grad():
        clouds.add(images, pixels)
        features = patch_features(model, pixels).numpy()
    wanted = {False: set(), True: set()}
    for n, image in enumerate(images):
        mask = look.mask(image.masks).numpy()
        for at in range(16):  # 4 x 4 patches of 14 px
            share = mask[at // 4 * 14 : at // 4 * 14 + 14, at % 4 * 14 : at % 4 * 14 + 14].mean()
            if share == 0 or share >= 0.5:
                wanted[bool(share)].add(features[:, n, at].tobytes())
    assert {k: {np.ascontiguousarray(p).tobytes() for p in v} for k, v in clouds.kept.items()} == wanted
    assert wanted[True] and len(wanted[False]) > 32
    assert apart(np.array([[0.0, 0], [2, 0]]), np.array([[3.0, 3], [3, 5]])) == pytest.approx(np.hypot(2, 4) / 1)


@pytest.mark.slow
def test_an_image_that_cannot_be_read_is_a_row_in_both_tables(trained, spots, tmp_path):

    shutil.copytree(spots.parent, tmp_path / "spots")
    (tmp_path / "spots" / "3.png").write_text("no image")
    c = ScoreVisualadConfig(
        manifest=tmp_path / "spots" / "m.parquet",
        root=tmp_path / "spots",
        checkpoint=trained,
        out=tmp_path / "s",
        maps=tmp_path / "maps",
        device="cpu",
    )
    assert score(c, QUIET).errors == 1
    for table, at in ((SCORES, c.out), (MAPS, c.maps)):
        (bad,) = (r for r in read_table(at, table).to_pylist() if r["error"])
        assert bad["image_id"] == "i03" and "3.png" in bad["error"]
    shutil.copy(spots.parent / "3.png", tmp_path / "spots" / "3.png")
    assert score(c, RunOptions(quiet=True, overwrite=True)).errors == 0


@pytest.mark.slow
def test_training_notices_a_replaced_mask_and_keeps_its_key_elsewhere(spots, clip, tmp_path):
    import json

    from PIL import Image

    def bitmaps(folder):
        """The images as they are, masks as bitmaps: whatever they show, they have one size."""
        shutil.copytree(spots.parent, folder)
        for n in range(1, 24, 2):
            with Image.open(folder / f"{n}_mask.png") as mask:
                mask.save(folder / f"{n}_mask.bmp")
        table = pq.read_table(spots).to_pylist()
        rows = [r | {"mask_paths": [m.replace("png", "bmp") for m in r["mask_paths"]]} for r in table]
        pq.write_table(pa.Table.from_pylist(rows, schema=MANIFEST.schema), folder / "m.parquet")
        return config(folder / "m.parquet", clip, tmp_path / "out", epochs=1, precision="auto")

    c = bitmaps(tmp_path / "here")
    train(c, QUIET)
    assert train(bitmaps(tmp_path / "there"), QUIET).up_to_date
    parameters = json.loads((c.out / "_adcli.json").read_text())["parameters"]
    assert parameters["precision"] in ("fp32", "bf16") and "auto" not in parameters.values()
    mask = tmp_path / "here" / "3_mask.bmp"
    size = mask.stat().st_size
    Image.fromarray(np.full((60, 80), 255, np.uint8)).save(mask)
    os.utime(mask, ns=(0, mask.stat().st_mtime_ns + 10**9))
    assert mask.stat().st_size == size
    with pytest.raises(InputError, match="the mask files have changed"):
        train(c, QUIET)


@pytest.mark.slow
def test_killed_and_run_again_gives_the_same_weights_bit_for_bit(spots, clip, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    common = [
        "--root",
        spots.parent,
        "--backbone",
        clip,
        "--size",
        56,
        "--layers",
        "2,4",
        "--batch-size",
        4,
        "--epochs",
        8,
        "--device",
        "cpu",
        "--precision",
        "fp32",
        "--save-steps",
        3,
    ]

    def run(out):
        return Started("train-visualad", spots, "--out", out, *common, models=True, stderr=subprocess.PIPE, text=True)

    _, said = (first := run(whole)).communicate()
    assert first.returncode == 0, said
    process = run(killed)
    until_saved(killed, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (killed / "_checkpoint").exists(), "killed before the end"
    newest = max((killed / "_training").glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]))
    half = newest.with_name("checkpoint-9999")
    half.mkdir()  # as if killed while it was being written
    (half / "trained.safetensors").write_bytes((newest / "trained.safetensors").read_bytes()[:100])
    _, said = (again := run(killed)).communicate()
    assert again.returncode == 0 and "going on from step" in said, said
    assert weights(whole) == weights(killed)
    assert "up to date" in run(killed).communicate()[1]


@pytest.mark.slow
def test_seeds_and_variants(spots, clip, tmp_path):
    outs = []
    for n, more in enumerate(
        ({}, {}, {"seed": 1}, {"variant": "paper"}, {"checkpoint_activations": True}, {"as_released": True})
    ):
        out = tmp_path / str(n)
        train(config(spots, clip, out, epochs=1, **more), QUIET)
        outs.append(weights(out))
    assert outs[0] == outs[1] and len(set(outs)) >= 4
    from safetensors.torch import load

    kept, moved = load(outs[5]), load(outs[0])
    assert (kept["positions"][0] == kept["positions"][1]).all(), "copies of the class token's position"
    assert (moved["positions"][0] != moved["positions"][1]).any()


@pytest.mark.slow
def test_what_is_refused(spots, clip, trained, tmp_path):
    rows = pq.read_table(spots).to_pylist()

    def manifest(**change):
        pq.write_table(
            pa.Table.from_pylist(
                [rows[0] | change.get("first", {}), rows[1] | change.get("second", {})], schema=MANIFEST.schema
            ),
            tmp_path / "m.parquet",
        )
        return tmp_path / "m.parquet"

    for change, said in (
        ({"second": {"mask_paths": []}}, "anomalous ones .i01: anomalous, but has no mask"),
        ({"second": {"mask_paths": ["gone.png"]}}, "normal and anomalous ones .i01: .*gone.png"),
        ({"first": {"label": None}}, "i00 has no label"),
        ({"second": {"label": 0}}, "not normal and anomalous ones"),
    ):
        with pytest.raises(InputError, match=said):
            train(config(manifest(**change), clip, tmp_path / "o", root=spots.parent), QUIET)
    for more, said in (
        ({"layers": "2,x"}, "--layers 2,x"),
        ({"size": 60}, "nearest is 56"),
        ({"backbone": str(tmp_path / "nowhere")}, "--backbone"),
        ({"precision": "fp8"}, "--precision fp8"),
    ):
        with pytest.raises(InputError, match=said):
            train(config(spots, clip, tmp_path / "p", **more), QUIET)
    c = ScoreVisualadConfig(manifest=spots, root=spots.parent, checkpoint=tmp_path, out=tmp_path / "s")
    with pytest.raises(InputError, match="no visualad.safetensors here"):
        score(c, QUIET)
    other = tiny_clip_vision(tmp_path / "other", layers=3)
    with pytest.raises(InputError, match="rising numbers from 1 to 3"):
        score(replace(c, checkpoint=trained, backbone=str(other)), QUIET)


@pytest.mark.slow
def test_two_processes_train_as_one_does(spots, clip, tmp_path):
    """On two nodes, as in pipelines/slurm. The text's variant has no dropout, which each draws for itself."""
    from safetensors.torch import load

    common = [
        "train-visualad",
        spots,
        "--root",
        spots.parent,
        "--backbone",
        clip,
        "--size",
        56,
        "--layers",
        "2,4",
        "--batch-size",
        4,
        "--epochs",
        2,
        "--device",
        "cpu",
        "--precision",
        "fp32",
        "--variant",
        "paper",
    ]

    def run(out, nodes):
        code, said = by_torchrun(nodes, 29577, *common, "--out", out)
        assert code == 0, said
        return said

    run(tmp_path / "one", nodes=1)
    assert run(tmp_path / "two", nodes=2).count("1 of 1 rows") == 1, "one record, one report"
    one, both = (load(weights(tmp_path / n)) for n in ("one", "two"))
    for name, tensor in one.items():
        np.testing.assert_allclose(both[name], tensor, atol=2e-5, err_msg=name)
    a, b = ((tmp_path / n / "_checkpoint" / "losses.csv").read_text().splitlines() for n in ("one", "two"))
    for x, y in zip(a[1:], b[1:], strict=True):
        np.testing.assert_allclose([float(v) for v in y.split(",")], [float(v) for v in x.split(",")], rtol=1e-4)
    assert "up to date" in run(tmp_path / "two", nodes=2)


def test_processes_share_a_batch_evenly(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert per_process_batch(8) == 2
    with pytest.raises(InputError, match="--batch-size 6: no multiple of the 4 processes"):
        per_process_batch(6)
