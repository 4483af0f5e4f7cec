"""Both evaluations in a process that cannot import torch: with all their outputs, by the command."""

import subprocess
import sys

import pytest

from stages.artifacts.tables import ANSWERS
from tests.qa import cables, write


def commanded(*arguments):
    code = (
        "import sys; sys.modules.update(torch=None, transformers=None)\n"
        f"from adcli.main import build\nargs = {list(map(str, arguments))!r}\nbuild(args)(args)"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.slow
def test_scores_and_maps(two_categories, tmp_path):
    config, _ = two_categories
    done = commanded(
        *("evaluate", config.scores, "--manifest", config.manifest, "--maps", config.maps, "--root", config.root),
        *("--heatmaps", tmp_path / "h", "--workers", "2", "--resamples", "20", "--out", tmp_path / "all"),
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "h" / "m").glob("*.png"))) == 14
    assert list((tmp_path / "all").rglob("*.html")) and list((tmp_path / "all").rglob("pixels.tex"))


@pytest.mark.slow
def test_answers(tmp_path, save_image):
    paths = cables(tmp_path, save_image)
    answers = [{"question_id": "r0", "method": "m", "response": "A. It is cut.", "parsed": "strict", "choice": 0}]
    done = commanded(
        *("evaluate", "--questions", paths["questions"], "--answers", write(tmp_path / "a.parquet", ANSWERS, answers)),
        *("--manifest", paths["manifest"], "--root", tmp_path, "--encoder", "none", "--out", tmp_path / "all"),
    )
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "all").rglob("*.html")) and list((tmp_path / "all").rglob("replies.tex"))
