"""Options shown, replies read, rows made: no guessing, and a letter that means the choice it stood for."""

from collections import Counter

import pytest

from stages.base.errors import InputError
from stages.questions.answering import LETTERS, in_words, parse_choice, row, shown
from stages.questions.table import Question

DEFECTS = ("a crack", "a deep scratch", "scratch", "no damage is visible")
ENDS = ("Yes", "Yes, and it will fail", "No", "Cannot be told")


def question(name="q", choices=DEFECTS, ranked=True, answer=0):
    return Question(
        name,
        "d/c/1.png",
        None,
        "g",
        "standard",
        "What is wrong?",
        tuple(choices),
        choices[answer] if choices else "A crack at the top.",
        ranked,
    )


@pytest.mark.parametrize(
    ("reply", "choice", "how"),
    [
        ("B", 1, "strict"),
        (" (b) ", 1, "strict"),
        ("**B.** It is long.", 1, "strict"),
        ("C) scratch", 2, "strict"),
        ("B: because of the line", 1, "strict"),
        ("D\nThe surface is clean.", 3, "strict"),
        ("A crack", 0, "strict"),
        ("a crack at the rim", 0, "strict"),
        ("A deep scratch.", 1, "strict"),
        ("Scratch, top left.", 2, "strict"),
        ("C scratch", 2, "strict"),
        ("B. A deep scratch runs across.", 1, "strict"),
        ("A - a crack", 0, "strict"),
        ("D. No damage is visible", 3, "strict"),
        ("A. A crack. B is wrong.", 0, "strict"),
        ("The answer is B.", 1, "fallback"),
        ("**Answer:** C", 2, "fallback"),
        ("The correct option is (D).", 3, "fallback"),
        ("The best choice is B, a long line.", 1, "fallback"),
        ("I would choose option A because it is open.", 0, "fallback"),
        ("I can see a crack near the rim.", 0, "fallback"),
        ("It is not a scratch; it is a crack.", 0, "fallback"),
        ("There is a crack, not a scratch.", 0, "fallback"),
        ("Here a deep scratch is clear.", 1, "fallback"),
        ("A broken part is shown.", None, "unparsable"),
        ("A or B", None, "unparsable"),
        ("A, B", None, "unparsable"),
        ("A and C.", None, "unparsable"),
        ("E", None, "unparsable"),
        ("B. A crack is visible.", None, "unparsable"),
        ("The answer is A or B.", None, "unparsable"),
        ("The answer is A. No, the answer is B.", None, "unparsable"),
        ("I do not think the answer is B.", None, "unparsable"),
        ("Option B is wrong.", None, "unparsable"),
        ("The answer is not B.", None, "unparsable"),
        ("The answer is a broken part", None, "unparsable"),
        ("There is a crack or a scratch here.", None, "unparsable"),
        ("It may be a crack.", None, "unparsable"),
        ("Here a scratch is not visible.", None, "unparsable"),
        ("Here a crack isn't seen.", None, "unparsable"),
        ("I cannot say whether it is a crack.", None, "refused"),
        ("", None, "unparsable"),
        ("...", None, "unparsable"),
        ("I'm sorry, I can't help with that.", None, "refused"),
        ("I am sorry, but a crack is what I see.", 0, "fallback"),
    ],
)
def test_replies_by_hand(reply, choice, how):
    assert parse_choice(reply, DEFECTS) == (choice, how)


@pytest.mark.parametrize(
    ("reply", "choice", "how"),
    [
        ("Yes", 0, "strict"),
        ("Yes, and it will fail.", 1, "strict"),
        ("No, it is whole.", 2, "strict"),
        ("Yes or no?", None, "unparsable"),
        ("The part says yes.", None, "unparsable"),
        ("A. Yes, and it will fail", 0, "strict"),
        ("C. Yes", None, "unparsable"),
    ],
)
def test_one_option_may_begin_another(reply, choice, how):
    assert parse_choice(reply, ENDS) == (choice, how)


def test_yes_and_no_alone():
    assert parse_choice("No doubt there is a crack.", ("Yes", "No")) == (None, "unparsable")
    assert parse_choice("No, there is none.", ("Yes", "No")) == (1, "strict")
    assert parse_choice("B. No", ("Yes", "No")) == (1, "strict")
    assert parse_choice("There is no crack.", ("Yes", "No")) == (None, "unparsable")


