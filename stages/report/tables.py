"""Every table of an evaluation of scores: per task, per defect, of pixels and decisions, and those of the papers."""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from stages.datasets.augment import KINDS
from stages.datasets.conditions import split_condition
from stages.datasets.vidad import CONDITIONS, SCENARIOS
from stages.report import lvlm, lvlm_cost, vidad, visualad, visualad_ablations, vmad
from stages.report.cells import number, pick, pivot, ranked
from stages.report.grid import Grid
from stages.report.names import condition_name
from stages.results.pixels import PixelResult
from stages.results.scores import TaskScores

DECISIONS = ("ap", "f1_max", "accuracy@own", "accuracy_all@own", "accuracy@train-max", "accuracy@train-q90")


EMPTY: Mapping[str, Iterable[str]] = {}


def all_tables(
    tasks: list[TaskScores],
    rows: list[dict],
    resamples: int,
    seed: int,
    pixels: Sequence[PixelResult] = (),
    provenance: Sequence[dict] = (),
    embedded: Mapping[str, Iterable[str]] = EMPTY,
) -> list[Grid]:
    """The table of tasks first; the papers' tables where the data are theirs; defects and decisions last. provenance:
    records of the scores; embedded: of `HowMade`."""
    made = visualad.made_of(provenance)
    grids = [
        *per_task(tasks, rows, resamples, seed),
        *lvlm.accuracy_tables(tasks, rows),
        lvlm_cost.table(tasks, provenance),
        per_pixel(rows, pixels),
        visualad.table1(rows, pixels, made),
        *visualad_ablations.all_tables(rows, made),
        *vmad.all_tables(tasks, rows, provenance),
    ]
    if any(t.dataset.startswith("vidad") for t in tasks):
        imported = {p["parameters"]["method"] for p in provenance if p["notes"].get("imported")}
        whose = vidad.of_whom(imported, embedded)
        grids += [vidad.table4(rows, whose, tasks), vidad.table5(rows, whose), vidad.table7(rows, whose, tasks)]
        grids.append(vidad.per_aspect(rows, whose))
    grids += [per_defect(rows, resamples, seed), decisions(tasks, rows)]
    return [g for g in grids if g.rows]


def _definition(resamples: int, seed: int) -> str:
    intervals = f"95%, {resamples} stratified resamples of the images, seed {seed}" if resamples else "none"
    return (
        "AUROC of the test images, exact, ties half; scores are anomaly-oriented (the paper's"
        f" S = 1 / (1 + d) is a normality score). Intervals: {intervals}."
    )


def per_task(tasks: list[TaskScores], rows: list[dict], resamples: int, seed: int) -> list[Grid]:
    """A table per data set: categories down, conditions across; what has not been scored yet is '-'."""
    datasets = list(dict.fromkeys(t.dataset for t in tasks))
    return [
        _of_dataset(
            [t for t in tasks if t.dataset == d],
            rows,
            _definition(resamples, seed),
            *((f"tasks-{d}", f"{d}: AUROC per task") if len(datasets) > 1 else ("tasks", "AUROC per task")),
        )
        for d in datasets
    ]


def _of_dataset(tasks: list[TaskScores], rows: list[dict], definition: str, name: str, title: str) -> Grid:
    order = [None, *CONDITIONS, *KINDS]
    conditions = sorted({t.condition for t in tasks}, key=lambda c: ([*order, c].index(c), str(c)))
    several, captured = len(conditions) > 1, {c for c in conditions if c and not split_condition(c)[1]}
    spread = len(captured) > 1
    auroc, std = pivot(rows, "auroc", interval=not several), pivot(rows, "auroc_std")
    parts = [auroc.reindex(columns=[c or "" for c in conditions])]
    if spread:
        parts += [auroc.reindex(columns=[""]), std.reindex(columns=[""])]
    table = pd.concat(parts, axis=1)
    methods = dict.fromkeys((t.dataset, t.method) for t in tasks)
    categories = ranked({t.category for t in tasks}, SCENARIOS)
    keys = [(*m, c) for m in methods for c in categories]
    keys += [(*m, "mean") for m in methods if (*m, "mean") in table.index and table.loc[(*m, "mean")].notna().any()]
    cells = table.reindex(pd.MultiIndex.from_tuples(keys)).fillna("-")
    lines = [(*key, *row) for key, row in zip(keys, cells.to_numpy(), strict=True)]
    failed = sum(t.failed for t in tasks)
    note = f"{len(tasks)} task{'s' * (len(tasks) != 1)}. {definition} Mean: over categories"
    note += "; std: over conditions (population)." if spread else "."
    note += f" {failed} images without a score are left out." if failed else ""
    heads = [condition_name(c, "original" if several else "all") for c in conditions]
    if stand_in := sum(t.normals_stand_in for t in tasks):
        note += f" {stand_in} without normal test images: against the normal images held out (split val)."
    columns = ("data set", "method", "category", *heads, *(["mean", "std"] if spread else []))
    labelled = any(s.image.label is not None for t in tasks for s in t.rows if s.image.split == "test")
    return Grid(name, title, columns, tuple(lines), note, printed=labelled)


