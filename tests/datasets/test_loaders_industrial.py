"""BTAD, KolektorSDD2, DAGM, DTD-Synthetic and the meta.json of the AnomalyCLIP family in their original layouts."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.datasets import btad, dagm, ksdd2, loco, meta_json, mvtec
from stages.datasets.config import IndexConfig
from stages.datasets.manifest import read_manifest, reference_images

QUIET = RunOptions(quiet=True)
EMPTY = np.zeros((40, 60), np.uint8)
SQUARE = EMPTY.copy()
SQUARE[5:8, 5:8] = 255


def without_mask(images: dict) -> dict[str, Path]:
    """Images whose row names a mask that is not there, and that mask; that has let none of the rows fail."""
    assert not any(i.error for i in images.values() if i.masks)
    return {key: mask for key, i in images.items() for mask in i.masks if not mask.is_file()}


def index(run, config):
    """image_id without the data set -> manifest row."""
    run(config, QUIET)
    images = read_manifest(config.out).images
    return {i.image_id.removeprefix(f"{i.dataset}/"): i for i in images}


def counts(images):
    return Counter((i.category, i.split, i.label, i.defect) for i in images.values())


def masks_of(images, root):
    return {k: [m.relative_to(root).as_posix() for m in i.masks] for k, i in images.items() if i.masks}


def categories(root, out, **more):
    return mvtec.MvtecConfig(root=root, out=out, **more)


# -- BTAD -----------------------------------------------------------------------------------------------


@pytest.fixture
def products(tmp_path, save_image):
    """01 has .bmp images and .png masks, 03 .bmp masks; stems repeat between ok and ko."""
    root = tmp_path / "btad"
    base = root / "BTech_Dataset_transformed"
    for name in (
        "01/train/ok/0000.bmp",
        "01/train/ok/0001.bmp",
        "01/test/ok/0000.bmp",
        "01/test/ko/0000.bmp",
        "01/test/ko/0001.bmp",
        "03/train/ok/0000.png",
        "03/test/ok/0000.png",
        "03/test/ko/0000.PNG",
    ):
        save_image(base / name)
    for name in ("01/ground_truth/ko/0000.png", "01/ground_truth/ko/0001.png", "03/ground_truth/ko/0000.bmp"):
        save_image(base / name, SQUARE)
    return root


def test_btad_round_trip(products, tmp_path):
    images = index(btad.run, categories(products, tmp_path / "m"))
    assert counts(images) == {
        ("01", "train", 0, None): 2,
        ("01", "test", 0, None): 1,
        ("01", "test", 1, "ko"): 2,
        ("03", "train", 0, None): 1,
        ("03", "test", 0, None): 1,
        ("03", "test", 1, "ko"): 1,
    }
    base = "BTech_Dataset_transformed/"
    assert masks_of(images, products) == {
        f"{base}01/test/ko/0000.bmp": [f"{base}01/ground_truth/ko/0000.png"],
        f"{base}01/test/ko/0001.bmp": [f"{base}01/ground_truth/ko/0001.png"],
        f"{base}03/test/ko/0000.PNG": [f"{base}03/ground_truth/ko/0000.bmp"],
    }
    assert {(i.dataset, i.error, i.width) for i in images.values()} == {("btad", None, 60)}
    assert set(counts(index(btad.run, categories(products, tmp_path / "m1", categories="03")))) == {
        ("03", "train", 0, None),
        ("03", "test", 0, None),
        ("03", "test", 1, "ko"),
    }


def test_what_btad_lacks(products, tmp_path, save_image):
    base = products / "BTech_Dataset_transformed"
    save_image(base / "01/ground_truth/ok/0001.png", EMPTY)  # of the normal image of that number
    (base / "01/ground_truth/ko/0001.png").unlink()
    (base / "03/ground_truth/ko").rename(base / "03/ground_truth/ok")
    images = index(btad.run, categories(products, tmp_path / "m"))
    lost = images["BTech_Dataset_transformed/01/test/ko/0001.bmp"]
    assert lost.masks == (base / "01/ground_truth/ko/0001.png",), "nobody else's"
    assert not any(i.error for i in images.values())
    assert images["BTech_Dataset_transformed/03/test/ko/0000.PNG"].masks[0].parent.name == "ok"
    with pytest.raises(InputError, match=r"01: no image lies below <category>/train/ok .*holds the categories"):
        index(btad.run, categories(base / "01", tmp_path / "x"))
    save_image(base / "01/ground_truth/ko/0000.bmp", SQUARE)
    with pytest.raises(InputError, match="0000.png: 0000.bmp is a mask of the same image"):
        index(btad.run, categories(products, tmp_path / "x"))


# -- KolektorSDD2 ---------------------------------------------------------------------------------------


@pytest.fixture
def surfaces(tmp_path, save_image):
    root = tmp_path / "KolektorSDD2"
    for name, mask in (
        ("train/10000", EMPTY),
        ("train/10001", SQUARE),
        ("train/10002", EMPTY),
        ("test/20000", EMPTY),
        ("test/20001", SQUARE // 85),
        ("test/20002", SQUARE),
    ):
        save_image(root / f"{name}.png")
        save_image(root / f"{name}_GT.png", mask)
    return root


def test_ksdd2_labels_are_what_the_masks_show(surfaces, tmp_path):
    images = index(ksdd2.run, IndexConfig(root=surfaces, out=tmp_path / "m"))
    assert counts(images) == {
        ("surface", "train", 0, None): 2,
        ("surface", "train", 1, "defect"): 1,
        ("surface", "test", 0, None): 1,
        ("surface", "test", 1, "defect"): 2,
    }
    assert masks_of(images, surfaces) == {
        f"{k}.png": [f"{k}_GT.png"] for k in ("train/10001", "test/20001", "test/20002")
    }
    assert {i.image_id for i in reference_images(images.values())} == {
        "ksdd2/train/10000.png",
        "ksdd2/train/10002.png",
    }, "one-class methods see no defect"


def test_what_ksdd2_lacks(surfaces, tmp_path):
    (surfaces / "test/20002_GT.png").unlink()
    (surfaces / "test/20001_GT.png").write_bytes(b"no image")
    images = index(ksdd2.run, IndexConfig(root=surfaces, out=tmp_path / "m"))
    assert {k: i.label for k, i in images.items() if i.error} == {"test/20001.png": None, "test/20002.png": None}
    assert images["test/20002.png"].error == f"{surfaces}/test/20002_GT.png: no such mask"
    assert "20001_GT.png: cannot be decoded" in images["test/20001.png"].error
    with pytest.raises(InputError, match="no image lies directly in train or test"):
        index(ksdd2.run, IndexConfig(root=surfaces / "test", out=tmp_path / "x"))
    (surfaces / "train").rename(surfaces / "training")
    with pytest.raises(InputError, match="surface has no normal train images"):
        index(ksdd2.run, IndexConfig(root=surfaces, out=tmp_path / "x"))


# -- DAGM -----------------------------------------------------------------------------------------------

LABELS = "1\n1\t0\t0001.PNG\t0\t0\n2\t1\t0002.PNG\t1\t0002_label.PNG\n"


@pytest.fixture
def textures(tmp_path, save_image):
    """Class1 with Labels.txt, Class10 without."""
    root = tmp_path / "DAGM"
    for folder in ("Class1/Train", "Class1/Test", "Class10/Train", "Class10/Test"):
        for name in ("0001.PNG", "0002.PNG"):
            save_image(root / "DAGM_KaggleUpload" / folder / name)
        save_image(root / "DAGM_KaggleUpload" / folder / "Label/0002_label.PNG", SQUARE)
        if folder.startswith("Class1/"):
            (root / "DAGM_KaggleUpload" / folder / "Label/Labels.txt").write_text(LABELS)
    return root


def test_dagm_round_trip(textures, tmp_path):
    images = index(dagm.run, categories(textures, tmp_path / "m"))
    assert counts(images) == {
        (c, s, label, d): 1
        for c in ("Class1", "Class10")
        for s in ("train", "test")
        for label, d in ((0, None), (1, "defect"))
    }
    assert masks_of(images, textures / "DAGM_KaggleUpload") == {
        f"DAGM_KaggleUpload/{c}/{s}/0002.PNG": [f"{c}/{s}/Label/0002_label.PNG"]
        for c in ("Class1", "Class10")
        for s in ("Train", "Test")
    }
    assert not any(i.error for i in images.values())
    assert {
        i.category for i in index(dagm.run, categories(textures, tmp_path / "m1", categories="class10")).values()
    } == {"Class10"}


def test_what_dagm_lacks(textures, tmp_path):
    base = textures / "DAGM_KaggleUpload"
    (base / "Class1/Test/Label/0002_label.PNG").unlink()
    (base / "Class10/Test/Label/0002_label.PNG").unlink()
    images = index(dagm.run, categories(textures, tmp_path / "m"))
    assert without_mask(images) == {"DAGM_KaggleUpload/Class1/Test/0002.PNG": base / "Class1/Test/Label/0002_label.PNG"}
    assert images["DAGM_KaggleUpload/Class10/Test/0002.PNG"].label == 0, "nothing says otherwise"
    (base / "Class1/Train/Label/Labels.txt").write_text("1\nfoo\n")
    with pytest.raises(InputError, match="Class1/Train/Label/Labels.txt: no line reads `number, 0 or 1, image"):
        index(dagm.run, categories(textures, tmp_path / "x"))
    with pytest.raises(InputError, match="no image lies below Class<K>/Train"):
        index(dagm.run, categories(base / "Class10", tmp_path / "x"))
    (base / "Class10").rename(textures / "Class1")
    with pytest.raises(InputError, match="category Class1 lies in . and in DAGM_KaggleUpload"):
        (base / "Class1/Train/Label/Labels.txt").write_text(LABELS)
        index(dagm.run, categories(textures, tmp_path / "x"))


# -- DTD-Synthetic, MVTec LOCO: the layout of MVTec AD -----------------------------------------------------


def test_dtd_synthetic_round_trip(tmp_path, save_image):
    base = tmp_path / "dtd/DTD-Synthetic/DTD-Synthetic/Woven_001"
    for name in ("train/good/000.png", "test/good/000.png", "test/bad/000.png", "test/bad/001.png", "test/bad/002.png"):
        save_image(base / name)
    save_image(base / "ground_truth/bad/000_mask.png", SQUARE)
    save_image(base / "ground_truth/bad/001.png", SQUARE)
    images = index(mvtec.dtd_synthetic, categories(tmp_path / "dtd", tmp_path / "m"))
    assert counts(images) == {
        ("Woven_001", "train", 0, None): 1,
        ("Woven_001", "test", 0, None): 1,
        ("Woven_001", "test", 1, "bad"): 3,
    }
    assert {i.dataset for i in images.values()} == {"dtd-synthetic"}
    assert list(without_mask(images).values()) == [base / "ground_truth/bad/002_mask.png"]
    with pytest.raises(InputError, match="--categories: 'woven' is none of Woven_001"):
        index(mvtec.dtd_synthetic, categories(tmp_path / "dtd", tmp_path / "x", categories="woven"))


def test_mpdd_is_in_mvtecs_layout(tmp_path, save_image):
    base = tmp_path / "MPDD/metal_plate"
    for name in ("train/good/000.png", "test/good/000.png", "test/scratches/000.png"):
        save_image(base / name)
    save_image(base / "ground_truth/scratches/000_mask.png", SQUARE)
    images = index(mvtec.mpdd, categories(tmp_path / "MPDD", tmp_path / "m"))
    assert {i.dataset for i in images.values()} == {"mpdd"} and len(images) == 3
    (defect,) = (i for i in images.values() if i.defect == "scratches")
    assert defect.masks == (base / "ground_truth/scratches/000_mask.png",)


def test_wfdd_round_trip(tmp_path, save_image):
    for category, kind in (("grey_cloth", "block"), ("pink_flower", "line")):
        base = tmp_path / "data/WFDD" / category
        for name in ("train/good/000.png", "test/good/000.png", f"test/{kind}/000.png"):
            save_image(base / name)
        save_image(base / f"ground_truth/{kind}/000_mask.png", SQUARE)
    images = index(mvtec.wfdd, categories(tmp_path / "data", tmp_path / "m"))
    kinds = {"grey_cloth": "block", "pink_flower": "line"}
    assert counts(images) == {
        (category, *rest): 1
        for category, kind in kinds.items()
        for rest in (("train", 0, None), ("test", 0, None), ("test", 1, kind))
    }
    assert {i.dataset for i in images.values()} == {"wfdd"} and not any(i.error for i in images.values())
    (defect,) = (i for i in images.values() if i.defect == "line")
    assert defect.masks == (tmp_path / "data/WFDD/pink_flower/ground_truth/line/000_mask.png",)


def test_loco_says_what_is_wrong_as_mvtec_does(tmp_path, save_image):
    save_image(tmp_path / "loco/pushpins/train/good/000.png")
    with pytest.raises(InputError, match="pushpins has no test images"):
        index(loco.run, categories(tmp_path / "loco", tmp_path / "x"))
    with pytest.raises(InputError, match="no image lies below <category>/train/good"):
        index(loco.run, categories(tmp_path / "loco/pushpins", tmp_path / "x"))


# -- meta.json ------------------------------------------------------------------------------------------


def record(image, mask="", anomaly=0, specie="good", **more):
    return {"img_path": image, "mask_path": mask, "cls_name": "x", "specie_name": specie, "anomaly": anomaly} | more


@pytest.fixture
def bottles(tmp_path, save_image):
    root = tmp_path / "mvtec"
    for name in (
        "train/good/000.png",
        "test/good/000.png",
        "test/broken/000.png",
        "test/broken/001.png",
        "test/broken/002.png",
    ):
        save_image(root / "bottle" / name)
    for name in ("000_mask.png", "001_mask.png", "002_mask.png"):
        save_image(root / "bottle/ground_truth/broken" / name, SQUARE)
    test = [
        record("bottle/test/good/000.png"),
        *(
            record(f"bottle/test/broken/{k}.png", f"bottle/ground_truth/broken/{k}_mask.png", 1, "broken")
            for k in ("000", "001", "002")
        ),
    ]
    return root, {"train": {"bottle": [record("bottle/train/good/000.png")]}, "test": {"bottle": test}}


def index_meta(root, out, listed, name=""):
    (root / "meta.json").write_text(json.dumps(listed))
    return index(meta_json.run, meta_json.MetaJsonConfig(root=root, out=out, name=name))


def test_meta_json_round_trip(bottles, tmp_path):
    root, listed = bottles
    images = index_meta(root, tmp_path / "m", listed)
    assert counts(images) == {
        ("bottle", "train", 0, None): 1,
        ("bottle", "test", 0, None): 1,
        ("bottle", "test", 1, "broken"): 3,
    }
    assert masks_of(images, root) == {
        f"bottle/test/broken/{k}.png": [f"bottle/ground_truth/broken/{k}_mask.png"] for k in ("000", "001", "002")
    }
    assert {(i.dataset, i.error) for i in images.values()} == {("mvtec", None)}
    assert images == index_meta(root, tmp_path / "m1", {"Train": listed["train"], "Test": listed["test"]}), "as DAGM's"
    named = index_meta(root, tmp_path / "m2", listed, name="mvtec-ad")
    assert {i.dataset for i in named.values()} == {"mvtec-ad"}


def test_meta_json_masks_paired_by_position_are_paired_by_name(bottles, tmp_path, capsys):
    """The mask of 000 is missing, and everybody has the next one's."""
    root, listed = bottles
    (root / "bottle/ground_truth/broken/000_mask.png").unlink()
    for r, k in zip(listed["test"]["bottle"][1:], ("001", "002", "002"), strict=True):
        r["mask_path"] = f"bottle/ground_truth/broken/{k}_mask.png"
    (root / "meta.json").write_text(json.dumps(listed))
    meta_json.run(meta_json.MetaJsonConfig(root=root, out=tmp_path / "m"), RunOptions())
    images = [i for i in read_manifest(tmp_path / "m").images if i.masks]
    assert {i.file.stem: i.masks[0].stem for i in images} == {k: f"{k}_mask" for k in ("000", "001", "002")}
    assert [i.file.stem for i in images if not i.masks[0].exists()] == ["000"] and not images[0].error
    said = capsys.readouterr().err
    assert "2 masks were those of other images" in said
    assert "1 mask not there, so that pixel metrics are impossible for these images: bottle/ground_truth" in said


