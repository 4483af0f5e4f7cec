"""The report: one self-contained HTML page."""

import base64
import io
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from stages.artifacts.files import make_folder, write_atomically
from stages.errors import ImageError
from stages.images import load_rgb
from stages.report import figures
from stages.report.tables import NAMES, SYNTHETIC, Grid
from stages.wording import differing_places

if TYPE_CHECKING:
    from stages.evaluate import Scored, TaskScores

THUMBNAIL = 200      # px, longer side
EACH = 4             # cards per group
RANKED = 24          # cards of a ranking without labels


@dataclass(frozen=True)
class Card:
    """One image of the report. caption, neighbour: (word, differs) in order."""

    picture: str | None
    problem: str | None
    title: str
    score: float
    truth: str
    caption: tuple[tuple[str, bool], ...]
    neighbour: tuple[tuple[str, bool], ...]


@dataclass(frozen=True)
class Section:
    """One category: its histograms and groups of cards."""

    title: str
    histogram: str | None
    groups: tuple[tuple[str, tuple[Card, ...]], ...]


def write_report(path: Path, tasks: "list[TaskScores]", rows: list[dict], grids: list[Grid],
                 provenance: list[dict]) -> None:
    """Render and write the page. Pictures that cannot be read are named as such on their card."""
    import jinja2

    source = files("stages.report").joinpath("report.html.j2").read_text()
    template = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)
    by_category: dict[tuple, list] = defaultdict(list)
    for task in tasks:
        by_category[task.dataset, task.method, task.category].append(task)
    means = [r for r in rows if r["category"] == "mean" and r["condition"] is None and r["metric"] == "auroc"]
    aurocs = [r for r in rows if r["metric"] == "auroc" and r["category"] != "mean" and
              r["ci_low"] is not None]
    folded = {"decisions", "defects"} if any(g.name == "aspects" for g in grids) else {"decisions"}
    page = template.render(
        datasets=sorted({t.dataset for t in tasks}), methods=sorted({t.method for t in tasks}),
        synthetic=any(t.dataset == SYNTHETIC for t in tasks), written=f"{datetime.now():%d %B %Y, %H:%M}",
        numbers=_headline(tasks, means or aurocs[:1]), main=[g for g in grids if g.name not in folded],
        details=[g for g in grids if g.name in folded],
        figure5=_data(figures.sensitivity(rows), "png"),
        sections=[_section(key, group) for key, group in by_category.items()],
        provenance=[_said(p) for p in provenance[:1]])
    make_folder(path.parent)
    write_atomically(path, lambda f: f.write(page.encode()))


def _headline(tasks, means: list[dict]) -> list[tuple[str, str]]:
    numbers = [("AUROC" if len(tasks) == 1 else "mean AUROC", f"{m['value']:.3f}") for m in means[:1]]
    images = sum(len(t.test) for t in tasks)
    numbers += [("tasks", str(len(tasks))), ("test images", f"{images:,}")]
    failed = sum(t.failed for t in tasks)
    return numbers + [("images without a score", str(failed))]


def _said(record: dict) -> str:
    settings = ", ".join(f"{k} {v}" for k, v in record["parameters"].items())
    return f"{record['stage']} with {settings}, seed {record['seed']}, adcli {record['version']}"


def _section(key: tuple, tasks: "list[TaskScores]") -> Section:
    return Section(key[2], _data(figures.histograms(tasks), "png"), tuple(_groups(tasks)))


def _groups(tasks: "list[TaskScores]"):
    """Most confident hits and misses at the train-q90 threshold; a ranking where there are no labels."""
    if all(s.image.label is None for t in tasks for s in t.test):
        ranked = sorted((s for t in tasks for s in t.test), key=lambda s: (-s.score, s.image.image_id))
        yield "most anomalous first", tuple(map(_card, ranked[:RANKED]))
        return
    judged = [(s.score - t.thresholds["train-q90"], s) for t in tasks if t.thresholds for s in t.test]
    judged.sort(key=lambda j: (-j[0], j[1].image.image_id))
    wrong_low = [s for m, s in reversed(judged) if s.image.label == 1 and m <= 0]
    wrong_high = [s for m, s in judged if s.image.label == 0 and m > 0]
    hits = [s for m, s in judged if s.image.label == 1 and m > 0]
    for title, found in (("hits: anomalous, highest scores", _varied(hits)),
                         ("misses: anomalous, but scored as normal", wrong_low),
                         ("false alarms: normal, but scored as anomalous", wrong_high)):
        yield f"{title} ({len(found)})", tuple(map(_card, found[:EACH]))


def _varied(found: "list[Scored]") -> "list[Scored]":
    """The same list, the first of each capture condition in front: five equal pictures teach nothing."""
    first: dict = {}       # condition -> its first image
    for s in found:
        first.setdefault(s.image.condition, s)
    front = list(first.values())
    return front + [s for s in found if s not in front]


def _card(scored: "Scored") -> Card:
    image, row = scored.image, scored.row
    near = (row["neighbours"] or [None])[0]
    text, other = row["response"] or "", near["text"] if near else ""
    picture, problem = None, None
    try:
        picture = _thumbnail(image.file)
    except ImageError as e:
        problem = str(e)
    truth = {0: "normal", 1: image.defect or "anomalous", None: "unlabelled"}[image.label]
    where = NAMES.get(image.condition, image.condition) if image.condition else image.category
    return Card(picture, problem, f"{where} · {image.file.name}", scored.score, truth, _marked(text, other),
                _marked(other, text))


def _marked(text: str, other: str) -> tuple[tuple[str, bool], ...]:
    return tuple(zip(text.split(), differing_places(text, other), strict=True))


def _thumbnail(path: Path) -> str:
    from PIL import Image

    picture = Image.fromarray(load_rgb(path))
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=80)
    return _data(data.getvalue(), "jpeg")


def _data(content: bytes | None, kind: str) -> str | None:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}" if content else None
