"""Pages and tables hold the values of a data set as text, whatever they are."""

import csv
import re
from html.parser import HTMLParser

import pytest

from stages.artifacts.tables import ANSWERS, QUESTIONS
from stages.base.texts import without_controls
from stages.evaluate.images import run
from stages.evaluate.questions import EvaluateQaConfig
from stages.evaluate.questions import run as evaluate_qa
from tests.hostile import QUIET, images, write
from tests.pages import page_data


class Page(HTMLParser):
    """Elements, attributes that run code, and text of a page."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.handlers, self.words = [], [], []
        self.feed(path.read_text())
        self.words += page_data(path).data["texts"]

    def handle_starttag(self, tag, attributes):
        self.elements.append(tag)
        if tag in ("script", "iframe", "object", "link", "base", "form"):
            self.handlers += [tag] * (
                attributes not in ([], *([("type", "application/json"), ("id", n)] for n in NAMES))
            )
        self.handlers += [n for n, v in attributes if n.startswith("on") or (v or "").startswith("javascript")]

    def handle_data(self, data):
        self.words.append(data)


NAMES = ("data", "pictures")  # of the page's two blocks of JSON
OURS = {
    "a",
    "button",
    "code",
    "dialog",
    "header",
    "input",
    "label",
    "main",
    "nav",
    "noscript",
    "option",
    "script",
    "select",
    "svg",
    "html",
    "head",
    "meta",
    "title",
    "style",
    "body",
    "h1",
    "h2",
    "h3",
    "p",
    "b",
    "div",
    "span",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "img",
    "figure",
    "figcaption",
    "section",
    "details",
    "summary",
    "mark",
    "ul",
    "li",
}


def cells(line):
    return [c.strip() for c in re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1]]


VALUES = [
    "<script>alert(1)</script>",
    "'\"><img src=x onerror=alert(1)>",
    "a|b",
    "=1+1",
    "`x|y`",
    "#x\n# y",
    "$x_{",
    "_x",
    "[a](javascript:alert(1))",
    "-1+1",
    "\x1b[31mred",
    "a\\|b",
    "＝1",
]


@pytest.mark.parametrize("value", ["<script>alert(1)</script>", "=a|b\n# $x_{"])
@pytest.mark.slow
def test_reports_and_tables_hold_values_as_text(tmp_path, value):
    """As data set, category, method, defect, caption and image, in pages, CSV, Markdown and figures."""
    names = [f"{v}{n}" for n in range(2) for v in VALUES]
    config = images(tmp_path / "a", names, VALUES, value, value, heatmaps=None)
    run(config, QUIET)
    page = Page(config.report)
    assert set(page.elements) <= OURS and not page.handlers and page.elements.count("script") == 3
    assert all(any(without_controls(v.split("\n")[0]) in w for w in page.words) for v in (value, *VALUES))
    lines = (config.tables / "pixels.md").read_text().splitlines()
    rows = [cells(line) for line in lines if line.startswith("|")]
    assert len({len(r) for r in rows}) == 1 and len(rows) == len(VALUES) + 3
    assert sum(line.startswith("#") for line in lines) == 1
    assert "<" not in "".join(lines) and not re.search(r"(?<!\\)\]\(", "".join(lines))
    with (config.tables / "pixels.csv").open(newline="") as f:
        heads, *found = csv.reader(f)
    assert {len(r) for r in found} == {len(heads)} and {r[0].removeprefix("'") for r in found} == {value}
    assert {r[3].removeprefix("'") for r in found} == {*map(without_controls, VALUES), "mean"}
    assert not [c for r in found for c in r if c[0] in "=+@＝" or c.startswith("-1+")]
    assert all(float(r[heads.index("pixel_auroc")]) > 0 for r in found)


def test_a_page_of_questions_holds_values_as_text(tmp_path):
    bad = "<script>alert(1)</script>"
    questions = [
        {
            "question_id": f"{bad}{n}",
            "image_id": f"d/{bad}/{n}",
            "level": bad,
            "question": bad,
            "choices": [bad, "no"],
            "answer": bad,
        }
        for n in range(2)
    ]
    answers = [
        {
            "question_id": q["question_id"],
            "method": bad,
            "response": bad,
            "parsed": "strict",
            "choice": n,
            "correct": not n,
        }
        for n, q in enumerate(questions)
    ]
    evaluate_qa(
        EvaluateQaConfig(
            questions=write(tmp_path / "q.parquet", QUESTIONS, questions),
            encoder="none",
            resamples=0,
            answers=write(tmp_path / "a.parquet", ANSWERS, answers),
            out=tmp_path / "e",
            report=tmp_path / "r.html",
            tables=tmp_path / "t",
        ),
        QUIET,
    )
    page = Page(tmp_path / "r.html")
    assert set(page.elements) <= OURS and not page.handlers and page.elements.count("script") == 3
    assert any(bad in w for w in page.words)
    assert not any("<script" in p.read_text() for p in (tmp_path / "t").glob("*.md"))
