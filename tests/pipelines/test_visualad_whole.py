"""pipelines/visualad.sh and visualad_ablations.sh on small trees in the layouts of five data sets, with a tiny CLIP of
random weights."""

import csv
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager

import numpy as np
import pytest

from tests.pipelines.recorded import ROOT
from tests.pipelines.test_lvlm_whole import trees
from tests.processes import adcli, called
from tests.tiny import tiny_clip_vision

CLIENT = """#!{python} -SE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as line:
    line.connect(chr(0) + {name!r})
    line.sendall(json.dumps([os.getcwd(), sys.argv[1:]]).encode() + b"\\n")
    code, said = json.load(line.makefile())
sys.stderr.write(said)
sys.exit(code)
"""


@contextmanager
def commands(folder):
    """A folder with an `adcli` that runs in processes with all libraries loaded; the list of (arguments, stderr) that
    it grows. Without it each command would take seconds to start."""
    name, ran = f"adcli-{os.getpid()}-{folder.name}", []
    folder.mkdir()
    (folder / "adcli").write_text(CLIENT.format(python=sys.executable, name=name))
    (folder / "adcli").chmod(0o755)

    def serve(listener):
        while True:
            try:
                line, _ = listener.accept()
            except OSError:
                return
            with line:
                cwd, arguments = json.loads(line.makefile().readline())
                done = adcli(*arguments, models=True, cwd=cwd)
                ran.append((arguments, done.stderr))
                line.sendall(json.dumps([done.returncode, done.stderr]).encode())

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        listener.listen()
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield folder, ran
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def three_more(folder, save_image):
    """Roots of BTAD, BrainMRI and Kvasir-SEG; a defect is a black square."""

    def picture(path, n, mask=None):
        pixels = np.random.default_rng(n).integers(150, 255, (40, 60, 3), np.uint8)
        pixels[10:20, 20:32] = 0 if mask or "yes" in path.parts else 200
        save_image(path, pixels)
        if mask:
            save_image(mask, (pixels[..., 0] == 0).astype(np.uint8) * 255)

    for n in range(2):
        btad = folder / "btad/01"
        picture(btad / f"train/ok/{n:04d}.png", n)
        picture(btad / f"test/ok/{n:04d}.png", 10 + n)
        picture(btad / f"test/ko/{n:04d}.png", 20 + n, btad / f"ground_truth/ko/{n:04d}.png")
        picture(folder / f"brain/no/{n}.jpg", 30 + n)
        picture(folder / f"brain/yes/{n}.jpg", 40 + n)
        picture(folder / f"kvasir/images/{n}.png", 50 + n, folder / f"kvasir/masks/{n}.png")
    return {"BTAD_ROOT": "btad", "BRAIN_MRI_ROOT": "brain", "KVASIR_ROOT": "kvasir"}


