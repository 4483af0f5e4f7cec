"""MVTec AD and VisA in their original layouts, masks of every kind, and what `data check` says of them."""

import json
from pathlib import Path

import numpy as np
import pytest

from stages.base.config import RunOptions
from stages.base.errors import ImageError, InputError
from stages.datasets import check, mvtec, vidad, visa
from stages.datasets.images import load_mask
from stages.datasets.manifest import read_manifest
from tests.processes import called

QUIET = RunOptions(quiet=True)
ROOT = Path(__file__).parents[2]


def index_mvtec(root, out, **more):
    mvtec.run(mvtec.MvtecConfig(root=root, out=out, **more), QUIET)
    return {i.image_id: i for i in read_manifest(out).images}


def index_visa(root, out, **more):
    visa.run(visa.VisaConfig(root=root, out=out, **more), QUIET)
    return {i.image_id: i for i in read_manifest(out).images}


def checked(manifest, root=None):
    return check.run(check.CheckConfig(manifest=manifest, root=root), QUIET)


@pytest.fixture
def mask():
    """mask(value): (40, 60) uint8, a square of 9 px of that value."""

    def make(value=255, shape=(40, 60)):
        made = np.zeros(shape, np.uint8)
        made[5:8, 5:8] = value
        return made

    return make


# -- MVTec AD -------------------------------------------------------------------------------------------


@pytest.fixture
def bottles(tmp_path, save_image, mask):
    """A tree with a wrapper folder, stems that defects share, odd spelling, and junk."""
    root = tmp_path / "archive" / "mvtec"
    for name in (
        "bottle/train/good/000.png",
        "bottle/train/good/001.PNG",
        "bottle/test/good/000.png",
        "bottle/test/broken_large/000.png",
        "bottle/test/broken_large/001.png",
        "bottle/test/contamination/000.PNG",
        "screw/train/good/000.png",
        "screw/test/good/000.png",
    ):
        save_image(root / name)
    save_image(root / "bottle/ground_truth/broken_large/000_mask.png", mask())
    save_image(root / "bottle/ground_truth/broken_large/001.png", mask())  # a re-release
    save_image(root / "bottle/Ground_Truth/contamination/000_MASK.png", mask())
    for junk in ("bottle/license.txt", "bottle/train/good/Thumbs.db", "bottle/test/good/.DS_Store"):
        (root / junk).write_text("junk")
    save_image(root / "__MACOSX/bottle/train/good/000.png")
    save_image(root / "preview.png")
    return tmp_path / "archive"


def test_mvtec_round_trip(bottles, tmp_path):
    images = index_mvtec(bottles, tmp_path / "m")
    assert len(images) == 8 and all(i.error is None and i.file.is_file() for i in images.values())
    said = {(i.category, i.split, i.label, i.defect) for i in images.values()}
    assert said == {
        ("bottle", "train", 0, None),
        ("bottle", "test", 0, None),
        ("screw", "train", 0, None),
        ("screw", "test", 0, None),
        ("bottle", "test", 1, "broken_large"),
        ("bottle", "test", 1, "contamination"),
    }
    base = bottles / "mvtec" / "bottle"
    masks = {
        k.removeprefix("mvtec-ad/mvtec/bottle/test/"): [m.relative_to(base).as_posix() for m in i.masks]
        for k, i in images.items()
        if i.label
    }
    assert masks == {
        "broken_large/000.png": ["ground_truth/broken_large/000_mask.png"],
        "broken_large/001.png": ["ground_truth/broken_large/001.png"],
        "contamination/000.PNG": ["Ground_Truth/contamination/000_MASK.png"],
    }
    assert all(i.masks == () for i in images.values() if not i.label)
    assert {i.dataset for i in images.values()} == {"mvtec-ad"}
    chosen = index_mvtec(bottles, tmp_path / "m2", categories="screw")
    assert {i.category for i in chosen.values()} == {"screw"} and len(chosen) == 2


