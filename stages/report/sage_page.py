"""The page on answers to questions: SAGE's tables, then every question with what was answered."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from stages.base.progress import Progress
from stages.report.grid import Grid
from stages.report.made import HowMade
from stages.report.page import figures
from stages.report.page.gallery import Gallery
from stages.report.page.questions import methods_of
from stages.report.page.render import key_of, write
from stages.report.page.scores import in_columns
from stages.report.sage_figures import curves_by_setting
from stages.results.answers import AnswerRecord


def write_page(
    path: Path,
    joined: list[AnswerRecord],
    rows: list[dict],
    grids: list[Grid],
    made: HowMade,
    models: dict[str, dict],
    quiet: bool = True,
) -> None:
    """Render and write the page. made: the chain of records that ends at the answers; models: method -> what its model
    is made of (Figure 7). Pictures that cannot be read are named as such in their place."""
    gallery = Gallery()
    methods = methods_of(joined, gallery)
    run = key_of([[[r["id"], r["choice"], r["text"]] for r in m["rows"]] for m in methods], gallery.texts.values)
    drawn = {
        "figure5": figures.groups_right(rows),
        "figure7": figures.by_setting(curves_by_setting(rows, models)),
    }
    context = {
        "kind": "questions",
        "datasets": sorted({a.source.dataset for a in joined}),
        "methods": list(dict.fromkeys(a.method for a in joined)),
        "written": f"{datetime.now():%d %B %Y, %H:%M}",
        "numbers": _headline(joined, rows),
        "figures": {place for place, found in drawn.items() if found},
        "main": [g for g in grids if g.name != "qa-figures"],
        "details": [g for g in grids if g.name == "qa-figures"],
        "made": made,
    }

    def data() -> dict:
        return {
            "kind": "questions",
            "methods": in_columns(methods),
            "images": gallery.described(),
            "figures": drawn,
            "texts": gallery.texts.values,  # last, when all have their numbers
        }

    def drawn_one_by_one() -> Iterator[tuple[str, bytes]]:
        progress = Progress("pictures of the page", len(gallery.known), quiet)
        try:
            for picture in gallery.drawn():
                yield picture
                progress.advance()
        finally:
            progress.stop()

    write(path, "qa.html.j2", context, data, run, drawn_one_by_one(), [f"p{n}" for n in range(len(gallery.known))])


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
