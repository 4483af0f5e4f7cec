"""What VMAD is told of normal scenes (section III-A): where it comes from; the same in training, scoring and asking."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.artifacts.reader import read_provenance, read_table
from stages.artifacts.tables import CAPTIONS, MANIFEST
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.base.prompts import FOLDER
from stages.vmad.ask import Conversation
from stages.vmad.build import build_memory
from stages.vmad.config import AskConfig
from stages.vmad.data import check_lengths, conversation, samples_of
from stages.vmad.descriptions import (
    Descriptions,
    classes_of,
    for_scoring,
    of_object,
    other_kind,
    read_descriptions,
    recorded,
)
from stages.vmad.memory import choose_memory
from stages.vmad.score import prompt_about
from stages.vmad.score import run as score
from stages.vmad.train import run as train
from tests.vmad_stages_world import QUIET, config, scoring
from tests.vmad_world import T_X, batch_of, made

NUT, TILE = ("d", "metal_nut"), ("d", "tile")
SAID = {NUT: "It has four teeth.", TILE: "It is grey."}


def captions(path, texts):
    """texts: image_id -> text, or (prompt_id, sample, text, error) each."""
    rows = []
    for image_id, said in texts.items():
        for prompt, sample, text, error in said if isinstance(said, list) else [("general", 0, said, None)]:
            rows.append({"image_id": image_id, "prompt_id": prompt, "sample": sample, "text": text, "error": error})
    pq.write_table(pa.Table.from_pylist(rows, schema=CAPTIONS.schema), path)
    return str(path)


def test_the_description_stands_before_the_question_about_anomalies(pictures):
    """III-A's example: 'The gray metal plates ... Is there any anomaly in this picture?'"""
    prompt, answer = conversation("segmentation", "It has {four} teeth.", object="metal nut")
    assert prompt.startswith(
        "USER: <image>\nIt has {four} teeth. Are there any abnormalities present in the metal nut?"
    )
    assert prompt.endswith("output the defect segmentation result. ASSISTANT:") and answer == "It is <seg>"
    found = samples_of(pictures, ["segmentation", "answering"], (), SAID)
    assert all(SAID["d", s.image.category] + " Are there" in s.prompt for s in found) and len(found) == 8
    for image in pictures:
        assert prompt_about(image, "", SAID) == samples_of([image], ["segmentation"], (), SAID)[0].prompt
        assert prompt_about(image, "description", SAID) == samples_of([image], ["answering"], (), SAID)[0].prompt
    assert "{normal}" not in samples_of(pictures, ["segmentation"])[0].prompt


def test_long_descriptions_are_counted(llava, sam, pictures):
    _, text = made(llava, sam)
    plain, told = (samples_of(pictures, ["segmentation"], (), n) for n in ({}, {NUT: "many words " * 50, TILE: ""}))
    short = check_lengths(plain, text, 1000)
    assert check_lengths(told, text, 1000) > short + 100
    with pytest.raises(InputError, match="2 of 4 samples are longer .*i[01], segmentation.*descriptions"):
        check_lengths(told, text, short)


def test_the_meta_net_reads_the_same_text(llava, sam, pictures):
    model, text = made(llava, sam)
    batch_of(model, text, pictures)
    for number, name in enumerate((NUT, TILE)):
        ids = model.memory.described[number][model.memory.described_mask[number] > 0]
        assert text.tokenizer.decode(ids) == T_X[name]
    memory = build_memory(choose_memory(pictures, 1.0, 0), model, text, 2, told={NUT: "", TILE: "Grey."})
    read = [text.tokenizer.decode(i[m > 0]) for i, m in zip(memory.described, memory.described_mask, strict=True)]
    assert read == ["The metal nut in the picture should be without any abnormality.", "Grey."], "none: the general one"


