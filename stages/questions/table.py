"""Reading questions about images: our artifact, or any Parquet file that fits the schema."""

from dataclasses import dataclass
from pathlib import Path

from stages.artifacts.reader import fingerprint, read_table
from stages.artifacts.tables import QUESTIONS
from stages.base.errors import InputError
from stages.datasets.manifest import Image, Manifest


@dataclass(frozen=True)
class Question:
    """A row of QUESTIONS that can be asked. choices: empty for free text; best first where `ranked`. answer: one
    of the choices where there are any; None where nobody knows it."""

    question_id: str
    image_id: str
    reference_id: str | None
    group: str | None
    level: str
    question: str
    choices: tuple[str, ...]
    answer: str | None
    ranked: bool


@dataclass(frozen=True)
class Questions:
    """rows: in order of question_id; failed: question_id -> `error` of the rows that have one, for stages to carry
    on and to count; fingerprint: of what the whole table says, for cache keys."""

    rows: tuple[Question, ...]
    failed: dict[str, str]
    fingerprint: str


def read_questions(path: Path) -> Questions:
    """Read and check a table of questions.

    Raises:
        InputError: see `read_table` (two rows with one question_id among it); a question that `problem` finds
            fault with; or no question that can be asked.
    """
    table = read_table(path, QUESTIONS)
    rows, failed = [], {}
    for row in table.to_pylist():
        if row["error"] is not None:
            failed[row["question_id"]] = row["error"]
            continue
        if wrong := problem(row):
            raise InputError(f"{path}: question {row['question_id']}: {wrong}")
        rows.append(
            Question(
                row["question_id"],
                row["image_id"],
                row["reference_id"],
                row["group"],
                row["level"],
                row["question"],
                tuple(row["choices"]),
                row["answer"],
                bool(row["ranked"]),
            )
        )
    if not rows:
        first = next((f"; the first: {error}" for error in failed.values()), "")
        raise InputError(f"{path}: holds no question that can be asked ({len(failed)} rows with `error`{first})")
    return Questions(tuple(rows), failed, fingerprint(table, QUESTIONS))


def problem(row: dict) -> str | None:
    """Why a row of QUESTIONS cannot be asked or learned from; None when it can. An answer may be missing only
    where the choices are not ranked."""
    choices, answer = list(row.get("choices") or ()), row.get("answer")
    if not (row.get("question") or "").strip():
        return "column `question` is empty"
    if any(not (choice or "").strip() for choice in choices):
        return "one of its `choices` is empty"
    if len(set(choices)) < len(choices):
        return "two of its `choices` are the same"
    if row.get("ranked"):
        if len(choices) < 2:
            return f"a preference set needs two answers or more in `choices`, this one has {len(choices)}"
        if answer != choices[0]:
            return "`ranked` says best first, but `answer` is not the first of the `choices`"
    if choices and answer is not None and answer not in choices:
        return f"`answer` {answer[:80]!r} is none of the `choices`"
    return None


def check_images(questions: Questions, manifest: Manifest) -> dict[str, Image]:
    """image_id -> image of every test and reference image that the questions are about.

    Raises:
        InputError: one is not in the manifest, or a question shows one image twice.
    """
    images = {i.image_id: i for i in manifest.images}
    used = {}
    for q in questions.rows:
        if q.reference_id == q.image_id:
            raise InputError(
                f"question {q.question_id}: {q.image_id} is both its test image and its reference image;"
                " give another `reference_id`"
            )
        for what, image_id in (("test", q.image_id), ("reference", q.reference_id)):
            if image_id is None:
                continue
            if image_id not in images:
                raise InputError(
                    f"question {q.question_id}: its {what} image {image_id} is not in the manifest; give"
                    " the manifest that the questions were made for"
                )
            used[image_id] = images[image_id]
    return used
