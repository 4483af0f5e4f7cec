"""Scores -> metrics, tables and a report. Runs without torch; nothing here depends on the method."""

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from stages.artifacts.files import write_atomically
from stages.artifacts.reader import fingerprint, read_provenance, read_table
from stages.artifacts.tables import METRICS, SCORES
from stages.artifacts.writer import Artifact, Spec, Summary
from stages.datasets.augment import split_condition
from stages.datasets.manifest import Image, Task, read_manifest
from stages.errors import InputError
from stages.metrics.image import CURVES, Value, accuracy, curve_metrics, train_thresholds
from stages.settings import RunOptions, argument, option

MEAN = "mean"       # the category of rows that average over categories


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    scores: Path = argument("scores artifact, a folder of them, or a Parquet file")
    manifest: Path = option("labels, splits, tasks")
    out: Path = option("the metrics table to write")
    report: Path | None = option("HTML page to write", None)
    tables: Path | None = option("folder for the tables as CSV and Markdown", None)
    root: Path | None = option("where the manifest's paths start (pictures of the report)", None)
    partial: bool = option("while scores are still being made: evaluate the tasks that are finished", False)
    resamples: int = option("bootstrap resamples per interval; 0 = no intervals", 1000)
    seed: int = option("of the bootstrap", 0)


@dataclass(frozen=True)
class Scored:
    """A manifest row with its row of scores; near: its nearest neighbour's or reference's manifest row."""

    image: Image
    row: dict
    near: Image | None = None

    @property
    def score(self) -> float | None:
        return self.row["score"]

    @property
    def has_score(self) -> bool:
        return self.score is not None and bool(np.isfinite(self.score))


@dataclass(frozen=True)
class TaskScores:
    """All rows of one task by one method. unscored: test images without a row."""

    dataset: str
    category: str
    condition: str | None
    method: str
    rows: tuple[Scored, ...]
    unscored: int

    @cached_property
    def test(self) -> tuple[Scored, ...]:
        """Test images with a score."""
        return tuple(s for s in self.rows if s.image.split == "test" and s.has_score)

    @cached_property
    def train(self) -> tuple[Scored, ...]:
        """Training images with a score."""
        return tuple(s for s in self.rows if s.image.split == "train" and s.has_score)

    @cached_property
    def decided(self) -> tuple[Scored, ...]:
        """Test images with a yes or no of the method's own, also where it gives no score."""
        return tuple(s for s in self.rows if s.image.split == "test" and s.row["prediction"] is not None)

    @property
    def failed(self) -> int:
        """Images that are missing from the metrics: rows with neither score nor decision, and no row."""
        return sum(not s.has_score and s.row["prediction"] is None for s in self.rows) + self.unscored

    @cached_property
    def thresholds(self) -> dict[str, float]:
        return train_thresholds(np.array([s.score for s in self.train if s.image.label != 1]))

    def decisions(self, rule: str) -> list[tuple[Scored, bool]]:
        """(labelled test image, whether it is called anomalous) by `own` or by one of `thresholds`; empty
        where the method has no such rule."""
        if rule == "own":
            called = [(s, s.row["prediction"] == 1) for s in self.decided]
        else:
            called = [(s, s.score > self.thresholds[rule]) for s in self.test if rule in self.thresholds]
        return [(s, c) for s, c in called if s.image.label is not None]


def run(config: EvaluateConfig, options: RunOptions) -> Summary:
    """Write metrics; print the table of tasks; optionally write tables and the report.

    Raises:
        InputError: no scored image is in the manifest.
    """
    manifest = read_manifest(config.manifest, config.root, config.partial)
    table = read_table(config.scores, SCORES, config.partial)
    scored = table.to_pylist()
    tasks = [t for t in collect(scored, manifest.images, config.scores) if not (config.partial and t.unscored)]
    if not tasks:
        raise InputError(f"{config.scores}: no task is finished yet")
    rows = metric_rows(tasks, config.resamples, config.seed)
    inputs = {"scores": fingerprint(table, SCORES), "manifest": manifest.fingerprint}
    spec = Spec("evaluate", {"resamples": config.resamples}, inputs, config.seed)
    keys = [tuple(row[k] for k in METRICS.key) for row in rows]
    with Artifact(config.out, METRICS, spec, keys, options, flush_rows=100_000) as artifact:
        pending = set(artifact.pending)
        for key, row in zip(keys, rows, strict=True):
            if key in pending:
                artifact.write(row)
        known = {image.image_id for image in manifest.images}
        if strangers := sum(row["image_id"] not in known for row in scored):
            artifact.progress.say(f"{strangers} scored images are not in the manifest and are left out")
    _publish(tasks, rows, config, options)
    return artifact.summary


def _publish(tasks: list[TaskScores], rows: list[dict], config: EvaluateConfig, options: RunOptions) -> None:
    from stages.report import figures, grid, tables
    from stages.report.mask_area import area_bins

    grids = tables.all_tables(tasks, rows, config.resamples, config.seed)
    if not (options.quiet or options.json):
        print("\n\n".join(grid.as_text(g) for g in grids if g.printed))
    if not (config.tables or config.report):
        return
    bins = area_bins(tasks, rows)
    pictures = {"figure5": figures.sensitivity(rows), "figure7": figures.mask_area(bins)}
    if config.tables:
        grid.write([*grids, *tables.mask_area(bins)], config.tables)
        for name, png in pictures.items():
            if png:
                write_atomically(config.tables / f"{name}.png", lambda f, png=png: f.write(png))
    if config.report:
        from stages.report.html import write_report

        write_report(config.report, tasks, rows, grids, pictures, read_provenance(config.scores))


