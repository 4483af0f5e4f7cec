"""The builder of ranked answers: masks in words, wordings, rows; with a model that writes; facts."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from stages import caption
from stages.artifacts.reader import read_table
from stages.artifacts.tables import CAPTIONS, MANIFEST, QUESTIONS
from stages.datasets import magnetic_tile
from stages.datasets.manifest import read_manifest
from stages.errors import InputError
from stages.images import load_masks
from stages.prompts import load_prompt, prompt_ids
from stages.questions.geometry import CELLS, COLUMNS, ROWS, geometry_of, shape_of, ways_to_say
from stages.questions.make import QuestionsConfig, run
from stages.questions.ranking import (GENERIC, KINDS, Facts, NothingWrong, in_words, ranked_answers, wrong_about)
from stages.questions.table import check_images, read_questions
from stages.questions.templates import defect_in_words, filled, object_in_words, sections
from stages.questions.writing import ATTEMPTS, NotInForm, answers_of
from stages.settings import RunOptions
from tests.test_server_engine import Faulty, Handler

QUIET = RunOptions(quiet=True)
TILES = Path(__file__).parents[2] / "shared" / "data" / "magnetic-tile"


def rectangle(top, left, height, width, shape=(90, 120)):
    mask = np.zeros(shape, bool)
    mask[top:top + height, left:left + width] = True
    return mask


# -- masks in words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("place", "top", "left"), [
    ((row, column), 30 * r + 10, 40 * c + 15) for r, row in enumerate(ROWS) for c, column in enumerate(COLUMNS)])
def test_the_nine_places(place, top, left):
    found = geometry_of(rectangle(top, left, 8, 8))
    assert (found.place, found.spread, found.regions, found.shape) == (place, "alone", 1, "compact")
    assert place not in found.free and len([p for p in found.free if "all" not in p]) == 8
    assert len([p for p in found.free if "all" in p]) == 4        # two rows and two columns without it
    assert found.size == "small"                                  # 64 of 10 800 pixels: 0.6 %


def test_sizes_by_area_share():
    shape = (100, 100)
    for pixels, size in ((1, "tiny"), (10, "tiny"), (11, "small"), (100, "small"), (101, "medium-sized"),
                         (500, "medium-sized"), (501, "large"), (2000, "large"), (2001, "very large")):
        mask = np.zeros(10_000, bool)
        mask[:pixels] = True
        assert geometry_of(mask.reshape(shape)).size == size, pixels


def test_shapes_of_rectangles_are_length_to_width():
    assert shape_of(rectangle(10, 10, 10, 15)) == "compact"                       # 1.5
    assert shape_of(rectangle(10, 10, 10, 17)) == "slightly elongated"            # 1.7
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
    two = rectangle(5, 5, 10, 10) | rectangle(70, 100, 8, 8)                      # 100 and 64 pixels
    found = geometry_of(two)
    assert (found.place, found.spread, found.regions, found.shape) == (("upper", "left"), "mainly", 2, "compact")
    three = two | rectangle(40, 50, 9, 9)                                         # and 81: none is half of it
    assert (geometry_of(three).spread, geometry_of(three).regions) == ("largest", 3)
    assert geometry_of(three).shape == "scattered"
    assert geometry_of(rectangle(5, 5, 10, 10) | rectangle(20, 20, 8, 8)).spread == "alone"      # in one cell
    ragged = rectangle(5, 5, 10, 10) | rectangle(70, 100, 2, 2)
    assert geometry_of(ragged).regions == 1 and ("lower", "right") not in geometry_of(ragged).free
    touching = rectangle(5, 5, 10, 10) | rectangle(15, 15, 10, 10)
    assert geometry_of(touching).regions == 1                                     # by a corner


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
        "metal nut", "pcb", "product", "product", "tile"]


def test_sentences_begin_with_a_capital_letter():
    assert filled("{defect}, at 3.5 mm. {x}? no: one.", {"defect": "a crack", "x": "it is"}) == (
        "A crack, at 3.5 mm. It is? No: one.")
    with pytest.raises(InputError, match="no field {wher}"):
        filled("in {wher}", {"where": "x"})


def test_every_wording_can_be_filled():
    fields = {"object": "tile", "consequence": "it breaks"} | in_words(
        Facts(defect_in_words("crack"), geometry_of(rectangle(1, 1, 5, 5))), Random(0))
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
    crack = Facts(defect_in_words("crack"), geometry_of(rectangle(25, 30, 40, 60)))      # in all nine cells
    about = Counter()
    for n in range(400):
        wrong = wrong_about(crack, NAMES, "extent", Random(n))
        g = wrong.geometry
        changed = (wrong.defect != crack.defect, g.place != crack.geometry.place, g.size != crack.geometry.size)
        assert changed.count(True) == 1
        about[changed.index(True)] += 1
        assert g.place == crack.geometry.place or g.place in crack.geometry.free
        assert g.size == crack.geometry.size or g.size in ("tiny", "small", "medium-sized", "large") and (
            crack.geometry.size == "very large" or g.size != "medium-sized")
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
    return [ranked_answers(kind, "tile", some_facts(rng) if anomalous else None, NAMES, rng)
            for _ in range(n // 5) for kind in KINDS]


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


def test_words_alone_do_not_tell_the_verdict_nor_the_wrong_detail():
    """A linear model on words, which sees no image: near chance between the best answer and the one with the wrong
    verdict, and on anomalous images between the best and the one with the wrong detail."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    def pairs_told(sets, other):
        half = len(sets) // 2
        texts = [a for answers in sets for a in (answers[0], answers[other])]
        words = CountVectorizer(ngram_range=(1, 2), min_df=2, binary=True).fit(texts[:2 * half])
        model = LogisticRegression(C=0.3, max_iter=500).fit(words.transform(texts[:2 * half]), [1, 0] * half)
        scores = model.decision_function(words.transform(texts[2 * half:])).reshape(-1, 2)
        return (scores[:, 0] > scores[:, 1]).mean()

    both = [answers for pair in zip(many(True), many(False), strict=True) for answers in pair]
    assert 0.4 < pairs_told(both, 3) < 0.6
    assert 0.4 < pairs_told(many(True), 2) < 0.68


