"""Where a table comes from: inputs that are unchanged, changed, gone, damaged or of other tools; each once."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.artifacts.origin import CHANGED, GONE, THERE, UNCHANGED, chain, tops
from stages.artifacts.reader import fingerprint, read_table
from stages.artifacts.tables import CAPTIONS, MANIFEST, MAPS, NEGATIVES, SCORES
from stages.artifacts.writer import Artifact, Spec
from stages.base.config import RunOptions
from stages.base.errors import InputError

QUIET = RunOptions(quiet=True)
IMAGE = {"dataset": "d", "category": "c", "split": "test", "mask_paths": []}
NEGATIVE = {"image_id": "0", "sample": 0, "edits": [], "attempts": 0, "error": "no"}


def make(out, table, stage, inputs, rows, options=QUIET, **more):
    """An artifact with these rows. inputs: name -> (path, its table), or a path that has no fingerprint."""
    prints = {n: fingerprint(read_table(p[0], p[1]), p[1]) for n, p in inputs.items() if isinstance(p, tuple)}
    paths = {n: str(p[0] if isinstance(p, tuple) else p) for n, p in inputs.items()}
    keys = [tuple(row[k] for k in table.key) for row in rows]
    with Artifact(out, table, Spec(stage, {"a": 1}, prints, 7, paths=paths, **more), keys, options) as artifact:
        artifact.write_all(rows)
    return out


def manifest(out, n=3, options=QUIET, **inputs):
    rows = [{"image_id": str(i), "path": str(i)} | IMAGE for i in range(n)]
    return make(out, MANIFEST, "data index", inputs, rows, options)


@pytest.fixture
def world(tmp_path):
    """Pictures -> manifest -> captions -> negatives, which also read the manifest."""
    (tmp_path / "pictures").mkdir()
    m = manifest(tmp_path / "m", root=tmp_path / "pictures")
    rows = [{"image_id": str(i), "prompt_id": "p", "sample": 0, "text": "A"} for i in range(3)]
    c = make(tmp_path / "c", CAPTIONS, "caption", {"manifest": (m, MANIFEST)}, rows)
    inputs = {"captions": (c, CAPTIONS), "manifest": (m, MANIFEST)}
    make(tmp_path / "n", NEGATIVES, "rewrite-negatives", inputs, [NEGATIVE])
    return tmp_path


def states(made):
    return {i.name: i.state for i in made.inputs}


def test_the_chain_holds_each_table_once(world):
    found = chain(world / "n")
    assert list(found) == [str(world / n) for n in "ncm"]
    negatives, captions, images = found.values()
    assert (negatives.rows, negatives.errors, negatives.complete) == (1, 1, True)
    assert states(negatives) == {"captions": UNCHANGED, "manifest": UNCHANGED}
    assert states(captions) == {"manifest": UNCHANGED} and states(images) == {"root": THERE}
    assert [i.tables for i in negatives.inputs] == [(str(world / "c"),), (str(world / "m"),)]
    assert negatives.record["seed"] == 7 and negatives.record["parameters"] == {"a": 1}


def test_a_relative_path_and_a_part_are_the_artifact(world, monkeypatch):
    monkeypatch.chdir(world)
    (part,) = (world / "c").glob("part-*")
    weights = world / "c" / "_checkpoint"
    weights.mkdir()
    for path in ((world / "c").relative_to(world), part, weights):
        assert list(chain(path)) == [str(world / n) for n in "cm"]


def test_a_folder_of_artifacts_is_all_of_them(world):
    assert set(chain(world)) == {str(world / n) for n in "ncm"}


def test_inputs_that_are_no_longer_what_they_were(world):
    shutil.rmtree(world / "m")
    manifest(world / "m", 4, root=world / "elsewhere")
    found = chain(world / "n")
    assert states(found[str(world / "n")])["manifest"] == CHANGED
    assert states(found[str(world / "m")]) == {"root": GONE}
    shutil.rmtree(world / "c")
    found = chain(world / "n")
    assert states(found[str(world / "n")]) == {"captions": GONE, "manifest": CHANGED}
    assert list(found) == [str(world / n) for n in "nm"]


def test_an_input_that_grows_or_is_damaged_is_said_and_no_error(world):
    (world / "m" / "_adcli.json").rename(world / "m" / "_adcli.partial.json")
    found = chain(world / "c")
    assert "not complete" in states(found[str(world / "c")])["manifest"]
    assert not found[str(world / "m")].complete and found[str(world / "m")].rows == 3
    (world / "m" / "_adcli.partial.json").write_text("{")
    found = chain(world / "c")
    assert "damaged" in states(found[str(world / "c")])["manifest"] and list(found) == [str(world / "c")]
    with pytest.raises(InputError, match="damaged"):
        chain(world / "m")


def test_what_is_there_of_an_artifact_that_grows_is_counted(tmp_path):
    rows = [{"image_id": str(i), "method": "m", "error": None if i % 3 else "no"} for i in range(12)]
    make(tmp_path / "s", SCORES, "score", {}, rows, RunOptions(quiet=True, shard="0/2", max_errors=0))
    (made,) = chain(tmp_path / "s").values()
    (part,) = (tmp_path / "s").glob("part-*")
    failed = [e for e in pq.read_table(part)["error"].to_pylist() if e]
    assert (made.rows, made.complete) == (6, False) and made.errors == len(failed) > 0


def test_tables_of_other_tools(world):
    foreign = world / "theirs.parquet"
    pq.write_table(pa.table({"image_id": ["0"], "prompt_id": ["p"], "sample": [0], "text": ["A"]}), foreign)
    make(world / "x", NEGATIVES, "rewrite-negatives", {"captions": (foreign, CAPTIONS)}, [NEGATIVE])
    made, theirs = chain(world / "x").values()
    assert states(made) == {"captions": UNCHANGED}
    assert theirs.record is None and theirs.key is None and theirs.rows == 1
    assert theirs.columns == (("image_id", "string"), ("prompt_id", "string"), ("sample", "int64"), ("text", "string"))
    (part,) = (world / "c").glob("part-*")
    (lost,) = chain(shutil.copy(part, world / "lost.parquet")).values()
    assert lost.record is None and lost.key == pq.read_schema(part).metadata[b"adcli_key"].decode()


def test_outputs_beside_a_table_are_no_inputs(tmp_path):
    rows = [{"image_id": "0", "method": "m", "error": "no"}]
    maps = make(tmp_path / "maps", MAPS, "score maps", {}, rows)
    made = make(tmp_path / "s", SCORES, "score", {"maps": maps, "report": tmp_path / "r.html"}, rows)
    assert chain(made)[str(made)].inputs == ()


def test_maps_are_compared_by_their_keys(tmp_path):
    rows = [{"image_id": "0", "method": "m", "error": "no"}]
    maps = make(tmp_path / "maps", MAPS, "score maps", {}, rows)
    key = chain(maps)[str(maps)].record["key"]
    for said, state in ((key, UNCHANGED), ("0" * 32, CHANGED)):
        out = tmp_path / said[:4]
        spec = Spec("evaluate", {}, {"maps": said}, paths={"maps": str(maps)})
        with Artifact(out, SCORES, spec, [("0", "m")], QUIET) as artifact:
            artifact.write_all(rows)
        assert states(chain(out)[str(out)]) == {"maps": state}


def test_what_is_no_table_is_refused(tmp_path):
    (tmp_path / "text").write_text("")
    (tmp_path / "bad.parquet").write_text("")
    (tmp_path / "empty").mkdir()
    for name, said in (
        ("nix", "no such"),
        ("text", "neither"),
        ("empty", "neither"),
        ("bad.parquet", "cannot be read"),
    ):
        with pytest.raises(InputError, match=said):
            chain(tmp_path / name)


def test_records_that_name_each_other_have_an_end(world):
    record = world / "m" / "_adcli.json"
    said = json.loads(record.read_text())
    record.write_text(json.dumps(said | {"paths": {"captions": str(world / "c")}}))
    assert list(chain(world / "c")) == [str(world / n) for n in "cm"]


def test_what_was_written_with_a_table_leads_to_it(world):
    """Weights however deep, the report, a heat map as deep as its picture's id; a folder beside them does not."""
    results = world / "results"
    weights, map_ = world / "c" / "_encoders" / "d" / "c" / "config.json", results / "heat" / "m" / "d" / "a" / "0.png"
    for file in (weights, map_, results / "report.html", results / "own" / "x.png"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    named = {"report": results / "report.html", "heatmaps": results / "heat", "scores": world / "n"}
    metrics = make(results / "metrics", SCORES, "evaluate", named, [{"image_id": "0", "method": "m", "error": "no"}])
    (results / "damaged").mkdir()
    (results / "damaged" / "_adcli.json").write_text("{")
    assert next(iter(chain(weights))) == str(world / "c")
    for path in (results / "report.html", results / "heat", map_):
        assert list(chain(path)) == [str(metrics), *(str(world / n) for n in "ncm")]
        assert [made.path for made in tops(path, chain(path))] == [str(metrics)]
    with pytest.raises(InputError, match="neither an artifact"):
        chain(results / "own" / "x.png")


def test_a_training_that_was_done_again_is_another_one(world):
    """Its table's fingerprint is in no record of scores; its date is."""
    scores = make(world / "s", SCORES, "score", {"checkpoint": world / "c"}, [{"image_id": "0", "method": "m"}])
    assert states(chain(scores)[str(scores)]) == {"checkpoint": THERE}
    record = world / "c" / "_adcli.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"date": "2999-01-01T00:00:00+00:00"}))
    assert states(chain(scores)[str(scores)]) == {"checkpoint": CHANGED}
