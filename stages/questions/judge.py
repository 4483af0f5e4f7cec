"""Multiscale Logical Evaluation: a judge marks answers in 1..5 for category, location and logic (SAGE, Eq. 3).

The judge sees the test image (the question's reference image before it), the question, the expert's best answer and
the answer to be marked. The paper's judge is GPT-4o with a prompt that it does not print; here it is any engine with
prompts/judge/mle.txt, or the embedded comparison of words.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from stages.artifacts.reader import fingerprint, read_table
from stages.artifacts.tables import ANSWERS, JUDGEMENTS
from stages.artifacts.writer import Artifact, Spec, Summary
from stages.base.config import RunOptions, named_paths
from stages.base.errors import ImageError, InputError
from stages.base.prompts import fill, load_prompt
from stages.base.seeds import row_seed, source_fingerprint
from stages.datasets.files import look_at
from stages.datasets.manifest import Image, read_manifest
from stages.questions import words_judge
from stages.questions.answering import in_words, pictures
from stages.questions.config import WORDS, JudgeConfig
from stages.questions.mle import AXES, FORMS, parse_marks, parse_released
from stages.questions.table import Question, Questions, check_images, read_questions
from stages.vlm.engine import Engine, Request, Sampling
from stages.vlm.factory import check_engine, make_engine
from stages.vlm.options import engine_parameters

PROMPTS = {"strict": "judge/mle", "released": "judge/released"}
HEAT = {"strict": 0.0, "released": 0.2}  # temperature of the first try
BLOCK = 256  # answers whose malformed replies are asked for again before the next ones are judged
AGAIN = 0.7  # temperature of further tries: at 0 a model would say the same again


@dataclass(frozen=True)
class Subject:
    """One answer to be judged; files: the images for the judge; error: why it cannot be judged."""

    question: Question | None
    text: str = ""
    files: tuple[Path, ...] = ()
    error: str | None = None

    @property
    def asked(self) -> tuple[str, str]:
        """(question, expert's answer) of one that can be judged: without `error`."""
        assert self.question is not None and self.question.answer is not None
        return self.question.question, self.question.answer


def run(config: JudgeConfig, options: RunOptions) -> Summary:
    """Judge every answer. A reply that never has the stated form is a row with `error` and the raw text, without
    marks, and final (`retry` is false) after --tries; an answer that says nothing and a question without an expert's
    answer are rows with `error`, too.

    Raises:
        InputError: answers to other questions, questions about other images, nothing to judge, or no such judge.
    """
    if config.judge == "scene":
        raise InputError("--judge scene describes images, it cannot judge: give a model, or words")
    if config.form not in FORMS:
        raise InputError(f"--form {config.form}: expected {' or '.join(FORMS)}")
    if config.judge == WORDS and config.form != FORMS[0]:
        raise InputError(f"--form {config.form}: of a model's replies, which --judge words has not")
    check_engine(config.judge, config, "--judge", (WORDS,))
    if config.temperature is None:
        config = replace(config, temperature=HEAT[config.form])
    questions, manifest = read_questions(config.questions), read_manifest(config.manifest, config.root)
    images = check_images(questions, manifest)
    inputs = {"questions": questions.fingerprint, "manifest": manifest.fingerprint}
    if config.answers:
        answers = read_table(config.answers, ANSWERS)
        subjects = _answered(answers.to_pylist(), questions, config.answers)
        inputs["answers"] = fingerprint(answers, ANSWERS)
    else:
        subjects = _choices(questions, config.questions)
    engine = None if config.judge == WORDS else make_engine(config.judge, config)
    parameters: dict[str, object] = {"method": config.method, "judge": config.judge}
    seen = bool(engine) and config.form == "strict"
    files = look_at(config.out, options.quiet, images=images.values() if seen else ())
    if engine:
        if seen:
            subjects = {key: _with_images(subject, images) for key, subject in subjects.items()}
            inputs["image files"] = files.images
        parameters |= {
            "weights": engine.fingerprint,
            "prompt": load_prompt(PROMPTS[config.form]).text,
            "form": config.form,
            "tries": config.tries,
            "temperature": config.temperature,
            "max_tokens": config.max_tokens,
        }
        parameters |= engine_parameters(config.judge, config)
    else:
        parameters["code"] = source_fingerprint(Path(words_judge.__file__))
    spec = Spec(
        "score", parameters, inputs, config.seed, {"caveat": engine.caveat if engine else ""}, named_paths(config)
    )
    with Artifact(config.out, JUDGEMENTS, spec, list(subjects), options) as artifact:
        files.keep(config.out)
        if config.answers and (strangers := len(answers) - len(subjects)):
            artifact.progress.say(f"{strangers} answers are to other questions and are left out")
        sound = {}
        for key in artifact.pending:
            if error := subjects[key].error:
                artifact.write(_row(key, error=error), tried=False)
            else:
                sound[key] = subjects[key]
        zeros = 0
        for row in by_engine(engine, sound, config) if engine else by_words(sound):
            artifact.write(row)
            zeros += sum(row.get(axis) == 0 for axis in AXES)
            artifact.ran_on = engine.ran_on if engine else "cpu"
        if zeros:
            artifact.progress.say(f"{zeros} marks are 0: the replies lack them (--form released)")
    return artifact.summary


def _answered(rows: list[dict], questions: Questions, path: Path) -> dict[tuple, Subject]:
    """Key -> what each row of ANSWERS says: its words, or the text of the choice that it made."""
    asked = {q.question_id: q for q in questions.rows}
    answered = [r for r in rows if r["question_id"] in asked or r["question_id"] in questions.failed]
    if not answered:
        raise InputError(f"{path}: answers none of these questions; give the questions that were asked")
    subjects = {}
    for r in answered:
        question = asked.get(r["question_id"])
        text = in_words(r["response"], question) if question else None
        if question and text is None and r["choice"] is not None:
            text = question.choices[r["choice"]]
        subjects[r["question_id"], r["method"]] = _subject(question, text, r["error"] or "an empty answer")
    return subjects


def _choices(questions: Questions, path: Path) -> dict[tuple, Subject]:
    subjects = {
        (q.question_id, f"choice/{i}"): _subject(q, choice, "")
        for q in questions.rows
        for i, choice in enumerate(q.choices)
    }
    if not subjects:
        raise InputError(f"{path}: its questions have no choices; give the answers to judge with --answers")
    return subjects | {(i, "choice/0"): Subject(None, error=error) for i, error in questions.failed.items()}


def _subject(question: Question | None, text: str | None, error: str) -> Subject:
    if question is None or not text:
        return Subject(question, error=f"no answer to judge: {error}")
    if question.answer is None:
        return Subject(question, error="the question has no expert's answer to judge by")
    return Subject(question, text)


def _with_images(subject: Subject, images: dict[str, Image]) -> Subject:
    question = subject.question
    if subject.error or question is None:
        return subject
    try:
        return replace(subject, files=pictures(question, images, {}, 1 if question.reference_id else 0))
    except ImageError as e:
        return replace(subject, error=str(e))


def by_words(subjects: dict[tuple, Subject]) -> Iterator[dict]:
    """Rows of JUDGEMENTS by the embedded judge."""
    for key, subject in subjects.items():
        marks, raw = words_judge.marks(subject.text, subject.asked[1])
        yield _row(key, **marks, raw=raw)


def by_engine(engine: Engine, subjects: dict[tuple, Subject], config: JudgeConfig) -> Iterator[dict]:
    """Rows of JUDGEMENTS by a model, in blocks: a malformed reply is asked for again, with another seed, before the
    next block begins, so that a judge that cannot keep the form is found out early."""
    keys = list(subjects)
    for start in range(0, len(keys), BLOCK):
        left = keys[start : start + BLOCK]
        costs: dict[tuple, list[dict]] = {}
        first = HEAT[config.form] if config.temperature is None else config.temperature
        for attempt in range(config.tries):
            requests = [_request(key, subjects[key], config, attempt) for key in left]
            left = []
            heat = max(first, AGAIN) if attempt else first
            for reply in engine.run(requests, Sampling(heat, 1.0, config.max_tokens)) if requests else ():
                marks, wrong = _marks(reply.text or "", config.form)
                costs.setdefault(reply.key, []).append(reply.cost)
                cost = _summed(costs[reply.key])
                if reply.error:
                    yield _row(reply.key, raw=reply.text, error=reply.error, retry=reply.retry, **cost)
                elif wrong:
                    yield _row(reply.key, raw=reply.text, error=wrong, retry=False, **cost)
                elif marks:
                    yield _row(reply.key, **marks, raw=reply.text, **cost)
                elif attempt + 1 < config.tries:
                    left.append(reply.key)
                else:
                    yield _row(
                        reply.key,
                        raw=reply.text,
                        error=f"the judge's reply has not the stated form ({config.tries} tries)",
                        retry=False,
                        **cost,
                    )


def _marks(reply: str, form: str) -> tuple[Mapping[str, int] | None, str]:
    """(marks, or None; why a reply of the released form cannot be kept, empty where another try is due)."""
    if form == "strict":
        return parse_marks(reply), ""
    found = parse_released(reply)
    if odd := [v for v in found.values() if v != v or v % 1 or not -128 <= v <= 127]:
        return None, f"a mark of {odd[0]:g}, no whole number"
    return {axis: int(v) for axis, v in found.items()}, ""


def _summed(costs: list[dict]) -> dict:
    """Tokens and seconds over all tries of one row; null where no try has the number."""
    known = {name: [c[name] for c in costs if c[name] is not None] for name in costs[0]}
    return {name: sum(values) if values else None for name, values in known.items()}


def _request(key: tuple, subject: Subject, config: JudgeConfig, attempt: int) -> Request:
    asked, best = subject.asked
    text = fill(load_prompt(PROMPTS[config.form]), question=asked, best=best, answer=subject.text)
    return Request(key, text, subject.files, row_seed(config.seed, *key, attempt))


def _row(key: tuple, **columns: object) -> dict:
    return dict(zip(JUDGEMENTS.key, key, strict=True)) | columns
