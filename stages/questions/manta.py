"""MANTA's questions, as SAGE reads them: `JsonData/<domain>_QA.json`, a list of records about one image each.

A record has `domain`, `test_image` (below the domain's folder), `pair_type` and `question_answer`: items of
`question_en` and `answer`, which is true or false. The right choice is True or False; the sentences of
`conclusion_en`, which SAGE puts behind it for training, are not read. A record is a group. The released code reads no
reference image; a record that names one, as `reference_image`, keeps it.
"""

from collections.abc import Iterator
from pathlib import Path

from stages.errors import InputError
from stages.questions.ad_pl import level_of
from stages.questions.drafts import Draft, list_of, name_of, read_json, text_of

PATTERN = "*_QA.json"
CHOICES = ("True", "False")
MEANING = {"true": "True", "yes": "True", "1": "True", "false": "False", "no": "False", "0": "False"}


def read(file: Path, source: Path) -> Iterator[Draft]:
    """Drafts of one file. Raises InputError when it is no JSON list."""
    records = read_json(file)
    if not isinstance(records, list):
        raise InputError(f"{file}: holds no JSON list of records (expected MANTA's, with `test_image` and"
                         " `question_answer`)")
    for number, record in enumerate(records):
        yield from _record(f"{name_of(file, source)}/{number:06d}", record)


def _record(group: str, record: object) -> Iterator[Draft]:
    try:
        domain, level = text_of(record, "domain"), level_of(record)
        image, items = f"{domain}/{text_of(record, 'test_image')}", list_of(record, "question_answer")
        reference = f"{domain}/{text_of(record, 'reference_image')}" if record.get("reference_image") else None
    except ValueError as e:
        said = record if isinstance(record, dict) else {}
        yield Draft(group, str(said.get("test_image") or ""), group, str(said.get("pair_type") or "unknown"),
                    error=str(e))
        return
    for n, item in enumerate(items):
        draft = {"question_id": f"{group}/{n}", "image": image, "group": group, "level": level,
                 "reference": reference}
        try:
            yield Draft(**draft, question=text_of(item, "question_en"), choices=CHOICES, answer=_answer(item))
        except ValueError as e:
            yield Draft(**draft, error=str(e))


def _answer(item: dict) -> str:
    value = item.get("answer")
    if str(value).strip().lower() not in MEANING:
        raise ValueError(f"`answer` is {value!r}, expected true or false")
    return MEANING[str(value).strip().lower()]
