"""Ranked answers: masks in words, wordings, what each rank says, and what its form gives away."""

import re
from collections import Counter
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from stages.base.errors import InputError
from stages.base.prompts import load_prompt, prompt_ids
from stages.questions.geometry import CELLS, COLUMNS, ROWS, geometry_of, shape_of, ways_to_say
from stages.questions.ranking import GENERIC, KINDS, Facts, NothingWrong, in_words, ranked_answers, wrong_about
from stages.questions.templates import defect_in_words, filled, object_in_words, sections


def rectangle(top, left, height, width, shape=(90, 120)):
    mask = np.zeros(shape, bool)
    mask[top : top + height, left : left + width] = True
    return mask


# -- masks in words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "top", "left"),
    [((row, column), 30 * r + 10, 40 * c + 15) for r, row in enumerate(ROWS) for c, column in enumerate(COLUMNS)],
)
def test_the_nine_places(place, top, left):
    found = geometry_of(rectangle(top, left, 8, 8))
    assert (found.place, found.spread, found.regions, found.shape) == (place, "alone", 1, "compact")
    assert place not in found.free and len([p for p in found.free if "all" not in p]) == 8
    assert len([p for p in found.free if "all" in p]) == 4  # two rows and two columns without it
    assert found.size == "small"  # 64 of 10 800 pixels: 0.6 %


def test_sizes_by_area_share():
    shape = (100, 100)
    for pixels, size in (
        (1, "tiny"),
        (10, "tiny"),
        (11, "small"),
        (100, "small"),
        (101, "medium-sized"),
        (500, "medium-sized"),
        (501, "large"),
        (2000, "large"),
        (2001, "very large"),
    ):
        mask = np.zeros(10_000, bool)
        mask[:pixels] = True
        assert geometry_of(mask.reshape(shape)).size == size, pixels


def test_shapes_of_rectangles_are_length_to_width():
    assert shape_of(rectangle(10, 10, 10, 15)) == "compact"  # 1.5
    assert shape_of(rectangle(10, 10, 10, 17)) == "slightly elongated"  # 1.7
    assert shape_of(rectangle(10, 10, 10, 29)) == "slightly elongated"
    assert shape_of(rectangle(10, 10, 10, 30)) == "elongated horizontally"
    assert shape_of(rectangle(10, 10, 30, 10)) == "elongated vertically"
    assert shape_of(rectangle(10, 10, 1, 1)) == "compact"
    diagonal = np.eye(50, dtype=bool)
    assert shape_of(diagonal) == "elongated along a diagonal that falls to the right"
    assert shape_of(diagonal[::-1]) == "elongated along a diagonal that rises to the right"


def test_what_crosses_the_image():
    tall = geometry_of(rectangle(5, 100, 70, 4))
    assert tall.place == ("all", "right") and "down the right side" in ways_to_say(tall.place)[0]
    assert ("all", "left") in tall.free and ("all", "middle") in tall.free and ("upper", "right") not in tall.free
    assert geometry_of(rectangle(80, 5, 4, 100)).place == ("lower", "all")
    assert geometry_of(rectangle(2, 2, 85, 115)).place == ("all", "all")
    assert geometry_of(np.ones((9, 9), bool)).free == ()


def test_several_regions():
    two = rectangle(5, 5, 10, 10) | rectangle(70, 100, 8, 8)  # 100 and 64 pixels
    found = geometry_of(two)
    assert (found.place, found.spread, found.regions, found.shape) == (("upper", "left"), "mainly", 2, "compact")
    three = two | rectangle(40, 50, 9, 9)  # and 81: none is half of it
    assert (geometry_of(three).spread, geometry_of(three).regions) == ("largest", 3)
    assert geometry_of(three).shape == "scattered"
    assert geometry_of(rectangle(5, 5, 10, 10) | rectangle(20, 20, 8, 8)).spread == "alone"  # in one cell
    ragged = rectangle(5, 5, 10, 10) | rectangle(70, 100, 2, 2)
    assert geometry_of(ragged).regions == 1 and ("lower", "right") not in geometry_of(ragged).free
    touching = rectangle(5, 5, 10, 10) | rectangle(15, 15, 10, 10)
    assert geometry_of(touching).regions == 1  # by a corner


def test_places_can_be_told_apart():
    places = [*CELLS, *((r, "all") for r in ROWS), *(("all", c) for c in COLUMNS), ("all", "all")]
    said = [phrase for place in places for phrase in ways_to_say(place)]
    assert len(set(said)) == len(said)