def run(folder, script, bin_folder, **settings):
    own = {"BIN": str(bin_folder), "JOBS": "1", "PIXELS": "56", "BACKBONE": "clip"}
    own["TRAIN"] = "--size 56 --layers 2,4 --device cpu"
    done = subprocess.run(
        ["bash", f"pipelines/{script}"],
        cwd=folder,
        env=os.environ | own | settings,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / done.stdout.splitlines()[-1].removeprefix("report: ").removesuffix("/report.html")


def table(folder, name):
    return list(csv.DictReader((folder / "tables" / f"{name}.csv").open()))


def written(folder):
    """Every file with weights or rows of models, scores and maps, and when it was written."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.suffix in (".parquet", ".safetensors"))
    return {p: p.stat().st_mtime_ns for p in files if "metrics.parquet" not in str(p)}


@pytest.mark.slow
def test_every_data_set_given_is_tested_once_and_a_second_run_does_nothing(tmp_path, save_image):
    shutil.copytree(ROOT / "pipelines", tmp_path / "pipelines")
    tiny_clip_vision(tmp_path / "clip")
    roots = trees(tmp_path, save_image, more=1)
    more = three_more(tmp_path, save_image)
    with commands(tmp_path / "bin") as (bin_folder, ran):
        here = run(tmp_path, "visualad.sh", bin_folder, **roots, **more)
        tested = {(r["data set"], r["method"]) for r in table(here, "zero-shot") if "published" not in r["method"]}
        sets = {"mvtec-ad": "visa", "btad": "visa", "brain-mri": "visa", "kvasir": "visa", "visa": "mvtec-ad"}
        assert tested == {
            (on, f"visualad{suffix}, ours: clip trained on {by}, fp32{said}")
            for on, by in sets.items()
            for suffix, said in (("", ""), ("-as-released", ", as released"))
        }
        of_kvasir = next(r for r in table(here, "zero-shot") if r["data set"] == "kvasir")
        assert of_kvasir["image AUROC"] == "-" and float(of_kvasir["PRO, 200 steps"]) >= 0, "polyps alone"
        assert next(r for r in table(here, "zero-shot") if r["data set"] == "brain-mri")["PRO"] == "-", "no masks"
        said = next(said for arguments, said in ran if arguments[0] == "evaluate")
        assert "2 anomalous images without a mask, as brain-mri/yes/" in said, "each once, of both models"
        epochs = {a[a.index("--out") + 1].split("/")[-1]: a[a.index("--epochs") + 1] for a, _ in ran if "train" in a[0]}
        assert epochs == {
            f"trained-on-{d}{s}.parquet": n for d, n in (("visa", "1"), ("mvtec-ad", "2")) for s in ("", "-as-released")
        }

        before, first = written(here), len(ran)
        assert run(tmp_path, "visualad.sh", bin_folder, **roots, **more) == here
        assert written(here) == before, "a second run trains and scores nothing"
        again = [said for arguments, said in ran[first:] if arguments[0] in ("train-visualad", "score")]
        assert len(again) == 2 * (2 + 5) and all("up to date" in said for said in again)

        other = run(tmp_path, "visualad.sh", bin_folder, **roots, SEED="1", MODELS="plain")
        assert other != here and table(other, "zero-shot")[0]["image AUROC"] and written(here) == before


@pytest.mark.slow
def test_ablations_stand_in_their_tables(tmp_path, save_image):
    shutil.copytree(ROOT / "pipelines", tmp_path / "pipelines")
    tiny_clip_vision(tmp_path / "clip")
    for setting, root in trees(tmp_path, save_image).items():
        name = "mvtec-ad" if setting == "MVTEC_ROOT" else "visa"
        called("data", "index", name, root, "--out", tmp_path / f"runs/lvlm/manifest.parquet/{name}/original")
    with commands(tmp_path / "bin") as (bin_folder, _):
        rows = "full --without=saf,sca --without=dice --anchors=1 --layers=2 --position=2d --backbone=clip2"
        tiny_clip_vision(tmp_path / "clip2", layers=5)
        ablated = run(tmp_path, "visualad_ablations.sh", bin_folder, ABLATE=rows)
    ours = {
        n: [r for r in table(ablated, f"visualad-table{n}") if r["method"] != "VisualAD (published)"] for n in "2345"
    }
    assert [r["method"].removesuffix(", ours") for r in ours["2"]] == [
        "visualad-without-saf,sca",
        "visualad-without-dice",
        "visualad-full",
    ]
    assert [r["anchors"] for r in ours["3"]] == ["1", "4"] and {r["data set"] for r in ours["3"]} == {"visa"}
    assert {r["layers"] for r in ours["4"]} == {"{2}", "{2,4}"}
    assert {r["position"] for r in ours["5"]} == {"Learnable 1D Absolute", "Learnable 2D Absolute"}
    assert all(float(r["pixel AUROC"]) >= 0 for lines in ours.values() for r in lines)
    assert len(table(ablated, "visualad-figure4")) == 2 and (ablated / "tables/visualad-figure4.png").exists()
