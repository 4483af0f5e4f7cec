"""A VisualAD checkpoint that is gone or swapped after the training."""

import shutil

import pytest

from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.visualad.checkpoint import fingerprint
from stages.visualad.train import run as train
from tests.visualad.test_visualad_stages import QUIET, clip, config, spots, weights

__all__ = ["clip", "spots"]  # fixtures


@pytest.mark.slow
def test_a_checkpoint_that_is_not_what_was_trained(spots, clip, tmp_path):
    out, other = tmp_path / "v", tmp_path / "other"
    c = config(spots, clip, out, epochs=1)
    train(c, QUIET)
    train(config(spots, clip, other, epochs=1, seed=1), QUIET)
    own = weights(out)
    shutil.copy(other / "_checkpoint" / "visualad.safetensors", out / "_checkpoint")
    with pytest.raises(
        InputError, match="_checkpoint: these weights are not those that the training wrote; .*--overwr"
    ):
        fingerprint(out)
    shutil.rmtree(out / "_checkpoint")
    with pytest.raises(InputError, match="_checkpoint: this checkpoint is gone; .* --overwrite trains it again"):
        train(c, QUIET)
    assert train(c, RunOptions(quiet=True, overwrite=True)).written == 1 and weights(out) == own
    assert fingerprint(out) and train(c, QUIET).up_to_date
