"""Tables of several seeds as one."""

import pytest

from stages.report.cells import Cell, percent
from stages.report.grid import Grid, as_csv
from stages.report.over_seeds import merged, over


def test_mean_and_sample_deviation_of_the_values_before_rounding():
    """91.84, 91.76, 92.24 are 91.8, 91.8, 92.2 in print: mean 91.9467, standard deviation 0.2572 (0.23 of those)."""
    cells = [percent(v) for v in (0.9184, 0.9176, 0.9224)]
    assert cells == ["91.8", "91.8", "92.2"] and over(cells) == "91.9±0.3"
    assert over([Cell(4.0, 2), Cell(5.0, 2)]) == "4.50±0.71" and over([Cell(7, 0), Cell(9, 0)]) == "8±1"
    assert over(cells[:1]) == "91.8" and over(["-", cells[0]]) == "91.8"
    assert over(["15", "15"]) == "15" and over(["0", "3"]) == "0 / 3" and over(["-", "-"]) == "-"


def test_rows_meet_by_their_names_and_say_how_many_seeds_have_them():
    head = ("data set", "method", "original", "rotated")
    published = ("visa", "GLASS (published)", "89.6", "57.2")

    def grid(*rows, columns=head):
        return Grid("drop", "Drop", columns, (*rows, published[: len(columns)]), "Note.")

    one = grid(("visa", "a, ours", percent(0.5), percent(0.25)), ("visa", "b, ours", percent(0.1), "-"))
    two = grid(("visa", "a, ours", percent(0.7)), columns=head[:3])
    (found,) = merged([[one, Grid("answers", "", ("x",), (), "")], [two]])
    assert found.columns == (*head, "seeds") and found.note.startswith("Note. Mean±standard deviation")
    assert found.rows == (
        ("visa", "a, ours", "60.0±14.1", "25.0", "2"),
        ("visa", "b, ours", "10.0", "-", "1"),
        (*published, ""),
    )
    assert "60.0±14.1" in as_csv(found)


def test_a_cell_is_its_text():
    assert f"{percent(0.5)}" == "50.0" and isinstance(percent(0.5), str) and percent(None) == "-"
    assert percent(0.12345).value == pytest.approx(12.345)
