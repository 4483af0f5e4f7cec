"""Contradictions: the three constraints, the rules, prompts, words that differ."""

import re
import shutil
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.artifacts import tables
from stages.artifacts.reader import read_table
from stages.artifacts.tables import MANIFEST, NEGATIVES
from stages.artifacts.writer import Artifact, Spec
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.base.prompts import Prompt, fill, load_prompt, prompt_ids
from stages.captions.caption import prompt_for
from stages.captions.constraints import Rejected, check_negative, mended, words_of
from stages.captions.negatives import NegativesConfig, reference_captions, run
from stages.captions.rules import rewrite
from stages.captions.vocabulary import meanings, named
from stages.captions.wording import differing_places, differing_words
from stages.datasets.manifest import Image
from stages.datasets.vidad import SCENARIOS

CAPTIONS = [
    "three oranges, two kiwis.",
    "two long blue sticks, one short red stick.",
    "left: two bolts. middle: two washers. right: two nuts.",
    "green tape longer than red tape.",
    "square dish: two yellow cookies. round dish: one black cookie.",
    "fork, plate, spoon.",
    "left: long blue eraser, long black pencil. right: short red eraser, short red pencil.",
    "red rope matches label red, rope similar to stick.",
    "no marks.",
    "top: two circles. middle: two triangles. bottom: two squares.",
    "top left: one orange. top right: one orange. bottom left: one white. bottom right: one white.",
    "There are three oranges and two kiwis. The total number of items is five.",
    "There is one shorter red rectangular object and two longer blue rectangular objects.",
]


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.sampled_from(CAPTIONS), st.integers(0, 2**62))
def test_every_negative_passes_the_check_and_its_edits_rebuild_it(text, seed):
    negative, edits, attempts = rewrite(text, CAPTIONS, seed)
    assert check_negative(text, negative, CAPTIONS) == edits and attempts >= 1
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
    assert "spoon, plate, fork." in orders  # a swap


def test_number_agreement():
    found = {rewrite("three oranges, one kiwi.", [], s)[0] for s in range(200)}
    assert "three oranges, two kiwis." in found
    assert not any("one kiwis" in f or "two kiwi." in f or "three kiwi." in f for f in found)


@pytest.mark.parametrize(
    ("negative", "reason"),
    [
        ("three oranges, two green kiwis.", "replacement only"),
        ("three oranges two kiwis.", "structure"),
        ("three oranges, two kiwis. really.", "structure"),
        ("three oranges, two kiwis.", "contradiction"),
        ("three oranges, two kiwi.", "contradiction"),
        ("3 oranges, 2 kiwis.", "contradiction"),
        ("two kiwis, three oranges.", "contradiction"),
        ("three of, two kiwis.", "structure"),
        ("two oranges, two kiwis.", "another normal image"),
    ],
)
def test_what_is_rejected_and_why(negative, reason):
    with pytest.raises(Rejected, match=reason):
        check_negative("three oranges, two kiwis.", negative, ["two oranges, two kiwis."])


def test_what_is_accepted():
    assert check_negative("three oranges, two kiwis.", "Four oranges, two kiwis.", []) == [
        {"attribute": "count", "before": "three", "after": "Four"}
    ]
    edits = check_negative(
        "red rope matches label red, rope similar to stick.", "red rope matches label blue, rope longer than stick.", []
    )
    assert [e["attribute"] for e in edits] == ["colour", "length", "other"]