def test_ranked_choices_are_shown_in_a_seeded_order_of_their_own():
    text, order = shown(question(), 0)
    assert text.splitlines()[0] == "What is wrong?" and sorted(order) == [0, 1, 2, 3]
    assert text.splitlines()[1:5] == [f"{LETTERS[i]}. {DEFECTS[c]}" for i, c in enumerate(order)]
    assert shown(question(), 0) == (text, order) and shown(question(ranked=False), 0)[1] == (0, 1, 2, 3)
    first = Counter(shown(question(f"q{n}"), 0)[1].index(0) for n in range(400))
    assert all(70 < first[place] < 130 for place in range(4)), "the right letter is as often one as another"
    assert len({shown(question(), seed)[1] for seed in range(20)}) > 10
    assert shown(question(choices=()), 0) == ("What is wrong?", ())
    with pytest.raises(InputError, match="q: 27 choices; at most 26"):
        shown(question(choices=[f"c{n}" for n in range(27)]), 0)


def test_braces_in_a_question_stay():
    odd = Question("q", "i", None, None, "standard", "What does {options} say?", ("x1", "y1"), "x1", False)
    assert shown(odd, 0)[0].startswith("What does {options} say?\nA. x1\nB. y1\n")


def test_rows_map_the_letter_back_to_the_choice():
    q, order = question(), (2, 0, 3, 1)
    right = row(q, "m", order, response="B. It is open.", seconds=0.5)
    assert right == {
        "question_id": "q",
        "method": "m",
        "response": "B. It is open.",
        "seconds": 0.5,
        "parsed": "strict",
        "choice": 0,
        "correct": True,
    }
    assert {k: row(q, "m", order, response="A")[k] for k in ("choice", "correct")} == {"choice": 2, "correct": False}
    assert row(q, "m", order, response="a deep scratch, I think")["choice"] == 1, "by text, wherever it was shown"
    babble = row(q, "m", order, response="zzz")
    assert babble["response"] == "zzz" and "choice" not in babble and "(unparsable)" in babble["error"]
    assert row(q, "m", order, error="no such image")["error"] == "no such image"
    unknown = Question("q", "i", None, None, "x", "?", ("one", "two"), None, False)
    assert row(unknown, "m", (0, 1), response="B") | {"seconds": 0} == {
        "question_id": "q",
        "method": "m",
        "response": "B",
        "seconds": 0,
        "parsed": "strict",
        "choice": 1,
        "correct": None,
    }


def test_rows_by_likelihood():
    q, order = question(), (2, 0, 3, 1)
    chosen = row(q, "m", order, response="ignored", probabilities={"A": 0.1, "B": 0.02, "C": 0.03, "D": 0.4})
    assert (chosen["choice"], chosen["correct"], chosen["response"], chosen["parsed"]) == (1, False, None, None)
    assert chosen["likelihoods"] == [0.02, 0.4, 0.1, 0.03], "in the question's order, not in that of the letters"
    weighed = row(q, "m", order, tokens=[7, 5, 9, 6], probabilities={"A": 0.1, "B": 0.02, "C": 0.03, "D": 0.4})
    assert weighed["choice_tokens"] == [5, 6, 7, 9], "in the question's order, too"
    tie = row(q, "m", order, probabilities={"A": 0.2, "B": 0.2, "C": 0.1, "D": 0.0})
    assert tie["error"] == "A and B are equally likely" and "choice" not in tie
    assert "no probability" in row(q, "m", order, probabilities={})["error"]


def test_open_questions_keep_the_reply():
    q = question(choices=())
    assert row(q, "m", (), response="A crack.") == {
        "question_id": "q",
        "method": "m",
        "response": "A crack.",
        "seconds": None,
    }
    assert "empty" in row(q, "m", (), response=" ")["error"]


def test_what_a_reply_says_beside_its_letter():
    q = question()
    assert in_words("B. A line runs across.", q) == "A line runs across."
    assert in_words("(B) - a line", q) == "a line" and in_words("**B**", q) is None and in_words(None, q) is None
    assert in_words("A crack at the rim", q) == "A crack at the rim"
    assert in_words("The best answer is B. A line runs across.", q) == "A line runs across."
    assert in_words("**Answer:** B", q) is None and in_words("I would choose option B.", q) is None
    assert in_words("The answer is a line", q) == "The answer is a line"
    assert in_words("A, then B", question(choices=())) == "A, then B"
