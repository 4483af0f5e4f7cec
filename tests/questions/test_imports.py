"""Questions of other projects: paths of images looked up in a manifest, and the importers of four formats."""

import json

import pytest
from typer.testing import CliRunner

from stages.artifacts.reader import read_table
from stages.artifacts.tables import QUESTIONS
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.datasets.manifest import read_manifest
from stages.questions.imports import ImportConfig, run
from stages.questions.places import places_of, resolve
from stages.questions.table import read_questions
from tests.questions.test_questions import manifest_at

QUIET = RunOptions(quiet=True)


def imported(tmp_path, source, format, paths, code=0):
    """Rows of an import by question id; exit status as the command line has it."""
    manifest, root = manifest_at(tmp_path, paths)
    summary = run(ImportConfig(source=source, manifest=manifest, format=format, out=tmp_path / "q", root=root), QUIET)
    assert (3 if summary.errors else 0) == code and summary.complete
    return {r["question_id"]: r for r in read_table(tmp_path / "q", QUESTIONS).to_pylist()}


def test_paths_are_looked_up_from_the_root_then_by_their_end(tmp_path):
    path, root = manifest_at(tmp_path, ["tubes/test/good/1.png", "nuts/test/good/1.png", "nuts/2.png"])
    places = places_of(path, read_manifest(path, root))
    found, errors = resolve(
        [
            "tubes/test/good/1.png",
            "good/1.png",
            "./nuts//2.png",
            "data\\nuts\\2.png",
            "3.png",
            str(root / "nuts/test/good/1.png"),
            "2.png",
            "MPDD/data/tubes/test/good/1.png",
            "d/nuts/2.png",
            "ood/1.png",
        ],
        places,
    )
    assert found == {
        "tubes/test/good/1.png": "d/tubes/test/good/1.png",
        "./nuts//2.png": "d/nuts/2.png",
        "data\\nuts\\2.png": "d/nuts/2.png",
        str(root / "nuts/test/good/1.png"): "d/nuts/test/good/1.png",
        "2.png": "d/nuts/2.png",
        "d/nuts/2.png": "d/nuts/2.png",
    }
    assert "good/1.png: 2 images" in errors["good/1.png"] and "no image of the manifest" in errors["3.png"]
    assert "no image of the manifest" in errors["ood/1.png"], "whole parts of a path, not letters"
    assert "only ends like it" in errors["MPDD/data/tubes/test/good/1.png"], "the other spelling is certain"


def test_a_path_from_further_up_counts_when_it_is_the_only_one(tmp_path):
    path, root = manifest_at(tmp_path, ["test/good/1.png"])
    places = places_of(path, read_manifest(path, root))
    assert resolve(["MPDD/tubes/test/good/1.png"], places)[0] == {"MPDD/tubes/test/good/1.png": "d/test/good/1.png"}
    found, errors = resolve(["MPDD/tubes/test/good/1.png", "MPDD/nuts/test/good/1.png"], places)
    assert not found and len(errors) == 2, "one image cannot be two"


def ad_pl(**changes):
    items = [
        {
            "question_cn": "?",
            "question_en": f"Question {n}?",
            "answer_options": [{"answer_cn": "x", "answer_en": f"answer {n}.{a}"} for a in range(4)],
        }
        for n in range(5)
    ]
    return {
        "pair_type": "defect identification",
        "test_image": "MPDD/tubes/test/a.png",
        "reference_image": "MPDD/tubes/train/n.png",
        "question_answer": items,
    } | changes