def per_pixel(rows: list[dict], pixels: Sequence[PixelResult]) -> Grid:
    """Pixel metrics per category, and their mean; without rows where there is none at all, as without any mask."""
    names = list(dict.fromkeys(name for r in pixels for name in r.values if "/" not in name))
    lines = []
    for dataset, method, condition in dict.fromkeys((r.task.dataset, r.task.method, r.task.condition) for r in pixels):
        group = [r for r in pixels if (r.task.dataset, r.task.method, r.task.condition) == (dataset, method, condition)]
        here = [r.task for r in group]
        valued = any(v.value is not None for r in group for v in r.values.values())
        for category in (*(t.category for t in here), "mean") if valued else ():
            at = {"dataset": dataset, "method": method, "condition": condition, "category": category}
            found = [pick(rows, **at, metric=name) for name in names]
            if any(found):
                out = sum(len(t.left_out) for t in here if category in (t.category, "mean"))
                lines.append(
                    (
                        dataset,
                        method,
                        condition_name(condition),
                        category,
                        *(number(f, True) for f in found),
                        str(next(f["n"] for f in found if f)),
                        str(out),
                    )
                )
    note = (
        "All pixels of all test images of a category, exact over all distinct thresholds. PRO: mean over regions"
        " (8-connected components of the masks) against the false positive rate of all normal pixels, up to the"
        " rate in its name, divided by it. pro_200: 200 thresholds, rates stretched to the range reached, as most"
        " published code computes PRO. spro: MVTec LOCO's saturated PRO, mean of its kinds of anomalies. Maps are"
        " resized to their masks bilinearly. Intervals: 95%, images resampled. Mean: over categories."
    )
    heads = ("data set", "method", "condition", "category", *names, "images", "left out")
    return Grid("pixels", "Pixel metrics", heads, tuple(lines), note, printed=True)


def per_defect(rows: list[dict], resamples: int, seed: int) -> Grid:
    """AUROC of each kind of defect against the normal test images of its task."""
    lines = [
        (
            r["dataset"],
            r["method"],
            r["category"],
            condition_name(r["condition"]),
            r["metric"].split("/", 1)[1],
            number(r, True),
            str(r["n_positive"]),
            str(r["n"] - r["n_positive"]),
        )
        for r in rows
        if r["metric"].startswith("auroc/")
    ]
    columns = ("data set", "method", "category", "condition", "defect", "AUROC [95%]", "anomalous", "normal")
    return Grid("defects", "AUROC per kind of defect", columns, tuple(lines), _definition(resamples, seed))


def decisions(tasks: list[TaskScores], rows: list[dict]) -> Grid:
    """AP, F1-max and accuracies at thresholds from training normals."""
    metrics = ranked(
        {
            r["metric"]
            for r in rows
            if r["level"] == "image" and "/" not in r["metric"] and not r["metric"].endswith("_std")
        }
        - {"auroc"},
        DECISIONS,
    )
    lines = []
    there = {(t.dataset, t.method, t.category, t.condition) for t in tasks}
    for key in dict.fromkeys(
        (r["dataset"], r["method"], r["category"], r["condition"])
        for r in rows
        if (r["dataset"], r["method"], r["category"], r["condition"]) in there and r["n"]
    ):
        at = dict(zip(("dataset", "method", "category", "condition"), key, strict=True))
        cells = [number(pick(rows, **at, metric=m)) for m in metrics]
        lines.append((*key[:3], condition_name(key[3]), *cells))
    note = (
        "accuracy@own: of the images that the method answers; accuracy_all@own: of all, those without an answer count"
        " as wrong. Thresholds come from the training normals' own scores (leave-one-out; val: from those of normal"
        " images held out): maximum, 90th and 80th percentile; an image above is called anomalous. F1-max looks at the"
        " test labels."
    )
    return Grid(
        "decisions",
        "Average precision, F1 and decisions",
        ("data set", "method", "category", "condition", *metrics),
        tuple(lines),
        note,
    )
