"""A model that writes the four ranked answers (SAGE, section 4, step three), and the check of what it wrote."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from stages.base.prompts import Prompt, fill
from stages.base.seeds import row_seed
from stages.questions.ranking import Facts, in_words
from stages.vlm.engine import Engine, Request, Sampling

FIELDS = ("object", "facts", "caption", "question")  # of its prompt
ATTEMPTS = 5  # replies drawn before the question is given up
LINE = re.compile(r"(\d+)[.)]\s*\[(anomalous|normal)\]\s*(.*)", re.IGNORECASE)


@dataclass(frozen=True)
class Written:
    """The reply to one task: four answers, or `error`; retry: as in QUESTIONS."""

    question_id: str
    answers: tuple[str, ...] = ()
    error: str | None = None
    retry: bool | None = None


class NotInForm(ValueError):
    """A reply that is no four ranked answers; the message says why."""


@dataclass(frozen=True)
class Task:
    """One question to be answered. facts: None for a normal image."""

    thing: str
    facts: Facts | None
    caption: str
    question: str


def written(tasks: dict[str, Task], engine: Engine, prompt: Prompt, sampling: Sampling, seed: int) -> Iterator[Written]:
    """Every task's: ask for all, check, ask again with another seed for those whose reply is not in form. The last
    error is kept when ATTEMPTS are used up, and is final when each of them got a reply."""
    waiting, faults = dict(tasks), set()
    for attempt in range(1, ATTEMPTS + 1):
        asked = [
            Request((key,), _text(task, prompt, seed, key), (), row_seed(seed, key, attempt))
            for key, task in waiting.items()
        ]
        for reply in engine.run(asked, sampling) if asked else ():
            (key,) = reply.key
            try:
                if reply.error:
                    faults |= {key} if reply.retry is None else set()
                    raise NotInForm(reply.error)
                result = Written(key, tuple(answers_of(reply.text or "", waiting[key].facts is not None)))
            except NotInForm as e:
                if attempt < ATTEMPTS:
                    continue
                result = Written(key, error=f"{e} (last of {attempt} replies)", retry=None if key in faults else False)
            del waiting[key]
            yield result


def _text(task: Task, prompt: Prompt, seed: int, key: str) -> str:
    facts = "it is normal, without any defect."
    if task.facts:
        words = in_words(task.facts, Random(row_seed(seed, key)))
        facts = (
            f"it is anomalous. There is {words['defect']} {words['where']}: {words['regions']}, {words['size']} and"
            f" {words['shape']}."
        )
    return fill(prompt, object=task.thing, facts=facts, caption=task.caption, question=task.question)


def answers_of(reply: str, anomalous: bool) -> list[str]:
    """The four answers of a reply, verdicts taken off.

    Raises:
        NotInForm: not exactly four numbered lines with a verdict, an empty answer, two that are alike, or a verdict
            that the rank does not allow: 1 to 3 agree with the image, 4 does not.
    """
    lines = [line.strip() for line in reply.splitlines() if line.strip() and not line.strip().startswith("```")]
    matches = [m for line in lines if (m := LINE.fullmatch(line))]
    if len(matches) < len(lines) or [m[1] for m in matches] != ["1", "2", "3", "4"]:
        raise NotInForm("the reply is not four numbered lines with a verdict in brackets")
    verdicts = [m[2].lower() == "anomalous" for m in matches]
    if verdicts != [anomalous] * 3 + [not anomalous]:
        raise NotInForm("the verdicts do not fit the ranks")
    answers = [m[3].strip() for m in matches]
    if not all(answers):
        raise NotInForm("an answer is empty")
    if len({a.lower() for a in answers}) < 4:
        raise NotInForm("two answers are the same")
    return answers
