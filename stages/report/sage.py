"""Tables of answers to questions, laid out as SAGE's: accuracy per level (1), judged quality (2), ablation (3).

What the paper's Average is a mean over it does not say. Its figures tell: each is its row's three levels weighted
1 : 2 : 1 on MANTA and 2 : 2 : 1 on MPDD to within 0.12 points, so that it is a mean over questions, not over levels. On
MPDD two baseline rows are off by 0.2, and SAGE's own 73.8 and 74.1 are 3.0 and 1.2 points above what its levels
give (70.8 and 72.9).
"""

import re
from collections import Counter

import pandas as pd

from stages.questions.words_judge import NAME as WORDS
from stages.report.cells import number
from stages.report.grid import Grid, published
from stages.report.sage_margins import entropy_differences, margins
from stages.results.answers import ALL, AnswerRecord

LEVELS = ("standard", "identification", "reasoning")
ACCURACY = (
    "Accuracy: share of questions with the right choice, %. A reply that was read and names no choice (refused,"
    " unparsable) counts as wrong; failed and missing answers are left out."
)
SBERT = "SBERT: mean cosine of sentence embeddings of the reply, its option's letter aside, and the right answer."
SCORE = "Score: mean of the three marks of an answer (Eq. 3), mean over the judged answers."
GROUPS = (
    "Acc-G: share of groups with all questions right, %; groups with an answer missing and questions without a"
    " group are left out; published: groups of five, ours: "
)
AVERAGE = (
    "Average: over questions, as the published column (its rows are their levels weighted 1:2:1 on MANTA, 2:2:1"
    " on MPDD; SAGE's on MPDD are 3.0 and 1.2 above that)."
)
OTHER = " Published rows are of other questions: they cannot be compared with ours."


def all_tables(
    joined: list[AnswerRecord], rows: list[dict], judges: list[str], resamples: int, seed: int
) -> list[Grid]:
    """The tables that the data call for; counts and intervals last. judges: names, for the notes."""
    pairs = dict.fromkeys((a.source.dataset, a.method) for a in joined)
    levels: dict[str, dict] = {}  # data set -> its levels, SAGE's in its order, others as they come
    for a in joined:
        if a.decidable:
            levels.setdefault(a.source.dataset, {})[a.question.level] = None
    like_theirs = [d for d in dict.fromkeys(d for d, _ in pairs) if set(levels.get(d, ())) <= set(LEVELS)]
    grids = [table1(pairs, rows, like_theirs)]
    grids += [
        per_level(dataset, pairs, rows, list(found))
        for dataset, found in levels.items()
        if not set(found) <= set(LEVELS)
    ]
    grids += [
        table2(pairs, rows, judges),
        table3(pairs, rows, judges, group_sizes(joined)),
        margins(rows),
        entropy_differences(joined),
        how_read(joined),
        every_figure(rows, resamples, seed),
    ]
    return [g for g in grids if g.rows]


def split_name(method: str) -> tuple[str, str]:
    """('vlm-qa/qwen2-vl', '1') of 'vlm-qa/qwen2-vl/1-shot'; no number for other names. What follows the number
    belongs to the name."""
    found = re.fullmatch(r"(.*)/([01])-shot(.*)", method)
    return (found[1] + found[3], found[2]) if found else (method, "")


def table1(pairs: dict, rows: list[dict], datasets: list[str]) -> Grid:
    """Table 1: accuracy per level, SBERT, Average; zero-shot / one-shot in one cell."""
    metrics = (*(f"accuracy/{level}" for level in LEVELS), "sbert", "accuracy")
    theirs = published("sage_table1")
    lines = []
    for dataset in datasets:
        lines += [(dataset, f"{name}, ours", *cells) for name, cells in _by_shots(pairs, rows, dataset, metrics)]
        lines += _published(theirs, (*LEVELS, "sbert", "average"), paper_set(dataset))
    known = any(map(paper_set, datasets))
    lines += [] if known or not datasets else _published(theirs, (*LEVELS, "sbert", "average"), None)
    heads = ("data set", "method", "Standard", "Identification", "Reasoning", "SBERT", "Average")
    return Grid(
        "sage-table1",
        "Answers to questions (SAGE, Table 1)",
        heads,
        tuple(lines),
        f"Zero-shot / one-shot. {ACCURACY} {SBERT} {AVERAGE}" + ("" if known else OTHER),
        printed=True,
    )


