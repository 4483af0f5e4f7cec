"""Merged copies of a checkpoint: of what was trained last, wholly there, and in nothing's place."""

import json

import pytest

from stages.base.errors import InputError
from stages.training.saved_models import MERGED_FROM, check_merged
from stages.training.trained import write_copy


def test_a_copy_is_that_of_the_last_training_and_of_no_other(tmp_path, monkeypatch):
    now = {}
    monkeypatch.setattr("stages.training.trained.trained_fingerprint", lambda folder: now["weights"])
    out, target = tmp_path / "out", tmp_path / "deep" / "merged"
    written = []

    def write(made):
        written.append(now["weights"])
        (made / "config.json").write_text(now["weights"])

    for weights in ("one", "one", "two"):
        now["weights"] = weights
        write_copy(out / "_checkpoint", out, target, write)
    assert written == ["one", "two"] and (target / "config.json").read_text() == "two"
    assert json.loads((target / MERGED_FROM).read_text())["weights"] == "two"
    with pytest.raises(InputError, match="--merged .*: holds the copy of what .*/out trained; give a new folder"):
        check_merged(target, tmp_path / "other")
    check_merged(target, out)

    def killed(made):
        (made / "config.json").write_text("half")
        raise KeyboardInterrupt

    now["weights"] = "three"
    with pytest.raises(KeyboardInterrupt):
        write_copy(out / "_checkpoint", out, target, killed)
    assert (target / "config.json").read_text() == "two", "half a copy is in nobody's place"
    write_copy(out / "_checkpoint", out, target, write)
    assert (target / "config.json").read_text() == "three"
    assert [p.name for p in target.parent.iterdir()] == ["merged"]


def test_what_is_no_copy_of_ours_is_left_alone(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    with pytest.raises(InputError, match="--merged .*base: holds something already"):
        check_merged(tmp_path / "base", tmp_path / "out")
    for target in (tmp_path / "out", tmp_path / "out" / "in", tmp_path):
        with pytest.raises(InputError, match="lies in --out, or --out in it"):
            check_merged(target, tmp_path / "out")