def test_a_missing_mask_is_no_failed_row_and_takes_nobody_elses(bottles, tmp_path):
    (bottles / "mvtec/bottle/ground_truth/broken_large/000_mask.png").unlink()
    images = index_mvtec(bottles, tmp_path / "m")
    lost = images["mvtec-ad/mvtec/bottle/test/broken_large/000.png"]
    assert lost.masks == (bottles / "mvtec/bottle/ground_truth/broken_large/000_mask.png",), "and it is not there"
    assert lost.width == 60 and not any(i.error for i in images.values()), "captions and image scores need no mask"
    assert images["mvtec-ad/mvtec/bottle/test/broken_large/001.png"].masks[0].name == "001.png"


def test_categories_that_lack_or_are_another_data_sets_are_said(bottles, tmp_path, capsys):
    mvtec.run(mvtec.MvtecConfig(root=bottles, out=tmp_path / "a"), RunOptions())
    said = capsys.readouterr().err
    assert "13 categories of mvtec-ad not there: cable, capsule, carpet, " in said and "known without" not in said
    visa.run(visa.VisaConfig(root=bottles, out=tmp_path / "b"), RunOptions())
    assert "visa is known without: bottle, screw (is this the root of another data set?)" in capsys.readouterr().err


def test_mvtec_trees_that_cannot_be(bottles, tmp_path, save_image):
    with pytest.raises(InputError, match="--categories: 'botle' is none of bottle, screw"):
        index_mvtec(bottles, tmp_path / "m", categories="botle")
    with pytest.raises(InputError, match="no image lies below <category>/train/good"):
        index_mvtec(bottles / "mvtec" / "bottle" / "test", tmp_path / "m")
    save_image(bottles / "mvtec/bottle/ground_truth/broken_large/000.png")
    with pytest.raises(InputError, match="000_mask.png: 000.png is a mask of the same image"):
        index_mvtec(bottles, tmp_path / "m")
    (bottles / "mvtec/bottle/ground_truth/broken_large/000.png").unlink()
    second = save_image(bottles / "copy/bottle/train/good/000.png")
    with pytest.raises(InputError, match="bottle lies in copy/bottle and in mvtec/bottle"):
        index_mvtec(bottles, tmp_path / "m")
    second.unlink()
    (bottles / "mvtec/screw/test/good/000.png").unlink()
    with pytest.raises(InputError, match="screw has no test images"):
        index_mvtec(bottles, tmp_path / "m")
    (bottles / "mvtec/bottle/train/good/000.png").unlink()
    (bottles / "mvtec/bottle/train/good/001.PNG").unlink()
    with pytest.raises(InputError, match="bottle has no normal train images"):
        index_mvtec(bottles, tmp_path / "m", categories="bottle")
    assert not (tmp_path / "m").exists()


# -- VisA -----------------------------------------------------------------------------------------------

SPLIT = """object,split,label,image,mask
candle,train,normal,candle/Data/Images/Normal/0000.JPG,
candle,test,normal,candle/Data/Images/Normal/0001.JPG,
candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png
candle,test,anomaly,candle/Data/Images/Anomaly/001.JPG,candle/Data/Masks/Anomaly/001.png
pcb1,train,normal,pcb1/Data/Images/Normal/0000.JPG,
"""
LABELS = """image,label,mask
candle/Data/Images/Normal/0000.JPG,normal,
candle/Data/Images/Anomaly/000.JPG,"weird wick, melt",candle/Data/Masks/Anomaly/000.png
"""


@pytest.fixture
def candles(tmp_path, save_image, mask):
    root = tmp_path / "VisA"
    for name in ("Normal/0000.JPG", "Normal/0001.JPG", "Anomaly/000.JPG", "Anomaly/001.jpg"):
        save_image(root / "candle/Data/Images" / name)
    save_image(root / "candle/Data/Masks/Anomaly/000.png", mask(1))
    save_image(root / "candle/Data/Masks/Anomaly/001.png", mask(9))
    (root / "candle/image_anno.csv").write_text(LABELS)
    (root / "split_csv").mkdir()
    (root / "split_csv/1cls.csv").write_text(SPLIT)
    return root


