"""BMAD's data sets, BrainMRI, the colonoscopy sets, and meta.json as it is made for these."""

import csv
import json
from collections import Counter
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.datasets import bmad, brain_mri, check, meta_json, polyps
from stages.datasets.config import IndexConfig
from stages.datasets.images import load_mask
from stages.datasets.manifest import read_manifest

QUIET = RunOptions(quiet=True)
SQUARE = np.zeros((40, 60), np.uint8)
SQUARE[8:16, 8:16] = 255


def without_mask(images: dict) -> dict[str, Path]:
    """Images whose row names a mask that is not there, and that mask; that has let none of the rows fail."""
    assert not any(i.error for i in images.values() if i.masks)
    return {key: mask for key, i in images.items() for mask in i.masks if not mask.is_file()}


def index(run, root, out):
    """image_id without the data set -> manifest row."""
    run(IndexConfig(root=root, out=out), QUIET)
    return {i.image_id.removeprefix(f"{i.dataset}/"): i for i in read_manifest(out).images}


def counts(images):
    return Counter((i.dataset, i.category, i.split, i.label, i.defect) for i in images.values())


def masks_of(images, root):
    return {k: [m.relative_to(root).as_posix() for m in i.masks] for k, i in images.items() if i.masks}


# -- BMAD -----------------------------------------------------------------------------------------------

LAYOUTS = {  # of an image and of its mask, by split (in BMAD's words) and label
    "readme": ("{split}/{label}/img/{name}", "{split}/{label}/anomaly_mask/{name}"),
    "anomalib": ("{split}/{label}/img/{name}", "{split}/{label}/label/{name}"),
    "img first": ("{split}/img/{label}/{name}", "{split}/label/{label}/{name}"),
}


@pytest.fixture
def brains(tmp_path, save_image):
    """brains(layout) -> root, wrapped in the archive's folders; the normal test image has an empty mask."""

    def make(layout="readme"):
        root = tmp_path / "Brain_AD"
        image, mask = (part for part in LAYOUTS[layout])
        base = root / "BraTS2021_slice"
        save_image(base / "train/good/00000_60.png")
        save_image(base / "train/good/00000_61.png", 1)
        for split, label, name in (
            ("valid", "good", "00002_60.png"),
            ("valid", "Ungood", "00003_60.png"),
            ("test", "good", "00004_60.png"),
            ("test", "Ungood", "00005_60.png"),
            ("test", "Ungood", "00006_60.png"),
        ):
            save_image(base / image.format(split=split, label=label, name=name), int(name[:5]))
            save_image(base / mask.format(split=split, label=label, name=name), SQUARE * (label == "Ungood"))
        return root

    return make


@pytest.mark.parametrize("layout", LAYOUTS)
def test_brain_ad_round_trip(brains, tmp_path, layout):
    root = brains(layout)
    images = index(bmad.brain_ad, root, tmp_path / "m")
    assert counts(images) == {
        ("brain-ad", "brain", *rest): n
        for *rest, n in (
            ("train", 0, None, 2),
            ("val", 0, None, 1),
            ("val", 1, "ungood", 1),
            ("test", 0, None, 1),
            ("test", 1, "ungood", 2),
        )
    }
    image, mask = LAYOUTS[layout]
    assert masks_of(images, root / "BraTS2021_slice") == {
        f"BraTS2021_slice/{image.format(**at)}": [mask.format(**at)]
        for at in (
            {"split": "valid", "label": "Ungood", "name": "00003_60.png"},
            {"split": "test", "label": "Ungood", "name": "00005_60.png"},
            {"split": "test", "label": "Ungood", "name": "00006_60.png"},
        )
    }
    assert not any(i.error for i in images.values())


def test_what_brain_ad_lacks(brains, tmp_path, save_image):
    root = brains()
    base = root / "BraTS2021_slice"
    (base / "test/Ungood/anomaly_mask/00006_60.png").unlink()
    assert without_mask(index(bmad.brain_ad, root, tmp_path / "m")) == {
        "BraTS2021_slice/test/Ungood/img/00006_60.png": base / "test/Ungood/anomaly_mask/00006_60.png"
    }
    save_image(base / "test/Ungood/label/00005_60.png", SQUARE)
    with pytest.raises(InputError, match="00005_60.png is a mask of the same image"):
        index(bmad.brain_ad, root, tmp_path / "x")
    (base / "test/Ungood/label/00005_60.png").unlink()
    save_image(tmp_path / "Brain_AD/other/train/good/1.png")
    with pytest.raises(InputError, match="brain-ad lies in BraTS2021_slice and in other; give the folder"):
        index(bmad.brain_ad, root, tmp_path / "x")
    (tmp_path / "Brain_AD/other/train/good/1.png").unlink()
    with pytest.raises(InputError, match="train: no image lies below <split>/good or <split>/Ungood"):
        index(bmad.brain_ad, base / "train", tmp_path / "x")
    (base / "test").rename(base / "held_out")
    with pytest.raises(InputError, match="brain has no test images"):
        index(bmad.brain_ad, root, tmp_path / "x")


