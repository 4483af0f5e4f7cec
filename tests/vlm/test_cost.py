"""Seconds and tokens of every answer: how they are shared, kept, and read from older artifacts."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.artifacts.reader import fingerprint, read_table
from stages.artifacts.tables import ANSWERS, CAPTIONS, JUDGEMENTS, SCORES, Table
from stages.artifacts.writer import Artifact, Spec
from stages.base.config import RunOptions
from stages.captions.caption import run as caption
from stages.captions.config import CaptionConfig
from stages.lvlm.config import LvlmConfig
from stages.lvlm.score import run as ask_lvlm
from stages.questions.config import JudgeConfig
from stages.questions.judge import run as judge
from stages.report.lvlm_cost import table
from stages.results.scores import Scored, TaskScores
from stages.vlm.engine import Lap, Reply, Request, Sampling, ask
from tests.qa import cables
from tests.vlm.test_server_engine import Faulty

QUIET = RunOptions(quiet=True)


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = SimpleNamespace(time=100.0)
    monkeypatch.setattr("stages.vlm.engine.time", SimpleNamespace(monotonic=lambda: now.time))
    return now


def test_replies_that_come_together_share_their_time_and_writing_rows_is_no_part_of_it(clock):
    lap, seen = Lap(), []
    clock.time += 6
    for reply in lap.shared([Reply((1,), "a"), Reply((2,), error="no"), Reply((3,), "b")]):
        seen.append(reply.seconds)
        clock.time += 50  # a row is written
    clock.time += 4
    seen += [r.seconds for r in lap.shared([])]
    seen += [r.seconds for r in lap.shared([Reply((4,), "c")])]
    assert seen == [3.0, None, 3.0, 4.0]


def test_an_engine_that_says_nothing_of_time_is_timed_from_outside(clock):
    def run(requests, sampling):
        for n, request in enumerate(requests):
            clock.time += n + 1
            yield Reply(request.key, "a", seconds=9.0 if n == 2 else None)

    engine = SimpleNamespace(run=run)
    replies = ask(engine, [Request((n,), "?") for n in range(4)], Sampling(), print)
    assert [r.seconds for r in replies] == [1.0, 2.0, 9.0, 4.0]


def test_rows_of_one_batch_have_one_time_and_their_own_tokens(images, qwen, tmp_path):
    config = LvlmConfig(manifest=images, root=images.parent, out=tmp_path / "s", vlm=str(qwen), device="cpu")
    ask_lvlm(replace(config, dtype="float32", max_tokens=3, batch_size=2), QUIET)
    rows = read_table(config.out, SCORES).to_pylist()
    assert len(rows) == 4 and len({r["seconds"] for r in rows}) == 2 and min(r["seconds"] for r in rows) > 0
    assert all(r["prompt_tokens"] > 20 and 1 <= r["completion_tokens"] <= 3 for r in rows)


@pytest.mark.slow
def test_captions_and_judgements_have_them_too(images, tmp_path, save_image):
    server = Faulty(lambda text: None)
    at = {"engine": "server", "base_url": server.url}
    caption(CaptionConfig(manifest=images, root=images.parent, out=tmp_path / "c", vlm="tiny", **at), QUIET)
    rows = read_table(tmp_path / "c", CAPTIONS).to_pylist()
    assert {(r["prompt_tokens"], r["completion_tokens"]) for r in rows} == {(7, 3)}, "as the server counts"
    assert all(r["seconds"] > 0 for r in rows)
    tried = []

    def say(body, text):
        tried.append(text)
        return "category: 4, location: 3, logic: 5" if tried.count(text) > 1 else "hm"

    server.say = say
    config = JudgeConfig(**cables(tmp_path, save_image), out=tmp_path / "j", root=tmp_path, judge="tiny", tries=9, **at)
    judge(config, QUIET)
    rows = [r for r in read_table(config.out, JUDGEMENTS).to_pylist() if not r["error"]]
    assert len(rows) > 4
    assert all(r["prompt_tokens"] % 7 == 0 and r["prompt_tokens"] > 7 and r["seconds"] > 0 for r in rows)
    assert sum(r["prompt_tokens"] for r in rows) == 7 * len(tried), "of all tries"


NEW = {"prompt_tokens", "seconds"}


def as_an_older_adcli_wrote_it(folder: Path) -> None:
    for part in folder.glob("part-*.parquet"):
        rows = pq.read_table(part)
        pq.write_table(rows.drop_columns([c for c in NEW if c in rows.column_names]), part)


def test_an_older_artifact_is_resumed_and_its_rows_stay_as_they_are(tmp_path):
    """Its failed row is tried again within its own part, the missing one is added; the key is the same."""
    spec, keys = Spec("score", {"method": "m"}, {}), [(i, "m") for i in "abc"]
    with Artifact(tmp_path / "s", SCORES, spec, keys, RunOptions(quiet=True, limit=2)) as artifact:
        artifact.write({"image_id": "a", "method": "m", "score": 1.0, "seconds": 2.0})
        artifact.write({"image_id": "b", "method": "m", "error": "no server"})
    as_an_older_adcli_wrote_it(tmp_path / "s")
    old = read_table(tmp_path / "s", SCORES, partial=True).to_pylist()[0]
    assert old["score"] == 1.0 and old["seconds"] is None
    with Artifact(tmp_path / "s", SCORES, spec, keys, QUIET) as artifact:
        assert artifact.pending == [("c", "m"), ("b", "m")]
        for key, _ in list(artifact.pending):
            artifact.write({"image_id": key, "method": "m", "score": 0.0, "seconds": 5.0, "prompt_tokens": 7})
    rows = read_table(tmp_path / "s", SCORES).to_pylist()
    assert rows[0] == old and [(r["seconds"], r["prompt_tokens"]) for r in rows[1:]] == [(5.0, 7)] * 2


WITH_AND_WITHOUT: dict[str, dict] = {"without": {}, "timed": {"seconds": 2.0}}


@pytest.mark.parametrize("kind", [CAPTIONS, SCORES, ANSWERS, JUDGEMENTS], ids=lambda t: t.name)
def test_what_a_table_says_is_the_same_with_and_without_them(kind: Table, tmp_path):
    row = {f.name: 1 if "int" in str(f.type) else "x" for f in kind.schema if not f.nullable and "list" not in str(f)}
    row |= {f.name: [] for f in kind.schema if not f.nullable and "list" in str(f)}
    without, timed = (
        read_table(_written(tmp_path / n, kind, row | more), kind) for n, more in WITH_AND_WITHOUT.items()
    )
    assert fingerprint(without, kind) == fingerprint(timed, kind) and timed["seconds"][0].as_py() == 2


def _written(path: Path, kind: Table, row: dict) -> Path:
    pq.write_table(pa.Table.from_pylist([row], schema=kind.schema), path)
    return path


def test_the_table_has_the_papers_seconds_below_ours():
    def row(seconds, read, parsed="strict"):
        return Scored(None, {"seconds": seconds, "prompt_tokens": read, "completion_tokens": None, "parsed": parsed})

    rows = (row(2.0, 100), row(5.0, 201), row(None, None, None))
    tasks = [TaskScores("visa", c, None, m, rows, 0) for m in ("lvlm/m/1-shot", "padim") for c in "ab"]
    tasks[2:] = [replace(t, rows=(Scored(None, rows[2].row | {"seconds": 1.0}),)) for t in tasks[2:]]
    record = {"parameters": {"method": "lvlm/m/1-shot"}, "runs": [{"device": "cuda", "rows": 3}]}
    ours, papers = table(tasks, [record]).rows
    assert ours == ("visa", "lvlm/m/1-shot, ours", "3.50", "150", "-", "4", "cuda")
    assert papers[1:3] == ("Qwen2-VL-72B-AWQ (published)", "4.74")
    assert not table(tasks[2:], []).rows, "padim answers in no words"
