"""MANTA's and AD-PL's pictures, indexed as docs/questions.md says: their questions find them."""

import json

from stages.artifacts.reader import read_table
from stages.artifacts.tables import QUESTIONS
from stages.base.config import RunOptions
from stages.datasets.config import FolderConfig
from stages.datasets.folder import run as index
from stages.questions.config import ImportConfig
from stages.questions.imports import run as take

QUIET = RunOptions(quiet=True)


def found(out):
    return [(r["image_id"], r["reference_id"], r["error"]) for r in read_table(out, QUESTIONS).to_pylist()]


def test_manta(tmp_path, save_image):
    root = tmp_path / "MANTA"
    save_image(root / "Tools/screw/test/1.png", 1)
    save_image(root / "Tools/nut/test/1.png", 2)
    index(FolderConfig(root=root, out=tmp_path / "m", name="manta", category="{1}"), QUIET)
    record = {"domain": "Tools", "test_image": "screw/test/1.png", "pair_type": "standard comparison"}
    record["question_answer"] = [{"question_en": "Is it whole?", "answer": "true"}]
    (root / "JsonData").mkdir()
    (root / "JsonData/Tools_QA.json").write_text(json.dumps([record]))
    take(ImportConfig(source=root / "JsonData", manifest=tmp_path / "m", format="manta", out=tmp_path / "q"), QUIET)
    assert found(tmp_path / "q") == [("manta/Tools/screw/test/1.png", None, None)]


def test_ad_pl(tmp_path, save_image):
    root = tmp_path / "AD-PL"
    paths = ("mvtec/cable/train/good/000.png", "mvtec/cable/test/cut/000.png", "VisA/candle/Data/Images/Normal/0.JPG")
    for n, path in enumerate(paths):
        save_image(root / path, n)
    index(FolderConfig(root=root, out=tmp_path / "m", name="ad-pl", category="{2}"), QUIET)
    answers = [{"answer_en": text} for text in ("Yes, cut.", "Yes.", "Perhaps.", "No.")]
    record = {
        "pair_type": "defect diagnosis",
        "test_image": "/home/authors/mvtec/cable/test/cut/000.png",
        "reference_image": "/home/authors/mvtec/cable/train/good/000.png",
        "question_answer": [{"question_en": "Is it cut?", "answer_options": answers}],
    }
    (tmp_path / "ad-pl.json").write_text(json.dumps([record]))
    take(
        ImportConfig(source=tmp_path / "ad-pl.json", manifest=tmp_path / "m", format="ad-pl", out=tmp_path / "q"), QUIET
    )
    test, reference = (f"ad-pl/mvtec/cable/{p}.png" for p in ("test/cut/000", "train/good/000"))
    assert found(tmp_path / "q") == [(test, reference, None)]
