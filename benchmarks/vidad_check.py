"""The figures that `make reproduce-vidad` has to reach, with their targets.

    python -m benchmarks.vidad_check SCORES MANIFEST

The control permutes the captions between the test images of each task. A score depends on the caption
alone, so that this is the same as permuting the scores; a method that reads anything but the caption, or
a metric that rewards order, would not fall to 0.5.
"""

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from stages.artifacts.reader import read_table
from stages.artifacts.tables import SCORES
from stages.datasets.manifest import read_manifest
from stages.evaluate import TaskScores, collect
from stages.metrics.image import auroc, counts

PERMUTATIONS = 20


def task_auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """AUROC of one task."""
    tp, fp = counts(scores, labels, np.ones((1, len(scores))))
    return float(auroc(tp, fp)[0])


def labelled(task: TaskScores) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels of the test images that have both."""
    rows = [(s.score, s.image.label) for s in task.test if s.image.label is not None]
    return np.array([r[0] for r in rows]), np.array([r[1] for r in rows])


def main(scores: Path, manifest: Path) -> None:
    """Print one line per figure."""
    tasks = collect(read_table(scores, SCORES).to_pylist(), read_manifest(manifest).images, scores)
    rng = np.random.default_rng(0)
    values, by_condition, by_category, control = [], defaultdict(list), defaultdict(list), []
    for task in tasks:
        s, y = labelled(task)
        values.append(task_auroc(s, y))
        by_condition[task.condition].append(values[-1])
        by_category[task.category].append(values[-1])
        control += [task_auroc(rng.permutation(s), y) for _ in range(PERMUTATIONS)]
    spread = float(np.std([np.mean(v) for v in by_condition.values()]))
    worst = min(by_category, key=lambda c: np.mean(by_category[c]))
    figures = [
        (f"mean AUROC over {len(values)} tasks", float(np.mean(values)), ">= 0.85", np.mean(values) >= 0.85),
        ("std over conditions", spread, "<= 0.03", spread <= 0.03),
        (f"lowest scenario ({worst})", float(np.mean(by_category[worst])), ">= 0.65",
         np.mean(by_category[worst]) >= 0.65),
        ("control, captions shuffled", float(np.mean(control)), "0.45-0.55", 0.45 <= np.mean(control) <= 0.55),
    ]
    for name, value, target, reached in figures:
        print(f"{name:36s} {value:.3f}   target {target:10s} {'reached' if reached else 'NOT REACHED'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
