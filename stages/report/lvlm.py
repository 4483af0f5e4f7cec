"""Tables of the LVLM paper: accuracy (1, 2), drop under augmentation (3, 4), ablation (5), thresholds (8, 9).

Accuracy is the mean over categories of the share of right decisions: the paper does not say so, but its
56.6 % on VisA for methods that call every image anomalous is this mean; over images it would be 55.5 %.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pandas as pd

from stages.datasets.augment import KINDS
from stages.datasets.conditions import split_condition
from stages.report.cells import percent, ranked
from stages.report.grid import Grid, published
from stages.report.names import KIND_NAMES
from stages.results.scores import TaskScores

THRESHOLDS = ("train-max", "train-q90", "train-q80")
VARIANTS = {
    "1-shot+specific": "one-shot + specific prompts",
    "1-shot": "one-shot",
    "0-shot+description": "zero-shot + description (our words)",
    "0-shot": "zero-shot (our words)",
}  # Table 5
OURS = (
    " `our words`: the paper prints neither the question without a reference image nor the descriptions;"
    " `published accuracy` is with its own."
)
ALL = "accuracy_all@own"  # images without an answer count as wrong
MEAN = "%, mean over categories; images without an answer are left out"
MEAN_OVER = f"{MEAN} and counted; `unanswered wrong`: they count as wrong instead."


def overall(
    tasks: list[TaskScores], rows: list[dict], dataset: str, method: str, metric: str, kinds: tuple[str, ...] = ()
) -> float | None:
    """Mean over categories, then over capture conditions, of the images under these augmentations."""
    there = {(t.category, t.condition) for t in tasks if (t.dataset, t.method) == (dataset, method)}
    values = pd.DataFrame(
        [
            (split_condition(r["condition"])[0], r["value"])
            for r in rows
            if (r["dataset"], r["method"], r["metric"]) == (dataset, method, metric)
            and r["value"] is not None
            and (r["category"], r["condition"]) in there
            and split_condition(r["condition"])[1] == kinds
        ],
        columns=["condition", "value"],
    )
    over_categories = values.groupby("condition", sort=False, dropna=False)["value"].agg(
        lambda v: np.mean(v.to_numpy())
    )
    return float(np.mean(over_categories.to_numpy(float))) if len(values) else None


def drop(
    tasks: list[TaskScores], rows: list[dict], dataset: str, method: str, metric: str, kinds: tuple[str, ...]
) -> float | None:
    """What `overall` loses under these augmentations, over the categories that have both."""
    of_method = [t for t in tasks if (t.dataset, t.method) == (dataset, method)]
    turned = {
        (t.category, split_condition(t.condition)[0]) for t in of_method if split_condition(t.condition)[1] == kinds
    }
    both = [t for t in of_method if (t.category, split_condition(t.condition)[0]) in turned]
    before, after = (overall(both, rows, dataset, method, metric, k) for k in ((), kinds))
    return None if before is None or after is None else before - after


def rule_of(tasks: list[TaskScores], rows: list[dict], dataset: str, method: str) -> str | None:
    """How decisions are made: `own` where the method says yes or no, otherwise the training threshold with
    the best accuracy on the images as they were taken, kept for the augmented ones (section 4.4; as in the
    paper's Tables 3, 4, 8 and 9)."""
    if overall(tasks, rows, dataset, method, "accuracy@own") is not None:
        return "own"
    accuracies = ((rule, overall(tasks, rows, dataset, method, f"accuracy@{rule}")) for rule in THRESHOLDS)
    reached = {rule: accuracy for rule, accuracy in accuracies if accuracy is not None}
    return max(reached, key=lambda rule: reached[rule], default=None)


def accuracy_tables(tasks: list[TaskScores], rows: list[dict]) -> list[Grid]:
    """The tables that the data call for: some method answers yes or no, images are augmented, or the paper
    has figures for the data set."""
    known = {p["dataset"] for p in published("lvlm_tables1_4")}
    pairs = dict.fromkeys((t.dataset, t.method) for t in tasks)
    if not (any(t.decided or t.dataset in known or split_condition(t.condition)[1] for t in tasks)):
        return []
    ruled = [(d, m, rule) for d, m in pairs if (rule := rule_of(tasks, rows, d, m))]
    grids = [
        table1(tasks, rows, ruled),
        table3(tasks, rows, ruled),
        table5(tasks, rows, ruled),
        table8(tasks, rows, ruled),
        answers(tasks),
    ]
    return [g for g in grids if g.rows]


def table1(tasks: list[TaskScores], rows: list[dict], ruled: list[tuple[str, str, str]]) -> Grid:
    """Tables 1 and 2: AUROC and accuracy on the images as they were taken."""
    lines = []
    for dataset in dict.fromkeys(d for d, _, _ in ruled):
        for _, method, rule in (r for r in ruled if r[0] == dataset):
            mine = [
                t for t in tasks if (t.dataset, t.method) == (dataset, method) and not split_condition(t.condition)[1]
            ]
            lines.append(
                (
                    dataset,
                    f"{method}, ours",
                    percent(overall(tasks, rows, dataset, method, "auroc")),
                    percent(overall(tasks, rows, dataset, method, f"accuracy@{rule}")),
                    percent(overall(tasks, rows, dataset, method, ALL) if rule == "own" else None),
                    "its own yes or no" if rule == "own" else rule,
                    str(len({t.category for t in mine})),
                    str(sum(t.unanswered if rule == "own" else t.failed for t in mine)),
                )
            )
        lines += [
            (dataset, f"{p['method']} (published)", p["auroc"], p["original"], "", p["decision"], p["categories"], "")
            for p in published("lvlm_tables1_4")
            if p["dataset"] == dataset
        ]
    return Grid(
        "accuracy",
        "Accuracy",
        ("data set", "method", "AUROC", "accuracy", "unanswered wrong", "decided by", "categories", "without answer"),
        tuple(lines),
        "LVLM paper, Tables 1 and 2. " + MEAN_OVER,
        printed=True,
    )


def table3(tasks: list[TaskScores], rows: list[dict], ruled: list[tuple[str, str, str]]) -> Grid:
    """Tables 3 and 4: accuracy on augmented images, and how much is lost on average."""
    present = {split_condition(t.condition)[1] for t in tasks} - {()}
    kinds = sorted(present, key=lambda k: (len(k), [list(KINDS).index(n) for n in k]))
    lines = []
    for dataset in dict.fromkeys(d for d, _, _ in ruled):
        for _, method, rule in (r for r in ruled if r[0] == dataset):
            metrics = {"ours": f"accuracy@{rule}"} | ({"ours, unanswered wrong": ALL} if rule == "own" else {})
            for said, metric in metrics.items():
                first, *others = (overall(tasks, rows, dataset, method, metric, k) for k in ((), *kinds))
                if any(o is not None for o in others):
                    lost = (drop(tasks, rows, dataset, method, metric, k) for k in kinds)
                    drops = [d for d in lost if d is not None]
                    mean_drop = percent(float(np.mean(drops)) if drops else None)
                    lines.append((dataset, f"{method}, {said}", *map(percent, (first, *others)), mean_drop))
        whole = set(kinds) == {(k,) for k in KIND_NAMES}
        lines += (
            [
                (
                    dataset,
                    f"{p['method']} (published)",
                    p["original"],
                    *(p.get(k[0], "-") if len(k) == 1 else "-" for k in kinds),
                    p["drop"] if whole else "-",
                )
                for p in published("lvlm_tables1_4")
                if p["dataset"] == dataset
            ]
            if kinds
            else []
        )
    names = [" + ".join(KIND_NAMES[n] for n in k) for k in kinds]
    return Grid(
        "drop",
        "Accuracy under augmentation",
        ("data set", "method", "original", *names, "average drop"),
        tuple(lines),
        "LVLM paper, Tables 3 and 4. Average drop: of the augmentations present. " + MEAN_OVER + misprints(lines),
        printed=True,
    )


def misprints(lines: Sequence[tuple[str, ...]]) -> str:
    """What the note says of published average drops that are not the mean of their own columns; lines: of table 3."""
    said = []
    for p in published("lvlm_tables1_4"):
        mean = float(p["original"]) - np.mean([float(p[k]) for k in KIND_NAMES])
        row = (p["dataset"], f"{p['method']} (published)", p["drop"])
        if abs(mean - float(p["drop"])) > 0.1 and any(row == (*r[:2], r[-1]) for r in lines):
            said.append(f"{p['method']} on {p['dataset']} {p['drop']} ({mean:.1f})")
    return f" Printed in the paper, but not the mean of its own columns (in brackets): {', '.join(said)}." * bool(said)


def table5(tasks: list[TaskScores], rows: list[dict], ruled: list[tuple[str, str, str]]) -> Grid:
    """Table 5: one model with and without reference image and prompt additions."""
    variants: dict[tuple, dict[str, str]] = defaultdict(dict)  # (data set, model) -> variant -> method
    for dataset, method, _ in ruled:
        name = method.split("/")
        if name[0] == "lvlm" and len(name) == 3:
            variants[dataset, name[1]][name[2]] = method
    theirs = {p["variant"]: p["accuracy"] for p in published("lvlm_table5")}
    lines = []
    for (dataset, model), found in variants.items():
        for variant in sorted(found, key=lambda v: ([*VARIANTS, v].index(v), v)) if len(found) > 1 else ():
            values = (overall(tasks, rows, dataset, found[variant], m) for m in ("accuracy@own", ALL, "auroc"))
            lines.append(
                (
                    dataset,
                    model,
                    VARIANTS.get(variant, variant),
                    *map(percent, values),
                    theirs.get(variant, "-") if dataset == "mvtec-ad" else "-",
                )
            )
    return Grid(
        "ablation",
        "Reference image and prompt",
        (
            "data set",
            "model",
            "variant",
            "accuracy",
            "unanswered wrong",
            "AUROC",
            "published accuracy (Qwen2-VL-72B-AWQ)",
        ),
        tuple(lines),
        "LVLM paper, Table 5. " + MEAN_OVER + OURS,
    )


def table8(tasks: list[TaskScores], rows: list[dict], ruled: list[tuple[str, str, str]]) -> Grid:
    """Tables 8 and 9: accuracy at the three thresholds from training images."""
    conditions = {split_condition(t.condition)[1] for t in tasks}
    conditions = ranked(conditions, [(), *((k,) for k in KIND_NAMES)])  # the paper's order
    lines = []
    for dataset in dict.fromkeys(d for d, _, _ in ruled):
        ours = []
        for _, method, _ in (r for r in ruled if r[0] == dataset):
            for kinds in conditions:
                values = [overall(tasks, rows, dataset, method, f"accuracy@{t}", kinds) for t in THRESHOLDS]
                if any(v is not None for v in values):
                    name = " + ".join(KIND_NAMES[k] for k in kinds) or "original"
                    ours.append((dataset, f"{method}, ours", name, *map(percent, values)))
        lines += ours + [
            (dataset, f"{p['method']} (published)", p["images"], p["max"], p["q90"], p["q80"])
            for p in published("lvlm_tables8_9")
            if p["dataset"] == dataset and ours
        ]
    return Grid(
        "thresholds",
        "Accuracy at thresholds from training images",
        ("data set", "method", "images", "maximum", "90th percentile", "80th percentile"),
        tuple(lines),
        "LVLM paper, Tables 8 and 9. Thresholds from the scores of the normal training images; an image above"
        " is called anomalous. " + f"{MEAN}.",
    )


def answers(tasks: list[TaskScores]) -> Grid:
    """How answers were read: what no rule could read leaves the decision open, it is no guess."""
    kinds = [
        (t.dataset, t.method, kind)
        for t in tasks
        for kind in [s.row["parsed"] or ("failed" if s.row["error"] else "none") for s in t.rows]
        + ["no row"] * t.unscored
    ]
    names = ["strict", "fallback", "refused", "unparsable", "failed", "no row"]
    counts = pd.DataFrame(kinds, columns=["dataset", "method", "kind"]).value_counts(sort=False).unstack(fill_value=0)
    counts = counts.reindex(columns=names, fill_value=0)
    lines = [(*key, *map(str, row)) for key, row in zip(counts.index, counts.to_numpy(), strict=True) if row[:4].any()]
    return Grid(
        "answers",
        "Answers",
        ("data set", "method", "first word", "sentences", "refused", "unparsable", "failed", "not asked"),
        tuple(lines),
        "Images by how the yes or no was found: in the first word, or in"
        " what the sentences say; refused and unparsable answers count neither as yes nor as no, and keep their"
        " score where the model gave probabilities.",
    )
