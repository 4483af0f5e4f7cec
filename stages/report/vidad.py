"""Tables for people: per task, VID-AD's Tables 4 and 5, per defect; those of the LVLM paper lie beside."""

from collections.abc import Sequence

import pandas as pd

from stages.datasets.augment import KINDS, split_condition
from stages.datasets.vidad import ASPECTS, CONDITIONS, SCENARIOS
from stages.report import mask_area as area
from stages.report import visualad as zero_shot
from stages.report import vmad
from stages.report.grid import Grid, published
from stages.report.lvlm import KIND_NAMES, accuracy_tables
from stages.results.pixels import PixelResult
from stages.results.scores import TaskScores

NAMES = {
    "white_bg": "White BG",
    "cable_bg": "Cable BG",
    "mesh_bg": "Mesh BG",
    "low_light": "Low-light CD",
    "blurry": "Blurry CD",
} | KIND_NAMES
SYNTHETIC = "vidad-synthetic"
DECISIONS = ("ap", "f1_max", "accuracy@own", "accuracy@train-max", "accuracy@train-q90")


def condition_name(condition: str | None, unnamed: str = "all") -> str:
    """'white_bg+rotate90' -> 'White BG + rotated'; `unnamed` where there is no condition."""
    return " + ".join(NAMES.get(c, c) for c in condition.split("+")) if condition else unnamed


def all_tables(
    tasks: list[TaskScores],
    rows: list[dict],
    resamples: int,
    seed: int,
    pixels: Sequence[PixelResult] = (),
    provenance: Sequence[dict] = (),
) -> list[Grid]:
    """The table of tasks first; the papers' tables where the data are theirs; defects and decisions last. provenance:
    records of the scores."""
    grids = [
        *per_task(tasks, rows, resamples, seed),
        *accuracy_tables(tasks, rows),
        per_pixel(rows, pixels),
        zero_shot.table1(rows, pixels),
        *vmad.all_tables(tasks, rows, provenance),
    ]
    if any(t.dataset.startswith("vidad") for t in tasks):
        grids += [table4(rows), table5(rows), per_aspect(rows)]
    grids += [per_defect(rows, resamples, seed), decisions(tasks, rows)]
    return [g for g in grids if g.rows]


def _definition(resamples: int, seed: int) -> str:
    intervals = f"95%, {resamples} stratified resamples of the images, seed {seed}" if resamples else "none"
    return (
        "AUROC of the test images, exact, ties half; scores are anomaly-oriented (the paper's"
        f" S = 1 / (1 + d) is a normality score). Intervals: {intervals}."
    )


def _pick(rows: list[dict], **wanted: object) -> dict | None:
    return next((r for r in rows if all(r[k] == v for k, v in wanted.items())), None)


def _ranked(values, order) -> list:
    order = list(order)
    return sorted(values, key=lambda v: (order.index(v) if v in order else len(order), str(v)))


def _number(row: dict | None, interval: bool = False) -> str:
    if row is None:
        return "-"
    if row["value"] is None:
        return row["reason"]
    if interval and row["ci_low"] is not None:
        return f"{row['value']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
    return f"{row['value']:.3f}"


def per_task(tasks: list[TaskScores], rows: list[dict], resamples: int, seed: int) -> list[Grid]:
    """A table per data set: categories down, conditions across; what has not been scored yet is '-'."""
    datasets = list(dict.fromkeys(t.dataset for t in tasks))
    return [
        _of_dataset(
            [t for t in tasks if t.dataset == d],
            rows,
            _definition(resamples, seed),
            f"tasks-{d}" if len(datasets) > 1 else "tasks",
        )
        for d in datasets
    ]