def test_no_opening_belongs_to_one_rank():
    sets = many(True) + many(False)
    openings = [Counter(" ".join(a[rank].split()[:2]) for a in sets) for rank in range(4)]
    for rank, counter in enumerate(openings):
        opening, n = counter.most_common(1)[0]
        assert n < 0.2 * len(sets), (rank, opening)


# -- the stage --------------------------------------------------------------------------------------------------


def tree(folder, save_image, rows):
    """rows: (name, split, label, defect, mask or None, category). Files and a manifest beside them."""
    records = []
    for n, (name, split, label, defect, mask, category) in enumerate(rows):
        save_image(folder / f"{name}.png", n)
        if mask is not None:
            save_image(folder / f"{name}_mask.png", mask.astype(np.uint8) * 255)
        records.append({"image_id": f"d/{name}", "path": f"{name}.png", "dataset": "d", "category": category,
                        "split": split, "label": label, "defect": defect,
                        "mask_paths": [] if mask is None else [f"{name}_mask.png"]})
    pq.write_table(pa.Table.from_pylist(records, schema=MANIFEST.schema), folder / "m.parquet")
    return QuestionsConfig(manifest=folder / "m.parquet", out=folder / "q", root=folder)


@pytest.fixture
def nuts(tmp_path, save_image):
    spot = rectangle(2, 2, 6, 6, (40, 60))
    return tree(tmp_path, save_image, [
        ("n0", "train", 0, None, None, "metal_nut"), ("n1", "train", 0, None, None, "metal_nut"),
        ("good", "test", 0, None, None, "metal_nut"), ("bent", "test", 1, "bent", spot, "metal_nut"),
        ("maskless", "test", 1, "bent", None, "metal_nut"), ("empty", "test", 1, "bent", spot * 0, "metal_nut"),
        ("unknown", "test", None, None, None, "metal_nut"), ("alone", "test", 0, None, None, "screw")])


