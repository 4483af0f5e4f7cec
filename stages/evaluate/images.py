"""Scores -> metrics, tables and a report. Runs without torch; nothing here depends on the method."""

from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from stages.artifacts.checks import check_numbers, check_places
from stages.artifacts.digests import Files
from stages.artifacts.reader import content_key, fingerprint, read_provenance, read_table
from stages.artifacts.tables import MAPS, METRICS, SCORES, THRESHOLDS
from stages.artifacts.writer import Artifact, Spec, Summary
from stages.base.config import RunOptions, argument, named_paths, option
from stages.base.errors import InputError
from stages.base.progress import Progress
from stages.datasets.augment import split_condition
from stages.datasets.files import look_at
from stages.datasets.manifest import Image, Task, read_manifest
from stages.results.metrics.image import CURVES, Value, accuracy, curve_metrics, f1_threshold, train_thresholds
from stages.results.pixels import (
    PixelOptions,
    PixelResult,
    PixelTask,
    evaluate_pixels,
    options_checked,
    pixel_tasks,
)

MEAN = "mean"  # the category of rows that average over categories


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    scores: Path = argument("scores artifact, a folder of them, or a Parquet file")
    manifest: Path = option("labels, splits, tasks")
    out: Path = option("the metrics table to write")
    maps: Path | None = option("anomaly maps, for pixel metrics: artifact, a folder of them, or a Parquet file", None)
    report: Path | None = option("HTML page to write", None)
    tables: Path | None = option("folder for the tables as CSV and Markdown", None)
    thresholds: Path | None = option("table of thresholds to write, with where each comes from", None)
    heatmaps: Path | None = option("folder for a picture of every map over its image", None)
    root: Path | None = option("where the manifest's paths start (pictures of the report)", None)
    partial: bool = option("while scores are still being made: evaluate the tasks that are finished", False)
    pro_limit: float = option("false positive rate up to which PRO integrates", 0.3)
    pro_200: bool = option("also PRO as most published code approximates it (200 thresholds)", False)
    pixel_size: int = option("evaluate pixels at N x N, as much published code does; 0 = at the masks' size", 0)
    workers: int = option("processes for pixel metrics, one category each", 1)
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

    @property
    def no_number(self) -> bool:
        """A score that is NaN or infinite, as tables of other tools have it: it counts as failed."""
        return self.score is not None and not self.has_score


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
    def unanswered(self) -> int:
        """Images without a yes or no of the method's own: rows with a score alone among them, and no row."""
        test = [s for s in self.rows if s.image.split == "test"]
        return sum(s.row["prediction"] is None for s in test) + self.unscored

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
        InputError: no scored image is in the manifest; places, numbers or tables that cannot be, all before any work.
    """
    check_numbers(config, options)
    check_places(config)
    pixel = options_checked(
        PixelOptions(
            config.maps or Path(), config.pro_limit, config.pixel_size, config.pro_200, config.resamples, config.seed
        )
    )
    manifest = read_manifest(config.manifest, config.root, config.partial)
    table = read_table(config.scores, SCORES, config.partial)
    scored = read_scores(table, config.scores)
    tasks = [t for t in collect(scored, manifest.images, config.scores) if not (config.partial and t.unscored)]
    if not tasks:
        raise InputError(f"{config.scores}: no task is finished yet")
    with_maps = _tasks_with_maps(config, manifest.images)
    rows = metric_rows(tasks, config.resamples, config.seed)
    inputs = {"scores": fingerprint(table, SCORES), "manifest": manifest.fingerprint}
    parameters: dict = {"resamples": config.resamples, "partial": config.partial}
    pixels: list[PixelResult] = []
    files = Files("", "")
    if config.maps:
        masked = {i.image_id: i for task in with_maps for i in task.images}
        files = look_at(config.out, options.quiet, masks=masked.values())
        pixels = _pixels(with_maps, pixel, config, options)
        rows += pixel_rows(pixels)
        inputs |= {"maps": content_key(config.maps, MAPS), "mask files": files.masks}
        parameters |= {"pro_limit": config.pro_limit, "pixel_size": config.pixel_size, "pro_200": config.pro_200}
    spec = Spec("evaluate", parameters, inputs, config.seed, paths=named_paths(config))
    keys = [tuple(row[k] for k in METRICS.key) for row in rows]
    with Artifact(config.out, METRICS, spec, keys, options, flush_rows=100_000) as artifact:
        files.keep(config.out)
        artifact.write_all(rows)
        known = {image.image_id for image in manifest.images}
        if strangers := sum(row["image_id"] not in known for row in scored):
            artifact.progress.say(f"{strangers} scored images are not in the manifest and are left out")
        if named := [s.image.image_id for t in tasks for s in t.rows if s.no_number]:
            artifact.progress.say(f"{config.scores}: {listed(named)}: `score` is NaN or infinite; counted as failed")
    if config.thresholds:
        write_thresholds(tasks, pixels, config.thresholds, spec, options)
    _publish(tasks, rows, pixels, config, options)
    return artifact.summary


def read_scores(table: pa.Table, path: Path) -> list[dict]:
    """Rows of SCORES. Raises InputError for a `prediction` that is no yes or no."""
    if other := set(table["prediction"].to_pylist()) - {0, 1, None}:
        raise InputError(f"{path}: column `prediction` holds {min(other)}; expected 1 (anomalous), 0 or null")
    return table.to_pylist()


def listed(names: list[str], most: int = 3) -> str:
    """'a, b, c and 4 more'."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _tasks_with_maps(config: EvaluateConfig, images: tuple[Image, ...]) -> list[PixelTask]:
    """Raises InputError where a heat map would be written over an image."""
    tasks = pixel_tasks(images, config.maps) if config.maps else []
    if config.heatmaps:
        from stages.report.heatmaps import require_no_input

        if not config.maps:
            raise InputError(f"--heatmaps {config.heatmaps}: pictures of what --maps holds; give that, too")
        require_no_input(tasks, config.heatmaps)
    return tasks


