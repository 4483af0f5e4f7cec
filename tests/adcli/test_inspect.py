"""`adcli inspect` on made-up surfaces, from the command line to the last one printed."""

import csv
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from adcli.inspect import InspectConfig, common, steps
from adcli.main import run
from stages.base.config import RunOptions
from tests.pages import page_data

needs_anomalib = pytest.mark.skipif(find_spec("anomalib") is None, reason="needs adcli[baselines]")


def surface(path, seed, blot=False, size=64):
    """A grey texture, brighter towards one side; with a blot a dark disc somewhere in it."""
    import cv2

    rng = np.random.default_rng(seed)
    picture = rng.normal(128, 12, (size, size + 16)) + np.linspace(0, 40, size + 16)
    if blot:
        y, x = rng.integers(12, size - 12, 2)
        cv2.circle(picture, (int(x), int(y)), 5, 10.0, -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture.clip(0, 255).astype(np.uint8))


def adcli(*words):
    """(exit code, stdout, stderr) of a command in this process."""
    out, said = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(said):
        code = run(list(map(str, words)))
    return code, out.getvalue(), said.getvalue()


def inspect(*more):
    return adcli("inspect", "--good", "photos/normal", "--test", "photos/new", "--out", "runs/photos", *more)


def ranking(out="runs/photos"):
    with Path(out, "ranking.csv").open() as f:
        return list(csv.DictReader(f))


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Thirty good surfaces; of eight new ones 2 and 5 have a blot. The working directory."""
    monkeypatch.chdir(tmp_path)
    for n in range(30):
        surface(Path(f"photos/normal/{n:02d}.png"), n)
    for n in range(8):
        surface(Path(f"photos/new/{n}.png"), 100 + n, blot=n in (2, 5))
    return tmp_path


@pytest.mark.slow
@needs_anomalib
def test_one_command_ranks_the_new_ones_and_says_where_to_look(photos):
    code, out, said = inspect()
    assert code == 0, said
    rows = ranking()
    assert {r["file"] for r in rows[:2]} == {"photos/new/2.png", "photos/new/5.png"}
    assert list(rows[0]) == ["file", "score", "percentile among the good", "above the line"]
    assert [r["above the line"] for r in rows[:2]] == ["yes", "yes"] and rows[0]["percentile among the good"] == "100.0"
    above = sum(r["above the line"] == "yes" for r in rows)
    last = out.splitlines()[-1]
    assert last.startswith(f"{above} of 8 lie above 90 % of the good ones (line ") and "drawn from 6 held out" in last
    assert last.endswith(
        "; ranking: runs/photos/ranking.csv (file, score, percentile among the good, above the line);"
        " page: runs/photos/report.html"
    )
    page = Path("runs/photos/report.html").read_text()
    shown = page_data(Path("runs/photos/report.html")).rows()
    assert "anomalib/padim" in page and len(shown) == 8 and all(r["picture"] and r["heat"] for r in shown)
    assert all("photos/normal" in r["nearFile"] for r in shown), "a good picture stands beside each"
    assert "adcli inspect --good photos/normal --test photos/new --method lvlm --vlm qwen2-vl" in page
    assert len(list(Path("runs/photos/heatmaps").rglob("*.jpg"))) == 8

    commands = [shlex.split(line[2:]) for line in said.splitlines() if line.startswith("$ ")]
    assert [c[:2] for c in commands] == [["adcli", "data"], ["adcli", "score"], ["adcli", "evaluate"]]
    for artifact, command in zip(("manifest", "scores", "metrics"), commands, strict=True):
        record = json.loads(Path(f"runs/photos/{artifact}.parquet/_adcli.json").read_text())
        assert shlex.split(record["command"]) == command, "the record names the step, so that it can be repeated"
        assert adcli(*command[1:])[0] == 0

    again, repeated, said = inspect()
    assert again == 0 and repeated.splitlines()[-1] == last and said.count("up to date") == 3
    surface(Path("photos/new/9.png"), 9)
    code, out, said = inspect()
    assert (code, out) == (2, "") and "--overwrite replaces it" in said and said.count("$ ") == 1


@pytest.mark.slow
@needs_anomalib
def test_kinds_of_several_sizes_with_defects_few_good_ones_and_a_broken_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for kind, size, good in (("bolt", 64, 5), ("nut", 90, 26)):
        for n in range(good):
            surface(Path(f"photos/normal/{kind}/{n:02d}.png"), n, size=size + n)
        for n in range(3):
            surface(Path(f"photos/new/{kind}/scratch/{n}.png"), 50 + n, blot=True, size=size)
    for n in range(3):
        surface(Path(f"photos/new/bolt/ok/{n}.png"), 60 + n)
    Path("photos/new/nut/scratch/x.png").write_bytes(Path("photos/new/nut/scratch/0.png").read_bytes()[:300])
    code, out, said = inspect()
    assert code == 3, said
    assert "bolt: only 5 good pictures" in said and "--splits train,val,test" in said
    assert "AUROC per task" in out and "1 without normal test images" in out
    rows = ranking()
    assert rows[-1]["file"].endswith("x.png") and rows[-1]["above the line"] == "no score"
    assert {r["category"] for r in rows} == {"bolt", "nut"} and {r["label"] for r in rows} == {"anomalous", "normal"}
    lines = out.splitlines()
    assert any(x.startswith("bolt: ") and "drawn from 5 scored by the others" in x for x in lines)
    assert any(x.startswith("nut: ") and "drawn from 5 held out" in x for x in lines)
    assert "of 9 lie above 90 % of the good ones of their kind; ranking: " in lines[-1]


@pytest.mark.slow
def test_a_method_without_maps(photos):
    """LVLM by the embedded captioner, which needs no weights: the same answer to every surface."""
    code, out, said = inspect("--method", "lvlm", "--vlm", "scene")
    assert code == 0, said
    assert "does not tell the new pictures from the good ones" in out and "--method anomalib/patchcore" in out
    assert not Path("runs/photos/heatmaps").exists() and len(ranking()) == 8


@pytest.mark.slow
def test_the_page_of_rendered_surfaces_says_that_they_are_made_up(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert adcli("data", "synth", "surfaces", "--out", "photos", "--good", "3", "--new", "3", "--size", "96")[0] == 0
    code, out, said = adcli(
        *("inspect", "--good", "photos/good", "--test", "photos/new", "--out", "runs/photos"),
        *("--method", "lvlm", "--vlm", "scene"),
    )
    assert code == 0 and "AUROC per task" in out, said
    assert "These surfaces were rendered by adcli" in Path("runs/photos/report.html").read_text()


@pytest.mark.slow
def test_captions_in_a_fine_tuned_encoder(photos, bert):
    code, _, said = inspect("--method", "text-knn", "--vlm", "scene", "--encoder", bert)
    assert code in (0, 3), said
    commands = [line.split()[2] for line in said.splitlines() if line.startswith("$ ")]
    assert commands == ["data", "caption", "rewrite-negatives", "train-encoder", "score", "evaluate"]
    assert len(ranking()) == 8


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--method", "lvlm"], "--method lvlm: needs --vlm"),
        (["--method", "visualad"], "--method visualad: needs --checkpoint"),
        (["--method", "sage"], "--method sage: answers questions and gives no scores"),
        (["--method", "anomalib/patchcor"], "did you mean anomalib/patchcore?"),
        (["--method", "text"], "--method text: no such method; expected anomalib/padim, lvlm"),
        (["--vlm", "qwen2-vl"], "--vlm: means nothing to --method anomalib/padim"),
        (["--good", "photos/new"], "--good photos/new and --test photos/new: the same folder"),
        (["--good", "photos"], "one lies in the other"),
        (["--good", "photos/nowhere"], "--good photos/nowhere: no such directory"),
        (["--test", "photos/nwe"], "--test photos/nwe: no such directory; did you mean photos/new?"),
        (["--method", "anomalib/fastflow"], "for no other backbones than resnet18, wide_resnet50_2"),
        (["--out", "photos/new/results"], "lies in photos/new, whose pictures are read"),
        (["--defects", "hole"], "--defects hole: no folder of this name"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(photos, words, part):
    before = sorted(map(str, photos.rglob("*")))
    code, out, said = inspect(*words)
    (line,) = [x for x in said.splitlines() if x.startswith("adcli: ")]
    assert (code, out) == (2, "") and part in line
    assert sorted(map(str, photos.rglob("*"))) == before


def test_every_step_is_a_command_with_the_options_that_it_takes(monkeypatch):
    """For each method, all options of the run given: `score` and the others know them."""
    from adcli import inspect as module

    monkeypatch.setattr(module, "splits", lambda manifest: "val,test")
    config = InspectConfig(
        good=Path("g"), test=Path("t"), out=Path("o"), checkpoint=Path("c"), vlm="qwen2-vl", encoder="e"
    )
    options = RunOptions(overwrite=True, max_errors=3, retry="all", max_megapixels=300.0, quiet=True, debug=True)
    for method in ("anomalib/padim", "anomalib/dfkde", "lvlm", "text-knn", "visualad", "vmad"):
        vlm, checkpoint = ("", config.checkpoint) if method[:1] == "v" else (config.vlm, None)
        for step in steps(replace(config, method=method, vlm=vlm * (method[0] in "lt"), checkpoint=checkpoint)):
            _, _, said = adcli(*step, *common(options, step[0]))
            assert "No such option" not in said and "Missing" not in said, (step, said)
            maps = step[0] in ("score", "evaluate") and method in ("anomalib/padim", "visualad", "vmad")
            assert ("--maps" in step) == maps


@needs_anomalib
@pytest.mark.slow
def test_ctrl_c_ends_the_recipe_and_the_same_command_goes_on(photos):
    root = Path(__file__).parents[2]
    words = ["--good", "photos/normal", "--test", "photos/new", "--out", "runs/photos"]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "adcli", "inspect", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    while not Path("runs/photos/scores.parquet/_adcli.partial.json").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=120)
    assert (process.returncode, out) == (130, "") and "interrupted; the same command goes on from here" in said
    assert said.count("$ adcli") == 2 and "Traceback" not in said
    code, _, said = inspect()
    assert code == 0 and "manifest.parquet: up to date" in said and len(ranking()) == 8
