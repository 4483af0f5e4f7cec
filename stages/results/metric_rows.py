"""Rows of the tables METRICS and THRESHOLDS: per task, means over categories, mean and spread over conditions."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from stages.artifacts.tables import METRICS
from stages.datasets.conditions import split_condition
from stages.datasets.manifest import MEAN
from stages.results.metrics.image import CURVES, Value, accuracy, curve_metrics, f1_threshold
from stages.results.pixels import PixelResult, PixelTask
from stages.results.scores import TaskScores, listed


def metric_rows(tasks: list[TaskScores], resamples: int, seed: int) -> list[dict]:
    """Rows of METRICS: per task; `mean` over categories per condition; mean and standard deviation
    (population, as VID-AD's) over capture conditions, augmented ones apart."""
    rows = [row for task in tasks for row in _task_rows(task, resamples, seed)]
    return rows + mean_rows(rows)


def pixel_rows(results: list[PixelResult]) -> list[dict]:
    """Rows of METRICS, level `pixel`: per task, and `mean` over categories. Images that are missing from a value are
    counted and named in its `reason`."""
    rows = [
        _row(
            r.task,
            name,
            replace(value, reason="; ".join(filter(None, (value.reason, lacks_of(r.task)))) or None),
            "pixel",
        )
        for r in results
        for name, value in r.values.items()
    ]
    return rows + mean_rows(rows)


def lacks_of(task: PixelTask) -> str | None:
    """'2 of 20 images left out: ...'."""
    if not task.left_out:
        return None
    n = len(task.left_out)
    return f"{n} of {n + len(task.images)} images left out: {listed(list(task.left_out))}"


def _row(task: TaskScores | PixelTask, metric: str, value: Value, level: str = "image") -> dict:
    return {
        "dataset": task.dataset,
        "category": task.category,
        "condition": task.condition,
        "method": task.method,
        "metric": metric,
        "level": level,
        "value": value.value,
        "ci_low": value.ci_low,
        "ci_high": value.ci_high,
        "n": value.n,
        "n_positive": value.n_positive,
        "reason": value.reason,
    }


def _task_rows(task: TaskScores, resamples: int, seed: int) -> list[dict]:
    labelled = [s for s in task.test if s.image.label is not None]
    if task.normals_stand_in:
        labelled += task.held_out
    scores = np.array([s.score for s in labelled], float)
    labels = np.array([s.image.label for s in labelled], int)
    if (task.test or task.decided) and not labelled:
        seen = task.test or task.decided
        said = [s.image.label for s in seen if s.image.label is not None]
        none = Value(None, len(seen), sum(said), reason="yes or no, no score" if said else "no labels")
        rows = [_row(task, metric, none) for metric in CURVES]
    else:
        values = curve_metrics(scores, labels, resamples, seed)
        if lacks := _why_fewer(task):
            reason = lacks if not labelled else None
            values = {
                m: replace(v, reason=reason or "; ".join(filter(None, (v.reason, lacks)))) for m, v in values.items()
            }
        if task.normals_stand_in:
            lacking = f"the split val has its {len(task.held_out)} normal images, test has none"
            values = {m: replace(v, reason="; ".join(filter(None, (v.reason, lacking)))) for m, v in values.items()}
        rows = [_row(task, m, v) for m, v in values.items()]
    for rule in ("own", *task.thresholds):
        if called := task.decisions(rule):
            value = accuracy(
                np.array([c for _, c in called]), np.array([s.image.label for s, _ in called]), resamples, seed
            )
            rows.append(_row(task, f"accuracy@{rule}", value))
            if rule == "own":
                labels, wrong_if_open = map(np.array, zip(*task.with_unanswered, strict=True))
                rows.append(_row(task, "accuracy_all@own", accuracy(wrong_if_open, labels, resamples, seed)))
    defects = sorted({s.image.defect for s in labelled if s.image.defect})
    for defect in defects if len(defects) > 1 else ():
        keep = np.array([s.image.defect == defect or s.image.label == 0 for s in labelled])
        value = curve_metrics(scores[keep], labels[keep], resamples, seed)["auroc"]
        rows.append(_row(task, f"auroc/{defect}", value))
    return rows


def _why_fewer(task: TaskScores) -> str | None:
    """What `reason` says of test images that no metric can count: all of them, or scores that are no numbers; or that
    there are none."""
    test = [s for s in task.rows if s.image.split == "test"]
    if not test:
        return "no test rows"
    odd = [s.image.image_id for s in test if s.no_number]
    if odd:
        return f"{len(odd)} of {len(test)} scores are NaN or infinite: {listed(odd)}"
    if test and not task.test:
        first = next((s for s in test if s.row["error"]), test[0])
        return f"none of {len(test)} images has a score: {first.image.image_id}: {first.row['error'] or 'null'}"
    return None


def mean_rows(rows: list[dict]) -> list[dict]:
    """Rows of METRICS -> means over categories (category `mean`) where there are several, and mean and standard
    deviation over the capture conditions (condition null, `<metric>_std`; augmented images are no condition of their
    own). What has no value, and accuracies and AUROC per defect, are not averaged."""
    table = pd.DataFrame(rows, columns=METRICS.schema.names)
    averaged = table.metric.isin(list(CURVES)) | (table.level == "pixel") | table.metric.str.match("accuracy(_all)?@")
    table = table[averaged & table.value.notna()]
    over_categories = averages(table, "condition").assign(category=MEAN)
    over_conditions = spread(captured(table), "category").assign(condition=None)
    of_the_means = spread(captured(over_categories), "category").assign(condition=None)
    return [row for part in (over_categories, over_conditions, of_the_means) for row in as_rows(part)]


def averages(table: pd.DataFrame, kept: str, statistic: Callable[[np.ndarray], float] = np.mean) -> pd.DataFrame:
    """One row for each data set, method, metric and `kept` (a column) that has several values, with n summed.

    statistic: of the values as a NumPy array, so that a mean is NumPy's to the last bit in any version of pandas.
    """
    groups = table.groupby(["dataset", "method", "metric", "level", kept], sort=False, dropna=False)
    means = groups.agg(
        value=("value", lambda values: statistic(values.to_numpy(float))),
        n=("n", "sum"),
        n_positive=("n_positive", "sum"),
        members=("value", "size"),
    )
    return means[means.members > 1].reset_index()


def spread(table: pd.DataFrame, kept: str) -> pd.DataFrame:
    """Mean, and population standard deviation as metric `<metric>_std`, one below the other."""
    mean, std = averages(table, kept), averages(table, kept, np.std)
    std = std.assign(metric=std.metric + "_std")
    return pd.concat([mean, std]).sort_index(kind="stable")


def captured(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a capture condition: neither of none, nor of augmented images."""
    return table[np.array([isinstance(c, str) and not split_condition(c)[1] for c in table.condition], bool)]


def as_rows(table: pd.DataFrame) -> list[dict]:
    """Rows of METRICS, null where pandas has no value."""
    table = table.reindex(columns=METRICS.schema.names).astype(object)
    return table.where(table.notna(), None).to_dict("records")


def threshold_rows(tasks: list[TaskScores], pixels: Sequence[PixelResult]) -> list[dict]:
    """Rows of THRESHOLDS: those from training normals, and those of the best F1, which look at test labels."""
    rows = []
    for t in tasks:
        for name, value in t.thresholds.items():
            source = ("normal validation images", len(t.held_out))
            if name.startswith("train"):
                source = ("normal training images", len(t.train_normal))
            rows.append(_threshold_row(t, "image", name, value, *source))
        labelled = [s for s in t.test if s.image.label is not None]
        best = f1_threshold(np.array([s.score for s in labelled]), np.array([s.image.label for s in labelled]))
        if best is not None:
            rows.append(_threshold_row(t, "image", "f1-max", best, "labelled test images", len(labelled)))
    for r in pixels:
        if r.threshold is not None:
            row = _threshold_row(r.task, "pixel", "f1-max", r.threshold, "masks of test images", len(r.task.images))
            rows.append(row)
    return rows


def _threshold_row(task: TaskScores | PixelTask, level: str, name: str, threshold: float, source: str, n: int) -> dict:
    return {
        "dataset": task.dataset,
        "category": task.category,
        "condition": task.condition,
        "method": task.method,
        "level": level,
        "name": name,
        "threshold": threshold,
        "source": source,
        "n": n,
    }