GOOD = [
    ("three orange, two kiwi.", "four apple, one banana."),
    ("three orange, two kiwi.", "three pear, two kiwi."),  # a pear is in no list of ours
    ("three mango, two papaya.", "three papaya, two mango."),
    ("fork, plate, spoon.", "plate, spoon, fork."),
    ("ladle, tray, whisk.", "whisk, tray, ladle."),  # pure order, of words that no list has
    ("green tape longer than red tape.", "red tape longer than green tape."),
    ("top: two circles. bottom: two squares.", "top: two squares. bottom: two circles."),
    ("There are three oranges and two kiwis.", "There are two oranges and three kiwis."),
    ("no marks.", "several marks."),
]
BAD = [
    ("three orange, two kiwi.", "three oranges, two kiwis."),
    ("There are three oranges and two kiwis.", "There are two kiwis and three oranges."),
    ("The total number of items is five.", "The total number of objects is 5."),
    ("top: two circles. bottom: two squares.", "bottom: two squares. top: two circles."),
    ("green tape longer than red tape.", "red tape shorter than green tape."),
    ("rope similar to stick.", "stick similar to rope."),
    ("The red cup is above the blue cup.", "The blue cup is below the red cup."),
    ("There is one red ball.", "There is a red ball."),
    ("fork, plate, spoon.", "fork , plate , spoon ."),
]


@pytest.mark.parametrize(("text", "negative"), GOOD)
def test_what_contradicts(text, negative):
    assert any(e["attribute"] != "other" for e in check_negative(text, negative, [text]))


@pytest.mark.parametrize(("text", "negative"), BAD)
def test_what_says_the_same_or_is_no_replacement(text, negative):
    with pytest.raises(Rejected):
        check_negative(text, negative, [])


def test_a_negative_is_not_what_another_normal_caption_says_in_other_words():
    with pytest.raises(Rejected, match="another normal image"):
        check_negative("three oranges, two kiwis.", "four oranges, two kiwis.", ["2 kiwis, 4 oranges."])


@pytest.mark.parametrize(
    "answer",
    [
        "Description: two orange, three kiwi.",
        "**Rewritten description:** two orange, three kiwi.",
        "Here is the contradicting caption: two orange, three kiwi",
        '"two orange, three kiwi."',
        "Form: “two orange, three kiwi”",
        "two orange, three kiwi",
    ],
)
def test_labels_quotes_and_a_missing_full_stop_are_mended(answer):
    assert mended("three orange, two kiwi.", answer) == "two orange, three kiwi."


def test_what_the_caption_has_itself_is_not_taken_off():
    assert mended('"A" left of "B"', '"B" left of "A"') == '"B" left of "A"'
    assert mended("Text: red label.", "Text: blue label.") == "Text: blue label."


def test_a_caption_without_attributes_is_rejected():
    with pytest.raises(Rejected, match="no word of the caption|no attribute"):
        rewrite("something strange.", [], 0)


def test_captions_of_another_manifest():
    with pytest.raises(InputError, match="belong to other images"):
        reference_captions([{"image_id": "x", "sample": 0, "text": "t", "error": None}], (), "captions")


def test_prompts_are_files(tmp_path):
    assert {"vidad/fruits", "vidad/balls", "vidad/rewrite", "general", "magnetic-tile"} <= set(prompt_ids())
    assert len([p for p in prompt_ids() if p.startswith("vidad/")]) == 21
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


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_model_is_asked_in_free_sentences_without_the_renderers_words(scenario):
    image = Image("i", "i.png", "vidad", scenario, None, "train", 0, None, (), None, None, None)
    closed, free = (prompt_for(image, "auto", vlm) for vlm in ("scene", "qwen2-vl"))
    assert (closed.id, free.id) == (f"vidad/{scenario}", f"vidad/models/{scenario}")
    question, example = free.text.splitlines()[:2], free.text.splitlines()[-1]
    assert "<" not in free.text and "total number of" in example and example.endswith(".")
    slots = re.findall(r"^(?:Types|Colours): (.*)$", closed.text, re.MULTILINE)
    words = {w for line in slots for w in line.split(", ")}
    assert words and not [w for w in words if w in example and w not in " ".join(question)]


