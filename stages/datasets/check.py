"""Is a data set all there, and are its masks what they should be? A manifest's counts against the known ones, every
image and mask decoded (contents.py).

Known counts are in known_counts.csv: MVTec AD and VisA per category and split; the magnetic tiles, which
have no split of their own, as normal tiles of both splits together; Brain-AD, OCT17 and HIS as BMAD packs them,
where the test images of the latter two are only known together; Kvasir-SEG. Those of VID-AD are its Table 3,
which holds under each of the five capture conditions.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path

from stages.artifacts.reader import read_provenance
from stages.base.config import RunOptions
from stages.base.progress import Progress
from stages.base.threads import threads
from stages.datasets.config import CheckConfig
from stages.datasets.contents import Seen, look_at, of_all, of_task
from stages.datasets.known import rows
from stages.datasets.manifest import Image, Task, by_task, read_manifest
from stages.datasets.synth.scenarios import COUNTS


@dataclass(frozen=True)
class Counts:
    """What a manifest holds of one task. other: val, unlabelled, and anomalous training images; masks:
    mask files that can be read; unreadable: images whose row has an error, and images and masks that
    cannot be decoded; other_size: masks of another size than their image."""

    dataset: str
    category: str
    condition: str | None
    train_normal: int
    test_normal: int
    test_anomalous: int
    other: int
    masks: int
    unreadable: int
    other_size: int

    @property
    def normal(self) -> int:
        return self.train_normal + self.test_normal

    @property
    def test(self) -> int:
        return self.test_normal + self.test_anomalous


@dataclass(frozen=True)
class Check:
    """differences: a sentence each; none when everything can be read and the counts are the known ones.
    uncompared: data sets whose counts are not known."""

    manifest: str
    counts: tuple[Counts, ...]
    differences: tuple[str, ...]
    uncompared: tuple[str, ...]


def run(config: CheckConfig, options: RunOptions) -> Check:
    """Count and decode everything. Writes nothing. Raises InputError as `read_manifest` does."""
    manifest = read_manifest(config.manifest, config.root)
    progress = Progress("data check", len(manifest.images), options.quiet)
    seen: dict[str, Seen] = {}
    try:
        with threads() as pool:  # decoding leaves the interpreter to the other threads
            for image, found in zip(manifest.images, pool.map(look_at, manifest.images), strict=True):
                seen[image.image_id] = found
                progress.advance(failed=bool(found.unreadable))
    finally:
        progress.stop()
    known = known_counts()
    tasks = by_task(manifest.images)
    counts = tuple(count(task, images, seen) for task, images in tasks.items())
    differences = [
        line
        for c in counts
        if (c.dataset, c.category) in known
        for line in _number_differences(c, known[c.dataset, c.category])
    ]
    differences += _absent_or_foreign(set(tasks), expected_tasks(config.manifest, set(tasks), known), known)
    for (_, category, condition), images in tasks.items():
        differences += of_task(_name(category, condition), images, seen)
    differences += of_all(manifest.images, seen)
    compared = {dataset for dataset, _ in known}
    return Check(
        str(config.manifest), counts, tuple(differences), tuple(sorted({dataset for dataset, _, _ in tasks} - compared))
    )


def known_counts() -> dict[tuple[str, str], dict[str, int]]:
    """(dataset, category) -> {column of Counts: number}, only the numbers that the data set fixes."""
    known = {}
    for row in rows():
        dataset, category = row.pop("dataset"), row.pop("category")
        known[dataset, category] = {name: int(value) for name, value in row.items() if value}
    for scenario, (train, normal, *anomalous) in COUNTS.items():
        known["vidad", scenario] = {"train_normal": train, "test_normal": normal, "test_anomalous": sum(anomalous)}
    return known


def count(task: Task, images: list[Image], seen: dict[str, Seen]) -> Counts:
    """The numbers of one task. seen: by image_id."""
    kinds = Counter((i.split, i.label) for i in images)
    train, normal, anomalous = (kinds[k] for k in (("train", 0), ("test", 0), ("test", 1)))
    found = [seen[i.image_id] for i in images]
    return Counts(
        *task,
        train,
        normal,
        anomalous,
        len(images) - train - normal - anomalous,
        sum(f.masks for f in found),
        sum(bool(f.unreadable) for f in found),
        sum(len(f.other_size) for f in found),
    )


def expected_tasks(path: Path, present: set[Task], known: dict) -> set[Task]:
    """The tasks that the manifest should hold: what `data index` was asked for, by its provenance. Of a
    manifest made by other tools: every known category, under the conditions that are there."""
    records = read_provenance(path)
    if not records:
        return {
            (dataset, category, condition)
            for dataset, _, condition in present
            for name, category in known
            if name == dataset
        }
    expected: set[Task] = set()
    for asked in (r["parameters"] for r in records if r["stage"] == "data index"):
        categories = asked.get("categories") or asked.get("scenarios") or [c for _, c in known]
        expected |= {
            (asked["dataset"], category, condition)
            for category in categories
            for condition in asked.get("conditions") or [None]
            if (asked["dataset"], category) in known
        }
    return expected


def _number_differences(found: Counts, known: dict[str, int]) -> Iterable[str]:
    for name, number in ({"other": 0} | known).items():
        has = getattr(found, name)
        if has != number:
            word = "missing" if has < number else "too many"
            yield (
                f"{_name(found.category, found.condition)}: {name.replace('_', ' ')} {has}, known are"
                f" {number} ({abs(has - number)} {word})"
            )


def _absent_or_foreign(present: set[Task], expected: set[Task], known: dict) -> list[str]:
    lines = [
        f"{dataset}: no category of this data set is called {_name(category, None)}"
        for dataset, category in sorted({t[:2] for t in present} - set(known))
        if dataset in {name for name, _ in known}
    ]
    absent = defaultdict(list)
    for dataset, category, condition in sorted(expected - present, key=str):
        absent[dataset].append(_name(category, condition))
    return lines + [f"{dataset}: nothing of {', '.join(names)}" for dataset, names in absent.items()]


def _name(category: str, condition: str | None) -> str:
    return f"{category} / {condition}" if condition else category


def as_text(check: Check) -> str:
    """The table of tasks, and below it what differs, for people."""
    columns = (
        "dataset",
        "category",
        "condition",
        "train normal",
        "test normal",
        "test anomalous",
        "other",
        "masks",
        "unreadable",
        "other size",
    )
    rows = [["" if v is None else str(v) for v in astuple(c)] for c in check.counts]
    if len(rows) > 1:
        rows.append(["all", "", "", *(str(sum(n)) for n in zip(*(astuple(c)[3:] for c in check.counts), strict=True))])
    widths = [max(len(line[i]) for line in (columns, *rows)) for i in range(len(columns))]
    lines = [
        "  ".join(
            cell.ljust(w) if i < 3 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (columns, *rows)
    ]
    lines.insert(1, "-" * len(lines[0]))
    lines += [f"{dataset}: no known counts to compare with; only counted" for dataset in check.uncompared]
    if check.differences:
        lines += ["differences:", *(f"  {line}" for line in check.differences)]
    elif len({c.dataset for c in check.counts}) > len(check.uncompared):
        lines.append("everything can be read, and the counts are the known ones")
    return "\n".join(lines)
