"""MANTA's questions, as SAGE reads them: `JsonData/<domain>_QA.json`, a list of records about one image each.

A record has `domain`, `test_image` (below the domain's folder), `pair_type` and `question_answer`: items of
`question_en` and `answer`, which is true or false. The right choice is True or False; the sentences of
`conclusion_en`, which SAGE puts behind it for training, are not read. A record is a group. The released code reads no
reference image; a record that names one, as `reference_image`, keeps it.
"""

from collections.abc import Iterator
from pathlib import Path

from stages.questions.ad_pl import level_of
from stages.questions.drafts import Draft, drafts_of, holds, records_of, text_of

PATTERN = "*_QA.json"
CHOICES = ("True", "False")
MEANING = {"true": "True", "yes": "True", "1": "True", "false": "False", "no": "False", "0": "False"}


def read(file: Path, source: Path) -> Iterator[Draft]:
    """Drafts of one file. Raises InputError when it is no JSON list."""
    for group, record in records_of(file, source, "MANTA's"):
        yield from drafts_of(group, record, _about, _asked)


def _about(record: object) -> dict:
    domain, level = text_of(record, "domain"), level_of(record)
    return {
        "image": f"{domain}/{text_of(record, 'test_image')}",
        "level": level,
        "reference": f"{domain}/{text_of(record, 'reference_image')}" if holds(record, "reference_image") else None,
    }


def _asked(item: dict) -> dict:
    return {"question": text_of(item, "question_en"), "choices": CHOICES, "answer": _answer(item)}


def _answer(item: dict) -> str:
    value = item.get("answer")
    if str(value).strip().lower() not in MEANING:
        raise ValueError(f"`answer` is {value!r}, expected true or false")
    return MEANING[str(value).strip().lower()]
