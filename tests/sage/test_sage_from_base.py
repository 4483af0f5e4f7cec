"""A base model without any SFE: aligned by DPO (Table 3, +DPO), and asked as the other rows are (baseline)."""

import math
from dataclasses import replace

import numpy as np
import pytest

from stages.artifacts.reader import read_provenance, read_table
from stages.artifacts.tables import ANSWERS
from stages.base.errors import InputError
from stages.sage.config import ScoreSageConfig
from stages.sage.edpo import run as edpo
from stages.sage.score import run as score
from tests.sage_world import QUIET, edpo_config, losses, tensors

pytestmark = pytest.mark.slow


def from_base(tiles, internvl, out, **more):
    given = {"base": str(internvl), "facts": None, "judgements": None, "pairs": "adjacent", "eta": 0.0, "lora_rank": 4}
    return edpo_config(tiles, None, out, **given | more)


def asked(tiles, out, **more):
    given = {"manifest": tiles.manifest, "questions": tiles.questions, "root": tiles.manifest.parent}
    score(
        ScoreSageConfig(**given, out=out, choose="likelihood", device="cpu", precision="fp32", shots=0, **more), QUIET
    )
    return {r["question_id"]: r for r in read_table(out, ANSWERS).to_pylist()}


@pytest.mark.parametrize("rank", [4, 0])
def test_dpo_from_a_base_model(tiles, internvl, tmp_path, rank):
    edpo(from_base(tiles, internvl, tmp_path / "dpo", lora_rank=rank, shots=0), QUIET)
    curve = losses(tmp_path / "dpo")
    assert float(curve[0]["loss"]) == pytest.approx(math.log(2), abs=1e-4), "at first it is its own reference"
    assert float(curve[-1]["rewards/margins"]) > 0 and len(curve) == 12, "four pairs of each of 12 questions, 4 a step"
    assert not any(n.startswith("fusion") for n in tensors(tmp_path / "dpo"))
    before, after = (
        asked(tiles, tmp_path / "b", base=str(internvl)),
        asked(tiles, tmp_path / "a", checkpoint=tmp_path / "dpo"),
    )
    gained = [
        np.subtract.reduce(
            np.log(np.take(after[i]["likelihoods"], (0, 3))) * np.take(after[i]["choice_tokens"], (0, 3))
        )
        - np.subtract.reduce(np.log(np.take(r["likelihoods"], (0, 3))) * np.take(r["choice_tokens"], (0, 3)))
        for i, r in before.items()
    ]
    assert np.mean(gained) > 0, "the first over the last"
    assert before["q000"]["method"] == "sage-base/0-shot+likelihood"
    assert after["q000"]["method"] == "sage-edpo-base/0-shot+likelihood"
    models = [read_provenance(tmp_path / name)[0]["notes"]["model"] for name in "ba"]
    assert [m["stage"] for m in models] == ["base", "edpo-base"] and models[0]["base"] == models[1]["base"]


def test_what_is_refused(tiles, internvl, tmp_path):
    config = from_base(tiles, internvl, tmp_path / "o")
    for more, said in (
        ({"base": ""}, "--checkpoint is missing .or --base"),
        ({"base": str(tmp_path)}, "--base .*no "),
        ({"eta": 1.0}, "--judgements is missing"),
        ({"pairs": "eq5"}, "--judgements is missing"),
        ({"vision": "trained"}, "has LoRA on the language model alone"),
        ({"shots": 3}, "--shots 3"),
        ({"checkpoint": tmp_path, "lora_rank": 4}, "--lora-rank: is that of --checkpoint"),
        ({"checkpoint": tmp_path, "lora_rank": None, "tiles": 2}, "--tiles: is that of --checkpoint"),
    ):
        with pytest.raises(InputError, match=said):
            edpo(replace(config, **more), QUIET)
