"""Table 1 of VisualAD: image and pixel metrics per data set, with the published rows beside ours."""

from collections.abc import Sequence

from stages.report.cells import over_categories, percent, pro_name
from stages.report.grid import Grid, published
from stages.results.pixels import PixelResult

IMAGE = ("auroc", "f1_max", "ap")
PIXEL = ("pixel_auroc", "pixel_f1_max", "pixel_ap", "pro")


def table1(rows: list[dict], pixels: Sequence[PixelResult]) -> Grid:
    """Data sets of the paper that have pixel metrics or were scored by `visualad`; means over categories, %."""
    theirs = published("visualad_table1")
    known = dict.fromkeys(p["dataset"] for p in theirs)
    pairs = {(r.task.dataset, r.task.method) for r in pixels} | {
        (r["dataset"], r["method"]) for r in rows if r["method"].startswith("visualad")
    }
    lines = []
    for dataset in (d for d in known if any(d == p[0] for p in pairs)):
        for _, method in sorted(p for p in pairs if p[0] == dataset):
            metrics = (*IMAGE, *PIXEL[:-1], pro_name(rows))
            lines.append(
                (dataset, f"{method}, ours", *(percent(over_categories(rows, dataset, method, m)) for m in metrics))
            )
        lines += [
            (dataset, f"{p['method']} (published)", *(p[m] or "-" for m in (*IMAGE, *PIXEL)))
            for p in theirs
            if p["dataset"] == dataset
        ]
    heads = (
        "data set",
        "method",
        *(f"image {m}" for m in ("AUROC", "F1-max", "AP")),
        *(f"pixel {m}" for m in ("AUROC", "F1-max", "AP")),
        "PRO",
    )
    return Grid(
        "zero-shot",
        "Zero-shot detection",
        heads,
        tuple(lines),
        "VisualAD, Table 1. %, mean over categories. Our PRO is exact; the released code computes none, and how"
        " the published one came about is not known.",
    )