def _pixels(
    tasks: list[PixelTask], pixel: PixelOptions, config: EvaluateConfig, options: RunOptions
) -> list[PixelResult]:
    progress, results = Progress("pixel metrics, categories", len(tasks), options.quiet), []
    try:
        for result in evaluate_pixels(tasks, pixel, config.workers):
            results.append(result)
            progress.advance(failed=any(v.value is None for v in result.values.values()))
    finally:
        progress.stop()
    lines = [line for r in results for line in r.task.left_out]
    for line in lines[:5]:
        progress.say(f"left out of the pixel metrics: {line}")
    if len(lines) > 5:
        progress.say(f"and {len(lines) - 5} more (column `reason` of the metrics counts them per category)")
    return results


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
    return rows + _mean_rows(rows)


def lacks_of(task: PixelTask) -> str | None:
    """'2 of 20 images left out: ...'."""
    if not task.left_out:
        return None
    n = len(task.left_out)
    return f"{n} of {n + len(task.images)} images left out: {listed(list(task.left_out))}"


def write_thresholds(
    tasks: list[TaskScores], pixels: list[PixelResult], out: Path, spec: Spec, options: RunOptions
) -> None:
    """The table of thresholds: those from training normals, and those of the best F1, which look at test labels."""
    rows = []
    for t in tasks:
        at = {"dataset": t.dataset, "category": t.category, "condition": t.condition, "method": t.method}
        normal = sum(s.image.label != 1 for s in t.train)
        rows += [
            at | {"level": "image", "name": name, "threshold": value, "source": "normal training images", "n": normal}
            for name, value in t.thresholds.items()
        ]
        labelled = [s for s in t.test if s.image.label is not None]
        best = f1_threshold(np.array([s.score for s in labelled]), np.array([s.image.label for s in labelled]))
        if best is not None:
            rows.append(
                at
                | {
                    "level": "image",
                    "name": "f1-max",
                    "threshold": best,
                    "source": "labelled test images",
                    "n": len(labelled),
                }
            )
    rows += [
        {
            "dataset": r.task.dataset,
            "category": r.task.category,
            "condition": r.task.condition,
            "method": r.task.method,
            "level": "pixel",
            "name": "f1-max",
            "threshold": r.threshold,
            "source": "masks of test images",
            "n": len(r.task.images),
        }
        for r in pixels
        if r.threshold is not None
    ]
    keys = [tuple(row[k] for k in THRESHOLDS.key) for row in rows]
    with Artifact(out, THRESHOLDS, replace(spec, stage="evaluate --thresholds"), keys, options, 100_000) as artifact:
        artifact.write_all(rows)


