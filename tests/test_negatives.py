"""Contradictions: the three constraints, the rules, prompts, words that differ."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.errors import InputError
from stages.negatives import reference_captions
from stages.prompts import Prompt, fill, load_prompt, prompt_ids
from stages.rewriting.constraints import Rejected, check, words_of
from stages.rewriting.rules import rewrite
from stages.wording import differing_places, differing_words

CAPTIONS = [
    "three oranges, two kiwis.", "two long blue sticks, one short red stick.",
    "left: two bolts. middle: two washers. right: two nuts.", "green tape longer than red tape.",
    "square dish: two yellow cookies. round dish: one black cookie.", "fork, plate, spoon.",
    "left: long blue eraser, long black pencil. right: short red eraser, short red pencil.",
    "red rope matches label red, rope similar to stick.", "no marks.",
    "top: two circles. middle: two triangles. bottom: two squares.",
    "top left: one orange. top right: one orange. bottom left: one white. bottom right: one white.",
    "There are three oranges and two kiwis. The total number of items is five.",
    "There is one shorter red rectangular object and two longer blue rectangular objects.",
]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(CAPTIONS), st.integers(0, 2 ** 62))
def test_every_negative_passes_the_check_and_its_edits_rebuild_it(text, seed):
    negative, edits, attempts = rewrite(text, CAPTIONS, seed)
    assert check(text, negative, CAPTIONS) == edits and attempts >= 1
    before, after = words_of(text), words_of(negative)
    assert len(before) == len(after) and negative not in CAPTIONS
    changed = [(b, a) for b, a in zip(before, after, strict=True) if b != a]
    assert changed == [(e["before"], e["after"]) for e in edits]
    assert rewrite(text, CAPTIONS, seed) == (negative, edits, attempts)


def test_all_attributes_of_a_caption_get_contradicted():
    text = "two long blue sticks, one short red stick."
    kinds = {e["attribute"] for seed in range(50) for e in rewrite(text, [text], seed)[1]}
    assert {"count", "length", "colour"} <= kinds
    orders = {rewrite("fork, plate, spoon.", ["fork, plate, spoon."], s)[0] for s in range(60)}
    assert "spoon, plate, fork." in orders                        # a swap


def test_number_agreement():
    found = {rewrite("three oranges, one kiwi.", [], s)[0] for s in range(200)}
    assert "three oranges, two kiwis." in found
    assert not any("one kiwis" in f or "two kiwi." in f or "three kiwi." in f for f in found)


@pytest.mark.parametrize(("negative", "reason"), [
    ("three oranges, two green kiwis.", "replacement only"), ("three oranges two kiwis.", "structure"),
    ("three oranges, two kiwis. really.", "structure"), ("three oranges, two kiwis.", "contradiction"),
    ("three oranges, two kiwi.", "contradiction"), ("four apples, one lemon.", "structure"),
    ("three nice, two kiwis.", "contradiction"), ("two oranges, two kiwis.", "another normal image"),
])
def test_what_is_rejected_and_why(negative, reason):
    with pytest.raises(Rejected, match=reason):
        check("three oranges, two kiwis.", negative, ["two oranges, two kiwis."])


def test_what_is_accepted():
    assert check("three oranges, two kiwis.", "Four oranges, two kiwis.", []) == [
        {"attribute": "count", "before": "three", "after": "Four"}]
    edits = check("red rope matches label red, rope similar to stick.",
                  "red rope matches label blue, rope longer than stick.", [])
    assert [e["attribute"] for e in edits] == ["colour", "length", "other"]


def test_a_caption_without_attributes_is_rejected():
    with pytest.raises(Rejected, match="no word of the caption|no attribute"):
        rewrite("something strange.", [], 0)


def test_captions_of_another_manifest():
    with pytest.raises(InputError, match="belong to other images"):
        reference_captions([{"image_id": "x", "sample": 0, "text": "t", "error": None}], (), "captions")


def test_prompts_are_files(tmp_path):
    assert {"vidad/fruits", "vidad/balls", "vidad/rewrite", "general", "magnetic-tile"} <= set(prompt_ids())
    assert len([p for p in prompt_ids() if p.startswith("vidad/")]) == 11
    (tmp_path / "own.txt").write_text("look\n")
    assert load_prompt(str(tmp_path / "own.txt")).text == "look"
    with pytest.raises(InputError, match="did you mean vidad/fruits"):
        load_prompt("vidad/fruit")
    assert fill(Prompt("p", "a {text} {other}", ""), text="b") == "a b {other}"
    with pytest.raises(InputError, match="has no {text}"):
        fill(Prompt("p", "a", ""), text="b")


def test_prompts_for_captions_do_not_speak_of_background_or_light():
    for prompt in ("general", "magnetic-tile", *(p for p in prompt_ids() if p.startswith("vidad/"))):
        text = load_prompt(prompt).text.lower()
        assert not any(w in text for w in ("background", "lighting", "illuminat", "blur", "cable", "mesh"))


def test_differing_words():
    assert differing_words("four oranges, two kiwis.", "three oranges, two kiwis.") == (["three"], ["four"])
    assert differing_words("a b", "a b") == ([], [])
    assert differing_places("fork, plate, cup.", "fork, plate, spoon.") == [False, False, True]
    one = "square dish: one black cookie. round dish: empty."
    other = "square dish: two yellow cookies. round dish: empty."
    assert differing_words(one, other) == (["two", "yellow", "cookies"], ["one", "black", "cookie"])
    assert differing_words("a b c", "a c") == ([], ["b"]) and differing_places("a b c", "a c") == [False, True, False]