def paper_set(dataset: str) -> str:
    """'manta' or 'mpdd' where the data set is one of the paper's, else ''."""
    return next((d for d in ("manta", "mpdd") if dataset.lower().startswith(d)), "")


def _published(theirs: list[dict], columns: tuple[str, ...], dataset: str | None) -> list[tuple]:
    """Rows of a published table, its two settings in one cell. dataset: one of its sets; None: all of them."""
    found: dict[tuple, list[dict]] = {}
    for p in theirs:
        if dataset is None or p.get("dataset", "manta") == dataset:
            found.setdefault((p.get("dataset", "manta"), p["method"]), []).append(p)
    return [
        (d, f"{method} (published)", *(" / ".join(p[c] for p in both) for c in columns))
        for (d, method), both in found.items()
    ]


def _by_shots(pairs: dict, rows: list[dict], dataset: str, metrics: tuple[str, ...]) -> list[tuple[str, list[str]]]:
    """(name, cells) of our methods on a data set; runs that differ in their shots alone share a row."""
    found: dict[str, dict[str, str]] = {}
    for d, method in pairs:
        if d == dataset:
            name, shots = split_name(method)
            found.setdefault(name, {})[shots] = method
    lines = []
    for name, of_shots in found.items():
        order = ("0", "1") if of_shots.keys() & {"0", "1"} else ("",)
        cells = [" / ".join(cell(rows, dataset, of_shots.get(s), m) for s in order) for m in metrics]
        lines.append((name, cells))
    return lines


def cell(rows: list[dict], dataset: str, method: str | None, metric: str) -> str:
    """The value over all questions: accuracies in %, the others as they are; '-' where there is none."""
    found = [
        r["value"]
        for r in rows
        if (r["dataset"], r["category"], r["method"], r["metric"]) == (dataset, ALL, method, metric)
        and r["value"] is not None
    ]
    if not found:
        return "-"
    value = sum(found) / len(found)  # over capture conditions
    return f"{100 * value:.1f}" if metric.startswith("acc") else f"{value:.2f}"


def per_level(dataset: str, pairs: dict, rows: list[dict], levels: list[str]) -> Grid:
    """Accuracy per level of a set with levels of its own (MMAD's subtasks)."""
    metrics = (*(f"accuracy/{level}" for level in levels), "accuracy_level_mean", "accuracy")
    lines = [(dataset, f"{name}, ours", *cells) for name, cells in _by_shots(pairs, rows, dataset, metrics)]
    name = "qa-figures-" if dataset == "figures" else f"qa-{dataset}"  # qa-figures is another table
    return Grid(
        name,
        f"Answers to questions: {dataset}",
        ("data set", "method", *levels, "mean of levels", "all questions"),
        tuple(lines),
        f"Zero-shot / one-shot where the name says so. {ACCURACY}",
        printed=True,
    )


def judged_by(judges: list[str]) -> str:
    """Whose marks ours are: those of two judges cannot be compared."""
    named = ["a comparison of words with the expert's answer, no model" if j == WORDS else j for j in judges]
    return f"Our marks: by {', '.join(named) or 'an unknown judge'}; published ones: by GPT-4o."


def table2(pairs: dict, rows: list[dict], judges: list[str]) -> Grid:
    """Table 2: the judge's marks; zero-shot / one-shot in one cell."""
    metrics = ("mle_category", "mle_location", "mle_logic", "mle")
    datasets = list(dict.fromkeys(r["dataset"] for r in rows if r["metric"] == "mle" and r["value"] is not None))
    lines = [(d, f"{name}, ours", *cells) for d in datasets for name, cells in _by_shots(pairs, rows, d, metrics)]
    theirs = _published(published("sage_table2"), ("category", "location", "logic"), None)
    lines += [(*line, _scores(line[2:])) for line in theirs] if lines else []
    heads = ("data set", "method", "Defect category", "Defect location", "Reasoning logic", "Score")
    note = (
        f"Zero-shot / one-shot. Marks from 1 to 5. {SCORE} {judged_by(judges)} The paper's prompt is not printed;"
        " the Score of its rows is computed here."
    )
    return Grid(
        "sage-table2",
        "Judged answers (SAGE, Table 2)",
        heads,
        tuple(lines),
        note + ("" if any(paper_set(d) == "manta" for d in datasets) else OTHER),
        printed=True,
    )


