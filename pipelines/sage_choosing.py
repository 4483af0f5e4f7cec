"""Stop SAGE's scripts before anything is trained when their test questions cannot be asked in the way of CHOOSE.

    python -m pipelines.sage_choosing QUESTIONS CHOOSE

CHOOSE: as `adcli score --method sage --choose` has it.
"""

import sys
from pathlib import Path

from stages.base.errors import InputError
from stages.questions.answering import asked
from stages.questions.table import Question, read_questions
from stages.sage.config import WAYS

REMEDY = {
    "generate": "split the set, or take them out",
    "likelihood": "take them out, or set CHOOSE=generate, which reads the reply",
    "prefix": "set CHOOSE=generate or likelihood, or give True/False questions",
}


def main(questions: Path, choose: str) -> str | None:
    """Why they cannot; None when they all can."""
    if choose not in WAYS:
        return f"CHOOSE={choose}: expected {', '.join(WAYS)}"
    try:
        rows = read_questions(questions).rows
    except InputError as e:
        return f"TEST_QUESTIONS: {e}"
    wrong = {q.question_id: why for q in rows if (why := problem(q, choose))}
    if not wrong:
        return None
    first = next(iter(wrong))
    return (
        f"CHOOSE={choose}: {len(wrong)} of {len(rows)} questions of {questions} cannot be asked so, the first is"
        f" {first} ({wrong[first]}); {REMEDY[choose]}; nothing was trained yet"
    )


def problem(question: Question, choose: str) -> str | None:
    """Why a model cannot be asked this one."""
    if choose == "likelihood" and not question.choices:
        return "it has no choices to weigh"
    try:
        asked(question, 0, choose)
    except InputError as e:
        return str(e)
    return None


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
