"""A table of scores and the maps beside it: places that cannot be are refused before either is touched."""

import numpy as np
import pytest

from stages.artifacts.scores_and_maps import check_outputs, scores_and_maps
from stages.base.config import RunOptions
from stages.base.errors import InputError

QUIET = RunOptions(quiet=True)


def test_an_output_that_lies_in_another(tmp_path):
    (tmp_path / "file").write_text("")
    for maps, said in (
        (tmp_path / "out", "lies in --out"),
        (tmp_path / "out" / "maps", "lies in --out"),
        (tmp_path, "--out in it"),
        (tmp_path / "file", "a file, not a folder"),
        (tmp_path / "file" / "below", "is a file"),
    ):
        with pytest.raises(InputError, match=said):
            check_outputs(tmp_path / "out", {"--maps": maps})
    check_outputs(tmp_path / "out", {"--maps": tmp_path / "new" / "maps", "--explain": None})
    with pytest.raises(InputError, match="--explain .*lies in --maps"):
        check_outputs(tmp_path / "out", {"--maps": tmp_path / "m", "--explain": tmp_path / "m" / "e"})


def test_scores_and_maps_are_both_refused_before_either_is_touched(tmp_path):
    def write_both(scores, maps, n):
        scores_and_maps(
            tmp_path / scores,
            tmp_path / maps,
            {"n": n},
            {},
            [("i", "m")],
            QUIET,
            1,
            lambda todo, artifact: [((i, m), {"score": 1.0}, np.zeros((2, 2))) for i, m in todo],
        )

    write_both("s", "m", 1)
    for scores, maps, untouched in (("new", "m", "new"), ("s", "new", "new")):
        with pytest.raises(InputError, match="was made with other settings"):
            write_both(scores, maps, 2)
        assert not (tmp_path / untouched).exists()
    write_both("s", "m", 1)
