"""Multiscale Logical Evaluation: Eq. 3, the form of a reply, the embedded judge, a judge behind a server."""

import re
from dataclasses import replace

import pytest

from stages.artifacts.reader import read_table
from stages.artifacts.tables import ANSWERS, JUDGEMENTS
from stages.base.config import RunOptions
from stages.base.errors import InputError, TooManyErrors
from stages.questions.config import JudgeConfig
from stages.questions.judge import run
from stages.questions.mle import mle_score, parse_marks
from stages.questions.words_judge import mark, marks, overlap, stem
from tests.qa import RANKED, cables, write
from tests.vlm.test_server_engine import Faulty

QUIET = RunOptions(quiet=True, max_errors=0)


def test_eq3_by_hand():
    assert mle_score({"category": 5, "location": 3, "logic": 4}) == 4.0
    assert mle_score({"category": 5, "location": 4, "logic": 4}) == pytest.approx(13 / 3)
    assert mle_score({"category": 5, "location": None, "logic": 4}) is None


@pytest.mark.parametrize(
    "reply",
    [
        "category: 4, location: 3, logic: 5",
        "Category: 4; Location: 3; Logic: 5.",
        " category: 4\nlocation: 3\nlogic: 5\n",
        "**category:** 4, **location:** 3, **logic:** 5",
    ],
)
def test_replies_in_form(reply):
    assert parse_marks(reply) == {"category": 4, "location": 3, "logic": 5}


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "4 3 5",
        "category: 4, location: 3",
        "category: 0, location: 3, logic: 5",
        "category: 6, location: 3, logic: 5",
        "category: 4.5, location: 3, logic: 5",
        "category: 4/5, location: 3/5, logic: 5/5",
        "category: 44, location: 3, logic: 5",
        "category: N, location: N, logic: N",
        "location: 3, category: 4, logic: 5",
        "category: 4, location: 3, logic: 5 or 4",
        "category: four, location: 3, logic: 5",
        "Sure! category: 4, location: 3, logic: 5",
        "category: 4location: 3logic: 5",
    ],
)
def test_replies_that_are_not(reply):
    assert parse_marks(reply) is None


def test_the_embedded_judge_by_hand():
    assert [mark(s) for s in (0, 0.12, 0.125, 0.5, 0.874, 0.875, 1)] == [1, 1, 2, 3, 4, 5, 5]
    assert overlap({"a", "b"}, {"b", "c"}) == pytest.approx(1 / 3) and overlap(set(), set()) == 1.0
    assert (stem("scratches"), stem("scratched"), stem("cracks"), stem("red")) == ("scratch", "scratch", "crack", "red")
    expert = "Yes, a crack at the left edge."
    assert marks(expert, expert)[0] == {"category": 5, "location": 5, "logic": 5}
    # The same verdict, dent against crack: (1 + 0) / 2 -> 3. {right, edge} and {left, edge}: 1/3 -> 1 + 4/3 -> 2.
    # {dent, right, edge} and {crack, left, edge}: 1/5 -> 1.8 -> 2.
    found, raw = marks("Yes, a dent at the right edge.", expert)
    assert found == {"category": 3, "location": 2, "logic": 2}
    assert raw == "words: verdict 1, defects 0.00, places 0.33, content 0.20"
    # No against yes: 0, no defect named: 0 -> 1; no place: 0 -> 1; {whole} shares nothing -> 1.
    assert marks("No, it is whole.", expert)[0] == {"category": 1, "location": 1, "logic": 1}
    # No verdict: 0.5 and the same defect: (0.5 + 1) / 2 -> 4; neither names a place -> 5; {crack} of {crack, long} -> 3
    assert marks("A crack.", "Yes, a long crack.")[0] == {"category": 4, "location": 5, "logic": 3}
    assert marks("True. It is cut.", "False. It is cut.")[0]["category"] == 3


@pytest.fixture
def config(tmp_path, save_image):
    return JudgeConfig(**cables(tmp_path, save_image), out=tmp_path / "j", root=tmp_path)


