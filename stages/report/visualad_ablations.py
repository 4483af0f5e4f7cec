"""VisualAD's Tables 2 to 5 and Figure 4: runs that differ in one thing alone, with the published rows below ours.

Which runs these are is read from their records. A table appears where two runs on one data set, alike in all else,
differ in what it is about.
"""

from collections.abc import Callable, Sequence

from stages.base.plots import as_png, pyplot
from stages.report.grid import Grid, published
from stages.report.visualad import HEADS, IMAGE, PIXEL, Made, cell, described, of_categories

ON = "visa"  # the data set of the published rows
BOTH = (*PIXEL[:3], *IMAGE)  # in the order of Tables 3 to 5
OF_TABLE_2 = ("auroc", "ap", "pixel_auroc", "pixel_ap")
PARTS = {"sca": "SCA", "saf": "SAF", "focal": "Focal", "dice": "Dice", "contrast": "Ctr"}
NOTE = (
    "VisualAD, Table {}. %, means over categories. Rows of one table differ in nothing else; published ones are trained"
    " on MVTec AD and tested on VisA, and rows of other data sets cannot be compared with them."
)


def all_tables(rows: list[dict], made: Made) -> list[Grid]:
    """Tables 2 to 5 and what Figure 4 draws."""
    return [
        _table(
            rows, made, 2, "With and without modules and losses", OF_TABLE_2, "without", tuple(PARTS.values()), _marks
        ),
        _table(rows, made, 3, "Number of anchors", BOTH, "anchors", ("anchors",), lambda value: (value,)),
        _table(rows, made, 4, "Layers", BOTH, "layers", ("layers",), lambda value: (f"{{{value}}}",)),
        _table(
            rows,
            made,
            5,
            "Positions in SCA",
            BOTH,
            "position",
            ("position",),
            lambda value: (_names().get(value, value),),
            " The relative bias has no row of ours: anchors have no place that it could be relative to.",
        ),
        figure4_table(rows, made),
    ]


def _names() -> dict[str, str]:
    return {p["position"]: p["name"] for p in published("visualad_table5")}


def _marks(value: str) -> tuple[str, ...]:
    """'sca,focal' -> ('no', 'yes', 'no', 'yes', 'yes')."""
    return tuple("no" if part in value.split(",") else "yes" for part in PARTS)


def _as_text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def alike(made: Made, *differ: str) -> dict[tuple[str, str], str]:
    """(data set, method) -> the value of the first of `differ`, as text: of runs that have a counterpart on the same
    data set which differs in that and perhaps the rest of `differ`, and in nothing else."""
    groups: dict[tuple, dict[tuple[str, str], str]] = {}
    for (dataset, method), said in made.items():
        same = tuple(sorted((n, _as_text(v)) for n, v in said.items() if n not in differ))
        groups.setdefault((dataset, same), {})[dataset, method] = _as_text(said.get(differ[0], ""))
    return {key: v for group in groups.values() if len(set(group.values())) > 1 for key, v in group.items()}


def _table(
    rows: list[dict],
    made: Made,
    number: int,
    title: str,
    metrics: Sequence[str],
    differ: str,
    heads: tuple[str, ...],
    label: Callable[[str], tuple[str, ...]],
    more: str = "",
) -> Grid:
    """heads, label: the first columns, and what stands there for a value of `differ`."""
    ours = alike(made, differ)
    theirs = {p[differ]: p for p in published(f"visualad_table{number}")}
    lines: list[tuple[str, ...]] = []
    for value in dict.fromkeys((*theirs, *ours.values())) if ours else ():
        lines += [
            (*label(value), dataset, f"{method}, ours", *(cell(rows, dataset, method, m) for m in metrics))
            for (dataset, method), own in ours.items()
            if own == value
        ]
        if value in theirs:
            lines.append((*label(value), ON, "VisualAD (published)", *(theirs[value][m] for m in metrics)))
    return Grid(
        f"visualad-table{number}",
        f"{title} (VisualAD, Table {number})",
        (*heads, "data set", "method", *(HEADS[m] for m in metrics)),
        tuple(lines),
        NOTE.format(number) + more + of_categories(rows, (dataset for dataset, _ in ours)),
        printed=True,
    )


def _backbones(made: Made) -> dict[tuple[str, str], str]:
    """Of a backbone that Table 4 has with fewer layers, too, the run with the most."""
    found = alike(made, "backbone", "layers", "size")
    most: dict[tuple[str, str], int] = {}
    for (dataset, method), backbone in found.items():
        at = dataset, backbone
        most[at] = max(most.get(at, 0), len(made[dataset, method]["layers"]))
    return {key: b for key, b in found.items() if len(made[key]["layers"]) == most[key[0], b]}


def figure4_table(rows: list[dict], made: Made) -> Grid:
    """Ours alone: the paper draws its values and prints none."""
    lines = [
        (dataset, described(method, made[dataset, method]), *(cell(rows, dataset, method, m) for m in (*IMAGE, *PIXEL)))
        for dataset, method in _backbones(made)
    ]
    return Grid(
        "visualad-figure4",
        "Backbones (VisualAD, Figure 4)",
        ("data set", "method", *(HEADS[m] for m in (*IMAGE, *PIXEL))),
        tuple(lines),
        "%, means over categories. The paper draws its values and prints none.",
        printed=True,
    )


def figure4(rows: list[dict], made: Made) -> bytes | None:
    """A radar for each data set, a line per backbone: the six metrics, 0 to 100 %. None without two backbones."""
    import numpy as np

    groups: dict[str, dict[str, list[float]]] = {}
    for (dataset, method), backbone in _backbones(made).items():
        cells = [cell(rows, dataset, method, m) for m in BOTH]
        if "-" not in cells:
            groups.setdefault(dataset, {})[backbone.rstrip("/").rpartition("/")[2]] = list(map(float, cells))
    if not groups:
        return None
    plt = pyplot()
    figure, axes = plt.subplots(
        1, len(groups), figsize=(5.5 * len(groups), 5), squeeze=False, subplot_kw={"projection": "polar"}
    )
    angles = np.linspace(0, 2 * np.pi, len(BOTH) + 1)
    for axis, (dataset, lines) in zip(axes[0], groups.items(), strict=True):
        for name, values in lines.items():
            axis.plot(angles, [*values, values[0]], lw=1.3, label=f" {name}")
        axis.set_xticks(angles[:-1], [HEADS[m] for m in BOTH])
        axis.set(ylim=(0, 100), title=f" {dataset}")
        axis.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(0.9, 1.1))
    return as_png(figure)
