"""VID-AD's Tables 4, 5 and 7, its groups of Table 3, and its Figure 5."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from stages.base.plots import as_png, pyplot
from stages.datasets.conditions import split_condition
from stages.datasets.manifest import MEAN
from stages.datasets.vidad import ASPECTS, CONDITIONS, SCENARIOS
from stages.report.cells import number, pick
from stages.report.figures import MARKS, UNKNOWN, shown
from stages.report.grid import Grid, published
from stages.report.names import CONDITION_NAMES
from stages.results.scores import TaskScores

SYNTHETIC = "vidad-synthetic"
IMPORTED = "imported"
NOBODY: Mapping[str, str] = {}


def _whose(dataset: str, method: str, whose: Mapping[str, str]) -> str:
    """whose: of methods that are not simply ours, as `of_whom` has it."""
    if dataset == SYNTHETIC:
        return f"{method}, {whose[method] if whose.get(method) == IMPORTED else 'ours'}, SYNTHETIC scenes"
    return f"{method}, {whose.get(method, 'ours')}"


def of_whom(imported: Iterable[str], embedded: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Method -> 'imported' where another program made the scores, 'ours with scene, rules' where parts that adcli
    brings along met real data."""
    return {m: f"ours with {', '.join(words)}" for m, words in embedded.items()} | dict.fromkeys(imported, IMPORTED)


def table4(rows: list[dict], whose: Mapping[str, str] = NOBODY, tasks: Sequence[TaskScores] = ()) -> Grid:
    """The paper's Table 4: mean AUROC over scenarios per condition, mean and std over conditions."""
    return _per_condition(rows, "table4", "VID-AD, Table 4: AUROC per capture condition", tasks, whose)


def table7(rows: list[dict], whose: Mapping[str, str] = NOBODY, tasks: Sequence[TaskScores] = ()) -> Grid:
    """The paper's Table 7, the same for runs that differ in the captioner: methods named `text-knn/...`."""
    ours = [r for r in rows if r["method"].startswith("text-knn/")]
    return _per_condition(ours, "table7", "VID-AD, Table 7: the model that writes captions and negatives", tasks, whose)


def _per_condition(
    rows: list[dict], name: str, title: str, tasks: Sequence[TaskScores], whose: Mapping[str, str] = NOBODY
) -> Grid:
    """tasks: of which the table says how many of their images have a score, where some have none."""
    lines = []
    for dataset, method in dict.fromkeys((r["dataset"], r["method"]) for r in rows):
        there = _of_tasks(rows, dataset, method)
        over = [len({r["category"] for r in there if r["condition"] == c}) for c in CONDITIONS]
        of_condition = [_of_condition(rows, there, dataset, method, c) for c in CONDITIONS]
        cells = [number(r) for r in of_condition]
        if dataset.startswith("vidad") and any(c != "-" for c in cells):
            values = [r["value"] for r in of_condition if r and r["value"] is not None]
            of_all = f"{np.mean(values):.3f}" + (f"±{np.std(values):.3f}" if len(values) > 1 else "") if values else "-"
            if 0 < len(values) < len(CONDITIONS):
                of_all += f" ({len(values)} of {len(CONDITIONS)} conditions)"
            of_row, cells = _counted(cells, over, len(SCENARIOS), "scenarios")
            of_row += _scored([t for t in tasks if (t.dataset, t.method) == (dataset, method)])
            lines.append((_whose(dataset, method, whose) + of_row, *cells, of_all))
    if lines:
        lines += [
            (f"{p['method']} (published)", *(p[c] for c in CONDITIONS), f"{p['mean']}±{p['std']}")
            for p in published(f"vid_ad_{name}")
        ]
    note = (
        "AUROC, mean over scenarios. Mean±std: over the five conditions, population standard deviation,"
        " which reproduces the paper's own column. " + _caution(rows)
    )
    columns = ("method", *(CONDITION_NAMES[c] for c in CONDITIONS), "mean±std")
    return Grid(name, title, columns, tuple(lines), note)


def _of_condition(rows: list[dict], there: list[dict], dataset: str, method: str, condition: str) -> dict | None:
    """The row that averages over the scenarios measured under a condition, or that of the only one; where none has a
    value, a row that says why. there: of `_of_tasks`."""
    at = {"dataset": dataset, "method": method, "condition": condition, "metric": "auroc"}
    of_one = next((r for r in there if r["condition"] == condition), None)
    return pick(rows, **at, category=MEAN) or of_one or pick(rows, **at)


def _counted(cells: list[str], over: list[int], total: int, what: str) -> tuple[str, list[str]]:
    """(', 2 of 10 scenarios', cells) where every cell is over as many and not all, ('', cells that say it each) where
    they differ. over: how many a cell is over."""
    different = {n for n in over if n}
    if len(different) == 1:
        (n,) = different
        return f", {n} of {total} {what}" if n < total else "", cells
    return "", [
        cell if n in (0, total) else f"{cell} ({n} of {total} {what})" for cell, n in zip(cells, over, strict=True)
    ]