def rows_of(config):
    return {(r["question_id"], r["method"]): r for r in read_table(config.out, JUDGEMENTS).to_pylist()}


def with_server(config, server, **more):
    options = {"retries": 0, "concurrency": 2} | more
    return replace(config, judge="tiny", engine="server", base_url=server.url, **options)


def test_a_questions_own_choices_are_judged(config):
    summary = run(config, QUIET)
    rows = rows_of(config)
    assert summary.rows == 6 * 4 + 3 + 1 and summary.errors == 1
    best, worst = (mle_score(rows["r0", f"choice/{n}"]) for n in (0, 3))
    assert best == 5.0 and worst == pytest.approx((1 + 5 + 1) / 3)
    assert rows["r0", "choice/0"]["raw"].startswith("words: verdict 1")
    assert mle_score(rows["m", "choice/1"]) == 5.0, "`dent`, the right one, wherever it stands"
    assert rows["lost", "choice/0"]["error"] == "its image is not there"
    assert not any(k[0] == "open" for k in rows)


def answers(config):
    """Of two methods: words behind a letter, a letter alone, by likelihood, words that name no option, nothing."""
    rows = [
        {"question_id": "r0", "method": "a", "response": "B. It is cut.", "parsed": "strict", "choice": 0},
        {"question_id": "r1", "method": "a", "response": "C", "parsed": "strict", "choice": 3},
        {"question_id": "r0", "method": "b", "choice": 1},
        {"question_id": "r1", "method": "b", "response": "It looks odd.", "parsed": "unparsable", "error": "none"},
        {"question_id": "r2", "method": "b", "error": "no such image"},
        {"question_id": "open", "method": "b", "response": "It is cut at the left end."},
        {"question_id": "else", "method": "b", "response": "x"},
    ]
    return replace(config, answers=write(config.root / "a.parquet", ANSWERS, rows))


def judged_text(text):
    return re.search("Answer to mark: (.*)", text)[1]


@pytest.mark.slow
def test_what_of_an_answer_is_judged(config):
    server = Faulty(lambda text: None)
    server.say = lambda body, text: "category: 4, location: 3, logic: 5"
    config = with_server(answers(config), server)
    summary = run(config, QUIET)
    rows, said = rows_of(config), sorted(judged_text(t) for t in server.tries)
    assert said == sorted(["It is cut.", RANKED[3], RANKED[1], "It looks odd.", "It is cut at the left end."])
    assert summary.errors == 1 and rows["r2", "b"]["error"] == "no answer to judge: no such image"
    assert {k: rows["r0", "a"][k] for k in ("category", "location", "logic", "raw")} == {
        "category": 4,
        "location": 3,
        "logic": 5,
        "raw": "category: 4, location: 3, logic: 5",
    }
    body = next(b for b in server.bodies if "It looks odd." in str(b))
    parts = body["messages"][0]["content"]
    assert [p["type"] for p in parts] == ["image_url", "image_url", "text"] and body["temperature"] == 0.0
    assert f"Best answer, written by an expert: {RANKED[0]}\n" in parts[-1]["text"]
    assert "Question: Is it cut? (r1)\n" in parts[-1]["text"]


