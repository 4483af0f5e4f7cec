"""The test images as a list for people, the most anomalous first."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.artifacts.outputs import write_page
from stages.report.cells import digits
from stages.report.grid import Grid, as_csv
from stages.results.beside_good import BesideGood, beside_good, heights, percentiles
from stages.results.scores import TaskScores

PARTS = {"data set": "dataset", "category": "category", "condition": "condition", "method": "method"}
MOST_ABOVE = (
    "more than half lie above the line; if most should be good, they differ from the good ones as a whole (light,"
    " camera, product), or several good pictures show the same part: name these so that they follow each other"
)
LABELS = {0: "normal", 1: "anomalous", None: ""}
COLUMNS = ("file", "score", "percentile among the good", "above the line")
FEW = "where few of the new pictures are defective that is to be expected: look at the first ones of the ranking"


def ranking(tasks: Sequence[TaskScores]) -> Grid:
    """A row per test image and method; several tasks are brought together by `heights`. Images without a score come
    last. Columns that say the same of all images are left out."""
    parts = [c for c, name in PARTS.items() if len({getattr(t, name) for t in tasks}) > 1]
    labelled = any(s.image.label is not None for t in tasks for s in t.test)
    placed, places = [], {}
    for method in {t.method for t in tasks}:
        places[method] = digits([s.number for t in tasks if t.method == method for s in t.test])
    for task in tasks:
        own = [str(getattr(task, PARTS[c]) or "") for c in parts]
        line = task.thresholds.get(task.line)
        for scored, height, percentile in zip(task.test, heights(task), percentiles(task), strict=True):
            said = ["", ""]
            if line is not None and percentile is not None:
                said = [f"{percentile:.1f}", "yes" if scored.number > line else "no"]
            cells = [shown(scored.image.file), *own, f"{scored.number:.{places[task.method]}g}", *said]
            placed.append((-height, -scored.number, scored.image.image_id, cells, scored))
        for scored in task.rows:
            if scored.image.split == "test" and not scored.has_score:
                cells = [shown(scored.image.file), *own, "", "", "no score"]
                placed.append((float("inf"), 0.0, scored.image.image_id, cells, scored))
    placed.sort(key=lambda p: p[:3])
    rows = [(*cells, *([LABELS[scored.image.label]] if labelled else [])) for *_, cells, scored in placed]
    columns = (COLUMNS[0], *parts, *COLUMNS[1:], *(["label"] if labelled else []))
    note = "Percentile: share of the good images that score lower. The line lies above 90 % of the good images."
    return Grid("ranking", "Test images, the most anomalous first", columns, tuple(rows), note)


def write_ranking(tasks: Sequence[TaskScores], path: Path) -> None:
    """The ranking as CSV, wholly there or not at all."""
    write_page(path, as_csv(ranking(tasks)))


def shown(path: Path) -> str:
    """A path as a person here would type it: from the working directory, where it lies below it."""
    there, here = os.path.abspath(path), Path.cwd()
    return os.path.relpath(there, here) if Path(there).is_relative_to(here) else there


@dataclass(frozen=True)
class Outcome:
    """What the scores say beside those of the good images. lines: of each task where there are several, and what is
    not as hoped; summary: of all together."""

    lines: tuple[str, ...]
    summary: str
    above: int


def outcome(tasks: Sequence[TaskScores], resamples: int = 1000, seed: int = 0) -> Outcome:
    """Sentences for the terminal and the page."""
    found = [beside_good(t, resamples, seed) for t in tasks]
    above, new = sum(f.above for f in found), sum(len(f.task.test) for f in found)
    if len(found) == 1:
        lines, summary = [], sentence(found[0])
    else:
        lines = [f"{f.task.category}: {sentence(f)}" for f in found]
        summary = f"{above} of {new} lie above 90 % of the good ones of their kind"
    alike = [f for f in found if f.line is not None and f.task.test and not f.told_apart and not judged(f.task)]
    lines += [f"{f.task.category}: {not_told_apart(f)}" if len(found) > 1 else not_told_apart(f) for f in alike]
    if most := [f for f in found if f.task.held_out and 2 * f.above > len(f.task.test)]:
        named = f"{', '.join(f.task.category for f in most)}: " if len(found) > 1 else ""
        lines.append(f"{named}{MOST_ABOVE}")
    return Outcome((*lines, *([what_to_try(alike)] if alike else [])), summary, above)


def judged(task: TaskScores) -> bool:
    """Whether both kinds of test images are labelled: their own AUROC says how well they are told apart, and half of
    them being good is no failure."""
    return {0, 1} <= {s.image.label for s in task.test}


def sentence(found: BesideGood) -> str:
    """How many test images of one task lie above the line, and what it was drawn from."""
    task, new = found.task, len(found.task.test)
    if not new:
        return "no picture has a score"
    if found.line is None:
        return f"{new} ranked, without a line, as no good picture has a score of its own"
    drawn = "held out" if task.held_out else "scored by the others"
    return (
        f"{found.above} of {new} lie above 90 % of the good ones (line {found.line:.4g}, drawn from {len(task.good)}"
        f" {drawn}; {round(new / 10)} would be chance)"
    )


def not_told_apart(found: BesideGood) -> str:
    """That the method sees no difference, with the figures."""
    a, new = found.auroc, len(found.task.test)
    interval = "" if a.ci_low is None else f" [{a.ci_low:.2f}, {a.ci_high:.2f}]"
    highest = max(s.number for s in found.task.good)
    beyond = sum(s.number > highest for s in found.task.test)
    return (
        f"{found.task.method} does not tell the new pictures from the good ones: AUROC {a.value:.2f}{interval}, where"
        f" 0.5 is chance; {beyond} of {new} lie above all good ones"
    )


def what_to_try(alike: Sequence[BesideGood]) -> str:
    """Remedies, the cheapest first."""
    methods = {f.task.method for f in alike}
    fitted = any(m.startswith("anomalib/") for m in methods)
    other = "anomalib/padim" if any("patchcore" in m for m in methods) else "anomalib/patchcore"
    ways = [
        *(["the command of `score` with --size 512 and another --out, for small defects"] if fitted else []),
        f"--method {other}",
        *([] if any(m.startswith("lvlm") for m in methods) else ["--method lvlm --vlm qwen2-vl"]),
        "more good pictures",
    ]
    return f"{FEW}; otherwise try {', '.join(ways[:-1])}, or {ways[-1]}"