def test_where_the_texts_come_from(pictures, tmp_path):
    assert classes_of(pictures[::-1]) == [NUT, TILE]

    def texts(source):
        return dict(read_descriptions(str(source), pictures, [NUT, TILE]).texts)

    assert texts("none") == {NUT: "", TILE: ""}
    assert texts("general")[NUT] == "The metal nut in the picture should be without any abnormality."
    (tmp_path / "t/d").mkdir(parents=True)
    (tmp_path / "t/metal_nut.txt").write_text("Any\n nut.\n")
    with pytest.raises(InputError, match="nothing of d/tile there; expected tile.txt, d/tile.txt, or general.txt"):
        texts(tmp_path / "t")
    (tmp_path / "t/general.txt").write_text("A {object} {as it} is.")
    assert texts(tmp_path / "t") == {NUT: "Any nut.", TILE: "A tile {as it} is."}
    (tmp_path / "t/d/metal_nut.txt").write_text("Of this data set.")
    assert texts(tmp_path / "t")[NUT] == "Of this data set."
    for wrong, said in (("  ", "no text"), ("a <seg>", "holds <image> or <seg>")):
        (tmp_path / "t/d/metal_nut.txt").write_text(wrong)
        with pytest.raises(InputError, match=f"metal_nut.txt: .*{said}"):
            texts(tmp_path / "t")
    with pytest.raises(InputError, match="gone: no such folder or captions; expected general, none, vmad/normal"):
        texts("gone")


def test_a_caption_is_that_of_the_first_normal_training_image(pictures, tmp_path):
    nut = [("b", 0, "second prompt", None), ("a", 1, "second sample", None), ("a", 0, "A nut.", None)]
    said = {"i0": nut, "i1": "anomalous", "i2": [("a", 0, None, "out of memory")], "i3": "anomalous", "else": "x"}
    path = captions(tmp_path / "c.parquet", said)
    assert dict(read_descriptions(path, pictures, [NUT]).texts) == {NUT: "A nut."}
    with pytest.raises(InputError, match="no caption of a normal training image of d/tile"):
        read_descriptions(path, pictures, [NUT, TILE])
    again = replace(pictures[2], image_id="i9")
    path = captions(tmp_path / "c.parquet", said | {"i9": "A\ntile.", "i8": "test"})
    images = [replace(pictures[2], image_id="i8", split="test"), *pictures, again]
    assert read_descriptions(path, images, [NUT, TILE]) == Descriptions("captions", {NUT: "A nut.", TILE: "A tile."})


def test_ours_of_each_class_are_sound():
    """Every file of the packaged folder is found by the class that it is named after."""
    files = sorted((FOLDER / "vmad/normal").glob("*/*.txt"))
    classes = [(f.parent.name, f.stem) for f in files]
    found = read_descriptions("vmad/normal", [], [*classes, ("riad", "u_block")])
    assert len(files) == 15 + 12 and found.kind == "vmad/normal"
    for name, file in zip(classes, files, strict=True):
        assert found.texts[name] == file.read_text().strip() and found.texts[name].endswith(".")
    assert found.texts["riad", "u_block"] == "The u block in the picture should be without any abnormality."


def test_scoring_is_told_what_training_was_told(pictures, tmp_path):
    trained = Descriptions("general", {NUT: "Old words."})
    assert recorded(json.loads(json.dumps(trained.record()))) == trained
    assert recorded(None) == Descriptions("none", {}), "checkpoints from before were told nothing"
    found = for_scoring("", trained, pictures, [NUT, TILE])
    assert found.texts[NUT] == "Old words." and found.texts[TILE].startswith("The tile in the picture")
    with pytest.raises(
        InputError, match="of d/metal_nut it says 'The metal nut .*', and training was told 'Old words.'"
    ):
        for_scoring("general", trained, pictures, [NUT, TILE])
    other = for_scoring("none", trained, pictures, [TILE])
    assert "none, in training general" in other_kind(trained, other) and not other_kind(trained, found)
    for kind in ("files", "captions"):
        with pytest.raises(InputError, match=f"d/tile: training was told by {kind} .*give --descriptions"):
            for_scoring("", Descriptions(kind, {NUT: "x"}), pictures, [TILE])
    path = captions(tmp_path / "c.parquet", {"i0": SAID[NUT], "i2": SAID[TILE]})
    assert for_scoring(path, Descriptions("captions", {NUT: SAID[NUT]}), pictures, [NUT, TILE]).texts == SAID
    assert len({d.fingerprint for d in (trained, found, other, Descriptions("files", trained.texts))}) == 4