@pytest.mark.parametrize("wrapper", ["", "VisA/"])
def test_raw_visa_round_trip(candles, tmp_path, wrapper):
    images = index_visa(candles.parent if wrapper else candles, tmp_path / "m")
    base = f"visa/{wrapper}candle/Data/Images/"
    assert {
        k.removeprefix(base): (i.split, i.label, i.defect, [m.name for m in i.masks]) for k, i in images.items()
    } == {
        "Normal/0000.JPG": ("train", 0, None, []),
        "Normal/0001.JPG": ("test", 0, None, []),
        "Anomaly/000.JPG": ("test", 1, "weird wick,melt", ["000.png"]),
        "Anomaly/001.jpg": ("test", 1, "anomaly", ["001.png"]),
    }
    assert [load_mask(i.masks[0]).sum() for i in images.values() if i.masks] == [9, 9]
    assert {(i.dataset, i.category, i.error) for i in images.values()} == {("visa", "candle", None)}


def test_what_raw_visa_lacks(candles, tmp_path, save_image):
    split = candles / "split_csv/1cls.csv"
    (candles / "candle/Data/Masks/Anomaly/000.png").unlink()
    (candles / "candle/Data/Images/Anomaly/001.jpg").unlink()
    errors = {k.rsplit("/", 1)[1]: i.error for k, i in index_visa(candles, tmp_path / "m").items() if i.error}
    assert set(errors) == {"001.JPG"} and "No such file" in errors["001.JPG"]
    stray = save_image(candles / "candle/Data/Images/Normal/0002.JPG")
    with pytest.raises(InputError, match="does not list 1 of the 4 images, first candle/.*0002.JPG"):
        index_visa(candles, tmp_path / "x")
    stray.unlink()
    other = split.rename(tmp_path / "my split.csv")
    with pytest.raises(InputError, match="VisA/split_csv/1cls.csv: no such file.*--split-csv"):
        index_visa(candles, tmp_path / "x")
    assert len(index_visa(candles, tmp_path / "m2", split_csv=other)) == 4
    split.write_text(SPLIT.replace("test,normal", "test,good"))
    with pytest.raises(InputError, match="1cls.csv: line 3 says split 'test', label 'good'"):
        index_visa(candles, tmp_path / "x")
    split.write_text(SPLIT.replace("object,", "class,"))
    with pytest.raises(InputError, match="1cls.csv: no column `object`"):
        index_visa(candles, tmp_path / "x")
    split.write_text(SPLIT.replace("candle,train", "candle,test"))
    with pytest.raises(InputError, match="candle has no normal train images"):
        index_visa(candles, tmp_path / "x")


def test_visa_as_a_copy_in_the_layout_of_mvtec(candles, tmp_path, save_image, mask):
    for name in (
        "1cls/candle/train/good/0000.JPG",
        "1cls/candle/test/good/0001.JPG",
        "1cls/candle/test/bad/000.JPG",
        "2cls_fewshot/candle/train/good/0000.JPG",
    ):
        save_image(tmp_path / "VisA_pytorch" / name)
    save_image(tmp_path / "VisA_pytorch/1cls/candle/ground_truth/bad/000.png", mask())
    images = index_visa(tmp_path / "VisA_pytorch", tmp_path / "m")
    assert {k: (i.split, i.label, i.defect, i.error) for k, i in images.items()} == {
        "visa/1cls/candle/train/good/0000.JPG": ("train", 0, None, None),
        "visa/1cls/candle/test/good/0001.JPG": ("test", 0, None, None),
        "visa/1cls/candle/test/bad/000.JPG": ("test", 1, "bad", None),
    }
    assert load_mask(images["visa/1cls/candle/test/bad/000.JPG"].masks[0]).sum() == 9
    with pytest.raises(InputError, match="holds both layouts; give --layout raw or --layout 1cls"):
        index_visa(tmp_path, tmp_path / "x")
    assert len(index_visa(tmp_path, tmp_path / "m1", layout="1cls")) == 3
    assert len(index_visa(tmp_path, tmp_path / "m2", layout="raw")) == 4
    with pytest.raises(InputError, match=r"no images below <category>/Data/Images \(raw\)"):
        index_visa(tmp_path / "VisA_pytorch", tmp_path / "x", layout="raw")
    with pytest.raises(InputError, match="--layout '2cls': none of auto, raw, 1cls"):
        index_visa(candles, tmp_path / "x", layout="2cls")
    with pytest.raises(InputError, match="--split-csv .*: the folders of the 1cls layout are the split"):
        index_visa(tmp_path, tmp_path / "x", layout="1cls", split_csv=candles / "split_csv/1cls.csv")


