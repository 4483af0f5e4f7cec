"""The report: one self-contained HTML page."""

import base64
import io
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
import numpy as np

from stages.artifacts import outputs
from stages.artifacts.maps import Key
from stages.base.errors import ImageError
from stages.base.texts import without_controls
from stages.captions.wording import differing_places
from stages.datasets.images import load_rgb
from stages.report import figures
from stages.report.grid import Grid
from stages.report.heatmaps import Draw, Panel
from stages.report.lvlm import overall
from stages.report.made import HowMade
from stages.report.names import MADE_UP, condition_name
from stages.report.ranking import Outcome
from stages.results.scores import Scored, TaskScores

if TYPE_CHECKING:
    from PIL import Image

THUMBNAIL = 200  # px, longer side
EACH = 4  # cards per group
RANKED = 24  # cards of a ranking without labels

Group = tuple[str, tuple[Scored, ...]]  # title, the images of its cards


@dataclass(frozen=True)
class Card:
    """One image of the report. caption, neighbour: (word, differs) in order; reference: the picture of the
    reference image that the model was shown; overlay: the anomaly map over the image; answered: the text is an
    answer, not a description."""

    picture: str | None
    reference: str | None
    overlay: str | None
    problem: str | None
    title: str
    score: str
    truth: str
    answered: bool
    caption: tuple[tuple[str, bool], ...]
    neighbour: tuple[tuple[str, bool], ...]


@dataclass(frozen=True)
class Section:
    """One category by one method: its histograms and groups of cards."""

    method: str
    title: str
    histogram: str | None
    groups: tuple[tuple[str, tuple[Card, ...]], ...]


def write_report(
    path: Path,
    tasks: list[TaskScores],
    rows: list[dict],
    grids: list[Grid],
    pictures: dict[str, bytes | None],
    examples: list[Panel],
    provenance: list[dict],
    made: HowMade,
    draw: Draw | None = None,
    beside: Outcome | None = None,
    again: str = "",
) -> None:
    """Render and write the page. Pictures that cannot be read are named as such on their card; control characters are
    written as \\xNN.

    pictures: PNG of `figure5`, `figure7` and `curves`, None where the data have no such figure; made: the chain of
    records that ends at the scores; draw: the maps of the cards; beside: what scores say beside those of good images;
    again: the command for the same with another kind of model.
    """
    by_category: dict[tuple, list] = defaultdict(list)
    for task in tasks:
        by_category[task.dataset, task.method, task.category].append(task)
    folded = {"decisions", "answers"} | ({"defects"} if any(g.name == "aspects" for g in grids) else set())
    methods = sorted({t.method for t in tasks})
    chosen = {key: tuple(_groups(group)) for key, group in by_category.items()}
    heat = _heat(chosen, tasks, draw) if draw else {}
    page = template("report.html.j2").render(
        datasets=sorted({t.dataset for t in tasks}),
        methods=methods,
        synthetic=[MADE_UP[name] for name in sorted({t.dataset for t in tasks} & set(MADE_UP))],
        written=f"{datetime.now():%d %B %Y, %H:%M}",
        numbers=_headline(tasks, rows, beside),
        beside=beside,
        again=again,
        main=[g for g in grids if g.name not in folded and not (beside and g.name.startswith("tasks"))],
        details=[g for g in grids if g.name in folded],
        pictures={name: data_url(png, "png") for name, png in pictures.items() if png},
        examples=[(p, data_url(p.png, "png")) for p in examples],
        captioned=any(s.row["neighbours"] for t in tasks for s in t.test if s.row["parsed"] is None),
        answered=any(s.row["parsed"] for t in tasks for s in t.rows),
        training=[(str(p), data_url(p.read_bytes(), "png")) for p in _loss_curves(provenance)],
        mapped=bool(heat),
        sections=[_section(key, group, chosen[key], heat) for key, group in by_category.items()],
        made=made,
    )
    outputs.write_page(path, without_controls(page))


def template(name: str) -> "jinja2.Template":
    """One of the pages, or of the parts that they share, in this folder."""
    import jinja2

    parts = jinja2.FunctionLoader(lambda part: files("stages.report").joinpath(part).read_text())
    return jinja2.Environment(loader=parts, autoescape=True, trim_blocks=True, lstrip_blocks=True).get_template(name)


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
        ("tasks", str(len(tasks))),
        ("test images", f"{len(images):,}"),
        ("images without a score", str(failed)),
    ]