def test_ad_pl(tmp_path):
    few = ad_pl(pair_type="defect diagnosis")["question_answer"]
    few[1]["answer_options"] = few[1]["answer_options"][:1]
    few[2]["answer_options"][3] = {"answer_cn": "x"}
    few[3]["answer_options"][3]["answer_en"] = "answer 3.0"
    records = [
        ad_pl(),
        ad_pl(pair_type="defect diagnosis", question_answer=few),
        ad_pl(test_image="MPDD/b.png"),
        ad_pl(reference_image="MPDD/tubes/test/a.png"),
        ad_pl(pair_type="guess"),
        {"pair_type": "x"},
        7,
        ad_pl(question_answer=[]),
        ad_pl(reference_image="MPDD/c.png", question_answer=few[:1]),
    ]
    source = tmp_path / "tubes_fixed.json"
    source.write_text(json.dumps(records))
    rows = imported(tmp_path, source, "ad-pl", ["tubes/test/a.png", "tubes/train/n.png"], 3)
    first = rows["tubes_fixed/000000/3"]
    assert first == {
        "question_id": "tubes_fixed/000000/3",
        "image_id": "d/tubes/test/a.png",
        "reference_id": "d/tubes/train/n.png",
        "group": "tubes_fixed/000000",
        "level": "identification",
        "question": "Question 3?",
        "ranked": True,
        "choices": [f"answer 3.{a}" for a in range(4)],
        "answer": "answer 3.0",
        "error": None,
        "retry": None,
    }
    errors = {k: r["error"] for k, r in rows.items() if r["error"]}
    assert "this one has 1" in errors.pop("tubes_fixed/000001/1")
    assert "no text in the field `answer_en`" in errors.pop("tubes_fixed/000001/2")
    assert "the same" in errors.pop("tubes_fixed/000001/3")
    assert [errors.pop(f"tubes_fixed/000002/{n}") for n in range(5)] == [
        "MPDD/b.png: no image of the manifest has this path"
    ] * 5
    assert all("both the test image and the reference image" in errors.pop(f"tubes_fixed/000003/{n}") for n in range(5))
    assert "`pair_type` is 'guess'" in errors.pop("tubes_fixed/000004")
    assert "`test_image`" in errors.pop("tubes_fixed/000005") and "`test_image`" in errors.pop("tubes_fixed/000006")
    assert "`question_answer`" in errors.pop("tubes_fixed/000007")
    assert errors == {"tubes_fixed/000008/0": "MPDD/c.png: no image of the manifest has this path"}
    assert rows["tubes_fixed/000001/0"]["level"] == "reasoning" and len(rows) == 5 + 5 + 5 + 5 + 4 + 1
    assert len(read_questions(tmp_path / "q").rows) == 7 and len(read_questions(tmp_path / "q").failed) == 18


def test_a_folder_of_files_is_one_table(tmp_path):
    for name in ("tubes", "nuts"):
        (tmp_path / "qa" / name).mkdir(parents=True)
        (tmp_path / "qa" / name / "fixed.json").write_text(json.dumps([ad_pl()]))
    rows = imported(tmp_path, tmp_path / "qa", "ad-pl", ["tubes/test/a.png", "tubes/train/n.png"])
    assert len(rows) == 10 and {r["group"] for r in rows.values()} == {"tubes/fixed/000000", "nuts/fixed/000000"}