def test_differing_words():
    assert differing_words("four oranges, two kiwis.", "three oranges, two kiwis.") == (["three"], ["four"])
    assert differing_words("a b", "a b") == ([], [])
    assert differing_places("fork, plate, cup.", "fork, plate, spoon.") == [False, False, True]
    one = "square dish: one black cookie. round dish: empty."
    other = "square dish: two yellow cookies. round dish: empty."
    assert differing_words(one, other) == (["two", "yellow", "cookies"], ["one", "black", "cookie"])
    assert differing_words("a b c", "a c") == ([], ["b"]) and differing_places("a b c", "a c") == [False, True, False]


def write_captions(path, texts):
    """Captions of normal training images; bytes that are no UTF-8 as they are, as a foreign writer may."""
    values = pa.array([t if isinstance(t, bytes) else t.encode() for t in texts.values()], pa.binary())
    names = list(texts)
    pq.write_table(
        pa.table(
            {
                "image_id": names,
                "prompt_id": ["p"] * len(names),
                "sample": pa.array([0] * len(names), pa.int32()),
                "text": pa.Array.from_buffers(pa.string(), len(values), values.buffers()),
            }
        ),
        path / "c.parquet",
    )
    rows = [
        {
            "image_id": i,
            "path": f"{i}.png",
            "dataset": "d",
            "category": "c",
            "split": "train",
            "label": 0,
            "mask_paths": [],
        }
        for i in names
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=MANIFEST.schema), path / "m.parquet")
    return NegativesConfig(captions=path / "c.parquet", manifest=path / "m.parquet", out=path / "n")


def negatives(config):
    return {r["image_id"]: r for r in read_table(config.out, NEGATIVES).to_pylist()}


def test_a_caption_of_megabytes_is_one_failed_row_and_so_is_one_that_is_no_text(tmp_path):
    """Neither holds up or ends the others. The long one has every word in a group with several readings."""
    good = "three oranges, two kiwis."
    config = write_captions(
        tmp_path,
        {
            "good": good,
            "long": "orange middle square left of " * 170_000,
            "half": b"two \xed\xa0\x80 bolts.",
            "latin": "zwei Bl\u00f6cke".encode("latin1"),
            "other": "two long blue sticks.",
            "dull": "something strange.",
        },
    )
    summary = run(config, RunOptions(quiet=True))
    rows = negatives(config)
    assert summary.errors == 4 and rows["good"]["negative"] and rows["other"]["negative"]
    assert rows["long"]["error"] == "a caption of 4,930,000 characters; more than 20,000 are not rewritten"
    assert rows["half"]["error"] == "no caption: column `text` is not UTF-8 text (two \\xed\\xa0\\x80 bolts.)"
    assert "Bl\\xf6cke" in rows["latin"]["error"]
    assert [rows[i]["retry"] for i in ("long", "dull", "half", "good")] == [False, False, None, None]


def test_a_key_that_is_no_text_is_one_line(tmp_path):
    config = write_captions(tmp_path, {"a": "one bolt.", "b": "one bolt."})
    table = pq.read_table(config.captions)
    bad = pa.array([b"a", b"b\xff"], pa.binary())
    table = table.set_column(0, "image_id", pa.Array.from_buffers(pa.string(), 2, bad.buffers()))
    pq.write_table(table, config.captions)
    with pytest.raises(InputError, match="c.parquet: column `image_id`, row 1: not UTF-8 text") as e:
        run(config, RunOptions(quiet=True))
    assert "\n" not in str(e.value) and not config.out.exists()


def test_looking_for_the_company_of_words_is_linear():
    """A caption of ambiguous words alone: what is looked up grows with its length, not with its square."""

    class Counted(set):
        looked = 0

        def __contains__(self, word):
            Counted.looked += 1
            return set.__contains__(self, word)

    for n in (500, 2000):
        words, Counted.looked = ["orange", "middle", "square"] * n, 0
        present = Counted(named(words))
        assert all(len(meanings(words, i, present)) == 1 for i in range(0, len(words), 3))
        assert Counted.looked <= 40 * len(words)


