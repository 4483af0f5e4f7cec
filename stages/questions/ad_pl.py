"""AD-PL: a list of records, each an image pair and some questions with answers from best to worst.

A record has `pair_type`, `test_image`, `reference_image` and `question_answer`: items of `question_en` and
`answer_options`, each with `answer_en`, best first (SAGE, section 4; field names as its format checker has them).
The Chinese twins of the fields are not read. A record is a group.
"""

from collections.abc import Iterator
from pathlib import Path

from stages.questions.drafts import Draft, drafts_of, list_of, records_of, text_of

PATTERN = "*.json"
LEVEL = {"standard comparison": "standard", "defect identification": "identification", "defect diagnosis": "reasoning"}


def read(file: Path, source: Path) -> Iterator[Draft]:
    """Drafts of one file. Raises InputError when it is no JSON list."""
    for group, record in records_of(file, source, "AD-PL's"):
        yield from drafts_of(group, record, _about, _asked)


def _about(record: object) -> dict:
    return {
        "image": text_of(record, "test_image"),
        "level": level_of(record),
        "reference": text_of(record, "reference_image"),
    }


def _asked(item: dict) -> dict:
    answers = tuple(text_of(a, "answer_en") for a in list_of(item, "answer_options"))
    return {"question": text_of(item, "question_en"), "choices": answers, "answer": answers[0], "ranked": True}


def level_of(record: object) -> str:
    """SAGE's name of a record's `pair_type`. Raises ValueError, in words, for any other."""
    kind = text_of(record, "pair_type").lower()
    if kind not in LEVEL:
        raise ValueError(f"`pair_type` is {kind!r}, expected {', '.join(LEVEL)}")
    return LEVEL[kind]
