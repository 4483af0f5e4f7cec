"""How far a model prefers better ranked answers, and by how much E-DPO would have it: tables beside SAGE's."""

from stages.report.cells import number
from stages.report.grid import Grid
from stages.results.answers import ALL, AnswerRecord
from stages.results.metrics.qa import GROWN, MARGINS, ORDER
from stages.sage.entropy import READINGS, ends_differ_most, pairs_of

IN_WORDS = {"surprisal": "surprisal, -log p", "term": "term, -p log p"}


def margins(rows: list[dict]) -> Grid:
    """How much likelier better ranked choices are than worse ones, where choices were weighed by likelihood."""
    found = {(r["dataset"], r["method"], r["metric"]): r for r in rows if r["category"] == ALL}
    at = dict.fromkeys((dataset, method) for dataset, method, metric in found if metric == MARGINS[1])
    columns = (MARGINS[0], GROWN, *MARGINS[1:], *ORDER)
    lines = [
        (
            *key,
            *(number(found[*key, m], True) if (*key, m) in found else "-" for m in columns),
            str(found[*key, MARGINS[1]]["n"]),
        )
        for key in at
    ]
    note = (
        "Means over ranked questions; above 0 the model prefers what the experts prefer. Pairs: log-likelihood of"
        " the winner minus that of the loser, nats, whole answers (their letters where only these were weighed), in"
        " the pairs that E-DPO makes of these questions (SAGE, Eq. 5 with surprisals; needs judgements of their"
        " choices). Grown: by E-DPO, over the SFE model that it began with, question by question. First"
        " over last: the same of the best and the worst answer. First over the others: log-likelihood per token of"
        " the best answer minus the mean of the others'. Pair accuracy: share of all pairs of choices whose better one"
        " has the higher likelihood per token, by which choices are made; Kendall's tau: of ranks and these"
        " likelihoods. Intervals: 95%, images resampled."
    )
    return Grid(
        "margins",
        "Preference margins",
        (
            *("data set", "method", "pairs", "grown over SFE", "first over last", "first over the others"),
            *("pair accuracy", "Kendall's tau", "questions"),
        ),
        tuple(lines),
        note,
        printed=True,
    )


def entropy_differences(joined: list[AnswerRecord]) -> Grid:
    """What Eq. 4 and 5 make of the judged choices, in both readings: the margins of E-DPO with eta = 1."""
    judged = {(a.source.dataset, a.question.question_id): a.scores for a in joined if len(a.scores) > 2}
    lines = []
    for dataset in dict.fromkeys(d for d, _ in judged):
        scores = [s for (d, _), s in judged.items() if d == dataset]
        for reading in READINGS:
            small, large = zip(*(pairs_of(s, reading) for s in scores), strict=True)
            largest = sum(ends_differ_most(s, reading) for s in scores)
            lines.append(
                (
                    dataset,
                    IN_WORDS[reading],
                    *(_spread([p.gap for p in ps]) for ps in (small, large)),
                    str(largest),
                    str(len(scores)),
                )
            )
    return Grid(
        "entropy-differences",
        "Entropy differences of ranked answers",
        (
            "data set",
            "Eq. 4 as",
            "smallest adjacent, nats",
            "first and last, nats",
            "first and last differ most",
            "questions",
        ),
        tuple(lines),
        "Of questions whose three or more ranked choices were all judged: mean, smallest and largest difference of the"
        " two pairs that E-DPO takes (SAGE, Eq. 5), which times eta are its margins (Eq. 6). The text says that the"
        " first and the last answer differ most; for how many questions that holds stands beside. E-DPO's default is"
        " the surprisal.",
        printed=True,
    )


def _spread(gaps: list[float]) -> str:
    return f"{sum(gaps) / len(gaps):.2f} [{min(gaps):.2f}, {max(gaps):.2f}]"