def test_conversations(tmp_path):
    def turns(*values):
        return [{"from": ("human", "gpt")[n % 2], "value": v} for n, v in enumerate(values)]

    lines = [
        {"id": 0, "image": "a.png", "conversations": turns("<image>\nWhat is it?", "True. A nut.")},
        {
            "id": 1,
            "image": ["a.png", "n.png"],
            "conversations": turns(
                "Image-1: <image>\nImage-2: <image>\nDo they differ?", "Yes.", "Where?", "Top left."
            ),
        },
        {"image": "a.png", "question": "<image>Which?", "chosen": "the good", "rejected": "the bad"},
        {"image": "a.png", "question": "Which?", "chosen": "alike", "rejected": "alike"},
        {"conversations": turns("a", "b")},
        {"image": "a.png", "conversations": turns("a", "b", "c")},
        {"image": "a.png", "conversations": turns("<image>", "b")},
        {"image": ["a", "b", "c"], "conversations": []},
        {"image": "b.png", "question": "q", "chosen": "1", "rejected": "2"},
        [],
    ]
    source = tmp_path / "mix.jsonl"
    source.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    rows = imported(tmp_path, source, "conversations", ["a.png", "n.png"], 3)
    one, two, three, four = (rows[k] for k in ("mix/000001/0", "mix/000002/0", "mix/000002/1", "mix/000003/0"))
    assert (one["question"], one["answer"], one["choices"], one["group"]) == ("What is it?", "True. A nut.", [], None)
    assert (one["image_id"], one["reference_id"], one["level"]) == ("d/a.png", None, "conversation")
    assert (two["question"], two["reference_id"]) == ("Do they differ?", "d/n.png")
    assert (three["question"], three["answer"], three["group"]) == ("Where?", "Top left.", "mix/000002")
    assert four["ranked"] and four["choices"] == ["the good", "the bad"] and four["question"] == "Which?"
    errors = {k: r["error"] for k, r in rows.items() if r["error"]}
    said = {
        "mix/000004/0": "the same",
        "mix/000005": "no path in the field `image`",
        "mix/000006": "alternate",
        "mix/000007/0": "`question` is empty",
        "mix/000008": "3 images",
        "mix/000009/0": "b.png: no image",
        "mix/000010": "no path",
    }
    assert errors.keys() == said.keys() and all(said[k] in errors[k] for k in said)
    (tmp_path / "array.json").write_text(json.dumps(lines[:1], indent=2))
    summary = run(
        ImportConfig(
            source=tmp_path / "array.json",
            manifest=tmp_path / "m.parquet",
            format="conversations",
            out=tmp_path / "q2",
            root=tmp_path / "data",
        ),
        QUIET,
    )
    assert (summary.rows, summary.errors) == (1, 0)


def test_mmad(tmp_path):
    bottle, normal = "DS-MVTec/bottle/image/broken/000.png", "DS-MVTec/bottle/image/good/001.png"
    asked = [
        {
            "Question": "Is there any defect in the object?",
            "Answer": "B",
            "Options": {"A": "No.", "B": "Yes."},
            "type": "Anomaly Detection",
        },
        {"Question": "Where?", "Answer": "E", "Options": {"A": "Top.", "B": "Bottom."}, "type": "Defect Localization"},
        {"Question": "Which?", "Answer": "A", "type": "Defect Classification"},
    ]
    records = {
        bottle: {
            "image_path": bottle,
            "conversation": asked,
            "mask_path": "x.png",
            "random_templates": [],
            "similar_templates": [normal, "DS-MVTec/bottle/image/good/002.png"],
        },
        "VisA/pcb1/1.JPG": {"conversation_0": asked[:1]},
        normal: {"conversation": []},
    }
    (tmp_path / "mmad.json").write_text(json.dumps(records))
    rows = imported(tmp_path, tmp_path / "mmad.json", "mmad", [bottle, normal, "VisA/pcb1/1.JPG"], 3)
    first = rows[f"mmad/{bottle}/0"]
    assert (first["choices"], first["answer"], first["level"], first["ranked"]) == (
        ["No.", "Yes."],
        "Yes.",
        "Anomaly Detection",
        False,
    )
    assert (first["image_id"], first["reference_id"], first["group"]) == (f"d/{bottle}", f"d/{normal}", bottle)
    other = rows["mmad/VisA/pcb1/1.JPG/0"]
    assert other["error"] is None and other["reference_id"] is None
    assert "`Answer` is 'E', the options are A, B" in rows[f"mmad/{bottle}/1"]["error"]
    assert "Options" in rows[f"mmad/{bottle}/2"]["error"] and "conversation" in rows[f"mmad/{normal}"]["error"]
    assert len(rows) == 5