def test_five_questions_an_image_and_failures_as_rows(nuts):
    summary = run(nuts, QUIET)
    rows = {r["question_id"]: r for r in read_table(nuts.out, QUESTIONS).to_pylist()}
    assert (summary.rows, summary.errors) == (30, 20) and len(rows) == 30
    errors = {i: {r["error"] for r in rows.values() if r["image_id"] == f"d/{i}"} for i in
              ("good", "bent", "maskless", "empty", "unknown", "alone")}
    assert errors["good"] == errors["bent"] == {None}
    assert errors["maskless"] == {"d/maskless: an anomalous image without a mask"}
    assert "empty mask" in errors["empty"].pop() and "not known whether" in errors["unknown"].pop()
    assert errors["alone"] == {"d / screw has no normal training image to compare with"}
    questions = read_questions(nuts.out)
    assert Counter(q.level for q in questions.rows if q.group == "d/bent") == {
        "standard": 2, "identification": 2, "reasoning": 1}
    assert all(q.ranked and len(q.choices) == 4 and q.reference_id in ("d/n0", "d/n1") for q in questions.rows)
    check_images(questions, read_manifest(nuts.manifest, nuts.root))
    best = next(q for q in questions.rows if q.question_id == "d/bent/defect").answer.lower()
    assert "a bent part" in best and "upper left" in best
    assert len({q.reference_id for q in questions.rows if q.group == "d/bent"}) == 1


def test_the_reference_is_drawn_per_image_and_is_never_the_image(tmp_path, save_image):
    rows = [(f"n{n}", "train", 0, None, None, "nut") for n in range(6)]
    config = tree(tmp_path, save_image, rows)
    run(replace(config, splits="train"), QUIET)
    shown = {q.image_id: q.reference_id for q in read_questions(config.out).rows}
    assert len(set(shown.values())) > 2 and all(i != r for i, r in shown.items())
    run(replace(config, splits="train", reference="first", out=tmp_path / "f"), QUIET)
    first = {q.image_id: q.reference_id for q in read_questions(tmp_path / "f").rows}
    assert first == {f"d/n{n}": "d/n0" if n else "d/n1" for n in range(6)}


def test_seed_shards_and_cache(nuts):
    run(nuts, QUIET)
    whole = read_table(nuts.out, QUESTIONS)
    for shard in ("2/3", "0/3", "1/3"):
        run(replace(nuts, out=nuts.root / "s"), replace(QUIET, shard=shard))
    assert read_table(nuts.root / "s", QUESTIONS).equals(whole)
    run(replace(nuts, out=nuts.root / "other", seed=1), QUIET)
    other = read_table(nuts.root / "other", QUESTIONS)
    assert other["question_id"].equals(whole["question_id"]) and other["choices"].to_pylist() != whole[
        "choices"].to_pylist()
    with pytest.raises(InputError, match="seed was 0, now 1"):
        run(replace(nuts, seed=1), QUIET)


def test_one_line_refusals(nuts, save_image):
    def refused(said, **changes):
        with pytest.raises(InputError, match=said):
            run(replace(nuts, **changes), QUIET)

    refused("--reference best: expected first, random, nearest", reference="best")
    refused("--vlm scene: it describes images and cannot write answers", vlm="scene")
    refused("--vlm qwen2-vl: also give the --captions", vlm="qwen2-vl")
    refused("--captions: templates do not read them", captions=nuts.out)
    refused("--splits tets", splits="tets")
    bare = tree(nuts.root / "bare", save_image, [("a", "train", 0, None, None, "x"), ("b", "test", 1, "c", None, "x")])
    with pytest.raises(InputError, match="none of the 1 anomalous images has a mask"):
        run(bare, QUIET)


# -- a model that writes ---------------------------------------------------------------------------------------------