# -- masks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values, anomalous",
    [
        ([0, 0, 0, 0], [0, 0, 0, 0]),  # an empty mask, whichever kind
        ([0, 1, 2, 9], [0, 1, 1, 1]),  # VisA
        ([0, 0, 1, 1], [0, 0, 1, 1]),
        ([0, 15, 0, 1], [0, 1, 0, 1]),
        ([0, 255, 254, 255], [0, 1, 1, 1]),  # MVTec LOCO
        ([3, 90, 127, 250], [0, 0, 0, 1]),  # soft edges and JPEG noise
        ([9, 1, 128, 255], [0, 0, 1, 1]),
    ],
)
def test_index_masks_and_drawn_masks(tmp_path, save_image, values, anomalous):
    path = save_image(tmp_path / "mask.png", np.array([values], np.uint8))
    assert load_mask(path).tolist() == [[bool(a) for a in anomalous]]


def test_a_mask_that_is_no_image(tmp_path):
    (tmp_path / "mask.png").write_text("no image")
    with pytest.raises(ImageError, match="cannot be decoded"):
        load_mask(tmp_path / "mask.png")


# -- data check -----------------------------------------------------------------------------------------


def test_known_counts_are_those_of_the_papers():
    def total(dataset, column):
        return sum(v.get(column, 0) for (name, _), v in check.known_counts().items() if name == dataset)

    columns = ("train_normal", "test_normal", "test_anomalous", "masks")
    assert [total("mvtec-ad", c) for c in columns] == [3629, 467, 1258, 1258]  # LVLM paper, section 4.1
    assert [total("visa", c) for c in columns] == [8659, 962, 1200, 1200]
    assert total("vidad", "test_anomalous") == 1079  # VID-AD, Table 3
    assert total("magnetic-tile", "normal") + total("magnetic-tile", "test_anomalous") == 1344
    for (dataset, _), counts in check.known_counts().items():
        if dataset in ("mvtec-ad", "visa"):
            assert counts["normal"] == counts["train_normal"] + counts["test_normal"]


@pytest.fixture
def toothbrushes(tmp_path, save_image, mask):
    """The smallest category of MVTec AD, whole: 60 + 12 + 30 images."""
    root = tmp_path / "mvtec"
    for brightness, kind, n in ((0, "train/good", 60), (60, "test/good", 12), (80, "test/defective", 30)):
        for k in range(n):
            save_image(root / "toothbrush" / kind / f"{k:03d}.png", np.full((8, 12, 3), brightness + k, np.uint8))
    for k in range(30):
        save_image(root / f"toothbrush/ground_truth/defective/{k:03d}_mask.png", mask(shape=(8, 12)))
    return root


def test_check_of_what_is_all_there(toothbrushes, tmp_path):
    index_mvtec(toothbrushes, tmp_path / "m", categories="toothbrush")
    found = checked(tmp_path / "m")
    assert found.differences == () and found.uncompared == ()
    assert found.counts == (check.Counts("mvtec-ad", "toothbrush", None, 60, 12, 30, 0, 30, 0, 0),)
    assert "the counts are the known ones" in check.as_text(found)
    index_mvtec(toothbrushes, tmp_path / "all")  # nobody asked for toothbrushes only
    (line,) = checked(tmp_path / "all").differences
    assert line.startswith("mvtec-ad: nothing of bottle, cable, ") and "toothbrush" not in line


