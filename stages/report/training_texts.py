"""What the text encoders were trained on: per task the captions that had a contradiction, those whose rewrites were
refused and those that are missing; and why rewrites were refused (VID-AD, section 4.2)."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from stages.artifacts.reader import read_table
from stages.artifacts.tables import NEGATIVES
from stages.base.errors import InputError
from stages.captions.constraints import Rejected, check_negative
from stages.datasets.manifest import Image, Task, by_task, reference_images
from stages.datasets.vidad import CONDITIONS, SCENARIOS
from stages.report.cells import ranked, shortened
from stages.report.grid import Grid
from stages.report.names import condition_name
from stages.results.scores import TaskScores

LAST = re.compile(r" \(last of \d+ rewrites\)$")
QUOTED, NUMBER = re.compile(r"`[^`]*`"), re.compile(r"\d[\d,]*")
LONGEST = 100  # characters of a reason: a server's message may have any length
MOST = 12  # reasons of a method; the others are counted together


def training_texts(
    tasks: Sequence[TaskScores], images: Iterable[Image], inputs: Iterable[tuple[str, str, Path]]
) -> list[Grid]:
    """images: the manifest's; inputs: of `HowMade`. Methods without a table of negatives in their chain have no rows;
    a table of negatives that cannot be read has none either: what the methods are made of says why."""
    reference = {task: reference_images(group) for task, group in by_task(images).items()}
    counts: list[tuple[str, ...]] = []
    reasons: list[tuple[str, ...]] = []
    for method in dict.fromkeys(t.method for t in tasks):
        rows = _rows(dict.fromkeys(path for m, name, path in inputs if (m, name) == (method, "negatives")))
        by_image: dict[str, list[dict]] = {}
        for row in rows:
            by_image.setdefault(row["image_id"], []).append(row)
        refused: Counter[str] = Counter()
        unchecked: Counter[str] = Counter()
        for task in _in_order(t for t in tasks if t.method == method) if rows else ():
            of_task = [by_image.get(i.image_id, []) for i in reference[task]]
            counts.append((task[0], method, task[1], condition_name(task[2], "-"), *_counted(of_task)))
            of_all, of_kept = _reasons([r for found in of_task for r in found])
            refused += of_all
            unchecked += of_kept
        reasons += _listed(method, refused, unchecked)
    return [g for g in (_counts(counts), _refusals(reasons)) if g.rows]


def _rows(paths: Iterable[Path]) -> list[dict]:
    rows: list[dict] = []
    for path in paths:
        with suppress(InputError):
            rows += read_table(path, NEGATIVES, partial=True).to_pylist()
    return rows


def _in_order(tasks: Iterable[TaskScores]) -> list[Task]:
    """VID-AD's scenarios and conditions in the paper's order, other tasks by name."""
    found = {(t.dataset, t.category, t.condition) for t in tasks}
    categories = ranked({c for _, c, _ in found}, SCENARIOS)
    conditions = ranked({c for _, _, c in found}, CONDITIONS)
    return sorted(found, key=lambda t: (t[0], categories.index(t[1]), conditions.index(t[2])))


def _counted(of_task: list[list[dict]]) -> tuple[str, ...]:
    """of_task: the rows of NEGATIVES of each normal image."""
    rows = [r for found in of_task for r in found]
    used = [r for r in rows if r["error"] is None]
    missing = sum(not found for found in of_task) + sum(_has_no_caption(r) for r in rows)
    unchecked = sum(not r["edits"] for r in used)
    attempts = sum(r["attempts"] for r in rows)
    refused = sum(r["error"] is not None and not _has_no_caption(r) for r in rows)
    return tuple(map(str, (len(of_task), len(used), unchecked, refused, missing, attempts)))


def _has_no_caption(row: dict) -> bool:
    """Nothing was rewritten: the caption failed, is empty, or too long."""
    return row["error"] is not None and row["attempts"] == 0


def _reasons(rows: list[dict]) -> tuple[Counter[str], Counter[str]]:
    """(reasons of the captions of a task that were given up, reasons against negatives that were kept unchecked)."""
    normals = frozenset(r["text"] for r in rows if r["text"])
    refused = Counter(plain_reason(r["error"]) for r in rows if r["error"] and not _has_no_caption(r))
    kept: Counter[str] = Counter()
    for row in rows:
        if row["error"] is None and not row["edits"] and row["text"] and row["negative"]:
            try:
                check_negative(row["text"], row["negative"], normals)
            except Rejected as e:
                kept[plain_reason(str(e))] += 1
    return refused, kept


def plain_reason(error: str) -> str:
    """'structure: `a` became `two` (last of 5 rewrites)' -> 'structure: `...` became `...`': equal for equal causes."""
    return shortened(NUMBER.sub("N", QUOTED.sub("`...`", LAST.sub("", " ".join(error.split())))), LONGEST)


def _listed(method: str, refused: Counter[str], unchecked: Counter[str]) -> list[tuple[str, ...]]:
    """The most frequent reasons first, in a total order."""
    names = sorted(refused.keys() | unchecked.keys(), key=lambda n: (-refused[n] - unchecked[n], n))
    lines = [(method, n, str(refused[n]), str(unchecked[n])) for n in names[:MOST]]
    if others := names[MOST:]:
        sums = (str(sum(c[n] for n in others)) for c in (refused, unchecked))
        lines.append((method, f"{len(others)} other reasons", *sums))
    return lines


def _counts(lines: list[tuple[str, ...]]) -> Grid:
    columns = ("normal images", "to train on", "of these unchecked", "refused", "missing", "rewrites drawn")
    note = (
        "Captions of the normal training images, from the rows of the negatives. To train on: those with a negative."
        " Unchecked: kept although it breaks a constraint (--keep-unchecked). Refused: no rewrite was accepted, or the"
        " model gave none. Missing: no caption, or one too long to be rewritten."
    )
    heads = ("data set", "method", "category", "condition", *columns)
    return Grid("training-texts", "Captions that the text encoders were trained on", heads, tuple(lines), note)


def _refusals(lines: list[tuple[str, ...]]) -> Grid:
    note = (
        "Of a caption that was given up, the reason against its last rewrite; quoted words and numbers are left out."
        " Kept unchecked: the reason that would have refused it."
    )
    heads = ("method", "reason", "captions refused", "kept unchecked")
    return Grid("refused-rewrites", "Why rewrites were refused", heads, tuple(lines), note)
