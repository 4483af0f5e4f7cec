"""The forms of a table: text, CSV, Markdown, LaTeX."""

import csv
import io
import re

from hypothesis import given
from hypothesis import strategies as st

from stages.base.texts import without_controls
from stages.report.grid import Grid, as_csv, as_latex, as_markdown, as_text
from tests.hostile import TEXT


@given(st.lists(TEXT.map(lambda t: t.replace("\r", "")), min_size=2, max_size=4))
def test_csv_round_trip_and_markdown_cells(values):
    grid = Grid("g", "t", tuple(values), (tuple(values), tuple(reversed(values))), "n")
    shown = [without_controls(v) for v in values]
    back = list(csv.reader(io.StringIO(as_csv(grid), newline="")))
    assert [[c[1:] if c.startswith("'") else c for c in line] for line in back] == [
        shown,
        shown,
        shown[::-1],
    ]
    table = [line for line in as_markdown(grid).split("\n") if line.startswith("|")]
    assert len(table) == 4 and all(len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == len(values) + 1 for line in table)
    assert len(as_text(grid).split("\n")) == 6


def test_control_characters_are_written_out():
    """A NUL byte ends a text for many programs, and \x1b steers a terminal."""
    grid = Grid("g", "t", ("a\0b", "c\x9bd"), (("\x1b[31m", "tab\there"),), "n\0")
    assert as_csv(grid) == "a\\x00b,c\\x9bd\n\\x1b[31m,tab\there\n"
    assert not any(c in form(grid) for form in (as_csv, as_markdown, as_latex, as_text) for c in "\0\x9b\x1b")
    assert "a\\\\x00b" in as_markdown(grid), "Markdown reads two backslashes as one"


def test_figures_stay_figures():
    kept = (
        "-",
        "0.5",
        "-0.25",
        "-1e-05",
        "0.812 [0.700, 0.900]",
        "-0.1 [-0.2, 0.1]",
        "0.875±0.125",
        "12.5 %",
        "50.0 / -",
        "- / 100.0",
        "ours",
    )
    for text in kept:
        assert as_csv(Grid("g", "t", (text,), (), "")).strip().strip('"') == text
    for text in ("=1", "+x", "-x", "@a", "-1+1", "＝1", "'x"):
        assert as_csv(Grid("g", "t", (text,), (), "")).strip() == f"'{text}"
    text = as_markdown(Grid("g", "# a | <b>", ("a_b", "_a_"), (("1 < 2 & *x*", "# no\nline"),), "# note"))
    assert re.sub(" +", " ", re.sub("-+", "-", text)) == (
        "## \\# a \\| &lt;b&gt;\n\n| a_b | \\_a\\_ |\n|-|-|\n| 1 &lt; 2 &amp; \\*x\\* | \\# no line |\n\n\\# note\n"
    )


def test_latex_reads_values_as_text():
    grid = Grid("g", "50 % of A & B", ("a_b", "a_b"), (("[0]", "1 < 2"), ("\\par{}", "#1\nx~^$")), "n_1")
    assert as_latex(grid) == (
        "\\begin{table}\n\\centering\n\\caption{50 \\% of A \\& B}\n"
        "\\begin{tabular}{ll}\n\\toprule\na\\_b & a\\_b \\\\\n\\midrule\n"
        "{[}0] & 1 \\textless{} 2 \\\\\n"
        "\\textbackslash{}par\\{\\} & \\#1 x\\textasciitilde{}\\textasciicircum{}\\$ \\\\\n"
        "\\bottomrule\n\\end{tabular}\n\n\\footnotesize n\\_1\n\\end{table}\n"
    )


@given(st.lists(TEXT, min_size=2, max_size=4))
def test_latex_has_a_line_for_each_row_and_a_sign_between_cells(values):
    rows = as_latex(Grid("g", "t", tuple(values), (tuple(values), tuple(values)), "n")).split("\n")[3:-4]
    cells = [line for line in rows if line.endswith(" \\\\")]
    assert len(rows) == 8 and len(cells) == 3
    assert all(len(re.findall(r"(?<!\\)&", line)) == len(values) - 1 for line in cells)
    assert not any(line.startswith("[") for line in cells), "a length, after the line break before it"