@pytest.mark.slow
def test_a_model_whose_rewrites_are_all_refused_is_asked_five_times_and_no_more(tmp_path):
    """Final for what it said five times; not where a try got no answer."""
    from tests.vlm.test_server_engine import Faulty

    faults = iter(["400"])
    server = Faulty(lambda text: next(faults, None) if "sticks" in text else None)
    server.say = lambda body, text: "nothing like it"
    config = write_captions(tmp_path, {"good": "three oranges, two kiwis.", "shaky": "two long blue sticks."})
    config = replace(config, rewriter="tiny", engine="server", base_url=server.url, retries=0)
    run(config, RunOptions(quiet=True))
    rows = negatives(config)
    assert {i: (r["attempts"], r["retry"]) for i, r in rows.items()} == {"good": (5, False), "shaky": (5, None)}
    assert all("last of 5 rewrites" in r["error"] for r in rows.values())


def test_what_a_model_answers_is_kept_unchecked_as_in_the_paper(tmp_path):
    from tests.vlm.test_server_engine import Faulty

    server = Faulty(lambda text: None)
    said = {"three kiwi.": "two kiwi", "one blue ball.": "The image shows apples.", "one long rope.": ""}
    server.say = lambda body, text: next(answer for caption, answer in said.items() if caption in text)
    config = write_captions(tmp_path, dict(zip("abc", said, strict=True)))
    config = replace(config, rewriter="tiny", engine="server", base_url=server.url, keep_unchecked=True)
    run(config, RunOptions(quiet=True, max_errors=0))
    a, b, c = (negatives(config)[i] for i in "abc")
    assert a["negative"] == "two kiwi." and len(a["edits"]) == 1 and a["attempts"] == 1
    assert b["negative"] == "The image shows apples." and b["edits"] == [] and b["error"] is None
    assert c["negative"] is None and c["error"] and c["attempts"] == 5  # an empty answer is no text


def test_long_texts_are_compared_from_both_ends():
    a = [f"w{i}" for i in range(2000)]
    b = [*a[:300], "new", *a[700:]]
    missing, extra = differing_words(" ".join(a), " ".join(b))
    assert missing == ["new"] and extra == a[300:700]
    places = differing_places(" ".join(a), " ".join(b))
    assert [i for i, differs in enumerate(places) if differs] == list(range(300, 700))
    assert differing_words("x " * 600, "x " * 601) == (["x"], [])


def test_rewrites_of_an_earlier_adcli_are_up_to_date_and_new_ones_outlast_a_caption_that_is_made_again(
    tmp_path, monkeypatch
):
    """The key had what captions say; it has how they were made now, and each row is compared with its caption."""
    config = write_captions(tmp_path, {"a": "one bolt.", "b": "two nuts."})
    config = replace(config, captions=tmp_path / "captions")
    keys = [(i, "p", 0) for i in "ab"]

    def caption(**texts):
        with Artifact(
            config.captions, tables.CAPTIONS, Spec("caption", {}, {}), keys, RunOptions(quiet=True)
        ) as artifact:
            for key in artifact.pending:
                said = {"text": texts[key[0]]} if key[0] in texts else {"error": "no answer"}
                artifact.write(dict(zip(tables.CAPTIONS.key, key, strict=True)) | said)

    caption(a="one bolt.", b="two nuts.")
    with monkeypatch.context() as patch:
        patch.setattr("stages.captions.negatives.made_key", lambda path: "")
        assert run(config, RunOptions(quiet=True)).written == 2
    assert run(config, RunOptions(quiet=True)).up_to_date

    shutil.rmtree(config.captions), shutil.rmtree(config.out)
    caption(a="one bolt.")
    assert run(config, RunOptions(quiet=True)).errors == 1
    caption(b="two nuts.")
    summary = run(config, RunOptions(quiet=True))
    assert (summary.written, summary.errors) == (1, 0) and negatives(config)["b"]["text"] == "two nuts."
    assert run(config, RunOptions(quiet=True)).up_to_date
