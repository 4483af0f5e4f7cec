"""Rows of the table METRICS, level `qa`: per category, over all questions, means over categories."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import pandas as pd

from stages.artifacts.tables import METRICS
from stages.datasets.manifest import MEAN
from stages.questions.mle import AXES, mle_score
from stages.results.answers import ALL, AnswerRecord
from stages.results.metric_rows import as_rows, averages
from stages.results.metrics.image import Value
from stages.results.metrics.qa import GROWN, MARGINS, ORDER, level_mean, mean, whole_groups


def metric_rows(joined: list[AnswerRecord], resamples: int, seed: int, without: str | None, judged: bool) -> list[dict]:
    """Rows of METRICS, level `qa`: per category, over `all` questions of a data set, and `mean` over categories."""
    of: dict[tuple, list[AnswerRecord]] = defaultdict(list)
    for a in joined:
        for category in {a.source.category: 0, ALL: 0}:
            of[a.source.dataset, category, a.source.condition, a.method].append(a)
    rows = []
    for (dataset, category, condition, method), group in of.items():
        rows += [
            metric_row(dataset, category, condition, method, name, v)
            for name, v in values(group, resamples, seed, without, judged)
        ]
    return rows + mean_rows(rows)


def metric_row(dataset: str, category: str, condition: str | None, method: str, metric: str, v: Value) -> dict:
    """A row of METRICS, level `qa`."""
    return {
        "dataset": dataset,
        "category": category,
        "condition": condition,
        "method": method,
        "level": "qa",
        "metric": metric,
        "value": v.value,
        "ci_low": v.ci_low,
        "ci_high": v.ci_high,
        "n": v.n,
        "n_positive": v.n_positive,
        "reason": v.reason,
    }


def values(
    group: list[AnswerRecord], resamples: int, seed: int, without: str | None, judged: bool
) -> Iterator[tuple[str, Value]]:
    """(metric, value) of one method's answers to some questions."""

    def over(valued: Sequence[tuple[AnswerRecord, float]], reason: str = "no questions") -> Value:
        answers, numbers = [a for a, _ in valued], [v for _, v in valued]
        return mean(numbers, [a.question.image_id for a in answers], resamples, seed, _positive(answers), reason)

    closed = [a for a in group if a.decidable]
    decided = [(a, a.right) for a in closed if a.right is not None]
    none = "no question with choices was answered" if closed else "no questions with choices"
    yield "accuracy", over(decided, none)
    for level in dict.fromkeys(a.question.level for a in closed):
        yield f"accuracy/{level}", over([(a, right) for a, right in decided if a.question.level == level], none)
    yield (
        "accuracy_level_mean",
        level_mean(
            [right for _, right in decided],
            [a.question.level for a, _ in decided],
            [a.question.image_id for a, _ in decided],
            resamples,
            seed,
            _positive([a for a, _ in decided]),
            none,
        ),
    )
    whole, images = whole_groups(
        [a.right for a in closed], [a.question.group for a in closed], [a.question.image_id for a in closed]
    )
    ungrouped = "no group was answered as a whole" if any(a.question.group for a in closed) else "no groups"
    yield "acc_g", mean(whole, images, resamples, seed, 0, ungrouped)
    margins = [(a, a.margins()) for a in group if a.weighed]
    for name in MARGINS:
        if with_margin := [(a, of_answer[name]) for a, of_answer in margins if name in of_answer]:
            yield name, over(with_margin)
    orders = [(a, a.order()) for a in group if a.weighed]
    for name in ORDER if orders else ():
        yield name, over([(a, of_answer[name]) for a, of_answer in orders])
    alike = [(a, a.similarity) for a in group if a.similarity is not None]
    yield "sbert", over(alike, without or "no replies in words")
    marked = [(a, a.marks, score) for a in group if a.marks and (score := mle_score(a.marks)) is not None]
    for axis in AXES if judged else ():
        yield f"mle_{axis}", over([(a, marks[axis]) for a, marks, _ in marked], "no judgements")
    if judged:
        yield "mle", over([(a, score) for a, _, score in marked], "no judgements")


def grown(joined: Sequence[AnswerRecord], models: dict[str, dict], resamples: int, seed: int) -> Iterator[dict]:
    """What E-DPO adds to the margin over Eq. 5's pairs: that of an E-DPO model minus that of the SFE model of the same
    settings, question by question. Rows of METRICS; none where no SFE model, or more than one, could be meant."""
    of: dict[tuple, dict[str, AnswerRecord]] = defaultdict(dict)
    for a in joined:
        if a.weighed and a.pairs:
            of[a.source.dataset, a.source.condition, a.method][a.question.question_id] = a
    for (dataset, condition, method), after in of.items():
        model = models.get(method, {})
        sfe = model | {"stage": "sfe"}
        starts = [m for m, other in models.items() if other == sfe and (dataset, condition, m) in of]
        if model.get("stage") != "edpo" or len(starts) != 1:
            continue
        before = of[dataset, condition, starts[0]]
        both = [(a, before[i]) for i, a in after.items() if i in before]
        v = mean(
            [a.margins()[MARGINS[0]] - b.margins()[MARGINS[0]] for a, b in both],
            [a.question.image_id for a, _ in both],
            resamples,
            seed,
            _positive([a for a, _ in both]),
        )
        yield metric_row(dataset, ALL, condition, method, GROWN, v)


def _positive(members: list[AnswerRecord]) -> int:
    return sum(a.source.image is not None and a.source.image.label == 1 for a in members)


def mean_rows(rows: list[dict]) -> list[dict]:
    """Means over categories, where there are several."""
    table = pd.DataFrame(rows, columns=METRICS.schema.names)
    table = table[(table.category != ALL) & table.value.notna()]
    return as_rows(averages(table, "condition").assign(category=MEAN))
