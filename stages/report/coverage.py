"""How much of its data a run has scored: of VID-AD's scenarios and conditions, of a manifest's categories."""

from collections.abc import Collection, Sequence

from stages.datasets.manifest import Task
from stages.datasets.vidad import CONDITIONS, SCENARIOS
from stages.results.scores import TaskScores


def coverage(tasks: Sequence[TaskScores], indexed: Collection[Task]) -> str:
    """'7 of 10 scenarios, 3 of 5 conditions'; by method where these differ; nothing of a single category.
    indexed: tasks of the manifest."""
    said = {}
    for method in dict.fromkeys(t.method for t in tasks):
        of_method = {(t.dataset, t.category, t.condition) for t in tasks if t.method == method}
        datasets = dict.fromkeys(d for d, _, _ in of_method)
        parts = {d: _of_dataset(d, of_method, indexed) for d in sorted(datasets)}
        said[method] = "; ".join(f"{d}: {p}" if len(parts) > 1 else p for d, p in parts.items() if p)
    if len(set(said.values())) == 1:
        return next(iter(said.values()))
    return "; ".join(f"{method}: {text}" for method, text in said.items())


def _of_dataset(dataset: str, scored: set[Task], indexed: Collection[Task]) -> str:
    here, there = ([t for t in tasks if t[0] == dataset] for tasks in (scored, indexed))
    if dataset.startswith("vidad"):
        scenarios, conditions = ({t[n] for t in here} for n in (1, 2))
        return _joined(
            _of(scenarios & set(SCENARIOS), SCENARIOS, "scenario"),
            _of(conditions & set(CONDITIONS), CONDITIONS, "condition"),
        )
    if len({t[:2] for t in indexed}) == 1:
        return ""
    several = len({t[2] for t in there}) > 1
    return _joined(
        _of({t[1] for t in here}, {t[1] for t in there}, "category"),
        _of({t[2] for t in here}, {t[2] for t in there}, "condition") if several else "",
    )


def _of(found: Collection, known: Collection, name: str) -> str:
    plural = name.removesuffix("y") + "ies" if name.endswith("y") else f"{name}s"
    return f"{len(found)} of {len(known)} {name if len(known) == 1 else plural}"


def _joined(*parts: str) -> str:
    return ", ".join(filter(None, parts))
