"""Eq. 6 to Eq. 9: neighbours by hand and against the plain loop; scores, and what is wrong with encoders."""

import math
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.artifacts.reader import read_table
from stages.artifacts.tables import CAPTIONS, ENCODERS, MANIFEST, SCORES
from stages.artifacts.writer import Artifact, Spec
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.text_encoder import score
from stages.text_encoder.config import ScoreTextKnnConfig
from stages.text_encoder.model import encode, load_encoder
from stages.text_encoder.score import anomaly_score, knn, run

QUIET = RunOptions(quiet=True)


def test_eq6_to_eq9_by_hand():
    z = {
        n: np.array([math.cos(t), math.sin(t)])
        for n, t in {"a": 0.0, "b": math.pi / 3, "c": math.pi / 2, "q": 0.0}.items()
    }
    near = knn(z, ["q", "a"], ["a", "b", "c"], k=2)
    assert [i for i, _ in near["q"]] == ["a", "b"]
    assert [d for _, d in near["q"]] == pytest.approx([0.0, 1.0])  # chord of 60 degrees is 1
    assert [i for i, _ in near["a"]] == ["b", "c"]  # leave-one-out
    assert [d for _, d in near["a"]] == pytest.approx([1.0, math.sqrt(2)])


def test_ties_are_ordered_by_id_and_few_references_are_enough():
    z = {n: np.array([1.0, 0.0]) for n in "abcq"}
    assert [i for i, _ in knn(z, ["q"], ["c", "a", "b"], k=2)["q"]] == ["a", "b"]
    assert len(knn(z, ["q"], ["a"], k=5)["q"]) == 1 and knn(z, ["a"], ["a"], k=5)["a"] == []


def plain_knn(z, queries, reference, k):
    """Eq. 6 and Eq. 7 one query at a time, as they are printed; what `knn` has to agree with to the last bit."""
    reference = sorted(reference)
    matrix = np.stack([z[i] for i in reference]).astype(np.float64)
    nearest = {}
    for query in queries:
        distance = np.linalg.norm(matrix - z[query].astype(np.float64), axis=1)  # Eq. 6
        order = [j for j in np.argsort(distance, kind="stable") if reference[j] != query][:k]
        nearest[query] = [(reference[j], float(distance[j])) for j in order]
    return nearest