def collect(rows: list[dict], images: tuple[Image, ...], path: Path) -> list[TaskScores]:
    """Join scores and manifest and group them by task and method, in order of their names."""
    known = {image.image_id: image for image in images}
    test_images: dict[Task, set[str]] = defaultdict(set)
    for image in images:
        if image.split == "test":
            test_images[image.task].add(image.image_id)
    groups: dict[tuple, list[Scored]] = defaultdict(list)
    for row in rows:
        if row["image_id"] in known:
            image = known[row["image_id"]]
            near = known.get(row["neighbours"][0]["image_id"]) if row["neighbours"] else None
            groups[*image.task, row["method"]].append(Scored(image, row, near))
    if not groups:
        raise InputError(f"{path}: none of its images is in the manifest")
    tasks = []
    for (dataset, category, condition, method), members in groups.items():
        unscored = len(test_images[dataset, category, condition] - {s.image.image_id for s in members})
        tasks.append(TaskScores(dataset, category, condition, method, tuple(members), unscored))
    return sorted(tasks, key=lambda t: (t.dataset, t.method, t.category, t.condition or ""))


def metric_rows(tasks: list[TaskScores], resamples: int, seed: int) -> list[dict]:
    """Rows of METRICS: per task; `mean` over categories per condition; mean and standard deviation
    (population, as VID-AD's) over capture conditions, augmented ones apart."""
    rows = [row for task in tasks for row in _task_rows(task, resamples, seed)]
    return rows + _mean_rows(rows)


def _row(task: TaskScores, metric: str, value: Value) -> dict:
    return {"dataset": task.dataset, "category": task.category, "condition": task.condition,
            "method": task.method, "metric": metric, "level": "image", "value": value.value,
            "ci_low": value.ci_low, "ci_high": value.ci_high, "n": value.n,
            "n_positive": value.n_positive, "reason": value.reason}


def _task_rows(task: TaskScores, resamples: int, seed: int) -> list[dict]:
    labelled = [s for s in task.test if s.image.label is not None]
    scores = np.array([s.score for s in labelled], float)
    labels = np.array([s.image.label for s in labelled], int)
    if (task.test or task.decided) and not labelled:
        seen = task.test or task.decided
        said = [s.image.label for s in seen if s.image.label is not None]
        none = Value(None, len(seen), sum(said), reason="yes or no, no score" if said else "no labels")
        rows = [_row(task, metric, none) for metric in CURVES]
    else:
        rows = [_row(task, m, v) for m, v in curve_metrics(scores, labels, resamples, seed).items()]
    for rule in ("own", *task.thresholds):
        if called := task.decisions(rule):
            value = accuracy(np.array([c for _, c in called]), np.array([s.image.label for s, _ in called]),
                             resamples, seed)
            rows.append(_row(task, f"accuracy@{rule}", value))
    defects = sorted({s.image.defect for s in labelled if s.image.defect})
    for defect in defects if len(defects) > 1 else ():
        keep = np.array([s.image.defect == defect or s.image.label == 0 for s in labelled])
        value = curve_metrics(scores[keep], labels[keep], resamples, seed)["auroc"]
        rows.append(_row(task, f"auroc/{defect}", value))
    return rows


def _mean_rows(rows: list[dict]) -> list[dict]:
    means = []
    by_condition: dict[tuple, list[dict]] = defaultdict(list)
    by_category: dict[tuple, list[dict]] = defaultdict(list)
    for r in rows:
        if (r["metric"] in CURVES or r["metric"].startswith("accuracy@")) and r["value"] is not None:
            by_condition[r["dataset"], r["method"], r["metric"], r["condition"]].append(r)
            if r["condition"] is not None and not split_condition(r["condition"])[1]:
                by_category[r["dataset"], r["method"], r["metric"], r["category"]].append(r)
    for (dataset, method, metric, condition), group in by_condition.items():
        if len({r["category"] for r in group}) > 1:
            means.append(_mean_row(dataset, MEAN, condition, method, metric, group, np.mean))
    for (dataset, method, metric, category), group in by_category.items():
        if len(group) > 1:
            means.append(_mean_row(dataset, category, None, method, metric, group, np.mean))
            means.append(_mean_row(dataset, category, None, method, f"{metric}_std", group, np.std))
    over = defaultdict(list)
    for r in means:
        if r["category"] == MEAN and r["condition"] is not None and not split_condition(r["condition"])[1]:
            over[r["dataset"], r["method"], r["metric"]].append(r)
    for (dataset, method, metric), group in over.items():
        if len(group) > 1:
            means.append(_mean_row(dataset, MEAN, None, method, metric, group, np.mean))
            means.append(_mean_row(dataset, MEAN, None, method, f"{metric}_std", group, np.std))
    return means


def _mean_row(dataset, category, condition, method, metric, group: list[dict], statistic) -> dict:
    return {"dataset": dataset, "category": category, "condition": condition, "method": method,
            "metric": metric, "level": "image", "value": float(statistic([r["value"] for r in group])),
            "ci_low": None, "ci_high": None, "n": sum(r["n"] for r in group),
            "n_positive": sum(r["n_positive"] for r in group), "reason": None}