def _of_dataset(tasks: list[TaskScores], rows: list[dict], definition: str, name: str) -> Grid:
    order = [None, *CONDITIONS, *KINDS]
    conditions = sorted({t.condition for t in tasks}, key=lambda c: ([*order, c].index(c), str(c)))
    several, captured = len(conditions) > 1, {c for c in conditions if c and not split_condition(c)[1]}
    spread = ("auroc", "auroc_std") if len(captured) > 1 else ()
    lines = []
    for dataset, method, category in dict.fromkeys(
        (t.dataset, t.method, c) for t in tasks for c in _ranked({u.category for u in tasks}, SCENARIOS)
    ):
        at = {"dataset": dataset, "method": method, "category": category}
        cells = [_number(_pick(rows, **at, condition=c, metric="auroc"), not several) for c in conditions]
        cells += [_number(_pick(rows, **at, condition=None, metric=m)) for m in spread]
        lines.append((dataset, method, category, *cells))
    for dataset, method in dict.fromkeys((t.dataset, t.method) for t in tasks):
        at = {"dataset": dataset, "method": method, "category": "mean"}
        means = [_pick(rows, **at, condition=c, metric="auroc") for c in conditions]
        means += [_pick(rows, **at, condition=None, metric=m) for m in spread]
        if any(means):
            lines.append((dataset, method, "mean", *map(_number, means)))
    failed = sum(t.failed for t in tasks)
    note = f"{len(tasks)} task{'s' * (len(tasks) != 1)}. {definition} Mean: over categories"
    note += "; std: over conditions (population)." if spread else "."
    note += f" {failed} images without a score are left out." if failed else ""
    heads = [condition_name(c, "original" if several else "all") for c in conditions]
    columns = ("data set", "method", "category", *heads, *(["mean", "std"] if spread else []))
    return Grid(name, "AUROC per task", columns, tuple(lines), note, printed=True)