def captions_like(n, kinds, seed):
    """id -> unit vector (C = 16), float32: `kinds` different captions, many of them more than once, and some that
    differ by rounding alone."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(kinds, 16))
    points[1::4] = points[::4][: len(points[1::4])] + 1e-7 * rng.normal(size=points[1::4].shape)
    points = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    ids = [f"i{i:03d}" for i in rng.permutation(n)]
    return {i: points[rng.integers(kinds)] for i in ids}


@pytest.mark.parametrize(("n", "kinds", "k"), [(60, 7, 5), (90, 90, 5), (40, 2, 3), (50, 20, 60), (30, 1, 4)])
def test_neighbours_are_those_of_the_plain_loop(n, kinds, k):
    """Duplicates, all but duplicates, fewer references than k; queries that are references, and others."""
    z = captions_like(n, kinds, seed=n)
    reference = list(z)[: n // 2]
    assert knn(z, list(z), reference, k) == plain_knn(z, list(z), reference, k)


@pytest.mark.parametrize("block", [1, 7, 64])
def test_the_block_changes_nothing(block, monkeypatch):
    z = captions_like(50, 12, seed=1)
    whole = knn(z, list(z), list(z), 5)
    monkeypatch.setattr(score, "BLOCK", block)
    assert knn(z, list(z), list(z), 5) == whole == plain_knn(z, list(z), list(z), 5)


def test_a_training_image_counts_its_twins_but_not_itself():
    """Leave one out, with captions that are word for word the same."""
    z = {n: np.array([1.0, 0.0]) for n in "abcd"} | {"e": np.array([0.0, 1.0])}
    near = knn(z, ["b", "e"], list("abcde"), 3)
    assert near["b"] == [("a", 0.0), ("c", 0.0), ("d", 0.0)]
    assert near["e"] == [(n, math.sqrt(2)) for n in "abc"]


def test_eq8_by_hand():
    assert anomaly_score([0.1, 0.2, 0.6]) == pytest.approx(0.3)


def test_scores_name_neighbours_and_differing_words(tmp_path, bert):
    texts = ["three oranges , two kiwis"] * 5 + ["four oranges , two kiwis", None]
    split = ["train"] * 5 + ["test"] * 2
    manifest = [
        {
            "image_id": f"i{n}",
            "path": "x",
            "dataset": "d",
            "category": "c",
            "condition": "a",
            "split": s,
            "label": 0,
            "mask_paths": [],
        }
        for n, s in enumerate(split)
    ]
    captions = [
        {"image_id": f"i{n}", "prompt_id": "p", "sample": 0, "text": t, "error": None if t else "truncated"}
        for n, t in enumerate(texts)
    ]
    pq.write_table(pa.Table.from_pylist(manifest, schema=MANIFEST.schema), tmp_path / "m.parquet")
    pq.write_table(pa.Table.from_pylist(captions, schema=CAPTIONS.schema), tmp_path / "c.parquet")
    pq.write_table(
        pa.table(
            {
                "dataset": ["d"],
                "category": ["c"],
                "condition": ["a"],
                "path": [str(bert)],
                "n": pa.array([5], pa.int32()),
            }
        ),
        tmp_path / "e.parquet",
    )
    config = ScoreTextKnnConfig(
        captions=tmp_path / "c.parquet",
        manifest=tmp_path / "m.parquet",
        encoders=tmp_path / "e.parquet",
        out=tmp_path / "s",
        device="cpu",
    )
    summary = run(config, QUIET)
    rows = {r["image_id"]: r for r in read_table(tmp_path / "s", SCORES).to_pylist()}
    assert summary.errors == 1 and rows["i6"]["error"] == "truncated" and rows["i6"]["score"] is None
    assert rows["i0"]["score"] == 0 and "i0" not in [n["image_id"] for n in rows["i0"]["neighbours"]]
    near = rows["i5"]["neighbours"][0]
    assert (near["missing"], near["extra"]) == (["three"], ["four"]) and rows["i5"]["score"] > 0.01
    assert rows["i5"]["score"] == pytest.approx(np.mean([n["distance"] for n in rows["i5"]["neighbours"]]))


def score_of(tmp_path, bert, texts, k, path=None):
    """Rows of images with these captions, all but the last one normal training images."""
    manifest = [
        {
            "image_id": f"i{n}",
            "path": "x",
            "dataset": "d",
            "category": "c",
            "condition": "a",
            "label": 0,
            "split": "train" if n < len(texts) - 1 else "test",
            "mask_paths": [],
        }
        for n in range(len(texts))
    ]
    captions = [{"image_id": f"i{n}", "prompt_id": "p", "sample": 0, "text": t} for n, t in enumerate(texts)]
    pq.write_table(pa.Table.from_pylist(manifest, schema=MANIFEST.schema), tmp_path / "m.parquet")
    pq.write_table(pa.Table.from_pylist(captions, schema=CAPTIONS.schema), tmp_path / "c.parquet")
    if path is None:
        path = tmp_path / "e.parquet"
        pq.write_table(
            pa.table(
                {
                    "dataset": ["d"],
                    "category": ["c"],
                    "condition": ["a"],
                    "path": [str(bert)],
                    "n": pa.array([5], pa.int32()),
                }
            ),
            path,
        )
    run(
        ScoreTextKnnConfig(
            captions=tmp_path / "c.parquet",
            manifest=tmp_path / "m.parquet",
            encoders=path,
            out=tmp_path / "s",
            device="cpu",
            k=k,
        ),
        QUIET,
    )
    return read_table(tmp_path / "s", SCORES).to_pylist()


def test_eq8_is_the_mean_of_the_k_nearest_distances(tmp_path, bert):
    texts = ["three oranges", "two oranges", "two kiwis", "one red apple", "many nuts", "three kiwis"]
    rows = score_of(tmp_path, bert, texts, k=3)
    z = encode(*load_encoder(str(bert)), texts)
    distances = sorted(math.dist(z[5], z[i]) for i in range(5))
    assert rows[5]["score"] == pytest.approx(sum(distances[:3]) / 3, abs=1e-6)
    assert distances[2] - distances[0] > 0.01, "neighbours at different distances"


@pytest.mark.parametrize("path", ["../theirs", "{tmp}/theirs", "_encoders/../../theirs"])
def test_an_encoder_outside_its_artifact_is_refused(path, tmp_path, bert):
    """In artifacts of ours; any place may be named by a table of other tools (the tests above)."""
    shutil.copytree(bert, tmp_path / "theirs")
    key = ("d", "c", "a")
    with Artifact(tmp_path / "e", ENCODERS, Spec("train-encoder", {}, {}), [key], QUIET) as artifact:
        artifact.write(dict(zip(ENCODERS.key, key, strict=True)) | {"path": path.format(tmp=tmp_path), "n": 5})
    with pytest.raises(InputError, match="a place outside the artifact"):
        score_of(tmp_path, bert, ["one", "two"], 1, tmp_path / "e")
    assert not (tmp_path / "s").exists()


def test_an_encoder_that_is_gone_is_said_before_anything_is_written(tmp_path, bert):
    shutil.copytree(bert, tmp_path / "enc")
    (tmp_path / "enc" / "model.safetensors").unlink()
    for place, said in ((tmp_path / "enc", "--encoders .* holds no"), (tmp_path / "no", "no such directory")):
        with pytest.raises(InputError, match=said):
            score_of(tmp_path, place, ["one", "two"], 1)
        assert not (tmp_path / "s").exists()
