"""The figures that `make reproduce-vidad` has to reach, with their targets.

    python -m benchmarks.vidad_check runs/vidad

The control shuffles the captions between the test images of each task and scores again: a method that
reads anything but the caption (file names, order, the picture) would not fall to 0.5. PaDiM and PatchCore, where
RUN/check/vision.parquet has their scores, see rendered scenes and must find little in them.
"""

import random
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.artifacts.files import make_folder
from stages.artifacts.reader import read_table
from stages.artifacts.tables import CAPTIONS, SCORES
from stages.base.config import RunOptions
from stages.datasets.manifest import Image, by_task, read_manifest
from stages.results.metrics.image import auroc, counts
from stages.results.scores import TaskScores, collect
from stages.text_encoder.config import ScoreTextKnnConfig
from stages.text_encoder.score import run as score


def task_auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """AUROC of one task."""
    tp, fp = counts(scores, labels, np.ones((1, len(scores))))
    return float(auroc(tp, fp)[0])


def labelled(task: TaskScores) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels of the test images that have both."""
    rows = [(s.score, s.image.label) for s in task.test if s.image.label is not None]
    return np.array([r[0] for r in rows]), np.array([r[1] for r in rows])


def shuffled_captions(rows: list[dict], images: tuple[Image, ...], seed: int = 0) -> list[dict]:
    """The captions, those of each task's test images dealt out anew among them; columns as in CAPTIONS."""
    rng = random.Random(seed)
    by_image = {row["image_id"]: row for row in rows}
    dealt = dict(by_image)
    for task_images in by_task(images).values():
        test = [i.image_id for i in task_images if i.split == "test" and i.image_id in by_image]
        for image_id, other in zip(test, rng.sample(test, len(test)), strict=True):
            dealt[image_id] = by_image[other] | {"image_id": image_id}
    return list(dealt.values())


def score_shuffled(run: Path, images: tuple[Image, ...]) -> list[TaskScores]:
    """Score the shuffled captions with the run's own encoders; artifacts go to RUN/check."""
    folder = run / "check"
    make_folder(folder)
    captions = read_table(run / "captions.parquet", CAPTIONS).to_pylist()
    shuffled = pa.Table.from_pylist(shuffled_captions(captions, images), schema=CAPTIONS.schema)
    pq.write_table(shuffled, folder / "shuffled.parquet")
    out = folder / "shuffled-scores.parquet"
    score(
        ScoreTextKnnConfig(
            captions=folder / "shuffled.parquet",
            manifest=run / "manifest.parquet",
            encoders=run / "encoders.parquet",
            out=out,
        ),
        RunOptions(overwrite=True),
    )
    return collect(read_table(out, SCORES).to_pylist(), images, out)


def means(tasks: list[TaskScores], by: str) -> dict[str, float]:
    """Mean AUROC of the tasks with the same `by`: category or condition."""
    values = defaultdict(list)
    for task in tasks:
        values[getattr(task, by)].append(task_auroc(*labelled(task)))
    return {name: float(np.mean(v)) for name, v in values.items()}


def look_alone(tasks: list[TaskScores]) -> list[tuple[str, float, str, bool]]:
    """Rows of what vision methods reach, which rendered scenes must not let them: per scenario and in the mean."""
    rows = []
    for method in sorted({t.method for t in tasks}):
        by_category = means([t for t in tasks if t.method == method], "category")
        mean = float(np.mean(list(by_category.values())))
        rows += [(f"{method}, {name}", value, "< 0.75", value < 0.75) for name, value in by_category.items()]
        rows.append((f"{method}, mean of {len(by_category)}", mean, "<= 0.65", mean <= 0.65))
    return rows


def main(run: Path) -> None:
    """Print one line per figure."""
    images = read_manifest(run / "manifest.parquet").images
    tasks = collect(read_table(run / "scores.parquet", SCORES).to_pylist(), images, run)
    rendered = images[0].dataset == "vidad-synthetic"
    least = 0.95 if rendered else 0.85
    control = float(np.mean([task_auroc(*labelled(t)) for t in score_shuffled(run, images)]))
    spread = float(np.std(list(means(tasks, "condition").values())))
    by_category = means(tasks, "category")
    worst = min(by_category, key=by_category.__getitem__)
    mean, lowest = float(np.mean([task_auroc(*labelled(t)) for t in tasks])), by_category[worst]
    rows = [
        (f"mean AUROC over {len(tasks)} tasks", mean, f">= {least:.2f}", mean >= least),
        ("std over conditions", spread, "<= 0.03", spread <= 0.03),
        (f"lowest scenario ({worst})", lowest, ">= 0.65", lowest >= 0.65),
        ("control, captions shuffled", control, "0.45-0.55", 0.45 <= control <= 0.55),
    ]
    vision = run / "check" / "vision.parquet"
    if rendered and vision.exists():
        rows += look_alone(collect(read_table(vision, SCORES).to_pylist(), images, vision))
    for name, value, target, reached in rows:
        print(f"{name:36s} {value:.3f}   target {target:10s} {'reached' if reached else 'NOT REACHED'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
