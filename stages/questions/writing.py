"""A model that writes the four ranked answers (SAGE, section 4, step three), and the check of what it wrote."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from stages.prompts import Prompt, fill
from stages.questions.ranking import Facts, in_words
from stages.seeds import row_seed
from stages.vlm.engine import Engine, Request, Sampling

FIELDS = ("object", "facts", "caption", "question")        # of its prompt
ATTEMPTS = 5        # replies drawn before the question is given up
LINE = re.compile(r"(\d+)[.)]\s*\[(anomalous|normal)\]\s*(.*)", re.IGNORECASE)


class NotInForm(ValueError):
    """A reply that is no four ranked answers; the message says why."""


@dataclass(frozen=True)
class Task:
    """One question to be answered. facts: None for a normal image."""

    thing: str
    facts: Facts | None
    caption: str
    question: str


def written(tasks: dict[str, Task], engine: Engine, prompt: Prompt, sampling: Sampling,
            seed: int) -> Iterator[tuple[str, list[str], str | None]]:
    """(question_id, four answers, error) of every task: ask for all, check, ask again with another seed for those
    whose reply is not in form. The last error is kept when ATTEMPTS are used up."""
    waiting = dict(tasks)
    for attempt in range(1, ATTEMPTS + 1):
        asked = [Request((key,), _text(task, prompt, seed, key), (), row_seed(seed, key, attempt))
                 for key, task in waiting.items()]
        for reply in engine.run(asked, sampling) if asked else ():
            key, = reply.key
            try:
                if reply.error:
                    raise NotInForm(reply.error)
                answers, error = answers_of(reply.text or "", waiting[key].facts is not None), None
            except NotInForm as e:
                if attempt < ATTEMPTS:
                    continue
                answers, error = [], f"{e} (last of {attempt} replies)"
            del waiting[key]
            yield key, answers, error


def _text(task: Task, prompt: Prompt, seed: int, key: str) -> str:
    facts = "it is normal, without any defect."
    if task.facts:
        said = in_words(task.facts, Random(row_seed(seed, key)))
        facts = (f"it is anomalous. There is {said['defect']} {said['where']}: {said['regions']}, {said['size']} and"
                 f" {said['shape']}.")
    return fill(prompt, object=task.thing, facts=facts, caption=task.caption, question=task.question)


def answers_of(reply: str, anomalous: bool) -> list[str]:
    """The four answers of a reply, verdicts taken off.

    Raises:
        NotInForm: not exactly four numbered lines with a verdict, an empty answer, two that are alike, or a verdict
            that the rank does not allow: 1 to 3 agree with the image, 4 does not.
    """
    lines = [line.strip() for line in reply.splitlines() if line.strip() and not line.strip().startswith("```")]
    found = [LINE.fullmatch(line) for line in lines]
    if not all(found) or [m[1] for m in found] != ["1", "2", "3", "4"]:
        raise NotInForm("the reply is not four numbered lines with a verdict in brackets")
    verdicts = [m[2].lower() == "anomalous" for m in found]
    if verdicts != [anomalous] * 3 + [not anomalous]:
        raise NotInForm("the verdicts do not fit the ranks")
    answers = [m[3].strip() for m in found]
    if not all(answers):
        raise NotInForm("an answer is empty")
    if len({a.lower() for a in answers}) < 4:
        raise NotInForm("two answers are the same")
    return answers