def _publish(
    tasks: list[TaskScores], rows: list[dict], pixels: list[PixelResult], config: EvaluateConfig, options: RunOptions
) -> None:
    from stages.report import figures, grid
    from stages.report import vidad as tables
    from stages.report.heatmaps import example_panels, write_heatmaps
    from stages.report.mask_area import area_bins

    provenance = read_provenance(config.scores)
    grids = tables.all_tables(tasks, rows, config.resamples, config.seed, pixels, provenance)
    if not (options.quiet or options.json):
        print("\n\n".join(grid.as_text(g) for g in grids if g.printed))
    if config.heatmaps:
        write_heatmaps(pixels, config.maps, config.heatmaps)
    if not (config.tables or config.report):
        return
    bins = area_bins(tasks, rows)
    pictures = {
        "figure5": figures.sensitivity(rows),
        "figure7": figures.mask_area(bins),
        "curves": figures.curves(pixels, config.pro_limit),
    }
    if config.tables:
        grid.write([*grids, *tables.mask_area(bins)], config.tables, pictures)
    if config.report:
        from stages.report.html import write_report

        examples = example_panels(pixels, config.maps)
        write_report(config.report, tasks, rows, grids, pictures, examples, provenance)


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
        rows = [_row(task, m, v) for m, v in values.items()]
    for rule in ("own", *task.thresholds):
        if called := task.decisions(rule):
            value = accuracy(
                np.array([c for _, c in called]), np.array([s.image.label for s, _ in called]), resamples, seed
            )
            rows.append(_row(task, f"accuracy@{rule}", value))
    defects = sorted({s.image.defect for s in labelled if s.image.defect})
    for defect in defects if len(defects) > 1 else ():
        keep = np.array([s.image.defect == defect or s.image.label == 0 for s in labelled])
        value = curve_metrics(scores[keep], labels[keep], resamples, seed)["auroc"]
        rows.append(_row(task, f"auroc/{defect}", value))
    return rows


def _why_fewer(task: TaskScores) -> str | None:
    """What `reason` says of test images that no metric can count: all of them, or scores that are no numbers."""
    test = [s for s in task.rows if s.image.split == "test"]
    odd = [s.image.image_id for s in test if s.no_number]
    if odd:
        return f"{len(odd)} of {len(test)} scores are NaN or infinite: {listed(odd)}"
    if test and not task.test:
        first = next((s for s in test if s.row["error"]), test[0])
        return f"none of {len(test)} images has a score: {first.image.image_id}: {first.row['error'] or 'null'}"
    return None


def _mean_rows(rows: list[dict]) -> list[dict]:
    means = []
    by_condition: dict[tuple, list[dict]] = defaultdict(list)
    by_category: dict[tuple, list[dict]] = defaultdict(list)
    for r in rows:
        averaged = r["metric"] in CURVES or r["level"] == "pixel" or r["metric"].startswith("accuracy@")
        if averaged and r["value"] is not None:
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
    return {
        "dataset": dataset,
        "category": category,
        "condition": condition,
        "method": method,
        "metric": metric,
        "level": group[0]["level"],
        "value": float(statistic([r["value"] for r in group])),
        "ci_low": None,
        "ci_high": None,
        "n": sum(r["n"] for r in group),
        "n_positive": sum(r["n_positive"] for r in group),
        "reason": None,
    }
