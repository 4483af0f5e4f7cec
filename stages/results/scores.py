"""Scores joined with the manifest: what a method says of every image, task by task. Nothing depends on the method."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import pyarrow as pa

from stages.artifacts.reader import read_table
from stages.artifacts.tables import SCORES
from stages.base.errors import InputError
from stages.datasets.conditions import split_condition
from stages.datasets.manifest import Image, Task, read_manifest
from stages.results.metrics.image import train_thresholds


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
    def number(self) -> float:
        """The score of an image that `has_score`."""
        assert self.score is not None
        return self.score

    @property
    def has_score(self) -> bool:
        return self.score is not None and bool(np.isfinite(self.score))

    @property
    def no_number(self) -> bool:
        """A score that is NaN or infinite, as tables of other tools have it: it counts as failed."""
        return self.score is not None and not self.has_score


@dataclass(frozen=True)
class TaskScores:
    """All rows of one task by one method. unscored: test images without a row; unscored_labels: of those that have
    one."""

    dataset: str
    category: str
    condition: str | None
    method: str
    rows: tuple[Scored, ...]
    unscored: int
    unscored_labels: tuple[int, ...] = ()
    lent: tuple[Scored, ...] = ()  # see `with_lent`

    @cached_property
    def test(self) -> tuple[Scored, ...]:
        """Test images with a score."""
        return tuple(s for s in self.rows if s.image.split == "test" and s.has_score)

    @cached_property
    def train(self) -> tuple[Scored, ...]:
        """Training images with a score."""
        return tuple(s for s in (*self.rows, *self.lent) if s.image.split == "train" and s.has_score)

    @cached_property
    def train_normal(self) -> tuple[Scored, ...]:
        """Training images with a score that are not known to be anomalous."""
        return tuple(s for s in self.train if s.image.label != 1)

    @cached_property
    def held_out(self) -> tuple[Scored, ...]:
        """Normal images of the split val with a score: known to be normal, and not trained on."""
        return tuple(
            s for s in (*self.rows, *self.lent) if s.image.split == "val" and s.image.label == 0 and s.has_score
        )

    @property
    def good(self) -> tuple[Scored, ...]:
        """The normal images that new ones are compared with: those held out, where there are none the training images,
        whose scores most methods compute with that image left out."""
        return self.held_out or self.train_normal

    @property
    def normals_stand_in(self) -> bool:
        """Whether `held_out` stands for normal test images: of the labelled ones all are anomalous."""
        labels = {s.image.label for s in self.test} - {None}
        return labels == {1} and bool(self.held_out)

    @property
    def line(self) -> str:
        """The threshold that lies above 90 % of `good`; one of `thresholds` where these have scores."""
        return "val-q90" if self.held_out else "train-q90"

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
        train, val = (np.array([s.score for s in images]) for images in (self.train_normal, self.held_out))
        return train_thresholds(train) | train_thresholds(val, "val")

    def decisions(self, rule: str) -> list[tuple[Scored, bool]]:
        """(labelled test image, whether it is called anomalous) by `own` or by one of `thresholds`; empty
        where the method has no such rule."""
        if rule == "own":
            called = [(s, s.row["prediction"] == 1) for s in self.decided]
        else:
            called = [(s, s.number > self.thresholds[rule]) for s in self.test if rule in self.thresholds]
        return [(s, c) for s, c in called if s.image.label is not None]

    @property
    def with_unanswered(self) -> list[tuple[int, bool]]:
        """(label, whether it is called anomalous) of every labelled test image, by `own`; one without an answer, or
        without a row, is called the opposite of its label."""
        given = {s.image.image_id: c for s, c in self.decisions("own")}
        test = [s.image for s in self.rows if s.image.split == "test"]
        known = [(i.label, given.get(i.image_id, i.label == 0)) for i in test if i.label is not None]
        return known + [(label, label == 0) for label in self.unscored_labels]


def read_scores(table: pa.Table, path: Path) -> list[dict]:
    """Rows of SCORES. Raises InputError for a `prediction` that is no yes or no."""
    if other := set(table["prediction"].to_pylist()) - {0, 1, None}:
        raise InputError(f"{path}: column `prediction` holds {min(other)}; expected 1 (anomalous), 0 or null")
    return table.to_pylist()


def collect(rows: list[dict], images: tuple[Image, ...], path: Path) -> list[TaskScores]:
    """Join scores and manifest and group them by task and method, in order of their names. Scored images that the
    manifest lacks are left out.

    Raises:
        InputError: no scored image is in the manifest.
    """
    by_id = {image.image_id: image for image in images}
    manifest = pd.DataFrame(
        {"image_id": [i.image_id for i in images], "task": [i.task for i in images], "image": images}
    )
    scores = pd.DataFrame({"image_id": [r["image_id"] for r in rows], "method": [r["method"] for r in rows]})
    joined = scores.assign(row=pd.Series(rows, dtype=object)).merge(manifest, on="image_id")
    if joined.empty:
        raise InputError(f"{path}: none of its images is in the manifest")
    test_images = manifest[np.array([i.split == "test" for i in images], bool)].groupby("task")["image_id"].agg(set)
    tasks = []
    for key, group in joined.groupby(["task", "method"], sort=False):
        task, method = cast(tuple[Task, str], key)
        unscored = test_images.get(task, set()) - set(group["image_id"])
        labels = tuple(label for i in sorted(unscored) if (label := by_id[i].label) is not None)
        near = [by_id.get(r["neighbours"][0]["image_id"]) if r["neighbours"] else None for r in group["row"]]
        members = tuple(map(Scored, group["image"], group["row"], near))
        dataset, category, condition = task
        tasks.append(TaskScores(dataset, category, condition, method, members, len(unscored), labels))
    return sorted(with_lent(tasks), key=lambda t: (t.dataset, t.method, t.category, t.condition or ""))


def with_lent(tasks: list[TaskScores]) -> list[TaskScores]:
    """Tasks of augmented images whose training and validation images have no scores are lent those of the images as
    they were taken: `data augment` changes test images alone, so that the thresholds are the same."""
    taken = {(t.dataset, t.category, t.condition, t.method): t for t in tasks}
    found = []
    for t in tasks:
        before, kinds = split_condition(t.condition)
        source = taken.get((t.dataset, t.category, before, t.method)) if kinds else None
        if source and all(s.image.split == "test" for s in t.rows):
            t = replace(t, lent=tuple(s for s in source.rows if s.image.split != "test"))
        found.append(t)
    return found


def read_tasks(scores: Path, manifest: Path) -> list[TaskScores]:
    """`collect` of two tables on disk. Raises InputError as the readers do."""
    return collect(read_scores(read_table(scores, SCORES), scores), read_manifest(manifest).images, scores)


def listed(names: list[str], limit: int = 3) -> str:
    """'a, b, c and 4 more'."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
