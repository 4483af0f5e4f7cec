"""train-encoder under torchrun: every process trains its share of the tasks."""

import json

import pytest

from stages.artifacts.reader import read_table
from stages.artifacts.tables import ENCODERS
from stages.base.config import RunOptions
from stages.text_encoder.train import FOLDER
from stages.training.distributed import spread
from tests.encoder_world import make_tasks
from tests.processes import adcli, together

TASKS = tuple(("d", f"c{n}", "a") for n in range(5))


@pytest.mark.slow
def test_tasks_are_spread_over_processes_of_two_nodes(bert, tmp_path):
    """Four processes, five tasks, of which one has nothing to train on: its row failed, which the last process says and
    which ends none of the others."""
    texts = {task: (f"{n} oranges , two kiwis",) * 2 for n, task in enumerate(TASKS)} | {TASKS[0]: ("three oranges",)}
    made = make_tasks(tmp_path, texts)
    _without_contradiction(made["negatives"])
    more = ("--manifest", made["manifest"], "--encoder", bert, "--epochs", 2, "--device", "cpu")
    command = ("train-encoder", made["negatives"], *more)
    code, said = together(4, 29641, *command, "--out", tmp_path / "four", nodes=2)
    assert code == 3 and said.count("5 of 5 rows") == 1, said
    assert adcli(*command, "--out", tmp_path / "one", models=True).returncode == 3
    rows = [_rows(tmp_path / name) for name in ("four", "one")]
    assert rows[0] == rows[1] and len(rows[0]) == 5
    record = json.loads((tmp_path / "four/_adcli.json").read_text())
    assert sorted(run["shard"] for run in record["runs"]) == ["0/4", "1/4", "2/4", "3/4"]
    assert sorted(p.name for p in (tmp_path / "four" / FOLDER).rglob("*") if p.name.startswith(".")) == []


def _without_contradiction(negatives):
    """The first task's only caption has none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(negatives)
    errors = ["no rewrite" if key.startswith("0/") else None for key in table["image_id"].to_pylist()]
    at = table.schema.get_field_index("error")
    pq.write_table(table.set_column(at, table.schema.field(at), pa.array(errors, pa.string())), negatives)


def _rows(out):
    rows = read_table(out, ENCODERS).drop_columns(["seconds"]).to_pylist()
    return sorted(rows, key=lambda row: row["category"])


@pytest.mark.parametrize(("visible", "gpu"), [("", "1"), ("4,6,7", "6"), ("GPU-a,GPU-b", "GPU-b")])
def test_each_process_sees_its_own_gpu(monkeypatch, visible, gpu):
    for name, value in {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "CUDA_VISIBLE_DEVICES": visible}.items():
        monkeypatch.setenv(name, value)
    import os

    options = spread(RunOptions(shard="1/2"))
    assert (options.shard, options.quiet, os.environ["CUDA_VISIBLE_DEVICES"]) == ("7/8", True, gpu)
    assert "RANK" not in os.environ and spread(options) is options
