"""RIAD's texts: JSON lists of records about one image each, with question and answer on description, impact and
suggestion.

VMAD's paper says that masks and text are stored as JSON and that each text is one of these three types; the files
themselves were not at hand, so that both ways to write this down are read: a record with `image` and one field per
type that holds `question` and `answer`, or a record per question with `image`, `type`, `question` and `answer`. COCO
files, which hold the masks, are passed over.
"""

from collections.abc import Iterator
from pathlib import Path

from stages.base.errors import InputError
from stages.base.read_json import read_json
from stages.questions.drafts import Draft, name_of, text_of

PATTERN = "*.json"
TYPES = ("description", "impact", "suggestion")


def read(file: Path, source: Path) -> Iterator[Draft]:
    """Drafts of one file. Raises InputError when it is neither a list of records nor COCO."""
    records = read_json(file)
    if isinstance(records, dict) and "annotations" in records:
        return
    if not isinstance(records, list):
        raise InputError(
            f"{file}: neither a JSON list of records with `image` and {', '.join(TYPES)}, nor COCO annotations"
        )
    for number, record in enumerate(records):
        yield from _record(f"{name_of(file, source)}/{number:06d}", record)


def _record(name: str, record: object) -> Iterator[Draft]:
    try:
        image = text_of(record, "image")
        assert isinstance(record, dict)  # text_of has raised otherwise
        items = {record["type"]: record} if "type" in record else {t: record[t] for t in TYPES if t in record}
        if not items or set(items) - set(TYPES):
            raise ValueError(f"expected {', '.join(TYPES)} as fields or as `type`")
    except (ValueError, TypeError) as e:
        fields = record if isinstance(record, dict) else {}
        yield Draft(name, str(fields.get("image") or ""), None, "unknown", error=str(e))
        return
    for kind, item in items.items():
        try:
            yield Draft(f"{name}/{kind}", image, image, kind, text_of(item, "question"), answer=text_of(item, "answer"))
        except ValueError as e:
            yield Draft(f"{name}/{kind}", image, image, kind, error=f"{kind}: {e}")
