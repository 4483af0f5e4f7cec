"""pipelines/lvlm.sh as for the paper, on small trees in the layouts of MVTec AD and VisA, against a server that keeps
every question."""

import base64
import csv
import io
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from tests.pipelines.recorded import ROOT
from tests.vlm.test_server_engine import Faulty

ONE = (
    "The second image is for anomaly detection. Does the second image have any anomaly compared to the first image?"
    " Reply yes or no, then explain."
)
ZERO = "Does the image have any anomaly? Reply yes or no, then explain."
BRISTLES = "Ignore the color of the bristles for an anomaly."
TURNED = f"{BRISTLES} Ignore the angle of the toothbrush head for an anomaly."
GRAIN = "Ignore differences in vertical or horizontal grain pattern for an anomaly."
LYING = "Ignore the orientation of the objects."


def trees(folder, save_image, more=0):
    """Roots of both data sets; more: further test images of each kind. A defect is a black square."""

    def picture(path, n, bad=False):
        pixels = np.random.default_rng(n).integers(150, 255, (40, 60, 3), np.uint8)
        pixels[10 : 14 + n % 5, 20:26] = 0 if bad else 200
        save_image(path, pixels)
        return pixels[..., 0] == 0

    for category, train in (("wood", 3), ("toothbrush", 2)):
        at = folder / "mvtec" / category
        for n in range(train):
            picture(at / f"train/good/{n:03d}.png", n)
        for n in range(1 + more):
            picture(at / f"test/good/{n:03d}.png", 10 + n)
            mask = picture(at / f"test/cut/{n:03d}.png", 20 + n, bad=True)
            save_image(at / f"ground_truth/cut/{n:03d}_mask.png", mask.astype(np.uint8) * 255)
    at, lines = folder / "visa" / "macaroni2/Data", ["object,split,label,image,mask"]
    for n in range(3 + more):
        name = f"macaroni2/Data/Images/Normal/{n:04d}.JPG"
        picture(folder / "visa" / name, 30 + n)
        lines.append(f"macaroni2,{'train' if n < 2 else 'test'},normal,{name},")
    for n in range(1 + more):
        mask = picture(at / f"Images/Anomaly/{n:03d}.JPG", 40 + n, bad=True)
        save_image(at / f"Masks/Anomaly/{n:03d}.png", mask.astype(np.uint8))
        there = ("Images", "JPG"), ("Masks", "png")
        lines.append("macaroni2,test,anomaly," + ",".join(f"macaroni2/Data/{k}/Anomaly/{n:03d}.{e}" for k, e in there))
    (folder / "visa/macaroni2/image_anno.csv").write_text("image,label,mask\n")
    (folder / "visa/split_csv").mkdir()
    (folder / "visa/split_csv/1cls.csv").write_text("\n".join(lines) + "\n")
    return {"MVTEC_ROOT": str(folder / "mvtec"), "VISA_ROOT": str(folder / "visa")}


class Keeping(Faulty):
    """Says yes where the last image has a black square, of one question in four the opposite, of one in nine neither;
    p(yes) follows the picture alone, as it does before temperature."""

    def __init__(self):
        super().__init__(self.look)
        self.say = lambda body, text: self.said

    def look(self, text):
        from PIL import Image

        body = self.bodies[-1]
        *_, image, _ = body["messages"][0]["content"]
        png = base64.b64decode(image["image_url"]["url"].partition(",")[2])
        dark = float((np.asarray(Image.open(io.BytesIO(png)).convert("L")) < 40).mean())
        yes, seed = dark > 0.002, body["seed"]
        self.said = "Hard to tell." if seed % 9 == 0 else "Yes. A cut." if yes != (seed % 4 == 0) else "No. The same."
        p = min(0.95, 0.1 + 20 * dark + len(png) % 7 / 50)
        self.top = (("Yes", float(np.log(p))), ("No", float(np.log(1 - p))))


