"""An artifact of several parts, with a failed row and a list column, opened by the libraries that people use."""

import pytest

from stages.artifacts.tables import SCORES
from stages.artifacts.writer import Artifact, Spec
from stages.base.config import RunOptions

KEYS = [(f"d/{n}.png", "m") for n in range(5)]


@pytest.fixture
def scores(tmp_path):
    """Five rows in three parts, the last one failed; the scores are 0, 0.5, 1 and 1.5."""
    with Artifact(tmp_path / "scores", SCORES, Spec("score", {}, {}), KEYS, RunOptions(quiet=True), 2) as artifact:
        for n, (image_id, method) in enumerate(KEYS):
            near = [{"image_id": "d/0.png", "distance": 0.25, "text": "one nut", "missing": ["nut"], "extra": []}]
            result = {"error": "truncated"} if n == 4 else {"score": n / 2, "neighbours": near}
            artifact.write({"image_id": image_id, "method": method} | result)
    assert len(list((tmp_path / "scores").glob("*.parquet"))) == 3
    return tmp_path / "scores"


def test_pandas(scores):
    import pandas as pd

    table = pd.read_parquet(scores)
    assert list(table.columns) == SCORES.schema.names and len(table) == 5
    assert table.score.dropna().tolist() == [0, 0.5, 1, 1.5] and table.score.isna().tolist() == [False] * 4 + [True]
    assert table.neighbours[1][0]["text"] == "one nut" and list(table.neighbours[1][0]["missing"]) == ["nut"]


def test_pyarrow(scores):
    import pyarrow.dataset as ds
    import pyarrow.parquet as pq

    table = pq.read_table(scores)
    assert table.schema.equals(SCORES.schema) and table["error"].to_pylist() == [None] * 4 + ["truncated"]
    assert ds.dataset(scores).count_rows(filter=ds.field("score") > 0.25) == 3


def test_duckdb(scores):
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as connection:
        table = f"read_parquet('{scores}/*.parquet')"
        found = connection.execute(f"select count(*), avg(score), count(error) from {table}").fetchall()
        assert found == [(5, 0.75, 1)]
        near = connection.execute(f"select neighbours[1].text from {table} where score = 1").fetchall()
        assert near == [("one nut",)]


def test_hugging_face_datasets(scores, tmp_path):
    datasets = pytest.importorskip("datasets")
    table = datasets.load_dataset(str(scores), split="train", cache_dir=str(tmp_path / "cache"))
    assert table.column_names == SCORES.schema.names and table["score"] == [0, 0.5, 1, 1.5, None]
    assert table[1]["neighbours"][0]["missing"] == ["nut"] and table[4]["error"] == "truncated"