@pytest.mark.parametrize(
    "run, dataset, category, val",
    [(bmad.oct17, "oct17", "retina", "val"), (bmad.his, "his", "histopathology", "valid")],
)
def test_bmad_without_masks(tmp_path, save_image, run, dataset, category, val):
    root = tmp_path / "set"
    for name in (
        "train/good/1.png",
        f"{val}/good/2.png",
        f"{val}/Ungood/3.png",
        "test/good/4.png",
        "test/Ungood/5.png",
        "test/Ungood/6.png",
    ):
        save_image(root / "inner" / name)
    save_image(root / "inner/test/Ungood/label/5.png", SQUARE)  # some copies have such a folder
    images = index(run, root, tmp_path / "m")
    assert counts(images) == {
        (dataset, category, *rest): n
        for *rest, n in (
            ("train", 0, None, 1),
            ("val", 0, None, 1),
            ("val", 1, "ungood", 1),
            ("test", 0, None, 1),
            ("test", 1, "ungood", 2),
        )
    }
    assert all(i.masks == () and i.error is None for i in images.values())


def test_oct17_as_its_authors_published_it(tmp_path, save_image):
    for split in ("train", "val", "test"):
        for kind in ("NORMAL", "CNV", "DME", "DRUSEN"):
            save_image(tmp_path / f"OCT2017 /{split}/{kind}/{kind}-1-1.jpeg")
    images = index(bmad.oct17, tmp_path / "OCT2017 ", tmp_path / "m")
    assert counts(images) == {
        ("oct17", "retina", split, int(kind is not None), kind): 1
        for split in ("train", "val", "test")
        for kind in (None, "cnv", "dme", "drusen")
    }


# -- BrainMRI -------------------------------------------------------------------------------------------


@pytest.fixture
def tumours(tmp_path, save_image):
    """The archive: both folders at the top, and once more in brain_tumor_dataset."""
    root = tmp_path / "brain"
    for base in (root, root / "brain_tumor_dataset"):
        for name in ("no/1 no.jpeg", "no/2.JPG", "yes/Y1.jpg", "yes/Y2.png", "yes/Y2.jpg"):
            save_image(base / name)
    return root


def test_brain_mri_round_trip(tumours, tmp_path):
    images = index(brain_mri.run, tumours, tmp_path / "m")
    assert counts(images) == {("brain-mri", "brain", "test", 0, None): 2, ("brain-mri", "brain", "test", 1, "tumor"): 3}
    assert all(k.startswith("brain_tumor_dataset/") and i.masks == () and i.error is None for k, i in images.items())
    inside = index(brain_mri.run, tumours / "brain_tumor_dataset", tmp_path / "m1")
    assert {k.removeprefix("brain_tumor_dataset/") for k in images} == set(inside)


def test_what_brain_mri_lacks(tumours, tmp_path, save_image):
    with pytest.raises(InputError, match="no images in a folder `no`"):
        index(brain_mri.run, tumours / "yes", tmp_path / "x")
    save_image(tumours / "brain_tumor_dataset/no/0.png").write_bytes(b"")
    errors = [i.error for i in index(brain_mri.run, tumours, tmp_path / "m").values() if i.error]
    assert len(errors) == 1 and "0.png: the file is empty" in errors[0]
    (tumours / "brain_tumor_dataset").rename(tumours / "again")
    with pytest.raises(InputError, match="brain-mri lies in . and in again"):
        index(brain_mri.run, tumours, tmp_path / "x")


# -- colonoscopy ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "run, dataset, names",
    [
        (polyps.cvc_clinicdb, "cvc-clinicdb", ("Original/{}.tif", "Ground Truth/{}.tif")),
        (polyps.cvc_clinicdb, "cvc-clinicdb", ("images/{}.png", "masks/{}.png")),
        (polyps.cvc_colondb, "cvc-colondb", ("images/{}.png", "masks/{}.png")),
        (
            polyps.endo,
            "endo",
            (
                "EndoTect_2020_Segmentation_Test_Dataset/images/{}.jpg",
                "EndoTect_2020_Segmentation_Test_Dataset/masks/{}.png",
            ),
        ),
        (polyps.kvasir, "kvasir", ("Kvasir-SEG/images/{}.jpg", "Kvasir-SEG/masks/{}.jpg")),
    ],
)
def test_polyps_round_trip(tmp_path, save_image, run, dataset, names):
    root = tmp_path / "set"
    for stem in ("1", "2", "10"):
        save_image(root / names[0].format(stem))
        save_image(root / names[1].format(stem), SQUARE)
    (root / "kavsir_bboxes.json").write_text("{}")
    images = index(run, root, tmp_path / "m")
    assert counts(images) == {(dataset, "colon", "test", 1, "polyp"): 3}
    assert masks_of(images, root) == {names[0].format(s): [names[1].format(s)] for s in ("1", "2", "10")}
    assert all(load_mask(i.masks[0]).sum() == 64 for i in images.values()), "noise of JPEG does not count"


