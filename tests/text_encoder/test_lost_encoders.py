"""Checkpoints that are gone, damaged or swapped after the training: said, and trained again with --overwrite."""

import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.artifacts.reader import read_table
from stages.artifacts.tables import CAPTIONS, ENCODERS, MANIFEST, SCORES
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.text_encoder.score import ScoreTextKnnConfig
from stages.text_encoder.score import run as score
from stages.text_encoder.train import FOLDER, run
from tests.text_encoder.test_train_encoder import QUIET, config_of, weights

OVERWRITE = RunOptions(quiet=True, overwrite=True)
TASKS = (("d", "c", "a"), ("d", "c", "b"))


@pytest.fixture(scope="module")
def finished(bert, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    config = config_of(folder, bert, folder / "e", tasks=TASKS, epochs=1)
    run(config, QUIET)
    captions = [
        {"image_id": i, "prompt_id": "p", "sample": 0, "text": f"two kiwis and {i}"}
        for i in pq.read_table(config.manifest, schema=MANIFEST.schema)["image_id"].to_pylist()
    ]
    pq.write_table(pa.Table.from_pylist(captions, schema=CAPTIONS.schema), folder / "c.parquet")
    return config, folder / "c.parquet"


def cut(file):
    file.write_bytes(file.read_bytes()[:-5])


DAMAGE = {
    "gone": lambda one, other: shutil.rmtree(one),
    "without weights": lambda one, other: (one / "model.safetensors").unlink(),
    "truncated": lambda one, other: cut(one / "model.safetensors"),
    "swapped": lambda one, other: shutil.copy(other / "model.safetensors", one),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DAMAGE)
def test_a_checkpoint_that_is_not_what_was_trained(name, finished, tmp_path):
    config, captions = finished
    out, own = config.out, weights(config.out)
    one, other = (out / path for path in sorted(own))
    scoring = ScoreTextKnnConfig(manifest=config.manifest, captions=captions, encoders=out, out=tmp_path / "s", k=1)
    DAMAGE[name](one, other)
    with pytest.raises(InputError, match=rf"{one}.*; the command that made it mends it with --overwrite"):
        score(scoring, QUIET)
    assert not scoring.out.exists()
    if name == "swapped":
        assert run(config, QUIET).up_to_date  # seen by whoever reads every byte
    else:
        with pytest.raises(InputError, match=rf"{one}.*; the same command with --overwrite trains it again"):
            run(config, QUIET)
    summary = run(config, OVERWRITE)
    assert (summary.written, summary.complete) == (1, True) and weights(out) == own
    assert run(config, OVERWRITE).up_to_date
    assert score(scoring, QUIET).complete and len(read_table(scoring.out, SCORES)) == 12


@pytest.mark.slow
def test_encoders_of_older_tables_have_no_digest(finished, tmp_path):
    config, captions = finished
    table = read_table(config.out, ENCODERS)
    (tmp_path / "old").mkdir()
    shutil.copytree(config.out / FOLDER, tmp_path / "old" / FOLDER)
    pq.write_table(table.drop_columns("weights"), tmp_path / "old" / "encoders.parquet")
    scoring = ScoreTextKnnConfig(
        manifest=config.manifest, captions=captions, encoders=tmp_path / "old", out=tmp_path / "s", k=1
    )
    assert score(scoring, QUIET).errors == 0
    assert all(len(w) == 32 for w in table["weights"].to_pylist())
