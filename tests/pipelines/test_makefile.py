"""The Makefile is short, lists its targets, and calls the scripts of pipelines/ with its settings."""

import os
import re
import shutil
import subprocess

import pytest

from tests.pipelines.recorded import ROOT, Run, value


@pytest.mark.parametrize(
    ("target", "settings", "script"),
    [
        ("demo", (), "demo.sh"),
        ("reproduce-vidad", (), "vidad.sh"),
        ("reproduce-vidad-check", (), "vidad.sh"),
        ("reproduce-tiles", (), "tiles.sh"),
        ("reproduce-lvlm", (), "lvlm.sh"),
        ("ablate-visualad", (), "visualad_ablations.sh"),
        ("reproduce-visualad", (), "visualad_demo.sh"),
        ("reproduce-visualad", ("VISA_ROOT=/a b",), "visualad.sh"),
        ("reproduce-sage", (), "sage_demo.sh"),
        ("reproduce-sage", ("MVTEC_ROOT=/a b",), "sage.sh"),
        ("ablate-sage", (), "sage_ablations.sh"),
        ("reproduce-vmad", (), "vmad_demo.sh"),
        ("reproduce-vmad", ("RIAD_ROOT=/a b",), "vmad.sh"),
        ("ablate-vmad", (), "vmad_ablations.sh"),
        ("ablate-vmad-projectors", (), "vmad_ablations.sh"),
    ],
)
def test_a_target_calls_its_script(target, settings, script):
    done = subprocess.run(["make", "-n", target, "BIN=elsewhere", *settings], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and f"pipelines/{script} " in done.stdout and "pip install" not in done.stdout


def test_make_hands_its_settings_to_the_script(tmp_path):
    Run(tmp_path, "vidad.sh").done()  # for the folder with the commands
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "log").unlink()
    done = subprocess.run(
        ["make", "reproduce-vidad", "VIDAD_ROOT=/my data/VID AD", "SCENARIOS=fruits", f"BIN={tmp_path}/bin dir"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "LOG": str(tmp_path / "log")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    first = (tmp_path / "log").read_text().splitlines()[0].split("\x1f")
    assert first[1:5] == ["data", "index", "vidad", "/my data/VID AD"]
    assert value(first, "--out") == "runs/vidad-VID_AD-fruits/manifest.parquet/fruits"


def test_the_makefile_is_short_and_lists_its_targets():
    assert len((ROOT / "Makefile").read_text().splitlines()) <= 60
    # Not as a child of `make test`: an inner make also prints which directory it enters.
    alone = {name: value for name, value in os.environ.items() if name not in ("MAKELEVEL", "MAKEFLAGS", "MFLAGS")}
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, env=alone)
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.strip()]
    phony = re.search(r"^\.PHONY:((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text(), re.M)[1].replace("\\", "").split()
    assert done.returncode == 0 and sorted(listed) == sorted(phony)
