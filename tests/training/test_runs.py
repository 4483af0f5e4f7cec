"""What is put into a training's artifact, and what is not where another command has replaced it meanwhile."""

from dataclasses import replace

import pytest

from stages.artifacts.tables import ENCODERS
from stages.artifacts.writer import Artifact, Spec
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.training.runs import write_checkpoint

QUIET = RunOptions(quiet=True)
KEYS = [("d", "all", None), ("d", "c", None)]
HISTORY = [{"step": 1, "loss": 2.0, "cls": 1.5, "learning_rate": 0.1}, {"step": 2, "loss": 1.0, "learning_rate": 0.05}]


@pytest.mark.slow
def test_a_checkpoint_has_its_losses_beside_it(tmp_path):
    with Artifact(tmp_path / "a", ENCODERS, Spec("train", {"x": 1}, {}), KEYS, replace(QUIET, shard="0/2")) as artifact:
        write_checkpoint(artifact, lambda folder: (folder / "w").write_text("weights"), HISTORY, ("cls", "seg"))
    made = tmp_path / "a" / "_checkpoint"
    assert (made / "w").read_text() == "weights" and (made / "losses.png").stat().st_size > 1000
    assert (made / "losses.csv").read_text().split() == [
        "step,loss,cls,learning_rate",
        "1,2.0,1.5,0.1",
        "2,1.0,nan,0.05",
    ]


@pytest.mark.parametrize("when", ["before", "while it is saved"])
def test_no_checkpoint_is_put_into_an_artifact_that_has_been_replaced(tmp_path, when):
    out, saved = tmp_path / "a", []

    def replace_it() -> None:
        other = replace(QUIET, shard="1/2", overwrite=True)
        with Artifact(out, ENCODERS, Spec("train", {"x": 2}, {}), KEYS, other):
            pass

    def save(folder) -> None:
        saved.append(folder)
        if when != "before":
            replace_it()

    with (
        pytest.raises(InputError, match="another command has replaced this artifact"),
        Artifact(out, ENCODERS, Spec("train", {"x": 1}, {}), KEYS, replace(QUIET, shard="0/2")) as artifact,
    ):
        if when == "before":
            replace_it()
        write_checkpoint(artifact, save, HISTORY, ())
    assert len(saved) == (when != "before") and not (out / "_checkpoint").exists()