def test_an_object_that_is_named_by_hand():
    known = {("b", "metal_nut"): "second", ("a", "metal_nut"): "first"}
    assert of_object(Descriptions("captions", known), "metal nut") == "first"
    assert of_object(Descriptions("none", {}), "x") == ""
    assert (
        of_object(Descriptions("general", {}), "old_shoe")
        == "The old shoe in the picture should be without any abnormality."
    )
    with pytest.raises(InputError, match="--object x: training was told by files .* say with --normal"):
        of_object(Descriptions("files", known), "x")


@pytest.mark.slow
def test_captions_reach_the_checkpoint_the_scores_and_the_conversation(spots, models, tmp_path, capsys):
    first = {"grey_0": "i00", "grey_1": "i06"}
    path = captions(tmp_path / "c.parquet", {i: f"Grey all over, {c}." for c, i in first.items()})
    few = {"tasks": "segmentation", "questions": None, "epochs": 0.2}
    out = tmp_path / "v"
    train(config(spots, models, out, **few, descriptions=path), QUIET)
    expected = {"kind": "captions", "texts": [["spots", c, f"Grey all over, {c}."] for c in first]}
    assert json.loads((out / "_checkpoint/vmad.json").read_text())["descriptions"] == expected
    (record,) = read_provenance(out)
    assert record["notes"]["descriptions"] == expected and record["parameters"]["descriptions"].startswith("captions ")
    assert record["paths"]["descriptions"] == path
    with pytest.raises(InputError, match="descriptions was 'captions .*', now 'general"):
        train(config(spots, models, out, **few), QUIET)

    c = scoring(spots, out, tmp_path)
    score(c, QUIET)
    (record,) = read_provenance(c.out)
    assert record["notes"]["descriptions"] == expected and record["parameters"]["top_share"] == 0.01
    assert "descriptions" not in record["paths"]
    with pytest.raises(
        InputError, match="of spots/grey_0 it says 'The grey 0 .*', and training was told 'Grey all over"
    ):
        score(replace(c, out=tmp_path / "s2", maps=None, descriptions="general"), QUIET)

    rows = [r | {"category": "other"} for r in pq.read_table(spots).to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, schema=MANIFEST.schema), tmp_path / "other.parquet")
    strange = replace(c, manifest=tmp_path / "other.parquet", out=tmp_path / "s3", maps=None)
    with pytest.raises(InputError, match="spots/other: training was told by captions"):
        score(strange, QUIET)
    assert not (tmp_path / "s3").exists(), "refused before anything is written"
    score(replace(strange, descriptions="general"), RunOptions())
    assert "descriptions of what is normal: general, in training captions" in capsys.readouterr().err

    ask = AskConfig(checkpoint=out, image=spots.parent / "1.png", object="grey 1", device="cpu", max_tokens=3)
    talk = Conversation(ask)
    assert "\nGrey all over, grey_1. Are there any abnormalities present in the grey 1?" in talk.text.tokenizer.decode(
        talk._prompt("")
    )
    own = Conversation(replace(ask, object="x", normal="Grey\nor white."))
    assert "\nGrey or white. Is it whole? ASSISTANT:" in own.text.tokenizer.decode(own._prompt("Is it whole?"))
    with pytest.raises(InputError, match="--object x: training was told by captions"):
        Conversation(replace(ask, object="x"))


@pytest.mark.slow
def test_the_image_score_is_the_mean_of_another_share(trained, spots, tmp_path):
    import numpy as np

    from stages.artifacts.maps import read_maps
    from stages.artifacts.tables import SCORES

    c = scoring(spots, trained, tmp_path, top_share=0.5)
    score(c, QUIET)
    maps = dict(read_maps(c.maps, {(f"i{n:02d}", "vmad") for n in range(12)}))
    for r in read_table(c.out, SCORES).to_pylist():
        pixels = np.sort(maps[r["image_id"], "vmad"].astype(float), axis=None)
        assert r["score"] == pytest.approx(pixels[-384:].mean(), abs=1e-6), "half of 24 x 32"
    assert read_provenance(c.out)[0]["parameters"]["top_share"] == 0.5
    with pytest.raises(InputError, match="other settings .top_share was 0.5, now 0.01"):
        score(replace(c, top_share=0.01), QUIET)
    for wrong in (0, 1.1, -0.5, float("nan")):
        with pytest.raises(InputError, match=f"--top-share {wrong}: expected more than 0, at most 1"):
            score(replace(c, top_share=wrong, out=Path(tmp_path / "x")), QUIET)
