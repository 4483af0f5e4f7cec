"""The rows of scores as a page shows them: by method, columns of numbers."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from stages.artifacts.maps import Key, read_maps
from stages.base.errors import ImageError
from stages.captions.wording import both_differ
from stages.datasets.images import load_rgb
from stages.datasets.manifest import Image
from stages.datasets.references import grey
from stages.report.cells import digits
from stages.report.heatmaps import Scales, coloured, named
from stages.report.page.gallery import Gallery
from stages.report.page.pictures import HEAT_SIDE, in_threads, webp
from stages.results.beside_good import numbers, scale_of
from stages.results.scores import Scored, TaskScores

MOST_COMPARED = 300  # good pictures of a task among which the most similar one is looked for

Row = dict  # of one image by one method; neighbour: an image, which the page knows by its number alone


def methods_of(tasks: Sequence[TaskScores], gallery: Gallery) -> list[dict]:
    """For each method its tasks (names, line, unit, scores of good images) and the rows of its test images, which get
    the first numbers of the gallery; what stands beside them gets its own by `fill_nearest`."""
    by_method: dict[str, list[TaskScores]] = {}
    for task in tasks:
        by_method.setdefault(task.method, []).append(task)
    return [
        {
            "name": gallery.text(method),
            "tasks": [_task(t, gallery, scale) for t, scale in _scales(of_method)],
            "rows": _rows(of_method, gallery, places),
            "digits": places,
        }
        for method, of_method in by_method.items()
        for places in (digits([s.number for t in of_method for s in t.test]),)
    ]


def in_columns(methods: list[dict]) -> list[dict]:
    """The same with a list per column instead of a dictionary per row."""
    return [
        m | {"rows": {k: [r[k] for r in m["rows"]] for k in m["rows"][0] if k != "neighbour"} if m["rows"] else {}}
        for m in methods
    ]


def _scales(tasks: list[TaskScores]) -> list[tuple[TaskScores, tuple[float, float]]]:
    """Scores of one task are shown as they are, of several in the units of their lines, as the ranking has them: every
    line lies at 1."""
    if len(tasks) == 1:
        return [(tasks[0], (0.0, 1.0))]
    return [(t, _scale(t)) for t in tasks]


def _scale(task: TaskScores) -> tuple[float, float]:
    line, scale = task.thresholds.get(task.line), scale_of(task)
    return (line - 1, 1.0) if line is not None and scale == (0.0, 1.0) else scale


def _task(task: TaskScores, gallery: Gallery, scale: tuple[float, float]) -> dict:
    zero, unit = scale
    line = task.thresholds.get(task.line)
    return {
        "dataset": gallery.text(task.dataset),
        "category": gallery.text(task.category),
        "condition": gallery.text(task.condition),
        "zero": zero,
        "unit": unit,
        "line": None if line is None else (line - zero) / unit,
        "good": sorted(((numbers(task.good) - zero) / unit).tolist()),
        "heldOut": bool(task.held_out),
        "unscored": task.unscored,
    }


def _rows(tasks: list[TaskScores], gallery: Gallery, places: int) -> list[Row]:
    """places: significant digits of a score's text."""
    rows = []
    for number, (task, (zero, unit)) in enumerate(_scales(tasks)):
        good = sorted(numbers(task.good).tolist()) if task.line in task.thresholds else []
        for scored in (s for s in task.rows if s.image.split == "test"):
            row = _row(scored, gallery) | {"task": number, "score": None, "height": None, "percentile": None}
            if scored.has_score:
                row |= {"score": f"{scored.number:.{places}g}", "height": (scored.number - zero) / unit}
                row |= {"percentile": f"{100 * bisect_left(good, scored.number) / len(good):.1f}"} if good else {}
            rows.append(row)
    return rows


def _row(scored: Scored, gallery: Gallery) -> Row:
    row = scored.row
    answered = row["parsed"] is not None  # then the neighbour is a reference image and has no words
    text = row["response"] or ""
    near_text = (row["neighbours"][0]["text"] if row["neighbours"] and not answered else None) or ""
    kind = "" if scored.near is None else "reference image" if answered else "image of the nearest normal caption"
    error = row["error"] or ("its score is no finite number" if scored.no_number else scored.image.error)
    return {
        "image": gallery.number(scored.image),
        "said": row["prediction"],
        "text": gallery.text(text),
        "near": -1,
        "neighbour": scored.near,
        "nearKind": gallery.text(kind),
        "nearText": gallery.text(near_text),
        "differs": [_places(d) for d in both_differ(text, near_text)] if near_text else None,
        "error": gallery.text(error if not scored.has_score else None),
    }


def _places(differs: list[bool]) -> list[int]:
    return [n for n, d in enumerate(differs) if d]


def to_compare(methods: list[dict]) -> set[int]:
    """Images with a row that names no neighbour, and no text in its place."""
    return {r["image"] for m in methods for r in m["rows"] if r["neighbour"] is None and r["text"] < 0}


def fill_nearest(methods: list[dict], tasks: Sequence[TaskScores], gallery: Gallery) -> None:
    """Number the images that stand beside the ranked ones, once these are drawn. Where a row names none that is the
    good image of its task most like it, by the mean squared difference of 32 x 32 grey thumbnails."""
    known: dict[str, list[TaskScores]] = {}
    for task in tasks:
        known.setdefault(task.method, []).append(task)
    for method, of_method in zip(methods, known.values(), strict=True):
        of_task: dict[int, tuple[list[Image], np.ndarray]] = {}
        for row in method["rows"]:
            near, own = row["neighbour"], gallery.thumbnails.get(row["image"])
            if near is None and row["text"] < 0 and own is not None:
                if row["task"] not in of_task:
                    of_task[row["task"]] = _thumbnails([s.image for s in of_method[row["task"]].good])
                images, thumbnails = of_task[row["task"]]
                near = images[int(((thumbnails - own) ** 2).mean(1).argmin())] if images else None
                row["nearKind"] = gallery.text("good picture most like it, 32 x 32 px compared")
            row["near"] = -1 if near is None else gallery.number(near)


def _thumbnails(images: list[Image]) -> tuple[list[Image], np.ndarray]:
    """At most MOST_COMPARED of them that can be read, evenly spread, with their thumbnails, (N, 1024)."""
    images = images[:: -(-len(images) // MOST_COMPARED) or 1]
    found = [(i, t) for i, t in zip(images, in_threads(_thumbnail, images), strict=True) if t is not None]
    return [i for i, _ in found], np.array([t for _, t in found])


def _thumbnail(image: Image) -> np.ndarray | None:
    try:
        return grey(load_rgb(image.file)).ravel()
    except ImageError:
        return None


def heat_maps(tasks: Sequence[TaskScores], maps: Path, scales: Callable[[], Scales]) -> Iterator[tuple[Key, bytes]]:
    """((image_id, method), WebP of the coloured map) of every test image that has a finite one."""
    of_image: dict[Key, TaskScores] = {(s.image.image_id, t.method): t for t in tasks for s in t.test}

    def drawn(item: tuple[Key, np.ndarray]) -> tuple[Key, bytes | None]:
        key, anomaly_map = item
        if not np.isfinite(anomaly_map).all():
            return key, None
        return key, webp(coloured(anomaly_map.astype(np.float32), scales()[named(of_image[key])]), HEAT_SIDE)

    scales()  # once, before threads ask for them
    for key, content in in_threads(drawn, read_maps(maps, set(of_image)) if of_image else ()):
        if content is not None:
            yield key, content
