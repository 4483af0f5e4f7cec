"""RIAD on a made-up tree: COCO masks, held-out objects, texts, what is wrong said by row."""

import json
from collections import Counter

import numpy as np
import pytest

from stages.artifacts.reader import read_table
from stages.artifacts.tables import QUESTIONS
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.datasets import riad
from stages.datasets.images import load_mask, load_rgb
from stages.datasets.manifest import read_manifest
from stages.questions import imports
from stages.questions.table import read_questions

QUIET = RunOptions(quiet=True)
KINDS = [{"id": 7, "name": "scratch"}, {"id": 3, "name": "bent"}]


def coco(images, annotations=(), categories=KINDS):
    return {
        "images": [{"id": n, "file_name": name, "height": 40, "width": 60} for n, name in enumerate(images)],
        "annotations": [
            {"image_id": i, "category_id": c, "segmentation": s, "bbox": [0, 0, 1, 1]} for i, c, s in annotations
        ],
        "categories": list(categories),
    }


@pytest.fixture
def root(tmp_path, save_image):
    """Three objects, each laid out in its own way; 0.png of each is normal."""
    runs = {"counts": [40 * 10 + 5, 10, 40 * 60 - 415], "size": [40, 60]}  # column 10, rows 5 to 14
    places = {
        "u_block": ("u_block/images", "u_block/annotations/masks.json", ""),
        "toy": ("toy/test/ng", "toy/test/coco.json", "ng/"),
        "bread": ("data/bread", "all.json", "data/bread/"),
    }
    for folder, file, prefix in places.values():
        for n in range(2):
            save_image(tmp_path / "riad" / folder / f"{n}.png", n)
        content = coco([f"{prefix}0.png", f"{prefix}1.png"], [(1, 7, [[10, 5, 20, 5, 20, 15, 10, 15]]), (1, 3, runs)])
        (tmp_path / "riad" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "riad" / file).write_text(json.dumps(content))
    (tmp_path / "riad/texts.json").write_text(json.dumps([]))
    return tmp_path / "riad"


def index(root, out, **more):
    config = riad.RiadConfig(**{"root": root, "out": out / "m", "masks": out / "masks", "test_objects": 1} | more)
    riad.run(config, QUIET)
    return {i.image_id.removeprefix("riad/"): i for i in read_manifest(out / "m").images}


def test_round_trip(root, tmp_path):
    (root / "data").rename(root / "train")  # such a folder names no object
    (root / "all.json").write_text((root / "all.json").read_text().replace("data/", "train/"))
    images = index(root, tmp_path)
    assert Counter((i.category, i.split, i.label, i.defect) for i in images.values()) == {
        (name, split, label, "bent+scratch" if label else None): 1
        for name, split in (("u_block", "test"), ("toy", "train"), ("bread", "train"))
        for label in (0, 1)
    }
    assert not any(i.error for i in images.values())
    for path, image in images.items():
        if image.label == 0:
            assert image.masks == ()
            continue
        (mask,) = image.masks
        assert mask == (tmp_path / "masks" / f"{path}.png").resolve()
        values = load_rgb(mask)[:, :, 0]
        expected = np.zeros((40, 60), np.uint8)
        expected[5:16, 10:21] = 2  # scratch; cv2 draws the polygon's edge, too
        expected[5:15, 10] = 1  # bent, drawn later
        assert (values == expected).all() and (load_mask(mask) == (expected > 0)).all()


def test_objects_are_held_out_as_a_whole(root, tmp_path, save_image):
    for name in ("a", "b", "c", "d", "e"):
        save_image(root / name / "0.png")
        (root / name / "c.json").write_text(json.dumps(coco(["0.png"])))

    def test_objects(**more):
        images = index(root, tmp_path / str(sorted(more.items())), **more)
        return {i.category for i in images.values() if i.split == "test"}

    several = test_objects(test_objects=4)
    assert "u_block" in several and len(several) == 4, "what Table II names comes first"
    assert test_objects(test_objects=4, seed=3) != several or test_objects(test_objects=4, seed=4) != several
    assert test_objects(test="a,toy") == {"a", "toy"}
    assert test_objects(test_objects=0) == set(), "all for training: the test is another data set"
    with pytest.raises(InputError, match="--test q: none of the objects a, b, c, d, data, e, toy, u_block"):
        test_objects(test="a,q")
    with pytest.raises(InputError, match="8 objects, 8 of them for test: none is left"):
        test_objects(test_objects=9)


