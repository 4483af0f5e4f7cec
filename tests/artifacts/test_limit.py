"""--limit: a quick try is an artifact that is not complete yet, and the command without it goes on from there."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adcli.score import METHODS
from stages.artifacts.reader import fingerprint, read_table
from stages.artifacts.record import COMPLETE, PARTIAL, load_record
from stages.artifacts.scores_and_maps import scores_and_maps
from stages.artifacts.tables import CAPTIONS, MAPS, SCORES
from stages.artifacts.writer import Artifact, Spec
from stages.base.config import RunOptions
from stages.base.errors import InputError
from tests.processes import called

ROOT = Path(__file__).parents[2]
SPEC = Spec("caption", {"prompt": "a"}, {"manifest": "m"})
KEYS = [(f"d/{i:03d}.jpg", "p", 0) for i in range(12)]


def write(out, limit=None, failing=(), shard="0/1"):
    """(summary, keys that were done in this run); keys in `failing` get an error."""
    with Artifact(out, CAPTIONS, SPEC, KEYS, RunOptions(quiet=True, limit=limit, shard=shard)) as artifact:
        done = list(artifact.pending)
        for key in done:
            said = {"error": "bad"} if key in failing else {"text": f"text of {key[0]}"}
            artifact.write(dict(zip(CAPTIONS.key, key, strict=True)) | said)
        assert artifact.progress.total == len(done)
    return artifact.summary, done


def test_the_first_that_are_missing_and_failed_ones_last(tmp_path):
    first, done = write(tmp_path / "c", 3, failing=KEYS[:2])
    assert done == KEYS[:3] and (first.rows, first.errors, first.complete) == (3, 2, False)
    assert load_record(tmp_path / "c" / PARTIAL)["key"] == SPEC.key
    with pytest.raises(InputError, match=r"stopped at its --limit.* without --limit"):
        read_table(tmp_path / "c", CAPTIONS)
    second, done = write(tmp_path / "c", 8)
    assert done == KEYS[3:11] and second.rows == 11
    third, done = write(tmp_path / "c", 2)
    assert done == [KEYS[11], KEYS[0]] and third.complete and third.errors == 1
    last, done = write(tmp_path / "c", 5)
    assert done == [KEYS[1]] and last.complete and not last.errors
    assert write(tmp_path / "c", 1)[0].up_to_date


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.sampled_from(["0/1", "0/2", "1/2", "2/3"])), max_size=5))
def test_whatever_was_tried_the_full_command_makes_the_same_table(tmp_path_factory, tries):
    out = tmp_path_factory.mktemp("tries")
    whole, _ = write(out / "whole")
    for limit, shard in tries:
        _, done = write(out / "tried", limit, shard=shard)
        assert len(done) <= limit
    summary, _ = write(out / "tried")
    assert summary.complete and summary.rows == whole.rows
    said = [fingerprint(read_table(out / name, CAPTIONS), CAPTIONS) for name in ("tried", "whole")]
    assert said[0] == said[1]
    records = [load_record(out / name / COMPLETE) for name in ("tried", "whole")]
    assert records[0]["key"] == records[1]["key"]


def both(out, limit=None, maps=True, only=None):
    """Write scores and maps of six images; returns the summary and what was asked for. only: fail after so many."""
    keys, asked = [(str(n), "m") for n in range(6)], []

    def results(todo, artifact):
        for key in todo[:only]:
            asked.append(int(key[0]))
            yield key, {"score": float(key[0])}, np.full((2, 2), float(key[0]))

    places = (out / "s", out / "m" if maps else None)
    return scores_and_maps(*places, {}, {}, keys, RunOptions(quiet=True, limit=limit), 1, results), asked


def test_scores_and_maps_have_the_same_rows(tmp_path):
    both(tmp_path, only=1, maps=False)  # a score without its map
    first, asked = both(tmp_path, 2)
    assert asked == [1, 2] and (first.rows, first.complete) == (3, False)
    assert read_table(tmp_path / "m", MAPS, partial=True)["image_id"].to_pylist() == ["1", "2"]
    second, asked = both(tmp_path, 9)
    assert asked == [0, 3, 4, 5] and second.complete
    assert len(read_table(tmp_path / "s", SCORES)) == len(read_table(tmp_path / "m", MAPS)) == 6


def test_maps_that_are_lacking_make_it_incomplete(tmp_path):
    assert both(tmp_path, maps=False)[0].complete
    summary, asked = both(tmp_path, 2)
    assert asked == [0, 1] and (summary.rows, summary.written, summary.complete) == (6, 0, False)


@pytest.mark.slow
def test_a_try_and_then_the_rest(tmp_path, save_image):
    for n in range(5):
        save_image(tmp_path / "photos" / f"{n}.jpg", n)
    m, c = tmp_path / "m", tmp_path / "c"
    assert called("data", "index", "folder", tmp_path / "photos", "--out", m).returncode == 0
    done = called("caption", m, "--out", c, "--limit", 2, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith("2 of 5 rows; the same command without --limit does the rest\n")
    assert [json.loads(done.stdout)[n] for n in ("rows", "expected", "complete")] == [2, 5, False]
    refused = called("rewrite-negatives", c, "--manifest", m, "--out", tmp_path / "n")
    assert refused.returncode == 2 and "without --limit" in refused.stderr
    rest = called("caption", m, "--out", c)
    assert rest.returncode == 0 and "5 of 5 rows, 3 new" in rest.stderr and "--limit" not in rest.stderr
    assert "up to date" in called("caption", m, "--out", c, "--limit", 1).stderr
    for wrong in (0, -3):
        done = called("caption", m, "--out", tmp_path / "x", "--limit", wrong)
        assert done.returncode == 2 and f"--limit {wrong}: expected 1 or more" in done.stderr
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_commands_that_offer_it():
    """Where rows are made one by one, and nowhere else."""
    offered = [["caption"], ["rewrite-negatives"], ["data", "questions"]]
    without = [["train-encoder"], ["evaluate"], ["inspect"], ["data", "augment"], ["data", "index", "folder"]]
    for method in METHODS:
        (without if method.startswith("anomalib/") else offered).append(["score", "--method", method])
    code = "import sys\nfrom adcli.main import run\nfor leaf in {}: run([*leaf, '--help']); print('END')"
    for leaves, there in ((offered, True), (without, False)):
        done = subprocess.run([sys.executable, "-c", code.format(leaves)], capture_output=True, text=True, cwd=ROOT)
        pages = done.stdout.split("END\n")[:-1]
        assert [("--limit <int>" in page) for page in pages] == [there] * len(leaves), done.stderr