def _scores(cells: tuple[str, ...]) -> str:
    """Eq. 3 of published marks: '3.12 / 3.25' per axis -> '3.28 / 3.44'."""
    settings = zip(*(c.split(" / ") for c in cells), strict=True)
    return " / ".join(f"{sum(map(float, marks)) / 3:.2f}" for marks in settings)


def group_sizes(joined: list[AnswerRecord]) -> str:
    """'of 5', or 'of 2 to 7': questions with choices per group."""
    sizes = Counter((a.method, a.question.group) for a in joined if a.decidable and a.question.group).values()
    return "none" if not sizes else f"of {min(sizes)}" + (f" to {max(sizes)}" if max(sizes) > min(sizes) else "")


def table3(pairs: dict, rows: list[dict], judges: list[str], sizes: str) -> Grid:
    """Table 3: accuracy, SBERT, Acc-G and Score of each method, the published ablation below."""
    metrics = ("accuracy", "sbert", "acc_g", "mle")
    lines = [
        (dataset, f"{method}, ours", *(cell(rows, dataset, method, m) for m in metrics)) for dataset, method in pairs
    ]
    lines += (
        [
            ("manta", f"{p['variant']} (published)", p["accuracy"], p["sbert"], p["acc_g"], p["score"])
            for p in published("sage_table3")
        ]
        if lines
        else []
    )
    note = f"{ACCURACY} {SBERT} {GROUPS}{sizes}. Published: zero-shot."
    note += f" {SCORE} {judged_by(judges)}" if any(line[-1] != "-" for line in lines if "ours" in line[1]) else ""
    return Grid(
        "sage-table3",
        "Accuracy, groups and score (SAGE, Table 3)",
        ("data set", "method", "Accuracy", "SBERT", "Acc-G", "Score"),
        tuple(lines),
        note + ("" if any(paper_set(d) == "manta" for d, _ in pairs) else OTHER),
        printed=True,
    )


def how_read(joined: list[AnswerRecord]) -> Grid:
    """How replies were read: what no rule could read is an error row, not a guess."""
    names = ["strict", "fallback", "prefix", "assumed", "likelihood", "in words"]
    names += ["refused", "unparsable", "failed", "missing"]
    replies = pd.DataFrame([(a.source.dataset, a.method, a.how) for a in joined], columns=["dataset", "method", "how"])
    counts = replies.groupby(["dataset", "method"], sort=False)["how"].value_counts().unstack(fill_value=0, sort=False)
    totals = counts.sum(axis=1)
    counts = counts.reindex(columns=names, fill_value=0)
    lines = [(*key, str(totals[key]), *map(str, row)) for key, row in zip(counts.index, counts.to_numpy(), strict=True)]
    heads = (
        "data set",
        "method",
        "questions",
        "letter or text",
        "sentence",
        "true or false first",
        "taken for false",
        "likelihood",
        "open",
        "refused",
        "unparsable",
        "failed",
        "not asked",
    )
    note = (
        "Questions by how the choice was found; taken for false: begins with none of true, yes, false and no, and"
        " counts as False by the released code's rule (--choose prefix); open: a reply to a question without choices."
        " Refused and unparsable replies are rows with an error and the raw text."
    )
    return Grid("replies", "How replies were read", heads, tuple(lines), note, printed=True)


def every_figure(rows: list[dict], resamples: int, seed: int) -> Grid:
    """All metrics with their intervals."""
    lines = [
        (r["dataset"], r["method"], r["category"], r["condition"] or "-", r["metric"], number(r, True), str(r["n"]))
        for r in rows
    ]
    intervals = f"95%, {resamples} resamples of the images with all their questions, seed {seed}"
    if not resamples:
        intervals = "none"
    return Grid(
        "qa-figures",
        "All figures with intervals",
        ("data set", "method", "category", "condition", "metric", "value [95%]", "n"),
        tuple(lines),
        f"Shares as fractions. Intervals: {intervals}. n: questions, for acc_g groups. Category all: all questions"
        " together; mean: over categories. accuracy_level_mean: mean over levels, each counted alike.",
    )
