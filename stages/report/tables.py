"""Tables for people: per task, the paper's Tables 4 and 5, per defect. As text, CSV, Markdown, HTML."""

import csv
import io
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from stages.artifacts.files import make_folder, write_atomically
from stages.datasets.vidad import ASPECTS, CONDITIONS, SCENARIOS

if TYPE_CHECKING:
    from stages.evaluate import TaskScores

NAMES = {"white_bg": "White BG", "cable_bg": "Cable BG", "mesh_bg": "Mesh BG", "low_light": "Low-light CD",
         "blurry": "Blurry CD", None: "all"}
SYNTHETIC = "vidad-synthetic"


@dataclass(frozen=True)
class Grid:
    """name: of its files; note: the definition, printed with the numbers."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str


def all_tables(tasks: "list[TaskScores]", rows: list[dict], resamples: int, seed: int) -> list[Grid]:
    """The table of tasks first; Tables 4 and 5 of VID-AD where the data are its; defects last."""
    grids = [per_task(tasks, rows, resamples, seed)]
    if any(t.dataset.startswith("vidad") for t in tasks):
        grids += [table4(rows), table5(rows), per_aspect(rows)]
    grids += [per_defect(rows, resamples, seed), decisions(rows, resamples, seed)]
    return [g for g in grids if g.rows]


def _definition(resamples: int, seed: int) -> str:
    return ("AUROC of the test images, exact, ties half; scores are anomaly-oriented (the paper's"
            f" S = 1 / (1 + d) is a normality score). Intervals: 95%, {resamples} stratified resamples of the"
            f" images, seed {seed}.")


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


def per_task(tasks: "list[TaskScores]", rows: list[dict], resamples: int, seed: int) -> Grid:
    """Categories down, conditions across; what has not been scored yet is '-'."""
    conditions = _ranked({t.condition for t in tasks}, CONDITIONS)
    several = len(conditions) > 1
    lines = []
    for dataset, method, category in dict.fromkeys(
            (t.dataset, t.method, c) for t in tasks
            for c in _ranked({u.category for u in tasks if u.dataset == t.dataset}, SCENARIOS)):
        at = {"dataset": dataset, "method": method, "category": category}
        cells = [_number(_pick(rows, **at, condition=c, metric="auroc"), not several) for c in conditions]
        if several:
            cells += [_number(_pick(rows, **at, condition=None, metric=m)) for m in ("auroc", "auroc_std")]
        lines.append((dataset, method, category, *cells))
    for dataset, method in dict.fromkeys((t.dataset, t.method) for t in tasks):
        at = {"dataset": dataset, "method": method, "category": "mean"}
        means = [_pick(rows, **at, condition=c, metric="auroc") for c in conditions]
        if several:
            means += [_pick(rows, **at, condition=None, metric=m) for m in ("auroc", "auroc_std")]
        if any(means):
            lines.append((dataset, method, "mean", *map(_number, means)))
    failed = sum(t.failed for t in tasks)
    note = f"{len(tasks)} task{'s' * (len(tasks) != 1)}. {_definition(resamples, seed)} Mean: over categories; std: over conditions"
    note += f" (population). {failed} images without a score are left out." if failed else " (population)."
    heads = [NAMES.get(c, str(c)) for c in conditions] + (["mean", "std"] if several else [])
    return Grid("tasks", "AUROC per task", ("data set", "method", "category", *heads), tuple(lines), note)


def published(name: str) -> list[dict[str, str]]:
    """Rows of one of the CSV files with the papers' figures."""
    text = files("stages.report.published").joinpath(f"{name}.csv").read_text()
    return list(csv.DictReader(io.StringIO(text)))


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
            lines.append((_whose(dataset, method), *cells, f"{mean}±{std}"))
    lines += [(f"{p['method']} (published)", *(p[c] for c in CONDITIONS), f"{p['mean']}±{p['std']}")
              for p in published("vid_ad_table4")] if lines else []
    note = ("AUROC, mean over scenarios. Mean±std: over the five conditions, population standard deviation,"
            " which reproduces the paper's own column. " + _caution(rows))
    columns = ("method", *(NAMES[c] for c in CONDITIONS), "mean±std")
    return Grid("table4", "Table 4: AUROC per capture condition", columns, tuple(lines), note)


def table5(rows: list[dict]) -> Grid:
    """The paper's Table 5: per scenario the std of AUROC over the conditions."""
    lines = []
    for dataset, method in dict.fromkeys((r["dataset"], r["method"]) for r in rows):
        cells = [_number(_pick(rows, dataset=dataset, method=method, category=s, condition=None,
                               metric="auroc_std")) for s in SCENARIOS]
        if dataset.startswith("vidad") and any(c != "-" for c in cells):
            lines.append((_whose(dataset, method), *cells))
    lines += [(f"{p['method']} (published)", *(p[s] for s in SCENARIOS))
              for p in published("vid_ad_table5")] if lines else []
    note = "Standard deviation (population) of AUROC over the five conditions. " + _caution(rows)
    return Grid("table5", "Table 5: sensitivity to the capture condition", ("method", *SCENARIOS),
                tuple(lines), note)