def reply(*answers, verdicts="aaan"):
    words = {"a": "anomalous", "n": "normal"}
    return "\n".join(f"{n}. [{words[v]}] {a}" for n, (v, a) in enumerate(zip(verdicts, answers, strict=True), 1))


def test_replies_are_checked_for_form():
    assert answers_of("```\n" + reply("A", "B", "C", "D") + "\n```", True) == ["A", "B", "C", "D"]
    assert answers_of("1) [Normal] A\n\n2) [normal] B\n3) [NORMAL] C\n4) [Anomalous] D", False) == list("ABCD")
    for text, anomalous, said in (
            (reply("A", "B", "C", "D"), False, "verdicts do not fit"),
            ("Sure!\n" + reply(*"ABCD"), True, "four numbered"),
            (reply(*"ABCD").rsplit("\n", 1)[0], True, "four numbered"), (reply("A", "a", "C", "D"), True, "the same"),
            (reply("A", "", "C", "D"), True, "is empty"), ("", True, "four numbered"),
            (reply(*"ABCD", verdicts="anan"), True, "verdicts do not fit"),
            (reply(*"ABCD") + "\n5. [normal] E", True, "four numbered")):
        with pytest.raises(NotInForm, match=said):
            answers_of(text, anomalous)


class Writer(Handler):
    """Answers what `plan` says of (prompt, how often it has been asked)."""

    def answer(self, body, text, fault):
        self.send(200, {"id": "x", "object": "chat.completion", "created": 0, "model": "tiny", "choices": [{
            "index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": fault}}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}})


def captions_at(path, **texts):
    rows = [{"image_id": f"d/{i}", "prompt_id": "p", "sample": 0, "text": t, "error": None if t else "refused"}
            for i, t in texts.items()]
    pq.write_table(pa.Table.from_pylist(rows, schema=CAPTIONS.schema), path)
    return path


def test_a_model_writes_the_answers_and_is_asked_again_until_they_are_in_form(tmp_path, save_image):
    spot = rectangle(2, 2, 6, 6, (40, 60))
    config = tree(tmp_path, save_image, [
        ("n0", "train", 0, None, None, "nut"), ("good", "test", 0, None, None, "nut"),
        ("bent", "test", 1, "bent", spot, "nut"), ("uncaptioned", "test", 0, None, None, "nut")])
    captions = captions_at(tmp_path / "c.parquet", good="a round nut", bent="a nut with a dent", uncaptioned=None)

    def plan(text):
        if "{" in text.replace("[", "{") and "a round nut" in text:
            return "I would rather not."                                   # never in form
        again = server.tries[text] > 1
        return reply("Bent.", "Odd.", "Cracked.", "Fine.", verdicts="aaan" if again else "nnna")

    server = Faulty(plan)
    server.RequestHandlerClass = Writer
    config = replace(config, vlm="tiny", engine="server", base_url=server.url, captions=captions, timeout=5.0)
    summary = run(config, QUIET)
    rows = {r["question_id"]: r for r in read_table(config.out, QUESTIONS).to_pylist()}
    assert (summary.rows, summary.errors) == (15, 10)
    bent = rows["d/bent/verdict"]
    assert bent["choices"] == ["Bent.", "Odd.", "Cracked.", "Fine."] and bent["answer"] == "Bent." and bent["ranked"]
    assert rows["d/good/verdict"]["error"] == (
        f"the reply is not four numbered lines with a verdict in brackets (last of {ATTEMPTS} replies)")
    assert rows["d/good/verdict"]["question"] and "has no caption" in rows["d/uncaptioned/extent"]["error"]
    asked = next(t for t in server.tries if "a nut with a dent" in t and bent["question"] in t)
    assert server.tries[asked] == 2 and "a bent part" in asked and "upper left" in asked and "{" not in asked
    seeds = [b["seed"] for b in server.bodies if b["messages"][0]["content"][-1]["text"] == asked]
    assert len(set(seeds)) == 2, "another seed for another try"
    assert max(server.tries.values()) == ATTEMPTS and len(server.tries) == 10


