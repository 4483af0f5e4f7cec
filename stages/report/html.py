"""The report of scores: an HTML page with the tables, figures, and every picture ranked."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from stages.base.progress import Progress
from stages.datasets.manifest import Task
from stages.report.coverage import coverage
from stages.report.grid import Grid
from stages.report.heatmaps import Panel, Scales
from stages.report.lvlm import overall
from stages.report.made import HowMade
from stages.report.names import MADE_UP
from stages.report.page.figures import Figure
from stages.report.page.gallery import Gallery
from stages.report.page.render import data_url, key_of, write
from stages.report.page.scores import fill_nearest, heat_maps, in_columns, methods_of, to_compare
from stages.report.ranking import Outcome
from stages.results.scores import TaskScores


@dataclass(frozen=True)
class Results:
    """What the page of scores is made of. figures: by their place on the page; examples: panels of maps; made: the
    chain of records that ends at the scores; maps, scales: where the maps lie, and their colours; indexed: tasks of the
    manifest; beside: what scores say beside those of good images; again: the command for the same with another kind of
    model."""

    tasks: list[TaskScores]
    rows: list[dict]
    grids: list[Grid]
    figures: dict[str, list[Figure]]
    examples: list[Panel]
    provenance: list[dict]
    made: HowMade
    indexed: Collection[Task] = ()
    maps: Path | None = None
    scales: Callable[[], Scales] = dict
    beside: Outcome | None = None
    again: str = ""


def write_report(path: Path, results: Results, quiet: bool = True) -> None:
    """Render and write the page. Pictures that cannot be read are named as such in their place."""
    gallery = Gallery()
    methods = methods_of(results.tasks, gallery)
    ranked = len(gallery.known)
    gallery.compared = to_compare(methods)
    run = key_of([[[r["image"], r["score"]] for r in m["rows"]] for m in methods], gallery.texts.values)

    def data() -> dict:
        return {
            "kind": "scores",
            "methods": in_columns(methods),
            "images": gallery.described(),
            "figures": results.figures,
            "texts": gallery.texts.values,  # last, when all have their numbers
        }

    def made() -> Iterator[tuple[str, bytes]]:
        progress = Progress("pictures of the page", ranked, quiet)
        try:
            for picture in gallery.drawn():
                yield picture
                progress.advance()
            order = {m: n for n, m in enumerate(dict.fromkeys(t.method for t in results.tasks))}
            if results.maps:
                for (image_id, method), content in heat_maps(results.tasks, results.maps, results.scales):
                    yield f"h{order[method]}-{gallery.images[image_id]}", content
            fill_nearest(methods, results.tasks, gallery)
            yield from gallery.drawn(ranked)
        finally:
            progress.stop()

    there = {i.image_id for t in results.tasks for s in t.rows for i in (s.image, s.near) if i}
    names = [f"p{n}" for n in range(len(there))]
    names += [f"h{m}-{n}" for m in range(len(methods)) for n in range(ranked)] if results.maps else []
    write(path, "report.html.j2", _context(results), data, run, made(), names)


def _context(results: Results) -> dict:
    """What the template shows without a script."""
    tasks, grids, beside = results.tasks, results.grids, results.beside
    folded = {"decisions", "answers", "training-texts", "table6"} | (
        {"defects"} if any(g.name == "aspects" for g in grids) else set()
    )
    return {
        "datasets": sorted({t.dataset for t in tasks}),
        "methods": sorted({t.method for t in tasks}),
        "coverage": coverage(tasks, results.indexed),
        "synthetic": [MADE_UP[name] for name in sorted({t.dataset for t in tasks} & set(MADE_UP))],
        "written": f"{datetime.now():%d %B %Y, %H:%M}",
        "numbers": _headline(tasks, results.rows, beside),
        "beside": beside,
        "again": results.again,
        "main": [g for g in grids if g.name not in folded and not (beside and g.name.startswith("tasks"))],
        "details": [g for g in grids if g.name in folded],
        "figures": {place for place, found in results.figures.items() if found},
        "examples": [(p, data_url(p.picture, "webp")) for p in results.examples],
        "training": [(str(p), data_url(p.read_bytes(), "png")) for p in _loss_curves(results.provenance)],
        "mapped": results.maps is not None,
        "tasks": len(tasks),
        "made": results.made,
    }


def _loss_curves(provenance: list[dict]) -> list[Path]:
    """losses.png of the trained models behind the scores, where it still lies there."""
    trained = dict.fromkeys(r.get("notes", {}).get("training") for r in provenance)
    found = (Path(t) / f / "losses.png" for t in trained if t for f in ("", "_checkpoint"))
    return [p for p in found if p.is_file()]


def _headline(tasks: list[TaskScores], rows: list[dict], beside: Outcome | None) -> list[tuple[str, str]]:
    """The figures on top: AUROC and accuracy where there is one data set and one method, images above the line where no
    label says what they are, and what was counted."""
    pairs = {(t.dataset, t.method) for t in tasks}
    numbers = []
    if len(pairs) == 1:
        ((dataset, method),) = pairs
        for metric, name in (("auroc", "AUROC"), ("accuracy@own", "accuracy")):
            value = overall(tasks, rows, dataset, method, metric)
            if value is not None:
                numbers.append((name if len(tasks) == 1 else f"mean {name}", f"{value:.3f}"))
    else:
        counts = (("data set", len({d for d, _ in pairs})), ("method", len({m for _, m in pairs})))
        numbers += [(name + "s" * (n != 1), str(n)) for name, n in counts]
    images = {s.image.image_id for t in tasks for s in t.rows if s.image.split == "test"}
    failed = sum(t.failed for t in tasks)
    return [
        *numbers,
        *([("above the line", str(beside.above))] if beside else []),
        ("task" + "s" * (len(tasks) != 1), str(len(tasks))),
        ("test image" + "s" * (len(images) != 1), f"{len(images):,}"),
        ("image without a score" if failed == 1 else "images without a score", str(failed)),
    ]