# -- wordings -------------------------------------------------------------------------------------------------


def test_names_in_words():
    assert defect_in_words("broken_large").phrase == "a large breakage"
    assert defect_in_words("Crack") == defect_in_words("crack") and defect_in_words("crack").family == "fracture"
    both = defect_in_words("scratch,leak")
    assert both.phrase == "a scratch and a leak" and both.family == "surface"
    assert defect_in_words("wobble").phrase == 'a defect of the kind "wobble"' and defect_in_words("wobble").named
    assert not defect_in_words("bad").named and not defect_in_words(None).named
    assert [object_in_words(c) for c in ("metal_nut", "pcb1", "01", "Class10", "tile")] == [
        "metal nut",
        "pcb",
        "product",
        "product",
        "tile",
    ]


def test_sentences_begin_with_a_capital_letter():
    assert filled("{defect}, at 3.5 mm. {x}? no: one.", {"defect": "a crack", "x": "it is"}) == (
        "A crack, at 3.5 mm. It is? No: one."
    )
    with pytest.raises(InputError, match="no field {wher}"):
        filled("in {wher}", {"where": "x"})


def test_every_wording_can_be_filled():
    fields = {"object": "tile", "consequence": "it breaks"} | in_words(
        Facts(defect_in_words("crack"), geometry_of(rectangle(1, 1, 5, 5))), Random(0)
    )
    titles = {"question", "anomalous", "anomalous, partial", "normal", "normal, partial", "normal, wrong"}
    for kind in KINDS:
        assert set(sections(kind)) == titles and all(len(lines) > 3 for lines in sections(kind).values())
        for lines in sections(kind).values():
            for line in lines:
                text = filled(line, fields)
                assert re.match(r"[A-Z]", text) and text[-1] in ".?" and "{" not in text and "  " not in text
        for line in sections(kind)["anomalous"]:
            assert "{defect}" in line and "{where}" in line and "{consequence}" in line
        assert not any("{defect}" in line or "{where}" in line for line in sections(kind)["normal"])
        assert not any("{defect}" in s and "{where}" in s for s in sections(kind)["anomalous, partial"])
    families = {defect_in_words(n).family for n in ("crack", "bad", "wobble")} | set(sections("defects"))
    assert families == set(sections("consequences"))
    for name in ("blowhole", "break", "crack", "fray", "uneven", *GENERIC):
        assert "of the kind" not in defect_in_words(name).phrase
    for name in [p for p in prompt_ids() if p.startswith("sage/questions/")]:
        assert load_prompt(name).text


NAMES = ("blowhole", "blowhole", "break", "crack")


def some_facts(rng, name=None):
    top, left = rng.randrange(80), rng.randrange(110)
    mask = rectangle(top, left, rng.randrange(1, 10), rng.randrange(1, 10))
    return Facts(defect_in_words(name or rng.choice(NAMES)), geometry_of(mask))


def phrases_of(facts):
    return ways_to_say(facts.geometry.place)


def test_answers_say_what_their_rank_says():
    rng = Random(0)
    for n in range(600):
        facts, kind = some_facts(rng), rng.choice(list(KINDS))
        best, partial, wrong, opposite = ranked_answers(kind, "tile", facts, NAMES, Random(n))
        own = facts.defect.phrase.lower()
        assert own in best.lower() and any(p in best.lower() for p in phrases_of(facts))
        assert not (own in partial.lower() and any(p in partial.lower() for p in phrases_of(facts)))
        right = [own in wrong.lower(), any(p in wrong.lower() for p in phrases_of(facts))]
        assert right.count(False) == 1 or (kind == "extent" and right == [True, True]), wrong
        if right == [True, True]:
            assert facts.geometry.size not in wrong.lower().replace("medium-sized", "medium").split()
        assert not any(d in opposite.lower() for d in ("blowhole", "break ", "crack"))
        assert ranked_answers(kind, "tile", facts, NAMES, Random(n)) == [best, partial, wrong, opposite]
        assert len({best, partial, wrong, opposite}) == 4


def test_answers_about_normal_images():
    for n in range(300):
        kind = list(KINDS)[n % 5]
        best, partial, wrong, opposite = ranked_answers(kind, "tile", None, NAMES, Random(n))
        names = ("blowhole", "break", "crack")
        assert not any(name in best.lower() or name in partial.lower() for name in names)
        assert any(name in opposite.lower() for name in names) and len({best, partial, wrong, opposite}) == 4
        assert any(p in wrong.lower() for place in CELLS for p in ways_to_say(place))
        if kind == "verdict":
            assert [a[:2] for a in (best, partial, wrong, opposite)] == ["No", "No", "No", "Ye"]