def test_a_malformed_reply_is_asked_for_again_with_another_seed(config):
    server = Faulty(lambda text: None)
    first = set()

    def say(body, text):
        answer = judged_text(text)
        if answer == RANKED[3]:
            return "I would give it a four."  # never in form
        if answer == "It is cut." and answer not in first:
            first.add(answer)
            return "category: 9, location: 3, logic: 5"  # in form the second time
        return "category: 2, location: 2, logic: 2"

    server.say = say
    config = with_server(answers(config), server)
    summary = run(config, QUIET)
    rows = rows_of(config)
    tries = {judged_text(t): n for t, n in server.tries.items()}
    assert tries == {"It is cut.": 2, RANKED[3]: 3, RANKED[1]: 1, "It looks odd.": 1, "It is cut at the left end.": 1}
    assert mle_score(rows["r0", "a"]) == 2.0
    assert rows["r1", "a"].pop("seconds") > 0
    assert rows["r1", "a"] == {
        "question_id": "r1",
        "method": "a",
        "category": None,
        "location": None,
        "logic": None,
        "raw": "I would give it a four.",
        "prompt_tokens": 21,  # of all three tries
        "completion_tokens": 9,
        "error": "the judge's reply has not the stated form (3 tries)",
        "retry": False,
    }
    again = [b for b in server.bodies if judged_text(b["messages"][0]["content"][-1]["text"]) == RANKED[3]]
    assert len({b["seed"] for b in again}) == 3 and [b["temperature"] for b in again] == [0.0, 0.7, 0.7]
    assert summary.errors == 2
    server.say = lambda body, text: "category: 2, location: 2, logic: 2"
    server.tries.clear()
    assert run(config, QUIET).errors == 2 and not server.tries, "final after --tries"
    assert run(config, replace(QUIET, retry="all")).errors == 1
    assert {judged_text(t) for t in server.tries} == {RANKED[3]}, "only those again"


def test_a_judge_that_is_down_from_the_start_is_one_line(config):
    with pytest.raises(InputError, match="no server answers there"):
        run(replace(config, judge="tiny", engine="server", base_url="http://127.0.0.1:9/v1", retries=0), QUIET)
    assert not config.out.exists()


def test_a_judge_that_goes_down_stops_the_run_and_loses_nothing(config):
    server = Faulty(lambda text: None)
    server.say = lambda body, text: "category: 2, location: 2, logic: 2"
    server.plan = lambda text: "closed" if sum(server.tries.values()) > 4 else None
    config = with_server(config, server)
    with pytest.raises(TooManyErrors, match="5 rows failed in succession, the last with: server: Connection error"):
        run(config, RunOptions(quiet=True, max_errors=5))
    assert sum(server.tries.values()) < 16, "of 27 answers"
    server.plan = lambda text: None
    before = sum(server.tries.values())
    summary = run(config, QUIET)
    assert summary.rows == 28 and summary.errors == 1 and summary.complete
    assert sum(server.tries.values()) - before == 23, "what was judged is kept"


def test_a_judge_that_is_no_judge_is_found_out_before_all_are_asked(config, tmp_path, monkeypatch):
    monkeypatch.setattr("stages.questions.judge.BLOCK", 6)
    server = Faulty(lambda text: None)
    with pytest.raises(TooManyErrors, match="has not the stated form"):
        run(with_server(config, server), RunOptions(quiet=True, max_errors=5))
    assert 6 * 2 + 5 <= sum(server.tries.values()) <= 6 * 3, "of 27 answers"


def test_a_refused_key_is_one_line_at_once(config):
    server = Faulty(lambda text: "401")
    config = with_server(config, server, retries=6)
    with pytest.raises(InputError, match="401 wrong key .*OPENAI_API_KEY"):
        run(config, QUIET)
    assert sum(server.tries.values()) <= 4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tries": 0}, "--tries 0"),
        ({"judge": "scene"}, "--judge scene"),
        ({"judge": "wrods"}, "did you mean words"),
        ({"temperature": -1.0}, "--temperature -1.0: expected 0 or more"),
    ],
)
def test_wrong_options(config, wrong, message):
    with pytest.raises(InputError, match=message):
        run(replace(config, **wrong), QUIET)


def test_answers_to_other_questions_are_one_line(config, tmp_path):
    other = write(tmp_path / "o.parquet", ANSWERS, [{"question_id": "x", "method": "a", "response": "x"}])
    with pytest.raises(InputError, match="answers none of these questions"):
        run(replace(config, answers=other), QUIET)


@pytest.mark.slow
def test_a_real_model_as_judge_gives_error_rows_with_its_words(config, qwen):
    config = replace(answers(config), judge=str(qwen), device="cpu", dtype="float32", max_tokens=4, tries=2)
    summary = run(config, QUIET)
    row = rows_of(config)["r0", "a"]
    assert summary.errors == 6 and row["raw"] and row["category"] is None and "(2 tries)" in row["error"]
