"""The LVLM paper's Figure 6, scores of training and test images with the thresholds, and its Figure 9 as a list."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from stages.base.plots import as_png, pyplot
from stages.datasets.conditions import split_condition
from stages.report.cells import Cell, shortened
from stages.report.figures import ANOMALOUS, NORMAL, UNKNOWN, shown
from stages.report.grid import Grid, published
from stages.report.lvlm import THRESHOLDS
from stages.results.scores import Scored, TaskScores

ACROSS = 5  # panels
BINS = 30
LONGEST = 160  # characters of an answer
STYLES = {"train-max": "-", "train-q90": "--", "train-q80": ":"}


def with_thresholds(tasks: Sequence[TaskScores]) -> list[TaskScores]:
    """Tasks of images as they were taken, with thresholds from training images: of the paper's data sets, and of
    methods that say yes or no."""
    known = {p["dataset"] for p in published("lvlm_tables1_4")}
    return [
        t
        for t in tasks
        if not split_condition(t.condition)[1]
        and (t.dataset in known or t.decided)
        and all(name in t.thresholds for name in THRESHOLDS)
        and t.test
    ]


def counted(task: TaskScores) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Group -> (share of its images in each bin, edges of the bins); the groups are training images, and normal and
    anomalous test images. The bins, BINS from the lowest to the highest score, are the same for all."""
    groups = {"training": [s.number for s in task.train_normal]}
    for name, label in (("test, normal", 0), ("test, anomalous", 1)):
        groups[name] = [s.number for s in task.test if s.image.label == label]
    every = np.concatenate([np.array(g) for g in groups.values()])
    low, high = every.min(), every.max()
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    return {name: (np.histogram(g, edges)[0] / len(g), edges) for name, g in groups.items() if g}


def distributions(tasks: Sequence[TaskScores]) -> bytes | None:
    """Figure 6: a panel for each category, data set and method, with the three thresholds; PNG."""
    drawn = with_thresholds(tasks)
    if not drawn:
        return None
    plt = pyplot()
    columns = min(ACROSS, len(drawn))
    rows = -(-len(drawn) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(2.6 * columns + 0.6, 2.1 * rows + 0.8), squeeze=False, layout="constrained"
    )
    colours = {"training": UNKNOWN, "test, normal": NORMAL, "test, anomalous": ANOMALOUS}
    for ax, task in zip(axes.flat, drawn, strict=False):
        for name, (share, edges) in counted(task).items():
            ax.stairs(share, edges, fill=name == "training", alpha=0.45 if name == "training" else 1, label=name)
            ax.patches[-1].set_color(colours[name])
        for name in THRESHOLDS:
            ax.axvline(task.thresholds[name], ls=STYLES[name], lw=1, color="black", label=name)
        ax.set_title("\n".join(map(shown, (f"{task.dataset} · {task.category}", task.method))), fontsize=7)
        ax.tick_params(labelsize=6)
    for ax in list(axes.flat)[len(drawn) :]:
        ax.axis("off")
    figure.supxlabel("score, higher = more anomalous", fontsize=8)
    figure.supylabel("share of the images", fontsize=8)
    handles = {h.get_label(): h for ax in axes.flat for h in (*ax.patches, *ax.lines)}
    figure.legend(
        handles=list(handles.values()), loc="outside upper left", ncol=min(6, 2 * columns), frameon=False, fontsize=7
    )
    return as_png(figure)


def contradicted(tasks: Sequence[TaskScores]) -> list[Grid]:
    """Figure 9 as a list: test images, as they were taken, that answers call the opposite of their label; of a
    category those first that most methods call so. No table without one."""
    found: dict[tuple, list[tuple[TaskScores, Scored]]] = defaultdict(list)
    asked: dict[tuple, int] = defaultdict(int)
    for task in tasks:
        for scored, called in task.decisions("own") if not split_condition(task.condition)[1] else ():
            key = (task.dataset, task.category, scored.image.image_id)
            asked[key] += 1
            if called != (scored.image.label == 1):
                found[key].append((task, scored))
    order = sorted(found, key=lambda k: (k[:2], -len(found[k]) / asked[k], k[2]))
    lines = []
    for key in order:
        _, first = found[key][0]
        label, called = ("normal", "anomalous") if first.image.label == 0 else ("anomalous", "normal")
        scores = [s.number for _, s in found[key] if s.has_score]
        mean = Cell(float(np.mean(scores)), 3) if scores else "-"
        said = " ".join((first.row["response"] or "").split())
        said = shortened(said, LONGEST)
        lines.append((*key, label, called, f"{len(found[key])} of {asked[key]}", mean, said))
    note = (
        "LVLM paper, Figure 9: images whose label a picture alone does not explain, such as chips of one size on pills"
        " that are labelled normal and anomalous. Here every test image that answers contradict; which of them are"
        " mistakes of the model, and which ambiguous labels, a person has to see. Methods: that contradict, of those"
        " that answer. Score: their mean. Answer: of the first of them."
    )
    heads = ("data set", "category", "image", "label", "called", "methods", "score", "answer")
    return [Grid("contradicted-labels", "Labels that answers contradict", heads, tuple(lines), note)] if lines else []