def _caution(rows: list[dict]) -> str:
    if any(r["dataset"] == SYNTHETIC for r in rows):
        return ("Our rows were measured on rendered scenes, the published ones on the real VID-AD: they cannot"
                " be compared.")
    return "Published figures: the paper's."


def per_aspect(rows: list[dict]) -> Grid:
    """Table 3's groups: single A, single B and dual violations, each against the normal test images."""
    lines = []
    for dataset, method in dict.fromkeys((r["dataset"], r["method"]) for r in rows):
        for scenario in SCENARIOS:
            found: dict[str, list[float]] = {}
            for r in rows:
                if (r["dataset"], r["method"], r["category"]) == (dataset, method, scenario) and \
                        r["metric"].startswith("auroc/") and r["value"] is not None:
                    found.setdefault(r["metric"].split("/", 1)[1], []).append(r["value"])
            first, second = ASPECTS[scenario]
            groups = (found.get(first), found.get(second),
                      found.get(f"{first}+{second}") or found.get(f"{second}+{first}"))
            if any(groups):
                cells = [f"{sum(g) / len(g):.3f}" if g else "-" for g in groups]
                lines.append((_whose(dataset, method), scenario, f"{first} {cells[0]}",
                              f"{second} {cells[1]}", cells[2]))
    return Grid("aspects", "AUROC per violated aspect", ("method", "scenario", "single A", "single B", "dual"),
                tuple(lines), "Anomalous images of the aspect against all normal test images of the task; mean"
                " over the conditions.")


def per_defect(rows: list[dict], resamples: int, seed: int) -> Grid:
    """AUROC of each kind of defect against the normal test images of its task."""
    lines = [(r["dataset"], r["method"], r["category"], NAMES.get(r["condition"], str(r["condition"])),
              r["metric"].split("/", 1)[1], _number(r, True), str(r["n_positive"]),
              str(r["n"] - r["n_positive"])) for r in rows if r["metric"].startswith("auroc/")]
    columns = ("data set", "method", "category", "condition", "defect", "AUROC [95%]", "anomalous", "normal")
    return Grid("defects", "AUROC per kind of defect", columns, tuple(lines), _definition(resamples, seed))


def decisions(rows: list[dict], resamples: int, seed: int) -> Grid:
    """AP, F1-max and accuracies at thresholds from training normals."""
    metrics = _ranked({r["metric"] for r in rows if "/" not in r["metric"] and not r["metric"].endswith(
        "_std")} - {"auroc"}, ("ap", "f1_max", "accuracy@train-max", "accuracy@train-q90"))
    lines = []
    for key in dict.fromkeys((r["dataset"], r["method"], r["category"], r["condition"]) for r in rows
                             if r["category"] != "mean" and r["n"] and r["ci_low"] is not None):
        at = dict(zip(("dataset", "method", "category", "condition"), key, strict=True))
        cells = [_number(_pick(rows, **at, metric=m)) for m in metrics]
        lines.append((*key[:3], NAMES.get(key[3], str(key[3])), *cells))
    note = ("Thresholds come from the training normals' own scores (leave-one-out): maximum, 90th and 80th"
            " percentile; an image above is called anomalous. F1-max looks at the test labels.")
    return Grid("decisions", "Average precision, F1 and decisions",
                ("data set", "method", "category", "condition", *metrics), tuple(lines), note)


# -- output --------------------------------------------------------------------------------------------


def as_text(grid: Grid) -> str:
    """Aligned columns for a terminal or a log."""
    lines = [grid.columns, *grid.rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(grid.columns))]
    text = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
            for line in lines]
    return "\n".join([grid.title, text[0], "-" * sum(w + 2 for w in widths), *text[1:], grid.note])


def as_markdown(grid: Grid) -> str:
    """A pipe table under its title, the definition below."""
    lines = ["| " + " | ".join(line) + " |" for line in (grid.columns, ("---",) * len(grid.columns), *grid.rows)]
    return "\n".join([f"## {grid.title}", "", *lines, "", grid.note, ""])


def as_csv(grid: Grid) -> str:
    """Comma-separated, header first."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([grid.columns, *grid.rows])
    return text.getvalue()


def write(grids: list[Grid], folder: Path) -> None:
    """FOLDER/<name>.csv and .md for each table."""
    make_folder(folder)
    for grid in grids:
        for ending, text in (("csv", as_csv(grid)), ("md", as_markdown(grid))):
            write_atomically(folder / f"{grid.name}.{ending}", lambda f, t=text: f.write(t.encode()))