def test_a_real_model_that_cannot_do_it_loses_no_row(tmp_path, save_image, qwen):
    config = tree(tmp_path, save_image, [("n0", "train", 0, None, None, "nut"), ("a", "test", 0, None, None, "nut")])
    captions = captions_at(tmp_path / "c.parquet", a="a nut")
    summary = run(replace(config, vlm=str(qwen), captions=captions, max_tokens=4, device="cpu"), QUIET)
    assert (summary.rows, summary.errors, summary.complete) == (5, 5, True)
    assert "not four numbered lines" in summary.first_errors[0]


# -- facts ------------------------------------------------------------------------------------------------------


def test_facts_are_captions(tmp_path, save_image, qwen):
    tree(tmp_path, save_image, [("a", "test", 0, None, None, "nut"), ("b", "test", 0, None, None, "nut")])
    config = caption.CaptionConfig(manifest=tmp_path / "m.parquet", out=tmp_path / "f", root=tmp_path, vlm=str(qwen),
                                   prompt="sage/facts", samples=3, temperature=0.9, max_tokens=8, device="cpu")
    caption.run(config, QUIET)
    rows = read_table(tmp_path / "f", CAPTIONS).to_pylist()
    assert [(r["image_id"], r["prompt_id"], r["sample"]) for r in rows] == [
        (f"d/{i}", "sage/facts", n) for i in "ab" for n in range(3)]
    texts = [r["text"] for r in rows if r["image_id"] == "d/a" and r["text"]]
    assert len(texts) > 1 and len(set(texts)) == len(texts), "three draws, not one three times"


def test_samples_that_would_all_be_the_same_are_refused(tmp_path, save_image, capsys, qwen):
    tree(tmp_path, save_image, [("a", "test", 0, None, None, "nut")])
    config = caption.CaptionConfig(manifest=tmp_path / "m.parquet", out=tmp_path / "f", root=tmp_path,
                                   prompt="sage/facts", samples=5)
    with pytest.raises(InputError, match="--samples 5: scene describes an image the same way every time"):
        caption.run(config, QUIET)
    with pytest.raises(InputError, match="--samples 5: greedy texts of one image are all the same"):
        caption.run(replace(config, vlm=str(qwen), temperature=0.0), QUIET)
    caption.run(replace(config, vlm=str(qwen), samples=2, temperature=1e-6, max_tokens=12, device="cpu"), RunOptions())
    assert "1 of 2 texts repeat another one of the same image" in capsys.readouterr().err
    caption.run(replace(config, samples=1, out=tmp_path / "s", workers=1), QUIET)
    assert read_table(tmp_path / "s", CAPTIONS)["text"][0].as_py().endswith(".")


# -- real tiles -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not TILES.is_dir(), reason="the magnetic tiles are not here")
def test_real_tiles(tmp_path):
    from adcli.main import build

    index = magnetic_tile.MagneticTileConfig(root=TILES, out=tmp_path / "m")
    magnetic_tile.run(index, QUIET)
    arguments = ["data", "questions", str(tmp_path / "m"), "--out", str(tmp_path / "q"), "--quiet", "--json"]
    done = CliRunner().invoke(build(arguments), arguments)
    summary = json.loads(done.stdout)
    assert done.exit_code == 0 and summary["errors"] == 0 and summary["rows"] % 5 == 0
    manifest, questions = read_manifest(tmp_path / "m"), read_questions(tmp_path / "q")
    images = check_images(questions, manifest)
    assert {q.image_id for q in questions.rows} == {i.image_id for i in manifest.images if i.split == "test"}
    assert all(images[q.reference_id].split == "train" and images[q.reference_id].label == 0 for q in questions.rows)
    for q in questions.rows[::7]:
        image = images[q.image_id]
        if image.label == 0:
            continue
        best = q.answer.lower()
        assert {"blowhole": "a blowhole", "break": "a break", "crack": "a crack"}[image.defect] in best
        mask = load_masks(image.masks)
        near = geometry_of(mask)
        assert any(p in best for p in ways_to_say(near.place)) and near.place not in near.free
