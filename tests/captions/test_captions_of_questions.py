"""`caption --questions`: only what is asked about."""

import pytest

from stages.artifacts.reader import read_table
from stages.artifacts.tables import CAPTIONS, QUESTIONS
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.captions.caption import run
from stages.captions.config import CaptionConfig
from tests.qa import cables, question, write

QUIET = RunOptions(quiet=True)


def test_only_images_that_are_asked_about_are_described(tmp_path, save_image):
    made = cables(tmp_path, save_image)
    given = {"manifest": made["manifest"], "root": tmp_path, "prompt": "general"}
    config = CaptionConfig(**given, questions=made["questions"], out=tmp_path / "c")
    assert run(config, QUIET).rows == 3, "neither the reference image nor those of failed questions alone"
    found = {r["image_id"] for r in read_table(config.out, CAPTIONS).to_pylist()}
    assert found == {"d/cable/bad", "d/cable/good", "d/alone/bad"}
    assert run(CaptionConfig(**given, out=tmp_path / "all"), QUIET).rows == 4
    strange = write(tmp_path / "s.parquet", QUESTIONS, [question("q", "d/cable/elsewhere")])
    with pytest.raises(InputError, match="its test image d/cable/elsewhere is not in the manifest"):
        run(CaptionConfig(**given, questions=strange, out=tmp_path / "s"), QUIET)
