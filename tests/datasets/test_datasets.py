"""Original layouts -> manifests, and images as they come."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.artifacts.reader import read_table
from stages.artifacts.tables import MANIFEST
from stages.base.config import RunOptions
from stages.base.errors import ImageError, InputError
from stages.datasets import folder, magnetic_tile, vidad
from stages.datasets.entries import image_files
from stages.datasets.images import load_mask, load_rgb
from stages.datasets.manifest import read_manifest, reference_images, splits_of

QUIET = RunOptions(quiet=True)


def index_vidad(root, out, **more):
    return vidad.run(vidad.VidadConfig(root=root, out=out, **more), QUIET)


@pytest.mark.parametrize("layout", ["{s}/{c}/{t}", "{c}/{s}/{t}", "wrapper/{s}/{t}/{c}"])
def test_vidad_in_any_nesting_and_spelling(tmp_path, save_image, layout):
    for s, c in (("Fruits", "White BG"), ("fruits", "low-light_CD"), ("Sticks", "MESH_BG")):
        base = tmp_path / "root" / layout.format(s=s, c=c, t="{t}")
        for t, kind in (("Train", "good"), ("test", "Normal"), ("test", "anomaly/Quantity"), ("test", "type")):
            save_image(Path(str(base).replace("{t}", t)) / kind / "0.png")
    index_vidad(tmp_path / "root", tmp_path / "m")
    rows = read_table(tmp_path / "m", MANIFEST).to_pylist()
    assert {(r["category"], r["condition"]) for r in rows} == {
        ("fruits", "white_bg"),
        ("fruits", "low_light"),
        ("sticks", "mesh_bg"),
    }
    assert sorted((r["split"], r["label"], r["defect"]) for r in rows if r["condition"] == "mesh_bg") == [
        ("test", 0, None),
        ("test", 1, "quantity"),
        ("test", 1, "type"),
        ("train", 0, None),
    ]
    assert {r["dataset"] for r in rows} == {"vidad"} and (rows[0]["width"], rows[0]["height"]) == (60, 40)
    (tmp_path / "root" / "SYNTHETIC").touch()
    index_vidad(tmp_path / "root", tmp_path / "m2", conditions="white_bg")
    rows = read_table(tmp_path / "m2", MANIFEST).to_pylist()
    assert {r["dataset"] for r in rows} == {"vidad-synthetic"} and {r["condition"] for r in rows} == {"white_bg"}


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("Sticks_White_BG/train/0.jpg", ("sticks", "white_bg", "train", 0, None)),
        ("Sticks_White_BG/test/single_A/0.jpg", ("sticks", "white_bg", "test", 1, "quantity")),
        ("01_Sticks/03_MeshBG/train_normal/0.jpg", ("sticks", "mesh_bg", "train", 0, None)),
        ("01_Sticks/low light/test_normal/0.jpg", ("sticks", "low_light", "test", 0, None)),
        ("01_Sticks/Blurry-CD/test_anomaly/0.jpg", ("sticks", "blurry", "test", 1, "anomaly")),
        ("sticks/blurry/test/anomaly/Single-B/0.jpg", ("sticks", "blurry", "test", 1, "length")),
        ("sticks/blurry/test/dual/0.jpg", ("sticks", "blurry", "test", 1, "quantity+length")),
        ("sticks/blurry/test/Q/0.jpg", ("sticks", "blurry", "test", 1, "quantity")),
        ("sticks/blurry/test/Q+L/0.jpg", ("sticks", "blurry", "test", 1, "quantity+length")),
        ("sticks/blurry/test/QL/0.jpg", ("sticks", "blurry", "test", 1, "quantity+length")),
        ("sticks/blurry/test/quantity_length/0.jpg", ("sticks", "blurry", "test", 1, "quantity+length")),
        ("dishes/cable/test/anomaly_R/0.jpg", ("dishes", "cable_bg", "test", 1, "relation")),
        ("fruits/white/test/dark_spot/0.jpg", ("fruits", "white_bg", "test", 1, "dark_spot")),
        ("VID-AD-test-release/fruits/white/train/0.jpg", ("fruits", "white_bg", "train", 0, None)),
        ("fruits/white/test/0.jpg", ("fruits", "white_bg", "test", None, None)),
        ("TestAnomaly/FruitsWhiteBG/0.jpg", ("fruits", "white_bg", "test", 1, "anomaly")),
        ("Sticks_Low-light_CD/train/good/0.jpg", ("sticks", "low_light", "train", 0, None)),  # the authors' layout
        ("Sticks/train/good/0.jpg", ("sticks", "white_bg", "train", 0, None)),
        ("Sticks/test/logical_anomalies/Single-Aspect-A/0.jpg", ("sticks", "white_bg", "test", 1, "quantity")),
        ("Balls/test/logical_anomalies/Single-Aspect-B/0.jpg", ("balls", "white_bg", "test", 1, "relation")),
        ("Sticks/test/logical_anomalies/Dual-Aspects/0.jpg", ("sticks", "white_bg", "test", 1, "quantity+length")),
        ("Sticks/test/logical_anomalies/Mix/0.jpg", ("sticks", "white_bg", "test", 1, "quantity+length")),
        ("Sticks/Original/test/good/0.jpg", ("sticks", "white_bg", "test", 0, None)),
        ("original/Sticks_Mesh_BG/train/0.jpg", ("sticks", "mesh_bg", "train", 0, None)),
        ("sticks/blurry/test/SingleA/0.jpg", ("sticks", "blurry", "test", 1, "quantity")),
        ("sticks/blurry/test/single/Length/0.jpg", ("sticks", "blurry", "test", 1, "length")),
        ("sticks/blurry/test/dual/L+Q/0.jpg", ("sticks", "blurry", "test", 1, "quantity+length")),
        ("sticks/blurry/test/quantity/missing/0.jpg", ("sticks", "blurry", "test", 1, "quantity/missing")),
    ],
)
def test_vidad_as_people_name_its_folders(path, said):
    e = vidad.entry_of(Path(path))
    assert (e.category, e.condition, e.split, e.label, e.defect) == said


def test_vidad_in_its_authors_layout_has_white_bg_and_says_so(tmp_path, save_image, capsys):
    for task in ("Sticks", "Sticks_Mesh_BG"):
        for kind in ("train/good", "test/good", "test/logical_anomalies/Single-Aspect-A"):
            save_image(tmp_path / "VID-AD_dataset" / task / kind / "0.png")
    config = vidad.VidadConfig(root=tmp_path / "VID-AD_dataset", out=tmp_path / "m")
    vidad.run(config, RunOptions())
    said = capsys.readouterr().err
    assert "taken for White BG, since no capture condition is named: Sticks\n" in said, said
    rows = read_table(tmp_path / "m", MANIFEST).to_pylist()
    assert {r["condition"] for r in rows} == {"white_bg", "mesh_bg"} and len(rows) == 6
    save_image(tmp_path / "VID-AD_dataset" / "Sticks_White_BG" / "train" / "0.png")
    with pytest.raises(InputError, match="Sticks and Sticks_White_BG/train are both sticks / white_bg"):
        index_vidad(tmp_path / "VID-AD_dataset", tmp_path / "m2")


def test_a_folder_whose_capture_condition_is_not_known_is_no_white_bg():
    assert vidad.entry_of(Path("Sticks/Foggy CD/train/0.jpg")) is None
    assert vidad.entry_of(Path("Sticks_Foggy_CD/train/0.jpg")) is None


def test_vidad_that_cannot_be(tmp_path, save_image):
    with pytest.raises(InputError, match="no such directory"):
        index_vidad(tmp_path / "nowhere", tmp_path / "m")
    save_image(tmp_path / "a" / "x.png")
    with pytest.raises(InputError, match="no image lies below"):
        index_vidad(tmp_path, tmp_path / "m")
    save_image(tmp_path / "fruits" / "white_bg" / "test" / "normal" / "0.png")
    with pytest.raises(InputError, match="fruits / white_bg has no train images"):
        index_vidad(tmp_path, tmp_path / "m")
    with pytest.raises(InputError, match="--conditions: 'fog' is none of"):
        index_vidad(tmp_path, tmp_path / "m", conditions="fog")


def test_tiles_are_split_by_tile(tmp_path, save_image):
    for tile in range(8):
        for exposure in range(1, 5):
            save_image(tmp_path / "MT_Free" / "Imgs" / f"exp{exposure}_num_{tile * 1000 + exposure * 20}.jpg")
    mask = np.zeros((40, 60), np.uint8)
    mask[5:9, 5:9] = 250
    mask[20, 20] = 90  # JPEG-like noise
    save_image(tmp_path / "MT_Break" / "Imgs" / "exp1_num_7.jpg")
    save_image(tmp_path / "MT_Break" / "Imgs" / "exp1_num_7.png", mask)
    magnetic_tile.run(magnetic_tile.MagneticTileConfig(root=tmp_path, out=tmp_path / "m"), QUIET)
    images = read_manifest(tmp_path / "m").images
    side = {}
    for i in images:
        if i.label == 0:
            side.setdefault(int(i.file.stem.split("_")[-1]) // 1000, set()).add(i.split)
    assert len(side) == 8 and all(len(s) == 1 for s in side.values())
    assert sum(s == {"train"} for s in side.values()) == 4
    defect = next(i for i in images if i.label == 1)
    assert defect.defect == "break" and load_mask(defect.masks[0]).sum() == 16


def test_half_of_the_defects_can_go_to_train_whole_tiles_at_a_time(tmp_path, save_image):
    for n in range(20):  # ten tiles of two exposures each
        for kind, base in (("Free", 1000), ("Crack", 50000)):
            stem = tmp_path / f"MT_{kind}" / "Imgs" / f"exp1_num_{base + 500 * (n // 2) + 10 * (n % 2)}"
            save_image(stem.with_suffix(".jpg"))
            save_image(stem.with_suffix(".png"), np.full((40, 60), 255 * (kind == "Crack"), np.uint8))
    config = magnetic_tile.MagneticTileConfig(root=tmp_path, out=tmp_path / "m", train_defects=0.5)
    magnetic_tile.run(config, QUIET)
    cracks = [i for i in read_manifest(tmp_path / "m").images if i.label == 1]
    splits = {}
    for image in cracks:
        splits.setdefault(int(image.file.stem.rpartition("_")[2]) // 500, set()).add(image.split)
    assert sum(i.split == "train" for i in cracks) == 10 and all(len(s) == 1 for s in splits.values())
    assert all(i.masks for i in cracks)
    with pytest.raises(InputError, match="--train-defects 1.0"):
        magnetic_tile.run(magnetic_tile.MagneticTileConfig(root=tmp_path, out=tmp_path / "x", train_defects=1.0), QUIET)


def test_folder_without_patterns_is_its_own_reference(tmp_path, save_image):
    for n in range(3):
        save_image(tmp_path / "photos" / "sub dir" / f"{n}.png")
    folder.run(folder.FolderConfig(root=tmp_path / "photos", out=tmp_path / "m"), QUIET)
    images = read_manifest(tmp_path / "m").images
    assert [i.label for i in images] == [None] * 3 and len(reference_images(images)) == 3
    assert images[0].image_id == "photos/sub dir/0.png" and images[0].file.is_file()
    assert read_manifest(tmp_path / "m", Path("/elsewhere")).images[0].file == Path("/elsewhere/sub dir/0.png")


def test_folder_with_patterns_and_masks(tmp_path, save_image):
    for name in (
        "ok/0.png",
        "ok/1.png",
        "test/ok/0.png",
        "ng/hole/0.png",
        "ng/dent/0.png",
        "gt/hole/0_mask.png",
        "gt/dent/0_mask.png",
    ):
        save_image(tmp_path / "p" / name)
    config = {
        "root": tmp_path / "p",
        "train_normal": "ok/*.png",
        "test_normal": "test/ok/*.png",
        "test_anomalous": "ng/*/*.png",
        "masks": "gt/*/*.png",
    }
    folder.run(folder.FolderConfig(out=tmp_path / "m", **config), QUIET)
    images = {i.image_id: i for i in read_manifest(tmp_path / "m").images}
    assert len(images) == 5
    assert images["p/ng/hole/0.png"].masks == (tmp_path / "p" / "gt/hole/0_mask.png",)
    assert images["p/ng/dent/0.png"].defect == "dent" and images["p/ok/1.png"].split == "train"
    with pytest.raises(InputError, match="--masks none.*matches no image"):
        folder.run(folder.FolderConfig(out=tmp_path / "x", **config | {"masks": "none/*"}), QUIET)
    with pytest.raises(InputError, match="matched by both --train-normal and --test-normal"):
        folder.run(folder.FolderConfig(out=tmp_path / "x", **config | {"test_normal": "ok/*.png"}), QUIET)


def test_unreadable_files_are_rows(tmp_path, save_image):
    save_image(tmp_path / "p" / "good.png")
    (tmp_path / "p" / "empty.png").touch()
    (tmp_path / "p" / "text.jpg").write_text("no image")
    summary = folder.run(folder.FolderConfig(root=tmp_path / "p", out=tmp_path / "m"), QUIET)
    errors = {i.image_id: i.error for i in read_manifest(tmp_path / "m").images}
    assert summary.errors == 2 and errors["p/good.png"] is None
    assert "empty" in errors["p/empty.png"] and "not an image" in errors["p/text.jpg"]


def test_every_kind_of_image_becomes_rgb(tmp_path, save_image):
    from PIL import Image

    ramp = np.linspace(0, 65535, 100).astype(np.uint16).reshape(10, 10)
    Image.fromarray(ramp).save(tmp_path / "16.png")
    assert load_rgb(tmp_path / "16.png")[..., 0].ravel().tolist() == (ramp / 257).round().ravel().tolist()
    Image.new("CMYK", (4, 3), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg")
    r, g, b = load_rgb(tmp_path / "cmyk.jpg")[0, 0]
    assert r > 200 and g < 60 and b < 60
    Image.new("RGBA", (4, 3), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (load_rgb(tmp_path / "clear.png") == (255, 0, 0)).all(), "no alpha that says anything: the colour as it is"
    half = Image.new("RGBA", (4, 3), (255, 0, 0, 0))
    half.putpixel((0, 0), (0, 0, 255, 255))
    half.save(tmp_path / "half.png")
    assert load_rgb(tmp_path / "half.png")[0, :2].tolist() == [[0, 0, 255], [255, 255, 255]]
    exif = Image.Exif()
    exif[0x0112] = 6  # camera held upright
    Image.new("RGB", (4, 3)).save(tmp_path / "turned.jpg", exif=exif)
    assert load_rgb(tmp_path / "turned.jpg").shape == (4, 3, 3)


def test_what_cannot_be_decoded_names_the_path(tmp_path, save_image):
    whole = save_image(tmp_path / "a.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.jpg").touch()
    for name, why in (
        ("cut.jpg", "cannot be decoded"),
        ("empty.jpg", "is empty"),
        ("none.jpg", "no such"),
        (".", "a directory"),
    ):
        with pytest.raises(ImageError, match=why):
            load_rgb(tmp_path / name)


def test_a_link_to_a_folder_above_ends(tmp_path, save_image):
    save_image(tmp_path / "photos" / "0.png")
    (tmp_path / "photos" / "again").symlink_to(tmp_path / "photos")
    assert [str(p) for p in image_files(tmp_path / "photos")] == ["0.png"]


def test_a_split_that_nobody_knows(tmp_path):
    table = pa.table({"image_id": ["a"], "path": ["a"], "dataset": ["d"], "category": ["c"], "split": ["testing"]})
    pq.write_table(table, tmp_path / "m.parquet")
    with pytest.raises(InputError, match="column `split` holds 'testing'"):
        read_manifest(tmp_path / "m.parquet")


def test_splits_are_named_with_or_without_blanks():
    assert splits_of("train, val") == splits_of("train,val") == {"train", "val"}
    with pytest.raises(InputError, match="--splits vall: expected train, val, test"):
        splits_of("train,vall")