def per_pixel(rows: list[dict], pixels: Sequence[PixelResult]) -> Grid:
    """Pixel metrics per category, and their mean."""
    names = list(dict.fromkeys(name for r in pixels for name in r.values if "/" not in name))
    lines = []
    for dataset, method, condition in dict.fromkeys((r.task.dataset, r.task.method, r.task.condition) for r in pixels):
        here = [
            r.task for r in pixels if (r.task.dataset, r.task.method, r.task.condition) == (dataset, method, condition)
        ]
        for category in (*(t.category for t in here), "mean"):
            at = {"dataset": dataset, "method": method, "condition": condition, "category": category}
            found = [_pick(rows, **at, metric=name) for name in names]
            if any(found):
                out = sum(len(t.left_out) for t in here if category in (t.category, "mean"))
                lines.append(
                    (
                        dataset,
                        method,
                        condition_name(condition),
                        category,
                        *(_number(f, True) for f in found),
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


def _whose(dataset: str, method: str) -> str:
    if dataset == SYNTHETIC:
        return f"{method}, ours, SYNTHETIC scenes"
    return f"{method}, ours"


def table4(rows: list[dict]) -> Grid:
    """The paper's Table 4: mean AUROC over scenarios per condition, mean and std over conditions."""
    lines = []
    for dataset, method in dict.fromkeys((r["dataset"], r["method"]) for r in rows):
        at = {"dataset": dataset, "method": method, "category": "mean"}
        cells = [_number(_pick(rows, **at, condition=c, metric="auroc")) for c in CONDITIONS]
        mean, std = (_number(_pick(rows, **at, condition=None, metric=m)) for m in ("auroc", "auroc_std"))
        if dataset.startswith("vidad") and (mean != "-" or any(c != "-" for c in cells)):
            lines.append((_whose(dataset, method), *cells, mean if std == "-" else f"{mean}±{std}"))
    lines += (
        [
            (f"{p['method']} (published)", *(p[c] for c in CONDITIONS), f"{p['mean']}±{p['std']}")
            for p in published("vid_ad_table4")
        ]
        if lines
        else []
    )
    note = (
        "AUROC, mean over scenarios. Mean±std: over the five conditions, population standard deviation,"
        " which reproduces the paper's own column. " + _caution(rows)
    )
    columns = ("method", *(NAMES[c] for c in CONDITIONS), "mean±std")
    return Grid("table4", "VID-AD, Table 4: AUROC per capture condition", columns, tuple(lines), note)


def table5(rows: list[dict]) -> Grid:
    """The paper's Table 5: per scenario the std of AUROC over the conditions."""
    lines = []
    for dataset, method in dict.fromkeys((r["dataset"], r["method"]) for r in rows):
        cells = [
            _number(_pick(rows, dataset=dataset, method=method, category=s, condition=None, metric="auroc_std"))
            for s in SCENARIOS
        ]
        if dataset.startswith("vidad") and any(c != "-" for c in cells):
            lines.append((_whose(dataset, method), *cells))
    lines += (
        [(f"{p['method']} (published)", *(p[s] for s in SCENARIOS)) for p in published("vid_ad_table5")]
        if lines
        else []
    )
    note = "Standard deviation (population) of AUROC over the five conditions. " + _caution(rows)
    return Grid(
        "table5", "VID-AD, Table 5: sensitivity to the capture condition", ("method", *SCENARIOS), tuple(lines), note
    )


def _caution(rows: list[dict]) -> str:
    if any(r["dataset"] == SYNTHETIC for r in rows):
        return (
            "Our rows were measured on rendered scenes, the published ones on the real VID-AD: they cannot be compared."
        )
    return "Published figures: the paper's."


def per_aspect(rows: list[dict]) -> Grid:
    """Table 3's groups: single A, single B and dual violations, each against the normal test images."""
    table = pd.DataFrame(
        [
            (r["dataset"], r["method"], r["category"], r["metric"].removeprefix("auroc/"), r["value"])
            for r in rows
            if r["metric"].startswith("auroc/") and r["value"] is not None and not split_condition(r["condition"])[1]
        ],
        columns=["dataset", "method", "scenario", "aspect", "auroc"],
    )
    means = table.groupby(["dataset", "method", "scenario", "aspect"])["auroc"].mean()  # over the conditions
    lines = []
    for dataset, method in dict.fromkeys((r["dataset"], r["method"]) for r in rows):
        for scenario, (first, second) in ((s, ASPECTS[s]) for s in SCENARIOS):
            names = (first, second, f"{first}+{second}", f"{second}+{first}")
            *single, dual, turned = (means.get((dataset, method, scenario, name)) for name in names)
            of_aspect = [*single, turned if dual is None else dual]
            if any(value is not None for value in of_aspect):
                cells = ["-" if value is None else f"{value:.3f}" for value in of_aspect]
                lines.append(
                    (_whose(dataset, method), scenario, f"{first} {cells[0]}", f"{second} {cells[1]}", cells[2])
                )
    return Grid(
        "aspects",
        "AUROC per violated aspect",
        ("method", "scenario", "single A", "single B", "dual"),
        tuple(lines),
        "Anomalous images of the aspect against all normal test images of the task; mean over the conditions.",
    )


def per_defect(rows: list[dict], resamples: int, seed: int) -> Grid:
    """AUROC of each kind of defect against the normal test images of its task."""
    lines = [
        (
            r["dataset"],
            r["method"],
            r["category"],
            condition_name(r["condition"]),
            r["metric"].split("/", 1)[1],
            _number(r, True),
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
    metrics = _ranked(
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
        cells = [_number(_pick(rows, **at, metric=m)) for m in metrics]
        lines.append((*key[:3], condition_name(key[3]), *cells))
    note = (
        "Thresholds come from the training normals' own scores (leave-one-out): maximum, 90th and 80th"
        " percentile; an image above is called anomalous. F1-max looks at the test labels."
    )
    return Grid(
        "decisions",
        "Average precision, F1 and decisions",
        ("data set", "method", "category", "condition", *metrics),
        tuple(lines),
        note,
    )


def mask_area(bins: list[area.Bin]) -> list[Grid]:
    """The numbers of the LVLM paper's Figure 7; no table without bins."""
    lines = [(b.dataset, b.method, f"{b.percent:.3f}", f"{100 * b.accuracy:.1f}", str(b.n)) for b in bins]
    columns = ("data set", "method", "mean mask area, % of the picture", "called anomalous, %", "images")
    return (
        [
            Grid(
                "mask-area",
                "Accuracy by size of the anomaly",
                columns,
                tuple(lines),
                f"Anomalous test images in bins of {area.SIZE}, smallest masks first.",
            )
        ]
        if lines
        else []
    )
