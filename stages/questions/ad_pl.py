"""AD-PL: a list of records, each an image pair and some questions with answers from best to worst.

A record has `pair_type`, `test_image`, `reference_image` and `question_answer`: items of `question_en` and
`answer_options`, each with `answer_en`, best first (SAGE, section 4; field names as its format checker has them).
The Chinese twins of the fields are not read. A record is a group.
"""

from collections.abc import Iterator
from pathlib import Path

from stages.errors import InputError
from stages.questions.drafts import Draft, list_of, name_of, read_json, text_of

PATTERN = "*.json"
LEVEL = {"standard comparison": "standard", "defect identification": "identification",
         "defect diagnosis": "reasoning"}


def read(file: Path, source: Path) -> Iterator[Draft]:
    """Drafts of one file. Raises InputError when it is no JSON list."""
    records = read_json(file)
    if not isinstance(records, list):
        raise InputError(f"{file}: holds no JSON list of records (expected AD-PL's, with `test_image` and"
                         " `question_answer`)")
    for number, record in enumerate(records):
        yield from _record(f"{name_of(file, source)}/{number:06d}", record)


def _record(group: str, record: object) -> Iterator[Draft]:
    try:
        image, level = text_of(record, "test_image"), level_of(record)
        reference, items = text_of(record, "reference_image"), list_of(record, "question_answer")
    except ValueError as e:
        said = record if isinstance(record, dict) else {}
        yield Draft(group, str(said.get("test_image") or ""), group, str(said.get("pair_type") or "unknown"),
                    error=str(e))
        return
    for n, item in enumerate(items):
        draft = {"question_id": f"{group}/{n}", "image": image, "group": group, "level": level,
                 "reference": reference}
        try:
            answers = tuple(text_of(a, "answer_en") for a in list_of(item, "answer_options"))
            yield Draft(**draft, question=text_of(item, "question_en"), choices=answers, answer=answers[0], ranked=True)
        except ValueError as e:
            yield Draft(**draft, error=str(e))


def level_of(record: dict) -> str:
    """SAGE's name of a record's `pair_type`. Raises ValueError, in words, for any other."""
    kind = text_of(record, "pair_type").lower()
    if kind not in LEVEL:
        raise ValueError(f"`pair_type` is {kind!r}, expected {', '.join(LEVEL)}")
    return LEVEL[kind]
