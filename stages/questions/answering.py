"""Showing a question's choices, reading which one a reply names, and whether it is right. Torch-free, shared by
every stage that answers questions."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from string import ascii_uppercase as LETTERS

from stages.base.errors import ImageError, InputError
from stages.base.prompts import fill, load_prompt
from stages.base.seeds import row_seed
from stages.datasets.manifest import Image, Task
from stages.datasets.references import references_for
from stages.questions.table import Question
from stages.questions.yes_or_no import FALLBACK, REFUSED, REFUSES, STRICT, UNPARSABLE, yes_or_no

OPTIONS = "sage/options"  # the prompt around lettered options

SUFFIX = " Answer with True or False and provide a reason."

# What may follow a letter: it is not the `A` of `A crack`.
_END = r"(?=\W*$|[.):\],;*]|\s*\n|\s+(?:[-–—]|because|since)\s)"
_LETTER = re.compile(rf"\W*([A-Za-z])\b{_END}[.):\],;*\s]*[-–—]?\s*")
_SECOND = re.compile(rf"\W*(?:(?:and|or)\b\W*)?([A-Z])\b(?:{_END}|(?=\s+(?:and|or)\b))")
_SAID = re.compile(
    r"(?i:\b(?:answer(?=\W{0,4}:|\W{1,4}is\b)\W{0,6}(?:is\W{1,6})?|(?:option|choice)\W{1,4}is\W{1,6}|"
    r"I (?:would )?(?:choose|select|pick|go with) )(?:(?:option|choice|letter)\W{1,3})?)"
    rf"([A-Z])\b(?!\W*(?:and|or|/)\W*[A-Z]\b){_END}"
)
_LETTER_SAID = re.compile(rf"\W*(?:\w+ ){{0,2}}{_SAID.pattern}[.):\],;*\s]*")
_CLAUSES = re.compile(r"(?<=[.!?;])\s+|\n+|;|\b(?:but|however|although|while|whereas)\b", re.IGNORECASE)
# Denied, doubted or only compared with: words before a choice's text in plain words, and behind it.
_UNDONE = re.compile(
    r"\b(?:no|not|cannot|never|neither|nor|none|without|unlikely|whether|if|may|might|could|perhaps|"
    r"possibly|than|instead of)\b|n t\b"
)
_UNDONE_BEHIND = re.compile(
    r"^(?: \w+){0,3} (?:\w+ t|cannot|may|might|could|(?:is|are|was|were|does|seems|appears|"
    r"looks|can|has|have|would)(?: \w+){0,2} (?:not|no|never|absent|unlikely|wrong|incorrect|"
    r"false|ruled|excluded))\b"
)
_SHORT = 4  # letters of a word that is too common to be looked for inside a sentence: yes, no, one


def shown(question: Question, seed: int) -> tuple[str, tuple[int, ...]]:
    """(the question with its choices as lettered options, order): order[i] is the index in `question.choices` of
    the option that bears the i-th letter. Without choices the question as it is, and ().

    Ranked choices are shown in an order of their own per question, drawn from `seed`: they are stored best first,
    so that A would always be right. Other sets keep their order.

    Raises:
        InputError: more choices than letters.
    """
    n = len(question.choices)
    if not n:
        return question.question, ()
    if n > len(LETTERS):
        raise InputError(f"question {question.question_id}: {n} choices; at most {len(LETTERS)} can be lettered")
    order = list(range(n))
    if question.ranked:
        Random(row_seed(seed, "options", question.question_id)).shuffle(order)
    options = "\n".join(f"{letter}. {question.choices[i]}" for letter, i in zip(LETTERS, order, strict=False))
    return fill(load_prompt(OPTIONS), question=question.question, options=options), tuple(order)


def asked_true_or_false(question: Question) -> tuple[str, tuple[int, ...]]:
    """`shown` of --choose prefix: the question with the released code's suffix; its choices are not shown. Raises
    InputError for choices other than True and False."""
    if sorted(c.lower() for c in question.choices) != ["false", "true"]:
        raise InputError("--choose prefix asks for True or False, and this question's choices are not these two")
    return question.question + SUFFIX, tuple(range(2))


def asked(question: Question, seed: int, choose: str) -> tuple[str, tuple[int, ...]]:
    """What a model that replies is asked by --choose: `asked_true_or_false` for prefix, else `shown`. Raises InputError
    as these do."""
    return asked_true_or_false(question) if choose == "prefix" else shown(question, seed)


def by_prefix(response: str, choices: Sequence[str]) -> tuple[int, str]:
    """(index of the choice, how it was found) as the released code reads a reply: True where it begins with true or
    yes, False for all else: prefix where it begins with false or no, assumed where with none of the four."""
    said = response.strip().lower()
    true = said.startswith(("true", "yes"))
    how = "prefix" if true or said.startswith(("false", "no")) else "assumed"
    return [c.lower() for c in choices].index("true" if true else "false"), how


def pictures(
    question: Question, images: Mapping[str, Image], tasks: Mapping[Task, Sequence[Image]], shots: int
) -> tuple[Path, ...]:
    """Files to show: with one shot the reference image first, then the test image.

    The reference is the question's own; for questions that name none (MANTA's) it is the first normal training image
    of the test image's category, as in the LVLM paper. images: image_id -> image; tasks: as `by_task` gives them.

    Raises:
        ImageError: one of them could not be read when it was indexed, or there is no reference.
    """
    test = images[question.image_id]
    chosen = (
        [images[question.reference_id]]
        if question.reference_id
        else references_for(test, tasks[test.task], 1, "first", 0)
        if shots
        else []
    )
    if shots and not chosen:
        raise ImageError(
            f"no reference image: the question names none and {test.category} has no normal training image"
            " (--shots 0 asks without)"
        )
    shown = (*chosen[:shots], test)
    if broken := next((i for i in shown if i.error), None):
        raise ImageError(f"{broken.image_id}: {broken.error}")
    return tuple(i.file for i in shown)


def parse_choice(text: str, options: Sequence[str]) -> tuple[int | None, str]:
    """(index in `options` as they were shown, how it was found); (None, refused or unparsable).

    strict: the reply begins with an option's letter (`B`, `(b)`, `B. The ...`) or with an option's text, the longest
    where one begins another. fallback: `the answer is B`, or sentences that name one option's text and no other,
    neither denied nor doubted. What names two options, or a letter and another option's text, is unparsable.
    """
    text = text.replace("’", "'")
    if (begun := _begins(text, options)) is not None:
        return (begun, STRICT) if begun >= 0 else (None, UNPARSABLE)
    said = [
        (LETTERS.index(m[1]), bool(_UNDONE.search(_plain(c[: m.start()]))))
        for c in _CLAUSES.split(text)
        for m in _SAID.finditer(c)
    ]
    if any(undone for _, undone in said):
        return None, UNPARSABLE
    found = {letter for letter, _ in said} or _named(text, options)
    if len(found) == 1 and min(found) < len(options):
        return found.pop(), FALLBACK
    return None, REFUSED if REFUSES.search(text) and not found else UNPARSABLE


def _begins(text: str, options: Sequence[str]) -> int | None:
    """The option that the reply begins with; -1 where its beginning contradicts itself, None for neither."""
    texts = [_plain(o) for o in options]
    every = set(range(len(texts)))
    if first := _LETTER.match(text):
        letter, rest = LETTERS.index(first[1].upper()), text[first.end() :]
        again = _SECOND.match(rest)
        if letter >= len(options) or (again and LETTERS.index(again[1]) not in (letter, *range(len(options), 26))):
            return -1
        begun = _plain(rest)
        alike = _starts(begun, texts, {letter}) is not None or _starts(begun, texts, every - {letter}) is None
        return letter if alike else -1
    plain = _plain(text)
    if set(texts) == {"yes", "no"}:
        yes, how = yes_or_no(text)
        return texts.index("yes" if yes else "no") if how == STRICT else None
    found = _starts(plain, texts, every)
    if found is not None:
        rest = plain[len(texts[found]) :].strip()
        joined = re.match(r"(?:and|or) ", rest)
        if joined and _starts(rest[joined.end() :], texts, every - {found}) is not None:
            return -1
        return found
    if (bare := re.match(r"\W*([A-Z]) ", text)) and LETTERS.index(bare[1]) < len(options):  # `B The cable is cut.`
        letter = LETTERS.index(bare[1])
        return letter if _starts(_plain(text[bare.end() :]), texts, {letter}) is not None else None
    return None


def _starts(plain: str, texts: list[str], among: set[int]) -> int | None:
    """Index of the longest of the texts that `plain` begins with, in whole words."""
    found = [i for i in among if texts[i] and f"{plain} ".startswith(f"{texts[i]} ")]
    return max(found, key=lambda i: len(texts[i]), default=None)


def _named(text: str, options: Sequence[str]) -> set[int]:
    """Options whose text stands in a sentence, neither denied nor doubted; none where one of them is a word that
    sentences are full of."""
    texts = [_plain(o) for o in options]
    if any(" " not in t and len(t) < _SHORT for t in texts):
        return set()
    found = set()
    for clause in map(_plain, _CLAUSES.split(text)):
        for i in sorted(range(len(texts)), key=lambda i: -len(texts[i])):  # `deep scratch` before `scratch`
            if at := re.search(rf"\b{re.escape(texts[i])}\b", clause):
                if not (_UNDONE.search(clause[: at.start()]) or _UNDONE_BEHIND.match(clause[at.end() :])):
                    found.add(i)
                clause = f"{clause[: at.start()]}{'_' * len(texts[i])}{clause[at.end() :]}"
    return found


def _plain(text: str) -> str:
    """Words alone, lower case, single blanks."""
    return re.sub(r"\W+", " ", text.lower()).strip()


def in_words(response: str | None, question: Question) -> str | None:
    """What a reply says beside the letter of an option (`B.`, `The best answer is B.`); None where that is all it
    says, or there is no reply."""
    if response is None:
        return None
    first = (_LETTER.match(response) or _LETTER_SAID.match(response)) if question.choices else None
    return response[first.end() if first else 0 :].strip() or None


def row(
    question: Question,
    method: str,
    order: Sequence[int],
    *,
    response: str | None = None,
    probabilities: Mapping[str, float] | None = None,
    tokens: Sequence[int] | None = None,
    prefix: bool = False,
    error: str | None = None,
    seconds: float | None = None,
) -> dict:
    """A row of ANSWERS. order: as `shown` gave it. probabilities: letter -> probability, where the choice is made by
    likelihood: the most probable letter is chosen and no text is read; tokens: of each choice shown, where its words
    were weighed. error: why there is neither.

    Without choices the response is kept and `choice` is null; `correct` is null where the right answer is unknown.
    """
    columns: dict[str, object] = {
        "question_id": question.question_id,
        "method": method,
        "response": response,
        "seconds": seconds,
    }
    if error is not None:
        return columns | {"error": error}
    if not question.choices:
        return columns | ({} if (response or "").strip() else {"error": "the model gave an empty answer"})
    if probabilities is not None:
        place, how, error = _likeliest(probabilities, len(order))
        given = dict(zip(order, (probabilities.get(letter) for letter in LETTERS), strict=False))
        columns |= {"response": None, "likelihoods": [given[i] for i in range(len(order))]}
        if tokens:
            columns["choice_tokens"] = [tokens[order.index(i)] for i in range(len(order))]
    elif prefix:
        place, how = by_prefix(response or "", [question.choices[i] for i in order])
    else:
        place, how = parse_choice(response or "", [question.choices[i] for i in order])
        error = None if place is not None else f"the answer names none of the options ({how})"
    if place is None:
        return columns | {"parsed": how, "error": error}
    choice = order[place]
    right = None if question.answer is None else question.choices[choice] == question.answer
    return columns | {"parsed": how, "choice": choice, "correct": right}


def _likeliest(probabilities: Mapping[str, float], n: int) -> tuple[int | None, None, str | None]:
    """(place of the most probable of the first n letters, None, why there is none)."""
    values = [probabilities.get(letter, 0.0) for letter in LETTERS[:n]]
    best = [i for i, v in enumerate(values) if v == max(values)]
    if max(values) <= 0:
        return None, None, f"the engine gives no probability to any of {', '.join(LETTERS[:n])}"
    if len(best) > 1:
        return None, None, f"{' and '.join(LETTERS[i] for i in best)} are equally likely"
    return best[0], None, None