def test_what_polyps_lack(tmp_path, save_image):
    root = tmp_path / "CVC-ClinicDB"
    for kind in ("TIF/Original/{}.tif", "TIF/Ground Truth/{}.tif"):
        for stem in ("1", "2"):
            save_image(root / kind.format(stem))
    (root / "TIF/Ground Truth/2.tif").unlink()
    assert without_mask(index(polyps.cvc_clinicdb, root, tmp_path / "m")) == {
        "TIF/Original/2.tif": root / "TIF/Ground Truth/2.tif"
    }
    with pytest.raises(InputError, match="Original: no image lies in a folder images or Original"):
        index(polyps.cvc_clinicdb, root / "TIF/Original", tmp_path / "x")
    save_image(root / "PNG/Original/1.png")
    with pytest.raises(InputError, match="cvc-clinicdb lies in PNG and in TIF; give the folder that holds one"):
        index(polyps.cvc_clinicdb, root, tmp_path / "x")
    with pytest.raises(InputError, match="PNG: no image lies in a folder masks or Ground Truth"):
        index(polyps.cvc_clinicdb, root / "PNG", tmp_path / "x")


# -- meta.json of medical sets --------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "/old/machine/CVC-ColonDB/", "CVC-ColonDB/", "C:\\data\\CVC-ColonDB\\"])
def test_meta_json_paths_of_another_machine(tmp_path, save_image, prefix):
    root = tmp_path / "colon"
    for stem in ("1", "2"):
        save_image(root / f"images/{stem}.png")
        save_image(root / f"masks/{stem}.png", SQUARE)
    records = [
        {
            "img_path": f"{prefix}images/{s}.png",
            "mask_path": f"{prefix}masks/{s}.png",
            "cls_name": "colon",
            "specie_name": "",
            "anomaly": 1,
        }
        for s in ("1", "2")
    ]
    (root / "meta.json").write_text(json.dumps({"train": {}, "test": {"colon": records, "meta.json": []}}))
    meta_json.run(meta_json.MetaJsonConfig(root=root, out=tmp_path / "m", name="cvc-colondb"), QUIET)
    images = {i.image_id: i for i in read_manifest(tmp_path / "m").images}
    assert set(images) == {f"cvc-colondb/images/{s}.png" for s in ("1", "2")}
    assert counts(images) == {("cvc-colondb", "colon", "test", 1, "anomaly"): 2}
    assert [i.masks[0].stem for i in images.values()] == ["1", "2"] and not any(i.error for i in images.values())


def test_meta_json_anomalous_without_mask_and_listed_twice(tmp_path, save_image):
    root = tmp_path / "br35"
    save_image(root / "yes/y0.jpg")
    save_image(root / "no/n0.jpg")
    listed = [
        {"img_path": "yes/y0.jpg", "mask_path": "", "cls_name": "brain", "specie_name": "yes", "anomaly": 1},
        {"img_path": "no/n0.jpg", "mask_path": "", "cls_name": "brain", "specie_name": "good", "anomaly": 0},
        {"img_path": "meta.json", "mask_path": "", "cls_name": "brain", "specie_name": "", "anomaly": 1},
    ]
    (root / "meta.json").write_text(json.dumps({"test": {"brain": listed + listed}}))
    meta_json.run(meta_json.MetaJsonConfig(root=root, out=tmp_path / "m"), QUIET)
    images = {i.image_id: i for i in read_manifest(tmp_path / "m").images}
    assert counts(images) == {("br35", "brain", "test", 0, None): 1, ("br35", "brain", "test", 1, "yes"): 1}
    assert all(i.masks == () and i.error is None for i in images.values())


# -- data check -----------------------------------------------------------------------------------------


def test_known_counts_of_medical_sets(brains, tmp_path):
    known = check.known_counts()
    brain = known["brain-ad", "brain"]
    assert brain["test"] == brain["test_normal"] + brain["test_anomalous"] == 3715 and brain["other"] == 39 + 44
    index(bmad.brain_ad, brains(), tmp_path / "m")
    said = check.run(check.CheckConfig(manifest=tmp_path / "m"), QUIET).differences
    assert said == (
        "brain: other 2, known are 83 (81 missing)",
        "brain: train normal 2, known are 7500 (7498 missing)",
        "brain: test normal 1, known are 640 (639 missing)",
        "brain: test anomalous 2, known are 3075 (3073 missing)",
        "brain: test 3, known are 3715 (3712 missing)",
    )


def test_the_table_of_known_counts_is_whole():
    text = files("stages").joinpath("datasets/known_counts.csv").read_text().splitlines()
    header, *rows = csv.reader(text)
    assert all(len(row) == len(header) for row in rows)
    fields = {"normal", "test"} | set(check.Counts.__dataclass_fields__)
    assert set(header) <= fields