def test_manta(tmp_path):
    record = {
        "domain": "agriculture",
        "test_image": "maize/test/mold/1.png",
        "pair_type": "standard comparison",
        "conclusion_en": "It is mouldy.",
        "question_answer": [
            {"question_en": "Is it mouldy?", "answer": True},
            {"question_en": "Is it round?", "answer": "false"},
            {"question_en": "Is it blue?", "answer": 0},
            {"question_en": "Is it?", "answer": "maybe"},
        ],
    }
    (tmp_path / "JsonData").mkdir()
    (tmp_path / "JsonData" / "agriculture_QA.json").write_text(
        json.dumps(
            [
                record,
                record | {"reference_image": "maize/train/good/2.png", "pair_type": "defect diagnosis"},
                {"domain": "agriculture"},
            ]
        )
    )
    (tmp_path / "JsonData" / "notes.json").write_text("not JSON, and not read")
    rows = imported(
        tmp_path,
        tmp_path / "JsonData",
        "manta",
        ["agriculture/maize/test/mold/1.png", "agriculture/maize/train/good/2.png"],
        3,
    )
    answers = [rows[f"agriculture_QA/000000/{n}"]["answer"] for n in range(4)]
    assert answers == ["True", "False", "False", None]
    first, second = rows["agriculture_QA/000000/0"], rows["agriculture_QA/000001/0"]
    assert (first["choices"], first["ranked"], first["level"]) == (["True", "False"], False, "standard")
    assert (first["image_id"], first["reference_id"]) == ("d/agriculture/maize/test/mold/1.png", None)
    assert (second["reference_id"], second["level"]) == ("d/agriculture/maize/train/good/2.png", "reasoning")
    assert "'maybe', expected true or false" in rows["agriculture_QA/000000/3"]["error"]
    assert "`pair_type`" in rows["agriculture_QA/000002"]["error"]


@pytest.mark.parametrize(
    ("format", "text", "said"),
    [
        ("ad-pl", '[{"a": 1},\n{"b": }]', "q.json, line 2, column 7: not JSON"),
        ("conversations", '{"image": "a"}\n\n{"image": \n', "q.json, line 3, column"),
        ("conversations", '[{"a": 1},\n {]', "q.json, line 2"),
        ("mmad", "[1]", "no JSON object from image path"),
        ("mmad", '{"a": 1}', "no JSON object from image path"),
        ("ad-pl", "{}", "no JSON list of records"),
        ("manta", "3", "no JSON list of records"),
        ("ad-pl", "[]", "holds no questions"),
        ("conversations", "", "holds no questions"),
        ("ad_pl", "[]", "--format ad_pl: expected ad-pl, conversations, mmad, manta, riad"),
    ],
)
def test_files_that_are_not_what_they_should_be(tmp_path, format, text, said):
    from adcli.main import build

    (tmp_path / "q.json").write_text(text)
    manifest, _ = manifest_at(tmp_path, ["a.png"])
    arguments = [
        "data",
        "import-questions",
        str(tmp_path / "q.json"),
        "--format",
        format,
        "--manifest",
        str(manifest),
        "--out",
        str(tmp_path / "out"),
    ]
    done = CliRunner().invoke(build(arguments), arguments)
    assert done.exit_code == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_empty_and_missing_sources(tmp_path):
    manifest, _ = manifest_at(tmp_path, ["a.png"])
    config = ImportConfig(source=tmp_path / "nowhere", manifest=manifest, format="manta", out=tmp_path / "out")
    with pytest.raises(InputError, match="nowhere: no such file or directory"):
        run(config, QUIET)
    (tmp_path / "nowhere").mkdir()
    with pytest.raises(InputError, match=r"no file \*_QA.json below this folder"):
        run(config, QUIET)
    (tmp_path / "nowhere" / "a_QA.json").write_bytes(b"\xff\xfe[]")
    with pytest.raises(InputError, match="a_QA.json: not UTF-8 text"):
        run(config, QUIET)
