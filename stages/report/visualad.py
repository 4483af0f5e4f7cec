"""VisualAD's Table 1, zero-shot metrics per data set, with the published rows beside ours."""

from collections.abc import Iterable, Sequence
from pathlib import PurePath

from stages.datasets.known import other_categories
from stages.report.cells import over_categories, percent, pro_name
from stages.report.grid import Grid, published
from stages.results.pixels import PixelResult

IMAGE = ("auroc", "f1_max", "ap")
PIXEL = ("pixel_auroc", "pixel_f1_max", "pixel_ap", "pro")
HEADS = {
    "auroc": "image AUROC",
    "f1_max": "image F1-max",
    "ap": "image AP",
    "pixel_auroc": "pixel AUROC",
    "pixel_f1_max": "pixel F1-max",
    "pixel_ap": "pixel AP",
    "pro": "PRO",
}
Made = dict[tuple[str, str], dict]


def made_of(records: Iterable[dict]) -> Made:
    """(data set, method) -> what its scores' records say of the model. A name that stands for models of several kinds
    on one data set is left out."""
    found: dict[tuple[str, str], list[dict]] = {}
    for r in records:
        if said := r.get("notes", {}).get("visualad"):
            kind = {n: v for n, v in said.items() if n != "datasets"}
            for dataset in said["datasets"]:
                found.setdefault((dataset, r["parameters"]["method"]), []).append(kind)
    return {key: kinds[0] for key, kinds in found.items() if all(k == kinds[0] for k in kinds)}


def described(method: str, made: dict | None) -> str:
    """'visualad, ours: clip-vit-large-patch14-336 trained on visa, fp32'; what no record says is left out."""
    if made is None:
        return f"{method}, ours"
    parts = [PurePath(made["backbone"]).name]
    if trained_on := made.get("trained_on"):
        parts[0] += f" trained on {' and '.join(trained_on)}"
    parts += [made["scored"]] if made["scored"] == made.get("precision", made["scored"]) else [_precisions(made)]
    parts += ["as released"] if made["as_released"] else []
    parts += ["variant paper"] if made["variant"] == "paper" else []
    return f"{method}, ours: {', '.join(parts)}"


def _precisions(made: dict) -> str:
    return f"trained in {made['precision']}, scored in {made['scored']}"


def cell(rows: list[dict], dataset: str, method: str, metric: str) -> str:
    """One of HEADS, %, mean over categories."""
    return percent(over_categories(rows, dataset, method, pro_name(rows) if metric == "pro" else metric))


def of_categories(rows: list[dict], datasets: Iterable[str]) -> str:
    """' Ours of visa: 11 of 12 categories, published: all.', of each data set that lacks some; rows: METRICS."""
    text = ""
    for dataset in dict.fromkeys(datasets):
        found = {r["category"] for r in rows if r["dataset"] == dataset} - {"mean"}
        lacking, strange = other_categories(dataset, found)
        there = len(found) - len(strange)
        text += f" Ours of {dataset}: {there} of {there + len(lacking)} categories, published: all." if lacking else ""
    return text


def table1(rows: list[dict], pixels: Sequence[PixelResult], made: Made) -> Grid:
    """Data sets of the paper that have pixel metrics or were scored by `visualad`; means over categories, %."""
    theirs = published("visualad_table1")
    known = dict.fromkeys(p["dataset"] for p in theirs)
    pairs = {(r.task.dataset, r.task.method) for r in pixels} | {
        (r["dataset"], r["method"]) for r in rows if r["method"].startswith("visualad")
    }
    approximate = ("pro_200",) if any(r["metric"] == "pro_200" for r in rows) else ()
    metrics = (*IMAGE, *PIXEL)
    lines = []
    for dataset in (d for d in known if any(d == p[0] for p in pairs)):
        for _, method in sorted(p for p in pairs if p[0] == dataset):
            cells = (cell(rows, dataset, method, m) for m in (*metrics, *approximate))
            lines.append((dataset, described(method, made.get((dataset, method))), *cells))
        lines += [
            (dataset, f"{p['method']} (published)", *(p[m] or "-" for m in metrics), *("-" for _ in approximate))
            for p in theirs
            if p["dataset"] == dataset
        ]
    return Grid(
        "zero-shot",
        "Zero-shot detection",
        ("data set", "method", *(HEADS[m] for m in metrics), *("PRO, 200 steps" for _ in approximate)),
        tuple(lines),
        "VisualAD, Table 1. %, mean over categories. Our PRO is exact, PRO of 200 steps as most published code has it;"
        " the released code computes none, and how the published one came about is not known."
        + of_categories(rows, (line[0] for line in lines)),
    )
