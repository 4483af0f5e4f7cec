"""VID-AD's Table 6: captions of normal images per scenario and condition, how much they vary, and whether a person
found them right."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from stages.datasets.vidad import CONDITIONS, SCENARIOS
from stages.report.cells import ranked
from stages.report.checklist import Answers, key_of
from stages.report.grid import Grid
from stages.report.names import condition_name
from stages.results.scores import TaskScores

CHECKED = 5  # captions of a task that a person is asked about
WHITE, SAME = "white_bg", "Same as White BG."


@dataclass(frozen=True)
class TaskCaptions:
    """normals: (image_id, caption) of a task's normal images, in order of the ids."""

    methods: tuple[str, ...]
    dataset: str
    category: str
    condition: str | None
    normals: tuple[tuple[str, str], ...]

    @property
    def chosen(self) -> list[tuple[str, str]]:
        """Those for a person: the first, which the table shows, the last, and others at equal steps between them."""
        last = len(self.normals) - 1
        return [self.normals[i] for i in sorted({last * n // (CHECKED - 1) for n in range(CHECKED)})]


def captions_of(tasks: Sequence[TaskScores]) -> list[TaskCaptions]:
    """Of VID-AD's tasks that were scored by captions, scenarios and conditions in the paper's order. Methods with the
    same captions everywhere, as those that differ in the encoder, are one."""
    of_method: dict[tuple[str, str], dict[tuple, tuple]] = {}
    for task in tasks:
        normals = tuple(sorted(_normals(task))) if task.dataset.startswith("vidad") else ()
        if normals:
            of_method.setdefault((task.dataset, task.method), {})[task.category, task.condition] = normals
    same: dict[tuple, list[str]] = {}
    for (dataset, method), found in of_method.items():
        same.setdefault((dataset, tuple(found.items())), []).append(method)
    categories = ranked({c for found in of_method.values() for c, _ in found}, SCENARIOS)
    conditions = ranked({c for found in of_method.values() for _, c in found}, CONDITIONS)
    lines = [
        TaskCaptions(tuple(methods), dataset, category, condition, normals)
        for (dataset, found), methods in same.items()
        for (category, condition), normals in found
    ]
    lines.sort(key=lambda t: (t.dataset, t.methods, categories.index(t.category), conditions.index(t.condition)))
    return lines


def _normals(task: TaskScores) -> Iterator[tuple[str, str]]:
    for s in task.rows:
        described = any(n["text"] for n in s.row["neighbours"] or ())  # other methods compare no captions
        if described and s.row["response"] and (s.image.label == 0 or (s.image.split == "train" and not s.image.label)):
            yield s.image.image_id, s.row["response"]


def table6(captions: Collection[TaskCaptions], answers: Answers) -> Grid:
    """answers: of the checklist, where a person has filled one."""
    white = {(t.methods, t.dataset, t.category): t.normals[0][1] for t in captions if t.condition == WHITE}
    lines = []
    for t in captions:
        image, caption = t.normals[0]
        different = len({text for _, text in t.normals})
        share = f"{different} of {len(t.normals)} ({100 * different / len(t.normals):.0f} %)"
        same = t.condition != WHITE and white.get((t.methods, t.dataset, t.category)) == caption
        right = {True: "yes", False: "no", None: "-"}[answers.get(key_of(image, caption))]
        methods = ", ".join(t.methods)
        place = (methods, t.category, condition_name(t.condition, "-"))
        lines.append((*place, SAME if same else caption, right, _checked(t, answers), share))
    note = (
        "The caption of the task's first normal image, in order of the ids. Right: what a person wrote into the"
        " checklist (adcli evaluate --checklist FILE), of this caption, and of all that were checked in the task."
        " Different captions: among those of the task's normal images, training and test."
    )
    columns = ("method", "scenario", "condition", "caption", "right", "right of those checked", "different captions")
    return Grid("table6", "VID-AD, Table 6: captions of normal images", columns, tuple(lines), note)


def _checked(t: TaskCaptions, answers: Mapping[tuple[str, str], bool | None]) -> str:
    given = [a for image, caption in t.normals if (a := answers.get(key_of(image, caption))) is not None]
    return f"{sum(given)} of {len(given)}" if given else "-"
