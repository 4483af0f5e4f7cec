"""Questions, what methods answered, and what the judge gave: one record for each question and method."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.base.errors import InputError
from stages.datasets.manifest import Image
from stages.questions.mle import mle_score
from stages.questions.table import Question
from stages.results.metrics.qa import MARGINS, in_order
from stages.sage.entropy import Pair, pairs_of

ALL = "all"  # the category of rows over all questions


@dataclass(frozen=True)
class QuestionSource:
    """Where a question's image belongs; image: its manifest row, where there is a manifest."""

    dataset: str
    category: str
    condition: str | None
    image: Image | None = None
    reference: Image | None = None


@dataclass(frozen=True)
class AnswerRecord:
    """A question, what a method answered, and what the judge gave it. row: None where there is no answer yet;
    similarity: cosine of the reply's words and the right answer, None where either is missing; scores: Eq. 3 of the
    question's own choices, where all of them were judged."""

    question: Question
    source: QuestionSource
    method: str
    row: dict | None
    marks: dict | None = None
    similarity: float | None = None
    scores: tuple[float, ...] = ()

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Of Eq. 5, with surprisals; none where the question's choices were not judged."""
        return tuple(pairs_of(self.scores)) if self.scores else ()

    @property
    def decidable(self) -> bool:
        """Whether there is a right and a wrong: choices, and one that is known to be right."""
        return bool(self.question.choices) and self.question.answer is not None

    @property
    def right(self) -> bool | None:
        """None where the question was not answered (a failed row, no row). A reply that was read and names no choice
        (refused, unparsable) is not right."""
        if self.row is None or not self.decidable:
            return None
        if self.row["choice"] is not None:
            return self.question.choices[self.row["choice"]] == self.question.answer
        return False if self.row["parsed"] in ("refused", "unparsable") else self.row["correct"]

    @property
    def weighed(self) -> bool:
        """Whether ranked choices were weighed by likelihood, and none of them is 0."""
        likelihoods = (self.row or {}).get("likelihoods")
        return bool(likelihoods and self.question.ranked and all(likelihoods))

    def margins(self) -> dict[str, float]:
        """Metric -> value of a question that is `weighed`, nats. Log-likelihoods of whole texts where words were
        weighed: winner minus loser (Eq. 6's first two terms), mean over the pairs of Eq. 5; first minus last. Per
        token: first minus the mean of the others."""
        assert self.row is not None  # it is weighed
        tokens = np.log(self.row["likelihoods"])
        whole = tokens * (self.row.get("choice_tokens") or 1)
        pairs = [whole[p.winner] - whole[p.loser] for p in self.pairs]
        over_pairs = {MARGINS[0]: float(np.mean(pairs))} if pairs else {}
        return over_pairs | {
            MARGINS[1]: float(whole[0] - whole[-1]),
            MARGINS[2]: float(tokens[0] - np.mean(tokens[1:])),
        }

    def order(self) -> dict[str, float]:
        """Metric -> value of a question that is `weighed`: how far likelihoods a token, by which is chosen, keep the
        order of the ranks."""
        assert self.row is not None  # it is weighed
        return in_order(self.row["likelihoods"])

    @property
    def how(self) -> str:
        """How the answer was read."""
        if self.row is None:
            return "missing"
        open_reply = "in words" if not self.question.choices else "likelihood"
        return self.row["parsed"] or ("failed" if self.row["error"] else open_reply)


def sources_of(questions: Sequence[Question], images: dict[str, Image] | None) -> dict[str, QuestionSource]:
    """question_id -> source. Without a manifest an image id `mvtec-ad/bottle/test/...` names data set and category.

    Raises:
        InputError: an image that the manifest lacks.
    """
    sources = {}
    for q in questions:
        if images is None:
            dataset, *rest = q.image_id.split("/")
            sources[q.question_id] = QuestionSource(dataset, rest[0] if len(rest) > 1 else ALL, None)
            continue
        if q.image_id not in images:
            raise InputError(
                f"question {q.question_id}: its image {q.image_id} is not in the manifest; give the"
                " manifest that the questions were made for, or none"
            )
        image = images[q.image_id]
        sources[q.question_id] = QuestionSource(*image.task, image, images.get(q.reference_id or ""))
    return sources


def join(
    questions: Sequence[Question],
    sources: dict[str, QuestionSource],
    answers: list[dict],
    judgements: list[dict],
    path: Path,
) -> list[AnswerRecord]:
    """Every question by every method that answers some of its data set, in order of method and question."""
    asked = {q.question_id: q for q in questions}
    by_key = {(r["question_id"], r["method"]): r for r in answers if r["question_id"] in asked}
    if not by_key:
        raise InputError(f"{path}: answers none of these questions; give the questions that were asked")
    for (i, method), r in by_key.items():
        if r["choice"] is not None and not 0 <= r["choice"] < len(asked[i].choices):
            raise InputError(
                f"{path}: {method} chose choice {r['choice']} of question {i}, which has"
                f" {len(asked[i].choices)} (column `choice`, counted from 0)"
            )
    marks = {(r["question_id"], r["method"]): r for r in judgements}
    if judgements and not marks.keys() & by_key.keys():
        raise InputError(
            f"--judgements: judges none of these answers; give those of `score --method mle --answers {path}`"
        )
    answering = dict.fromkeys((method, sources[i].dataset) for i, method in sorted(by_key, key=lambda k: (k[1], k[0])))
    scores = {q.question_id: judged_scores(q, marks) for q in questions}
    return [
        AnswerRecord(
            q,
            sources[q.question_id],
            method,
            by_key.get((q.question_id, method)),
            marks.get((q.question_id, method)),
            scores=scores[q.question_id],
        )
        for method, dataset in answering
        for q in questions
        if sources[q.question_id].dataset == dataset
    ]


def judged_scores(question: Question, marks: dict[tuple[str, str], dict]) -> tuple[float, ...]:
    """Eq. 3 of a ranked question's choices, best first; none where one of them was not judged."""
    rows = [marks.get((question.question_id, f"choice/{i}")) for i in range(len(question.choices))]
    scores = [score for r in rows if r and (score := mle_score(r)) is not None]
    judged = question.ranked and len(rows) > 1 and len(scores) == len(rows)
    return tuple(scores) if judged else ()
