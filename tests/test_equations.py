"""docs/architecture.md says where each equation is computed: every entry is there, bears the number, has a test."""

import importlib
import inspect
import re
from functools import reduce
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\| (\S+) \| (Eq\. [^|]+) \| (stages/\S+)\.py:(\S+) \| (tests/\S+\.py)::(\w+) \|$", re.M)
TEXT = (ROOT / "docs" / "architecture.md").read_text()
ROWS = ROW.findall(TEXT)
NUMBERED = {"VID-AD": 9, "VisualAD": 13, "VMAD": 22, "SAGE": 9}  # equations of each paper


def numbers(text: str) -> set[int]:
    """'Eq. 2, Eq. 3' -> {2, 3}; 'Eq. 2 to Eq. 4' -> {2, 3, 4}."""
    ranges = re.findall(r"Eq\. (\d+)(?: to Eq\. (\d+))?", text)
    return {n for first, last in ranges for n in range(int(first), int(last or first) + 1)}


@pytest.mark.parametrize(
    ("equations", "module", "name", "file", "test"),
    [row[1:] for row in ROWS],
    ids=[f"{paper}-{equations.replace(' ', '')}-{name}" for paper, equations, _, name, *_ in ROWS],
)
def test_an_entry(equations, module, name, file, test):
    pytest.importorskip("torch", reason="the methods' code needs torch")
    computed = reduce(getattr, name.split("."), importlib.import_module(module.replace("/", ".")))
    source = inspect.getsource(computed.fget if isinstance(computed, property) else computed)
    assert numbers(equations) <= numbers(source)
    assert re.search(rf"^def {test}\(", (ROOT / file).read_text(), re.M)


def test_every_numbered_equation_has_a_row():
    for paper, last in NUMBERED.items():
        assert {n for p, equations, *_ in ROWS if p == paper for n in numbers(equations)} == set(range(1, last + 1))
    assert len(ROWS) == TEXT.count("| Eq. "), "a row that the pattern does not read"


def test_numbers_of_a_text():
    assert numbers("Eq. 2, Eq. 3 and Eq. 11 to Eq. 13") == {2, 3, 11, 12, 13}
