"""MMAD: `mmad.json`, an object from image path to its multiple-choice questions.

The questions stand in the first field whose name begins with `conversation`: `Question`, `Options` (letter -> text,
in order), `Answer` (a letter) and `type`, the subtask, which becomes the level. The reference image is the first of
`similar_templates`, as in the benchmark's one-shot setting. An image is a group. Paths start at the folder that holds
DS-MVTec, MVTec-LOCO, VisA and GoodsAD.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from stages.base.errors import InputError
from stages.base.read_json import read_json
from stages.questions.drafts import Draft, list_of, text_of

PATTERN = "mmad.json"


def read(file: Path, source: Path) -> Iterator[Draft]:
    """Drafts of one file. Raises InputError when it is no JSON object of objects."""
    images = read_json(file)
    if not isinstance(images, dict) or not all(isinstance(v, dict) for v in images.values()):
        raise InputError(f"{file}: holds no JSON object from image path to questions (expected MMAD's mmad.json)")
    for image, record in images.items():
        yield from _record(image, record)


def _record(image: str, record: dict) -> Iterator[Draft]:
    name = next((k for k in record if k.startswith("conversation")), "conversation")
    try:
        items = list_of(record, name)
    except ValueError as e:
        yield Draft(f"mmad/{image}", image, image, "unknown", error=str(e))
        return
    templates = record.get("similar_templates")
    reference = templates[0] if isinstance(templates, list) and templates and isinstance(templates[0], str) else None
    for n, item in enumerate(items):
        level = item.get("type") if isinstance(item, dict) else None
        draft = Draft(f"mmad/{image}/{n}", image, image, str(level or "unknown"), reference=reference)
        try:
            choices, answer = _options(item)
            level, question = text_of(item, "type"), text_of(item, "Question")
            yield replace(draft, level=level, question=question, choices=choices, answer=answer)
        except ValueError as e:
            yield replace(draft, error=str(e))


def _options(item: object) -> tuple[tuple[str, ...], str]:
    options = item.get("Options") if isinstance(item, dict) else None
    if not isinstance(options, dict) or not options:
        raise ValueError("no object in the field `Options`")
    letter = text_of(item, "Answer")
    if letter not in options:
        raise ValueError(f"`Answer` is {letter!r}, the options are {', '.join(options)}")
    return tuple(text_of(options, k) for k in options), text_of(options, letter)
