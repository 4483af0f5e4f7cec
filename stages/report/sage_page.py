"""The page on answers to questions: SAGE's tables, then questions with what was answered."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from stages.artifacts import outputs
from stages.base.errors import ImageError
from stages.base.texts import without_controls
from stages.questions.mle import AXES
from stages.report.grid import Grid
from stages.report.html import data_url, template, thumbnail
from stages.report.made import HowMade
from stages.report.sage_figures import by_setting, curves_by_setting, group_accuracy
from stages.results.answers import AnswerRecord

EACH = 6  # cards per group
LONGEST = 400  # characters of a reply on a card


@dataclass(frozen=True)
class Card:
    """One question. options: (text, is right, was chosen); answer: the right one where there are no options."""

    pictures: tuple[str, ...]
    problem: str | None
    title: str
    question: str
    options: tuple[tuple[str, bool, bool], ...]
    answer: str
    response: str
    note: str


@dataclass(frozen=True)
class Section:
    """One method: groups of cards."""

    title: str
    groups: tuple[tuple[str, tuple[Card, ...]], ...]


def write_page(
    path: Path,
    joined: list[AnswerRecord],
    rows: list[dict],
    grids: list[Grid],
    made: HowMade,
    models: dict[str, dict],
) -> None:
    """Render and write the page. made: the chain of records that ends at the answers; models: method -> what its model
    is made of (Figure 7). Pictures that cannot be read are named as such on their card; control characters are written
    as \\xNN."""
    of: dict[str, list] = defaultdict(list)
    for a in joined:
        of[a.method].append(a)
    figures = {"figure5": group_accuracy(rows), "figure7": by_setting(curves_by_setting(rows, models))}
    page = template("qa.html.j2").render(
        datasets=sorted({a.source.dataset for a in joined}),
        methods=sorted(of),
        written=f"{datetime.now():%d %B %Y, %H:%M}",
        numbers=_headline(joined, rows),
        pictures={name: data_url(png, "png") for name, png in figures.items() if png},
        main=[g for g in grids if g.name != "qa-figures"],
        details=[g for g in grids if g.name == "qa-figures"],
        sections=[Section(method, tuple(_groups(members))) for method, members in of.items()],
        made=made,
    )
    outputs.write_page(path, without_controls(page))


def _headline(joined: list[AnswerRecord], rows: list[dict]) -> list[tuple[str, str]]:
    """Accuracy and Acc-G where there is one data set and one method, and what was counted."""
    numbers = []
    if len(pairs := {(a.source.dataset, a.method) for a in joined}) == 1:
        for metric, name in (("accuracy", "accuracy"), ("acc_g", "accuracy for group")):
            found = [r for r in rows if (r["category"], r["metric"]) == ("all", metric) and r["value"] is not None]
            numbers += [(name, f"{100 * found[0]['value']:.1f} %")] if len(found) == 1 else []
    else:
        numbers.append(("methods", str(len({m for _, m in pairs}))))
    return [
        *numbers,
        ("questions", f"{len({a.question.question_id for a in joined}):,}"),
        ("images", f"{len({a.question.image_id for a in joined}):,}"),
        ("unread or failed", str(sum(a.how in ("refused", "unparsable", "failed", "missing") for a in joined))),
    ]


def _groups(members: list[AnswerRecord]) -> Iterator[tuple[str, tuple[Card, ...]]]:
    wanted = (
        ("right", lambda a: a.right),
        ("wrong", lambda a: a.right is False and a.row["choice"] is not None),
        ("named no option: counts as wrong", lambda a: a.how in ("refused", "unparsable")),
        ("open questions", lambda a: not a.question.choices and a.how == "in words"),
        ("failed", lambda a: a.how == "failed"),
    )
    for title, belongs in wanted:
        if found := [a for a in members if a.row and belongs(a)]:
            yield f"{title} ({len(found)})", tuple(map(_card, _varied(found)))


def _varied(found: list[AnswerRecord]) -> list[AnswerRecord]:
    """EACH of them, of as many images and levels as there are."""
    picked: list = []
    for _ in found[:EACH]:
        seen = Counter(v for a in picked for v in (a.question.image_id, a.question.level))
        left = [a for a in found if a not in picked]
        picked.append(min(left, key=lambda a: (seen[a.question.image_id], seen[a.question.level])))
    return picked


def _card(a: AnswerRecord) -> Card:
    question, row = a.question, a.row
    assert row is not None  # only answers have cards
    pictures: tuple[str, ...] = ()
    problem = None
    try:
        pictures = tuple(thumbnail(i.file) for i in (a.source.reference, a.source.image) if i)
    except ImageError as e:
        problem = str(e)
    options = tuple((text, text == question.answer, i == row["choice"]) for i, text in enumerate(question.choices))
    marks = ", ".join(f"{axis} {a.marks[axis]}" for axis in AXES) if a.marks and not a.marks["error"] else ""
    similar = "" if a.similarity is None else f"similarity {a.similarity:.2f}"
    notes = "; ".join(filter(None, (row["error"], marks, similar)))
    reply, wanted = row["response"] or "", "" if question.choices else question.answer or ""
    return Card(
        pictures,
        problem,
        f"{question.level} · {question.image_id}",
        question.question,
        options,
        wanted,
        reply[:LONGEST] + "…" * (len(reply) > LONGEST),
        notes,
    )
