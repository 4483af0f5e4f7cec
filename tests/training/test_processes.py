"""Worker processes of stages that are called from a plain script."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stages.artifacts.reader import read_table
from stages.artifacts.tables import CAPTIONS, TRUTH

ROOT = Path(__file__).parents[2]

SCRIPT = """
from pathlib import Path
print("the script runs", flush=True)
from stages.captions.caption import CaptionConfig
from stages.captions.caption import run as caption
from stages.datasets.folder import FolderConfig
from stages.datasets.folder import run as index
from stages.datasets.synth.vidad import SynthConfig, run
from stages.base.config import RunOptions

quiet = RunOptions(quiet=True)
run(SynthConfig(out=Path("s"), scenarios="fruits", conditions="white_bg", size=64, workers=2), quiet)
index(FolderConfig(root=Path("s/fruits/white_bg/test/normal"), out=Path("m")), quiet)
summary = caption(CaptionConfig(manifest=Path("m"), out=Path("c"), workers=2), quiet)
print(summary.rows, "captions")
"""


@pytest.mark.slow
def test_a_script_without_a_main_guard_can_call_stages(tmp_path):
    """At module level, where a spawned worker that imports the script would start workers of its own, without end."""
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    first, last = done.stdout.splitlines()
    rows = read_table(tmp_path / "c", CAPTIONS)
    assert first == "the script runs" and last == f"{len(rows)} captions" and len(rows) > 20
    assert rows["error"].null_count == len(rows) and len(read_table(tmp_path / "s" / "truth.parquet", TRUTH)) > 100