def test_what_is_wrong_is_said_by_row(root, tmp_path, save_image):
    save_image(root / "toy/extra.png")
    polygon = [[1, 1, 5, 1, 5, 5]]
    names = ["0.png", "1.png", "2.png", "3.png", "4.png", "gone.png"]
    for name in names[2:5]:
        save_image(root / "u_block/images" / name)
    (root / "u_block/annotations/masks.json").write_text(
        json.dumps(
            coco(
                names,
                [
                    (1, 7, [[1, 1, 5, 5]]),
                    (2, 7, {"counts": "abc", "size": [40, 60]}),
                    (3, 7, {"counts": [9], "size": [40, 60]}),
                    (4, 7, polygon),
                ],
            )
        )
    )
    (root / "u_block/annotations/again.json").write_text(json.dumps(coco(["0.png"])))
    errors = {k.rpartition("/")[2]: i.error for k, i in index(root, tmp_path).items() if i.error}
    said = {
        "extra.png": "no COCO file lists it",
        "0.png": "two COCO files list it",
        "1.png": "fewer than three points",
        "2.png": "compressed",
        "3.png": "9 px for an image of 60 x 40",
        "gone.png": "not an image",
    }
    assert set(errors) == set(said) and all(said[k] in errors[k] for k in said)


def test_what_is_refused(root, tmp_path, save_image):
    with pytest.raises(InputError, match="lies in the data set, which is never written to"):
        index(root, tmp_path, masks=root / "masks")
    (root / "toy/test/coco.json").write_text(json.dumps(coco(["0.png"], [(5, 7, [])])))
    with pytest.raises(InputError, match="coco.json: not as COCO has it .KeyError: 5"):
        index(root, tmp_path)
    (root / "toy/test/coco.json").write_text("{")
    with pytest.raises(InputError, match="coco.json, line 1, column 2: not JSON"):
        index(root, tmp_path)
    save_image(tmp_path / "other/toy/0.png")
    with pytest.raises(InputError, match="no COCO file here"):
        index(tmp_path / "other", tmp_path)
    save_image(tmp_path / "other/test/0.png")
    (tmp_path / "other/c.json").write_text(json.dumps(coco(["toy/0.png"])))
    with pytest.raises(InputError, match="lies below no folder named after its object"):
        index(tmp_path / "other", tmp_path)


def test_texts(root, tmp_path):
    qa = {"question": "What is it?", "answer": "A scratch."}
    (root / "texts.json").write_text(
        json.dumps(
            [
                {
                    "image": "u_block/images/1.png",
                    "description": qa,
                    "impact": {"question": "So?", "answer": "It leaks."},
                },
                {"image": "toy/test/ng/1.png", "type": "suggestion", "question": "And now?", "answer": "Replace it."},
                {"image": "toy/test/ng/1.png", "type": "guess", **qa},
                {"image": "bread/1.png"},
                {"image": "bread/1.png", "impact": {"question": "So?"}},
                {"description": qa},
                7,
            ]
        )
    )
    index(root, tmp_path)
    config = imports.ImportConfig(source=root, manifest=tmp_path / "m", format="riad", out=tmp_path / "q")
    assert imports.run(config, QUIET).errors == 5
    found = {q.question_id: (q.image_id, q.level, q.question, q.answer) for q in read_questions(tmp_path / "q").rows}
    assert found == {
        "texts/000000/description": ("riad/u_block/images/1.png", "description", "What is it?", "A scratch."),
        "texts/000000/impact": ("riad/u_block/images/1.png", "impact", "So?", "It leaks."),
        "texts/000001/suggestion": ("riad/toy/test/ng/1.png", "suggestion", "And now?", "Replace it."),
    }
    errors = [r["error"] for r in read_table(tmp_path / "q", QUESTIONS).to_pylist() if r["error"]]
    assert sum("expected description, impact, suggestion" in e for e in errors) == 2
    assert sum("impact: no text in the field `answer`" in e for e in errors) == 1
    assert sum("no text in the field `image`" in e for e in errors) == 2
    with pytest.raises(InputError, match="neither a JSON list of records"):
        (root / "texts.json").write_text(json.dumps({"a": 1}))
        imports.run(config, QUIET)