def test_meta_json_masks_of_other_names_stay(bottles, tmp_path, save_image):
    root, listed = bottles
    for r, k in zip(listed["test"]["bottle"][1:], "abc", strict=True):
        save_image(root / f"drawn/{k}.png", SQUARE)
        r["mask_path"] = f"drawn/{k}.png"
    images = index_meta(root, tmp_path / "m", listed)
    assert [i.masks[0].stem for i in images.values() if i.masks] == ["a", "b", "c"]


def test_meta_json_mask_folders_named_after_their_image_stay(tmp_path, save_image):
    for k in ("000", "001"):
        save_image(tmp_path / f"loco/c/test/bad/{k}.png")
        save_image(tmp_path / f"loco/c/ground_truth/bad/{k}/000.png", SQUARE)
    listed = {
        "test": {
            "c": [record(f"c/test/bad/{k}.png", f"c/ground_truth/bad/{k}/000.png", 1, "bad") for k in ("000", "001")]
        }
    }
    images = index_meta(tmp_path / "loco", tmp_path / "m", listed)
    assert [i.masks[0].parent.name for i in images.values()] == ["000", "001"]


def test_what_meta_json_lacks(bottles, tmp_path):
    root, listed = bottles
    (root / "bottle/test/good/000.png").unlink()
    (root / "bottle/ground_truth/broken/002_mask.png").unlink()
    images = index_meta(root, tmp_path / "m", listed)
    assert [k for k, i in images.items() if i.error] == ["bottle/test/good/000.png"]
    assert without_mask(images) == {"bottle/test/broken/002.png": root / "bottle/ground_truth/broken/002_mask.png"}
    for broken, said in (
        ({"train": listed["train"]}, "lists no test images"),
        ([], r"not lists of records.*AttributeError"),
        ({"test": {"c": [{"img_path": "a.png"}]}}, "not lists of records.*KeyError: 'anomaly'"),
        ({"test": {"c": [record("a.png", anomaly=2)]}}, "not lists of records.*anomaly 2"),
        ({"test": {"c": [record("a.png")]}}, "none of its 1 images lies below .* first a.png"),
        (
            {"test": {"c": [record("bottle/test/broken/000.png"), record("bottle/test/broken/000.png", anomaly=1)]}},
            "lists bottle/test/broken/000.png twice, as test c normal and as test c good",
        ),
    ):
        with pytest.raises(InputError, match=f"meta.json: {said}"):
            index_meta(root, tmp_path / "x", broken)
    (root / "meta.json").write_text("{")
    with pytest.raises(InputError, match="meta.json: not lists of records"):
        index(meta_json.run, meta_json.MetaJsonConfig(root=root, out=tmp_path / "x"))
    (root / "meta.json").unlink()
    with pytest.raises(InputError, match="meta.json: no such file; .*adcli data index folder"):
        index(meta_json.run, meta_json.MetaJsonConfig(root=root, out=tmp_path / "x"))
