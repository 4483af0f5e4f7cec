"""A small share of benchmarks.kills: random instants, SIGKILL and SIGTERM."""

import pytest

from benchmarks.kills import run, stages_of

pytestmark = pytest.mark.slow


def test_stages_killed_at_random_instants(tmp_path, capsys):
    stages = stages_of(tmp_path, trained=False)
    assert run(stages, tmp_path, 24, 7) == 0, capsys.readouterr().out
    said = capsys.readouterr().out
    assert run(stages, tmp_path, 24, 7) == 0 and capsys.readouterr().out == said  # all done before: nothing is killed
