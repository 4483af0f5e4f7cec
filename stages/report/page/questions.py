"""Answers to questions as a page shows them: by method, one row per question."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from stages.datasets.manifest import Image
from stages.questions.mle import AXES, mle_score
from stages.report.page.gallery import Gallery
from stages.results.answers import AnswerRecord

READ = {
    "strict": "",
    "fallback": "",
    "likelihood": "",
    "in words": "in words",
    "refused": "named no option: counts as wrong",
    "unparsable": "named no option: counts as wrong",
    "failed": "failed",
    "missing": "not answered yet",
}


def methods_of(joined: Sequence[AnswerRecord], gallery: Gallery) -> list[dict]:
    """For each method the rows of its questions. A group are the questions about one image: right where all are;
    there is none where an answer is missing, as in Acc-G."""
    by_method: dict[str, list[AnswerRecord]] = {}
    groups: dict[tuple[str, str], list[bool | None]] = defaultdict(list)
    for a in joined:
        by_method.setdefault(a.method, []).append(a)
        if a.decidable:
            groups[a.method, a.question.image_id].append(a.right)
    return [
        {
            "name": gallery.text(method),
            "tasks": [],
            "rows": [_row(a, groups[method, a.question.image_id], gallery) for a in answers],
        }
        for method, answers in by_method.items()
    ]


def _row(a: AnswerRecord, group: list[bool | None], gallery: Gallery) -> dict:
    question, row = a.question, a.row or {}
    near = a.source.reference
    marks = a.marks if a.marks and not a.marks["error"] else None
    said = ", ".join(f"{axis} {marks[axis]}" for axis in AXES) if marks else ""
    return {
        "id": gallery.text(question.question_id),
        "image": gallery.number(a.source.image or _unknown(a)),
        "near": -1 if near is None else gallery.number(near),
        "nearKind": gallery.text(None if near is None else "reference image"),
        "level": gallery.text(question.level),
        "question": gallery.text(question.question),
        "choices": [gallery.text(c) for c in question.choices],
        "answer": gallery.text(question.answer),
        "choice": row.get("choice"),
        "text": gallery.text(row.get("response")),
        "how": gallery.text(READ.get(a.how, a.how)),
        "failed": a.how in ("failed", "missing"),
        "right": a.right,
        "group": [sum(map(bool, group)), len(group)] if group and None not in group else None,
        "marks": gallery.text(said),
        "score": None if marks is None else mle_score(marks),
        "similarity": None if a.similarity is None else round(a.similarity, 2),
        "error": gallery.text(row.get("error")),
    }


def _unknown(a: AnswerRecord) -> Image:
    """Stands for an image where no manifest says what it is."""
    source = a.source
    place = (source.dataset, source.category, source.condition)
    return Image(a.question.image_id, Path(), *place, "test", None, None, (), None, None, "no manifest")
