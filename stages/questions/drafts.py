"""What an importer reads from a foreign file: questions whose images are still paths as that file has them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stages.base.errors import InputError
from stages.base.read_json import read_json


@dataclass(frozen=True)
class Draft:
    """A question before its images are looked up. image, reference: paths as the file has them; error: why the
    file does not say what is asked."""

    question_id: str
    image: str
    group: str | None
    level: str
    question: str = ""
    choices: tuple[str, ...] = ()
    answer: str | None = None
    ranked: bool = False
    reference: str | None = None
    error: str | None = None


def source_files(source: Path, pattern: str) -> list[Path]:
    """The file itself, or the files below a folder that fit `pattern`. Raises InputError when there is none."""
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise InputError(f"{source}: no such file or directory")
    files = sorted(p for p in source.rglob(pattern) if p.is_file())
    if not files:
        raise InputError(f"{source}: no file {pattern} below this folder")
    return files


def records_of(file: Path, source: Path, whose: str) -> Iterator[tuple[str, object]]:
    """(group, record) of a file that is a list of them. Raises InputError when it is no JSON list."""
    records = read_json(file)
    if not isinstance(records, list):
        raise InputError(
            f"{file}: holds no JSON list of records (expected {whose}, with `test_image` and `question_answer`)"
        )
    for number, record in enumerate(records):
        yield f"{name_of(file, source)}/{number:06d}", record


def drafts_of(
    group: str, record: object, about: Callable[[object], dict], asked: Callable[[dict], dict]
) -> Iterator[Draft]:
    """A draft for each item of a record's `question_answer`, and one with `error` for what cannot be read.

    about: a record's image, level and reference; asked: an item's question, choices and answer. Both raise ValueError,
    in words.
    """
    try:
        same = about(record) | {"group": group}
        items = list_of(record, "question_answer")
    except ValueError as e:
        fields = record if isinstance(record, dict) else {}
        yield Draft(
            group, str(fields.get("test_image") or ""), group, str(fields.get("pair_type") or "unknown"), error=str(e)
        )
        return
    for n, item in enumerate(items):
        try:
            yield Draft(f"{group}/{n}", **same, **asked(item))
        except ValueError as e:
            yield Draft(f"{group}/{n}", **same, error=str(e))


def name_of(file: Path, source: Path) -> str:
    """'JsonData/tubes.json' below the source folder JsonData -> 'tubes': unique among the files of one source."""
    inside = file.relative_to(source) if file != source else Path(file.name)
    return inside.with_suffix("").as_posix()


def holds(record: object, field: str) -> bool:
    """Whether a record has a field and something in it."""
    return isinstance(record, dict) and bool(record.get(field))


def text_of(record: object, field: str) -> str:
    """A field that must hold text. Raises ValueError, in words, when it does not."""
    value = record.get(field) if isinstance(record, dict) else None
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"no text in the field `{field}`")
    return value.strip()


def list_of(record: object, field: str) -> list:
    """A field that must hold a list with something in it. Raises ValueError, in words, when it does not."""
    value = record.get(field) if isinstance(record, dict) else None
    if not isinstance(value, list) or not value:
        raise ValueError(f"no list in the field `{field}`")
    return value