def _heat(chosen: dict[tuple, tuple[Group, ...]], tasks: list[TaskScores], draw: Draw) -> dict[Key, str]:
    """(image_id, method) of the images on the cards -> the anomaly map over the image."""
    from PIL import Image

    cards = {(s.image.image_id, key[1]) for key, groups in chosen.items() for _, images in groups for s in images}
    of_image = {(s.image.image_id, t.method): t for t in tasks for s in t.test}
    found = {}
    for key, row in draw({k: of_image[k] for k in cards & of_image.keys()}, THUMBNAIL):
        found[key] = _jpeg(Image.fromarray(np.ascontiguousarray(row[:, -row.shape[1] // 3 :])))
    return found


def _section(key: tuple, tasks: list[TaskScores], chosen: tuple[Group, ...], heat: dict[Key, str]) -> Section:
    histogram = figures.histograms(tasks)
    groups = tuple(
        (title, tuple(_card(s, heat.get((s.image.image_id, key[1]))) for s in images)) for title, images in chosen
    )
    return Section(key[1], key[2], data_url(histogram, "png") if histogram else None, groups)


def _groups(tasks: list[TaskScores]) -> Iterator[Group]:
    """Most confident hits and misses by the method's own yes or no, or at the line above 90 % of the good images; a
    ranking where there are no labels."""
    if all(s.image.label is None for t in tasks for s in (*t.test, *t.decided)):
        ranked = sorted((s for t in tasks for s in t.test), key=lambda s: (-s.number, s.image.image_id))
        yield "most anomalous first", tuple(ranked[:RANKED])
        return
    judged = [j for t in tasks for j in _judged(t)]
    if not judged:  # neither yes or no nor training scores: nothing says where anomalous begins
        ranked = sorted((s for t in tasks for s in t.test), key=lambda s: (-s.number, s.image.image_id))
        for title, label, order in (
            ("anomalous, highest scores", 1, 1),
            ("anomalous, lowest scores", 1, -1),
            ("normal, highest scores", 0, 1),
        ):
            yield title, tuple([s for s in ranked if s.image.label == label][::order][:EACH])
        return
    judged.sort(key=lambda j: (-j[1], j[0].image.image_id))
    wrong_low = [s for s, _, called in reversed(judged) if s.image.label == 1 and not called]
    wrong_high = [s for s, _, called in judged if s.image.label == 0 and called]
    hits = [s for s, _, called in judged if s.image.label == 1 and called]
    for title, found in (
        ("hits: anomalous, highest scores", _varied(hits)),
        ("misses: anomalous, but taken for normal", wrong_low),
        ("false alarms: normal, but taken for anomalous", wrong_high),
    ):
        yield f"{title} ({len(found)})", tuple(found[:EACH])


def _judged(task: TaskScores) -> list[tuple[Scored, float, bool]]:
    """(image, how far it lies above the threshold, called anomalous); a decision without score counts 0 or 1."""
    if task.decided:
        return [(s, s.number if s.has_score else float(called), called) for s, called in task.decisions("own")]
    limit = task.thresholds.get(task.line, 0)
    return [(s, s.number - limit, called) for s, called in task.decisions(task.line)]


def _varied(found: list[Scored]) -> list[Scored]:
    """The same list, the first of each capture condition in front: five equal pictures teach nothing."""
    first: dict = {}  # condition -> its first image
    for s in found:
        first.setdefault(s.image.condition, s)
    front = list(first.values())
    return front + [s for s in found if s not in front]


def _card(scored: Scored, overlay: str | None) -> Card:
    image, row = scored.image, scored.row
    answered = row["parsed"] is not None  # then the neighbour is a reference image and has no words
    near = row["neighbours"][0]["text"] if row["neighbours"] and not answered else None
    text = row["response"] or ""
    picture, reference, problem = None, None, None
    try:
        picture = thumbnail(image.file)
        reference = thumbnail(scored.near.file) if answered and scored.near else None
    except ImageError as e:
        problem = str(e)
    truth = {0: "normal", 1: image.defect or "anomalous", None: "unlabelled"}[image.label]
    where = condition_name(image.condition, image.category)
    score = f"{scored.score:.3f}" if scored.has_score else "no score"
    return Card(
        picture,
        reference,
        overlay,
        problem,
        f"{where} · {image.file.name}",
        score,
        truth,
        answered,
        _marked(text, text if answered else near or ""),
        _marked(near or "", text),
    )


def _marked(text: str, other: str) -> tuple[tuple[str, bool], ...]:
    return tuple(zip(text.split(), differing_places(text, other), strict=True))


def thumbnail(path: Path) -> str:
    """A small JPEG as a data URL. Raises ImageError when the image cannot be read."""
    from PIL import Image

    picture = Image.fromarray(load_rgb(path))
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    return _jpeg(picture)


def _jpeg(picture: "Image.Image") -> str:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=80)
    return data_url(data.getvalue(), "jpeg")


def data_url(content: bytes, kind: str) -> str:
    """The picture itself as the address of an <img>."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