def test_check_says_what_is_missing_too_much_unreadable_or_of_another_size(toothbrushes, tmp_path, save_image, mask):
    base = toothbrushes / "toothbrush"
    (base / "train/good/007.png").unlink()
    save_image(base / "test/good/999.png", np.full((8, 12, 3), 255, np.uint8))
    (base / "ground_truth/defective/000_mask.png").unlink()
    save_image(base / "ground_truth/defective/001_mask.png", mask(shape=(12, 8)))
    cut = save_image(base / "test/good/003.png", 3)
    cut.write_bytes(cut.read_bytes()[:2000])  # its header is whole: `data index` cannot see it
    index_mvtec(toothbrushes, tmp_path / "m", categories="toothbrush")
    found = checked(tmp_path / "m")
    assert found.counts == (check.Counts("mvtec-ad", "toothbrush", None, 59, 13, 30, 0, 29, 1, 1),)
    said = check.as_text(found)
    for part in (
        "toothbrush: train normal 59, known are 60 (1 missing)",
        "toothbrush: test normal 13, known are 12 (1 too many)",
        "toothbrush: masks 29, known are 30 (1 missing)",
        "toothbrush: unreadable 1, first",
        "toothbrush: masks that are not there 1, first",
        "000_mask.png",
        "masks of another size than their image 1",
        "001_mask.png: 8 x 12 px, its image 12 x 8",
    ):
        assert part in said, said
    assert "known ones" not in said and len(found.differences) == 6


@pytest.mark.slow
def test_check_of_vidad_knows_the_tasks_that_were_asked_for(tmp_path, save_image):
    for kind, n in (
        ("train/normal", 50),
        ("test/normal", 50),
        ("test/quantity", 48),
        ("test/type", 44),
        ("test/quantity+type", 8),
    ):
        for k in range(n):
            save_image(
                tmp_path / "v/fruits/white_bg" / kind / f"{k}.png",
                np.full((4, 6, 3), len(kind) + k, np.uint8)
                if "train" not in kind
                else np.full((4, 6, 3), 200 + k, np.uint8),
            )
    config = vidad.VidadConfig(root=tmp_path / "v", out=tmp_path / "m", scenarios="fruits", conditions="white_bg")
    vidad.run(config, QUIET)
    assert checked(tmp_path / "m").differences == ()
    config = vidad.VidadConfig(
        root=tmp_path / "v", out=tmp_path / "m2", scenarios="fruits,balls", conditions="white_bg,mesh_bg"
    )
    vidad.run(config, QUIET)
    assert checked(tmp_path / "m2").differences == (
        "vidad: nothing of balls / mesh_bg, balls / white_bg, fruits / mesh_bg",
    )
    (tmp_path / "v/SYNTHETIC").touch()
    vidad.run(vidad.VidadConfig(root=tmp_path / "v", out=tmp_path / "m3"), QUIET)
    found = checked(tmp_path / "m3")
    assert found.differences == () and found.uncompared == ("vidad-synthetic",)
    assert "vidad-synthetic: no known counts" in check.as_text(found)


def test_check_counts_a_row_that_the_stages_will_pass_over(toothbrushes, tmp_path):
    image = toothbrushes / "toothbrush/train/good/000.png"
    whole = image.read_bytes()
    image.write_bytes(b"")
    index_mvtec(toothbrushes, tmp_path / "m", categories="toothbrush")
    image.write_bytes(whole)  # mended, but not indexed again
    (line,) = checked(tmp_path / "m").differences
    assert line.startswith("toothbrush: unreadable 1, first") and "the file is empty" in line


def test_check_of_a_category_that_nobody_knows(bottles, tmp_path):
    (bottles / "mvtec/screw").rename(bottles / "mvtec/screws")
    index_mvtec(bottles, tmp_path / "m", categories="screws")
    assert "mvtec-ad: no category of this data set is called screws" in checked(tmp_path / "m").differences


def test_check_exits_with_3_when_it_differs(toothbrushes, tmp_path):
    index_mvtec(toothbrushes, tmp_path / "m", categories="toothbrush")
    done = called("data", "check", tmp_path / "m")
    assert done.returncode == 0 and "toothbrush" in done.stdout, done.stderr
    (toothbrushes / "toothbrush/train/good/000.png").unlink()
    done = called("data", "check", tmp_path / "m", "--json")
    assert done.returncode == 3 and json.loads(done.stdout)["counts"][0]["unreadable"] == 1
    assert "no such image" in json.loads(done.stdout)["differences"][0]
    done = called("data", "check", tmp_path / "nowhere")
    assert done.returncode == 2 and done.stderr.startswith("adcli: ") and not done.stdout
