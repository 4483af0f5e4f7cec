"""What would stop SAGE's scripts after hours of training stops them before it."""

import re

import pytest

from pipelines.sage_choosing import main
from stages.artifacts.tables import QUESTIONS
from tests.pipelines.recorded import NEEDED, Run, value
from tests.sage_world import write

JUDGED = {"JUDGE": "gpt-4o", "JUDGING": "--engine server --base-url http://judge/v1"}


@pytest.mark.parametrize("script", ["sage.sh", "sage_ablations.sh", "sage_demo.sh"])
def test_the_judge_is_asked_before_anything_is_trained(script, tmp_path):
    given = NEEDED.get(script, {}) | JUDGED
    run = Run(tmp_path, script, **given).done()
    assert run.code == 0, run.output
    asked, trial = run.of("--method", "mle")[0], run.of("pipelines.first_row")[0]
    assert run.commands.index(asked) < run.commands.index(trial) < run.commands.index(run.of("finetune-mllm")[0])
    assert trial[-1] == "JUDGE=gpt-4o" and trial[-2] == value(asked, "--out")
    if script != "sage_demo.sh":  # whose judge is one of this machine
        assert value(asked, "--limit") == "1" and value(asked, "--base-url") == "http://judge/v1"
        assert value(asked, "--questions").endswith("questions.parquet/visa")
    stopped = Run(tmp_path, script, FAIL_ON="pipelines.first_row", FAIL_WITH="1", **given).done()
    assert stopped.code == 1 and not stopped.of("finetune-mllm")


def test_the_trial_of_the_ablations_leaves_the_judgements_that_they_learn_from(tmp_path):
    run = Run(tmp_path, "sage_ablations.sh", **NEEDED["sage_ablations.sh"]).done()
    (judgements,) = {value(c, "--judgements") for c in run.of("--method", "sage-edpo")}
    assert all(value(c, "--out") != judgements for c in run.of("--method", "mle"))


@pytest.mark.parametrize("script", ["sage.sh", "sage_ablations.sh"])
def test_the_way_of_choosing_is_looked_at_first(script, tmp_path):
    run = Run(tmp_path, script, CHOOSE="prefix", **NEEDED[script]).done()
    assert run.code == 0 and run.commands[0][-3:] == ["pipelines.sage_choosing", "questions.parquet", "prefix"]
    stopped = Run(tmp_path, script, FAIL_ON="pipelines.sage_choosing", FAIL_WITH="1", **NEEDED[script]).done()
    assert stopped.code == 1 and len(stopped.commands) == 1


def asked(folder, *choices):
    rows = [
        {"question_id": f"q{n}", "image_id": "i", "level": "standard", "question": "Whole?", "choices": c}
        for n, c in enumerate(choices)
    ]
    return write(folder / "q.parquet", rows, QUESTIONS)


def test_questions_that_cannot_be_asked_so_are_said(tmp_path):
    both, four, free = ["True", "False"], ["a", "b", "c", "d"], []
    for choose, choices, said in (
        ("prefix", (both, ["false", "true"]), None),
        ("generate", (both, four, free), None),
        ("likelihood", (both, four), None),
        ("prefix", (both, four, free), "CHOOSE=prefix: 2 of 3 questions of .*, the first is q1 .* set CHOOSE=generate"),
        ("likelihood", (free, both), "CHOOSE=likelihood: 1 of 2 .* q0 .it has no choices to weigh.; take them out"),
        ("generate", ([str(n) for n in range(30)],), "CHOOSE=generate: 1 of 1 .* at most 26 can be lettered"),
        ("prefixes", (both,), "CHOOSE=prefixes: expected generate, likelihood, prefix"),
    ):
        found = main(asked(tmp_path, *choices), choose)
        assert found is None if said is None else re.match(said, found), (choose, found)
        assert "\n" not in (found or "")
    assert main(tmp_path / "gone.parquet", "prefix").startswith("TEST_QUESTIONS: ")
