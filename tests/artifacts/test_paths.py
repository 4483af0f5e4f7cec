"""Values of a table as paths below an output: different values, different places, none of them outside."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.artifacts.paths import below

HOSTILE = st.sampled_from(
    [
        None,
        "",
        ".",
        "..",
        "...",
        "/",
        "a/b",
        "a_b",
        "../../x",
        "~",
        "-rf",
        "_hidden",
        ".hidden",
        "a\0b",
        "a\\b",
        "C:\\x",
        "CON ",
        "é",
        "e\u0301",
        "가",
        "\u1100\u1161",
        "\udcff",
        "x" * 300,
        "x" * 299 + "y",
        "%none",
        "%empty",
        "none",
        "a\nb",
        "a.",
        "a ",
    ]
)
VALUE = HOSTILE | st.text(max_size=300) | st.text(st.sampled_from("a/%._ -"), max_size=5)


@given(st.lists(VALUE, min_size=1, max_size=4), st.lists(VALUE, min_size=1, max_size=4))
def test_different_values_lie_apart_and_below(one, other):
    base = Path("/out")
    paths = [below(base, *one), below(base, *other)]
    for values, path in zip((one, other), paths, strict=True):
        names = path.parts[2:]
        assert path.parts[:2] == ("/", "out") and len(names) == len(values)
        assert all(
            n not in (".", "..") and n[0] not in "._- " and "\0" not in n and len(n.encode()) <= 200 for n in names
        )
    assert (paths[0] == paths[1]) == (one == other)


def test_names_that_people_use_stay_readable():
    assert below(Path("o"), "Metal nut 2", "größe_01.b", suffix=".png") == Path("o/Metal nut 2/größe_01.b.png")


def test_a_hash_cannot_be_imitated():
    long = below(Path("o"), "x" * 300).name
    assert below(Path("o"), long).name != long


def test_the_base_itself_is_refused():
    with pytest.raises(ValueError, match="needs a value"):
        below(Path("o"))
