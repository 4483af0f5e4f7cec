"""Which questions a training can learn from; why it leaves the others out."""

from collections.abc import Mapping
from types import MappingProxyType

from stages.base.errors import InputError
from stages.datasets.manifest import Image
from stages.datasets.trainable import unreadable
from stages.questions.table import Question, Questions
from stages.sage.data import QuestionSet, RowFailed, SageSample
from stages.training import distributed

NOTHING: Mapping[str, str] = MappingProxyType({})


def learnable(
    question_set: QuestionSet, questions: Questions, quiet: bool, unjudged: Mapping[str, str] = NOTHING
) -> tuple[list[Question], list[SageSample], dict[str, str]]:
    """(questions to learn from, their samples, question_id -> why others are left out: a row with `error`, or an image
    that cannot be decoded). unjudged: of them, why an answer has no marks.

    Raises:
        InputError: as `QuestionSet.sample` does for anything else, or nothing is left.
    """
    rows, samples, left_out = [], [], questions.failed | dict(unjudged)
    for q in questions.rows:
        if q.question_id in left_out:
            continue
        try:
            samples.append(question_set.sample(q))
            rows.append(q)
        except RowFailed as e:
            left_out[q.question_id] = str(e)
    read = {i.image_id: i for s in samples for i in images_of(s)}
    broken = distributed.broadcast_from_main(lambda: unreadable(read.values(), quiet=quiet))
    for s in samples:
        if why := next((broken[i.image_id] for i in images_of(s) if i.image_id in broken), None):
            left_out[s.question_id] = f"question {s.question_id}: {why}"
    kept = [(q, s) for q, s in zip(rows, samples, strict=True) if q.question_id not in left_out]
    if not kept:
        raise InputError(f"no question can be learned from; the first: {next(iter(left_out.values()))}")
    return [q for q, _ in kept], [s for _, s in kept], left_out


def images_of(sample: SageSample) -> list[Image]:
    """All that are read for it."""
    return [*sample.shown, *filter(None, (sample.reference,))]


def left_out_said(left_out: Mapping[str, str]) -> str:
    """Of `learnable`: how many, and the first."""
    first = next(iter(left_out))
    return (
        f"{len(left_out)} questions are not trained on, as something of theirs failed before or cannot be read (all are"
        f" listed under `notes` in the record): {first}: {left_out[first]}"
    )