def _scored(tasks: Sequence[TaskScores]) -> str:
    """', 27 of 54 test images' where some have no score, else ''."""
    scored = sum(len(t.test) for t in tasks)
    there = sum(sum(s.image.split == "test" for s in t.rows) + t.unscored for t in tasks)
    return f", {scored} of {there} test images" if scored < there else ""


def _of_tasks(rows: list[dict], dataset: str, method: str) -> list[dict]:
    """The rows with an AUROC of a scenario under a condition."""
    there = [r for r in rows if (r["dataset"], r["method"], r["metric"]) == (dataset, method, "auroc")]
    return [r for r in there if r["value"] is not None and r["category"] in SCENARIOS and r["condition"] in CONDITIONS]


def table5(rows: list[dict], whose: Mapping[str, str] = NOBODY) -> Grid:
    """The paper's Table 5: per scenario the std of AUROC over the conditions."""
    lines = []
    for dataset, method in dict.fromkeys((r["dataset"], r["method"]) for r in rows):
        at = {"dataset": dataset, "method": method, "condition": None, "metric": "auroc_std"}
        cells = [number(pick(rows, **at, category=s)) for s in SCENARIOS]
        there = _of_tasks(rows, dataset, method)
        over = [len({r["condition"] for r in there if r["category"] == s}) for s in SCENARIOS]
        if dataset.startswith("vidad") and any(c != "-" for c in cells):
            of_row, cells = _counted(cells, over, len(CONDITIONS), "conditions")
            lines.append((_whose(dataset, method, whose) + of_row, *cells))
    lines += (
        [(f"{p['method']} (published)", *(p[s] for s in SCENARIOS)) for p in published("vid_ad_table5")]
        if lines
        else []
    )
    note = (
        "Standard deviation (population) of AUROC over the five conditions, of ours over those that were measured. "
        + _caution(rows)
    )
    return Grid(
        "table5", "VID-AD, Table 5: sensitivity to the capture condition", ("method", *SCENARIOS), tuple(lines), note
    )


def _caution(rows: list[dict]) -> str:
    if any(r["dataset"] == SYNTHETIC for r in rows):
        return (
            "Our rows were measured on rendered scenes, the published ones on the real VID-AD: they cannot be compared."
        )
    return "Published figures: the paper's."


def per_aspect(rows: list[dict], whose: Mapping[str, str] = NOBODY) -> Grid:
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
                    (
                        _whose(dataset, method, whose),
                        scenario,
                        f"{first} {cells[0]}",
                        f"{second} {cells[1]}",
                        cells[2],
                    )
                )
    return Grid(
        "aspects",
        "AUROC per violated aspect",
        ("method", "scenario", "single A", "single B", "dual"),
        tuple(lines),
        "Anomalous images of the aspect against all normal test images of the task; mean over the conditions that were"
        " measured.",
    )


def of_figure5(rows: list[dict]) -> dict[str, dict[str, float]]:
    """Category -> condition -> AUROC, of categories with two conditions or more; the paper's scenarios first, in its
    order."""
    values: dict[str, dict[str, float]] = {}
    for r in rows:
        of_task = r["condition"] in CONDITIONS and r["category"] != "mean"
        if of_task and r["metric"] == "auroc" and r["value"] is not None:
            values.setdefault(r["category"], {})[r["condition"]] = r["value"]
    values = {c: v for c, v in values.items() if len(v) > 1}
    names = [s for s in SCENARIOS if s in values] + sorted(set(values) - set(SCENARIOS))
    return {name: values[name] for name in names}


def sensitivity(rows: list[dict]) -> bytes | None:
    """The paper's Figure 5: AUROC of each scenario under each condition as dots, range as bar, mean as
    diamond. None when no category has two conditions."""
    values = of_figure5(rows)
    if not values:
        return None
    plt = pyplot()
    names = list(values)
    figure, axes = plt.subplots(figsize=(9, 3.4))
    seen = [c for c in CONDITIONS if any(c in v for v in values.values())]
    for x, name in enumerate(names):
        v = values[name]
        axes.vlines(x, min(v.values()), max(v.values()), color="#999999", lw=2, zorder=1)
        for i, c in enumerate(seen):
            if c in v:  # side by side, so that equal values stay visible
                axes.plot(
                    x + (i - 2) * 0.09,
                    v[c],
                    "o",
                    ms=6,
                    color=MARKS.get(c, UNKNOWN),
                    zorder=2,
                    label=CONDITION_NAMES.get(c, c) if x == 0 else None,
                )
        axes.plot(x, np.mean(list(v.values())), "D", ms=7, mfc="white", mec="black", zorder=1.5)
    axes.axhline(0.5, color="#cccccc", lw=1, ls="--")
    axes.set_xticks(range(len(names)), [shown(n) for n in names])
    axes.set_ylabel("AUROC")
    low = min(min(v.values()) for v in values.values())
    axes.set_ylim(min(0.45, low - 0.05), 1.03)
    axes.legend(ncol=5, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return as_png(figure)
