"""What captions in free sentences say: whether a rewrite of one contradicts it or says the same in other words."""

import pytest

from stages.captions.constraints import Rejected, check_negative
from stages.captions.facts import facts

LR = "From left to right, there is a fork, a plate, and a spoon. The total number of items is three."
BINS = "In the left bin, there are two bolts. In the right bin, there are two nuts."
DESKS = "The left bin holds a long pencil and a long eraser. The right bin holds a short ruler and a short pen."
PLATE = "The plate lies to the right of the fork and to the left of the spoon."

CONTRADICT = [
    (LR, LR.replace("fork", "X").replace("spoon", "fork").replace("X", "spoon")),
    (LR, LR.replace("left to right", "right to left")),
    ("Items in this order: one fork, one plate.", "Items in this order: one plate, one fork."),
    (BINS, BINS.replace("bolts", "X").replace("nuts", "bolts").replace("X", "nuts")),
    (DESKS, DESKS.replace("long eraser", "X").replace("short pen", "long eraser").replace("X", "short pen")),
    (
        "The dish has a fig and a nut, the cup has a pea and a bean.",
        "The dish has a fig and a bean, the cup has a pea and a nut.",
    ),
    (PLATE, PLATE.replace("right", "X").replace("left", "right").replace("X", "left")),
    ("The eraser lies to the left of the pencil.", "The pencil lies to the left of the eraser."),
    ("The bolts are under the nuts.", "The bolts are over the nuts."),
    ("The plate is between the fork and the spoon.", "The fork is between the plate and the spoon."),
]
SAY_THE_SAME = [
    (LR, "From right to left, there is a spoon, a plate, and a fork. The total number of items is three."),
    (BINS, "In the right bin, there are two nuts. In the left bin, there are two bolts."),
    (DESKS, "The left bin holds a long eraser and a long pencil. The right bin holds a short pen and a short ruler."),
    (PLATE, "The plate lies to the left of the spoon and to the right of the fork."),
    ("The fork is left of the plate.", "The plate is right of the fork."),
    ("The eraser lies to the left of the pencil.", "The pencil lies to the right of the eraser."),
    ("The bolts are under the nuts.", "The nuts are over the bolts."),
    ("The plate is between the fork and the spoon.", "The plate is between the spoon and the fork."),
    ("The rope is as long as the stick.", "The stick is as long as the rope."),
    ("The dish contains two kiwifruits.", "The dish holds two kiwis."),
]


@pytest.mark.parametrize(("text", "negative"), CONTRADICT)
def test_what_contradicts_a_free_sentence(text, negative):
    assert check_negative(text, negative, [text])


@pytest.mark.parametrize(("text", "negative"), SAY_THE_SAME)
def test_what_says_the_same_of_a_free_sentence(text, negative):
    assert facts(text) == facts(negative)
    with pytest.raises(Rejected, match="no attribute changed"):
        check_negative(text, negative, [])


def test_a_place_is_kept_where_no_clause_follows_it():
    assert facts("There is a fork, on the left.") != facts("There is a fork, on the right.")