def test_a_wrong_place_holds_no_pixel_of_the_mask_and_a_wrong_kind_is_one_that_it_cannot_be():
    crack = Facts(defect_in_words("crack"), geometry_of(rectangle(25, 30, 40, 60)))  # in all nine cells
    about = Counter()
    for n in range(400):
        wrong = wrong_about(crack, NAMES, "extent", Random(n))
        g = wrong.geometry
        changed = (wrong.defect != crack.defect, g.place != crack.geometry.place, g.size != crack.geometry.size)
        assert changed.count(True) == 1
        about[changed.index(True)] += 1
        assert g.place == crack.geometry.place or g.place in crack.geometry.free
        assert g.size == crack.geometry.size or (
            g.size in ("tiny", "small", "medium-sized", "large")
            and (crack.geometry.size == "very large" or g.size != "medium-sized")
        )
    assert crack.geometry.free == () and set(about) == {0, 2}
    spot = Facts(defect_in_words("bad"), geometry_of(rectangle(5, 5, 5, 5)))
    assert {wrong_about(spot, ("bad", "crack"), "defect", Random(n)).defect for n in range(30)} == {spot.defect}
    pair = Facts(defect_in_words("scratch,leak"), geometry_of(np.ones((9, 9), bool)))
    kinds = {wrong_about(pair, ("scratch", "leak", "bent"), "defect", Random(n)).defect.phrase for n in range(30)}
    assert kinds == {"a bent part"}, "a scratch is not wrong where there is one"
    alone = {wrong_about(pair, ("scratch,leak",), "defect", Random(n)).defect.phrase for n in range(30)}
    assert alone == {"contamination", "a crack"}, "generic ones where the task knows no other"
    with pytest.raises(NothingWrong, match="no wrong answer"):
        wrong_about(replace(pair, defect=spot.defect), ("bad",), "verdict", Random(0))


def many(anomalous, n=1500):
    rng = Random(1)
    return [
        ranked_answers(kind, "tile", some_facts(rng) if anomalous else None, NAMES, rng)
        for _ in range(n // 5)
        for kind in KINDS
    ]


@pytest.mark.slow
def test_length_does_not_tell_the_rank():
    lengths = np.array([[len(a) for a in answers] for answers in many(True) + many(False)])
    longest = np.bincount(lengths.argmax(1), minlength=4) / len(lengths)
    shortest = np.bincount(lengths.argmin(1), minlength=4) / len(lengths)
    assert all(0.1 < share < 0.4 for share in longest), longest
    assert all(0.1 < share < 0.42 for share in shortest), shortest
    ranks = {tuple(row.argsort().tolist()) for row in lengths}
    assert len(ranks) == 24, "every order of lengths occurs"
    mean = lengths.mean(0)
    assert mean.max() / mean.min() < 1.25, mean


@pytest.mark.slow
def test_words_alone_do_not_tell_the_verdict_nor_the_wrong_detail():
    """A linear model on words, which sees no image: near chance between the best answer and the one with the wrong
    verdict, and on anomalous images between the best and the one with the wrong detail."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    def pairs_told(sets, other):
        half = len(sets) // 2
        texts = [a for answers in sets for a in (answers[0], answers[other])]
        words = CountVectorizer(ngram_range=(1, 2), min_df=2, binary=True).fit(texts[: 2 * half])
        model = LogisticRegression(C=0.3, max_iter=500).fit(words.transform(texts[: 2 * half]), [1, 0] * half)
        scores = model.decision_function(words.transform(texts[2 * half :])).reshape(-1, 2)
        return (scores[:, 0] > scores[:, 1]).mean()

    both = [answers for pair in zip(many(True), many(False), strict=True) for answers in pair]
    assert 0.4 < pairs_told(both, 3) < 0.6
    assert 0.4 < pairs_told(many(True), 2) < 0.68


@pytest.mark.slow
def test_no_opening_belongs_to_one_rank():
    sets = many(True) + many(False)
    openings = [Counter(" ".join(a[rank].split()[:2]) for a in sets) for rank in range(4)]
    for rank, counter in enumerate(openings):
        opening, n = counter.most_common(1)[0]
        assert n < 0.2 * len(sets), (rank, opening)
