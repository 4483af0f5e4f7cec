"""What would stop SAGE's scripts after hours of training stops them before it."""

import pytest

from tests.pipelines.recorded import NEEDED, Run, value

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
