"""Yes or no from what models write, and None where they do not say."""

import pytest

from stages.questions.yes_or_no import yes_or_no


@pytest.mark.parametrize(
    ("text", "yes"),
    [
        ("Yes", True),
        ("no", False),
        ("NO.", False),
        (" **Yes**, the cable is swapped.", True),
        ("'No'", False),
        ("yes\nThe second image has a crack.", True),
        ("No, there is an anomaly in neither.", False),
        ("No differences.", False),
        ("Yes - see the top edge; no other part is damaged.", True),
    ],
)
def test_first_word_decides_whatever_follows(text, yes):
    assert yes_or_no(text) == (yes, "strict")


@pytest.mark.parametrize(
    ("text", "yes"),
    [
        ("Answer: Yes.", True),
        ("The answer is **no**.", False),
        ("My verdict: no, it is intact.", False),
        ("There is no anomaly in the second image compared to the first image.", False),
        ("The second image shows an anomaly at the rim.", True),
        ("There's a defect.", True),
        ("**Answer:** Yes", True),
        ("Reply: **No**", False),
        ("I cannot see any anomalies.", False),
        ("There is no doubt that the second image has an anomaly.", True),
        ("No doubt, the second image has an anomaly.", True),
        ("There are no visible anomalies, defects or damage.", False),
        ("The second image does not match the first image and has a defect on the rim.", True),
        ("The transistor has no lead on the left, which is a defect.", True),
        ("I don’t see any irregularities.", False),
        ("It is free of defects.", False),
        ("Not anomalous.", False),
        ("The object is damaged.", True),
        ("The images look alike. The second does not have any flaw.", False),
        ("The first image has no defects. The second image has a defect.", True),
        ("The lighting has changed, but there is no anomaly.", False),
        ("It is unclear whether the edge is damaged. There is an anomaly on the left.", True),
    ],
)
def test_sentences_that_agree(text, yes):
    assert yes_or_no(text) == (yes, "fallback")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "...",
        "Yesterday was fine.",
        "Nothing to say.",
        "A bottle on a table.",
        "Yes or no?",
        "Yes and no.",
        "No doubt about it.",
        "yes/no",
        "It is not clear whether there is an anomaly.",
        "There may be an anomaly.",
        "Compared to the first image, which has no defects, the second image has a visible crack and damage.",
        "Unlike the first image, which shows no damage, the second image shows a damaged rim.",
        "There is an anomaly: a scratch near the top, with no other damage visible.",
        "The second image has a defect, but it is without damage.",
        "Answer: yes. Answer: no.",
        "The second image has a scratch.",
    ],
)
def test_no_guess(text):
    assert yes_or_no(text) == (None, "unparsable")


@pytest.mark.parametrize("text", ["I'm sorry, but I can't help with that.", "I cannot compare these images."])
def test_refusals_have_their_name(text):
    assert yes_or_no(text) == (None, "refused")
