"""Conversations as InternVL's trainers read them, one JSON object a line (or one JSON array of them).

Two kinds of lines. `image` and `conversations`, turns of `from` (human or gpt) and `value`: every pair of turns is a
question of its own, with a free answer; what was said before it is not repeated. `image`, `question`, `chosen` and
`rejected`: a preference set of two. `image` may be a list of two, then the first is the test image and the second the
reference image, the order of SAGE's notation. These lines know no levels: they are called `conversation` and
`preference`. The turns of one line are a group; a question that is alone in its line belongs to none.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from stages.base.read_json import read_json_lines
from stages.questions.drafts import Draft, list_of, name_of, text_of

PATTERN = "*.jsonl"
PLACEHOLDER = re.compile(r"(?:Image-\d+:\s*)?<image>\s*")


def read(file: Path, source: Path) -> Iterator[Draft]:
    """Drafts of one file. Raises InputError that names the line when one is no JSON."""
    for number, line in read_json_lines(file):
        yield from _line(f"{name_of(file, source)}/{number:06d}", line)


def _line(key: str, line: object) -> Iterator[Draft]:
    preference = isinstance(line, dict) and ("chosen" in line or "rejected" in line)
    level = "preference" if preference else "conversation"
    image = ""
    asked: list[tuple[str, tuple[str, ...], str]]
    try:
        image, reference = _images(line)
        if preference:
            answers = (text_of(line, "chosen"), text_of(line, "rejected"))
            asked = [(text_of(line, "question"), answers, answers[0])]
        else:
            asked = [(question, (), answer) for question, answer in _turns(line)]
    except ValueError as e:
        yield Draft(key, image, None, level, error=str(e))
        return
    for n, (question, choices, answer) in enumerate(asked):
        yield Draft(
            f"{key}/{n}",
            image,
            key if len(asked) > 1 else None,
            level,
            PLACEHOLDER.sub("", question).strip(),
            choices,
            answer,
            preference,
            reference,
        )


def _images(line: object) -> tuple[str, str | None]:
    paths = line.get("image") if isinstance(line, dict) else None
    paths = paths if isinstance(paths, list) else [paths]
    if not all(isinstance(i, str) and i for i in paths):
        raise ValueError("no path in the field `image`")
    if len(paths) not in (1, 2):
        raise ValueError(f"{len(paths)} images, expected a test image, or a test and a reference image")
    return paths[0], next(iter(paths[1:]), None)


def _turns(line: object) -> list[tuple[str, str]]:
    turns = list_of(line, "conversations")
    speakers = [t.get("from") if isinstance(t, dict) else None for t in turns]
    if len(turns) % 2 or speakers != ["human", "gpt"] * (len(turns) // 2):
        raise ValueError("`conversations` must alternate between human and gpt, from human on")
    values = [text_of(t, "value") for t in turns]
    return list(zip(values[::2], values[1::2], strict=True))