def whole(folder, server, **settings):
    """Run the script with this checkout's own adcli; returns what it printed."""
    bin_folder = folder / "bin"
    bin_folder.mkdir(exist_ok=True)
    for name, arguments in (("adcli", "-m adcli "), ("python", "")):
        (bin_folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}"$@"\n')
        (bin_folder / name).chmod(0o755)
    ask = f"--engine server --base-url {server.url} --concurrency 1 --temperature 0.3"
    own = {"BIN": str(bin_folder), "PYTHONPATH": str(ROOT), "L": str(folder / "run"), "VLM": "tiny", "ASK": ask}
    done = subprocess.run(
        ["bash", "pipelines/lvlm.sh"],
        cwd=ROOT,
        env=os.environ | own | settings,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def table(folder, name):
    return list(csv.DictReader((folder / "run" / f"{name}.csv").open()))


@pytest.mark.slow
def test_each_question_is_asked_once_with_its_prompt_and_a_second_seed_has_its_own_folder(tmp_path, save_image):
    server, settings = (
        Keeping(),
        {
            "PAPER": "1",
            "SEEDS": "0,1",
            "KINDS": "rotate90",
            "VARIANTS": "zero-shot-description",
            **trees(tmp_path, save_image),
        },
    )
    said = whole(tmp_path, server, **settings)
    assert said.index("mvtec-ad: 4 test images, each asked about 3 times, 5 training images once") < said.index("score")
    asked = Counter(b["messages"][0]["content"][-1]["text"] for b in server.bodies)
    described = [t for t in asked if t.endswith(ZERO)]
    assert len(described) == 2 and any("toothbrush" in t for t in described)
    assert dict(asked) == {
        ONE: 2 * 2 + 3,  # wood, and its training images once
        f"{ONE} {BRISTLES}": 2 * 2 + 2,
        f"{ONE} {GRAIN}": 2 * 2,  # turned wood, and none of its training images
        f"{ONE} {TURNED}": 2 * 2,
        f"{ONE} {LYING}": 2 * (2 + 2) + 2,
        **dict.fromkeys(described, 2 * 2),
    }
    assert len({b["seed"] for b in server.bodies}) == len(server.bodies), "each row's own, another one for each SEED"
    shown = {
        len(b["messages"][0]["content"]) - 1
        for b in server.bodies
        if b["messages"][0]["content"][-1]["text"] in described
    }
    assert shown == {1}, "no reference image"
    for seed in "01":
        assert table(tmp_path, f"seed-{seed}/tables/accuracy")
    assert (tmp_path / "run/seed-0/scores.parquet/visa/original/one-shot-specific-train").is_dir()
    assert not list((tmp_path / "run/seed-1/scores.parquet").rglob("*-train"))

    ours = {(r["data set"], r["method"]): r for r in table(tmp_path, "tables/accuracy") if r["seeds"]}
    per_seed = [
        {(r["data set"], r["method"]): float(r["accuracy"]) for r in table(tmp_path, f"seed-{s}/tables/accuracy")}
        for s in "01"
    ]
    assert len(ours) == 3, "two ways to ask about MVTec AD, one about VisA"
    for key, row in ours.items():
        mean, _, spread = row["accuracy"].partition("±")
        values = [p[key] for p in per_seed]
        assert float(mean) == pytest.approx(np.mean(values), abs=0.11) and row["seeds"] == "2"
        assert float(spread) == pytest.approx(np.std(values, ddof=1), abs=0.11)
    turned = [r for r in table(tmp_path, "tables/thresholds") if (r["data set"], r["images"]) == ("visa", "rotated")]
    assert [r["seeds"] for r in turned] == ["1", "", ""], "thresholds of training images that were asked once"

    n, before = len(server.bodies), (tmp_path / "run/seed-0/tables/accuracy.csv").read_text()
    again = {"SEEDS": "", "L": str(tmp_path / "run/seed-0"), "M": str(tmp_path / "run/data")}
    whole(tmp_path, server, **settings | again)
    assert len(server.bodies) == n, "a second run asks nothing"
    assert (tmp_path / "run/seed-0/tables/accuracy.csv").read_text() == before
