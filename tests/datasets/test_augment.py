"""Turned, framed and stamped test images: pixels exactly, manifests, resuming, and inputs left alone."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.artifacts.reader import read_table
from stages.artifacts.tables import MANIFEST
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.datasets import augment, check, magnetic_tile, mvtec, vidad
from stages.datasets.images import load_mask, load_rgb
from stages.datasets.manifest import read_manifest

QUIET = RunOptions(quiet=True)


def augmented(manifest, kind, out, folder, options=QUIET, **more):
    """(images by id, summary)"""
    more = {"workers": 1} | more
    config = augment.AugmentConfig(manifest=manifest, kind=kind, out=out, images=folder, **more)
    summary = augment.run(config, options)
    return {i.image_id: i for i in read_manifest(out, partial=not summary.complete).images}, summary


def hashes(root: Path) -> dict[Path, str]:
    return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob("*") if p.is_file()}


@pytest.fixture
def bottles(tmp_path, save_image):
    """Two training images, a normal and two anomalous test images; returns the manifest."""
    root = tmp_path / "mvtec"
    for seed, name in enumerate(
        ("train/good/000", "train/good/001", "test/good/000", "test/hole/000", "test/hole/001")
    ):
        save_image(root / "bottle" / f"{name}.png", seed)
    for n in range(2):
        mask = np.zeros((40, 60), np.uint8)
        mask[2:6, 50 - n : 58] = 255  # top right: turns to the top left
        save_image(root / f"bottle/ground_truth/hole/00{n}_mask.png", mask)
    mvtec.run(mvtec.MvtecConfig(root=root, out=tmp_path / "m"), QUIET)
    return tmp_path / "m"


# -- pixels ---------------------------------------------------------------------------------------------


def test_rotate90_is_counter_clockwise():
    image = np.array([[[1] * 3, [2] * 3, [3] * 3], [[4] * 3, [5] * 3, [6] * 3]], np.uint8)
    assert augment.rotate90(image)[:, :, 0].tolist() == [[3, 6], [2, 5], [1, 4]]
    assert augment.rotate90(image[:, :, 0]).tolist() == [[3, 6], [2, 5], [1, 4]]


def test_pad20_is_white_around_the_image_and_normal_around_the_mask():
    image = np.full((3, 5, 3), 7, np.uint8)
    padded = augment.pad_image(image)
    assert padded.shape == (43, 45, 3) and (padded[20:23, 20:25] == 7).all()
    assert (padded == 255).all(axis=2).sum() == 43 * 45 - 15
    mask = augment.pad_mask(np.full((3, 5), 9, np.uint8))
    assert mask.shape == (43, 45) and mask.sum() == 15 * 9 and (mask[20:23, 20:25] == 9).all()


def test_timestamp_is_white_in_black_and_only_in_the_top_right_corner():
    image = np.full((200, 300, 3), (200, 30, 60), np.uint8)
    before = image.copy()
    stamped = augment.timestamp(image)
    assert (image == before).all() and stamped.shape == image.shape and stamped.dtype == np.uint8
    rows, columns = np.nonzero((stamped != image).any(axis=2))
    # 10 px from the top and, the last letter's own space apart, from the right; ten letters of 30 px per em
    assert rows.min() == 10 and 10 <= 300 - 1 - columns.max() <= 13
    assert 20 <= rows.max() - rows.min() + 1 <= 30 and 150 <= columns.max() - columns.min() + 1 <= 200
    white = (stamped == 255).all(axis=2)
    black = (stamped == 0).all(axis=2)
    assert white.sum() > 300 and black.sum() > 300
    grey = (stamped == stamped[:, :, :1]).all(axis=2)  # white melts into black, never into the image
    for axis in (0, 1):
        for step in (-1, 1):
            assert grey[np.roll(white, step, axis)].all()
    for row, column in zip(*np.nonzero(white), strict=True):  # no letter is wider than its outline is far
        assert black[max(row - 6, 0) : row + 7, column - 6 : column + 7].any()


def test_timestamp_in_an_image_that_is_smaller_than_the_text():
    image = np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8)
    corner = np.ascontiguousarray(image[:20, -60:])
    small = augment.timestamp(corner)
    assert (small == augment.timestamp(image)[:20, -60:]).all() and (small != corner).any()
    assert augment.timestamp(image[:2, :3]).shape == (2, 3, 3)


# -- the stage ------------------------------------------------------------------------------------------


def test_images_and_masks_turn_alike_and_training_images_stay(bottles, tmp_path):
    before = hashes(tmp_path / "mvtec")
    old = {i.image_id: i for i in read_manifest(bottles).images}
    new, summary = augmented(bottles, "rotate90", tmp_path / "out" / "m", tmp_path / "out" / "turned")
    assert set(new) == {k.replace("mvtec-ad/", "mvtec-ad/rotate90/") for k in old}
    assert (summary.rows, summary.errors, summary.complete) == (5, 0, True)
    for key, image in new.items():
        was = old[key.replace("/rotate90", "")]
        assert (image.category, image.split, image.label, image.defect) == (
            was.category,
            was.split,
            was.label,
            was.defect,
        )
        assert image.condition == "rotate90" and image.dataset == "mvtec-ad"
        if image.split == "train":
            assert image.file.resolve() == was.file and (image.width, image.height) == (60, 40)
            continue
        assert (load_rgb(image.file) == np.rot90(load_rgb(was.file))).all()
        assert image.file.suffix == ".png" and (image.width, image.height) == (40, 60)
        assert len(image.masks) == len(was.masks)
        for made, mask in zip(image.masks, was.masks, strict=True):
            assert (load_mask(made) == np.rot90(load_mask(mask))).all() and load_mask(made)[:15, 2:6].any()
    assert hashes(tmp_path / "mvtec") == before
    rows = read_table(tmp_path / "out" / "m", MANIFEST).to_pylist()
    assert [r["path"] for r in rows if r["split"] == "train"] == [
        f"../../mvtec/bottle/train/good/00{n}.png" for n in (0, 1)
    ]
    images, _ = check_free_of_errors(tmp_path / "out" / "m")
    assert images == 5


def check_free_of_errors(manifest):
    """(images, masks) that `data check` could decode; none unreadable, none of another size."""
    (found,) = check.run(check.CheckConfig(manifest=manifest), QUIET).counts
    assert (found.unreadable, found.other_size) == (0, 0)
    return found.normal + found.test_anomalous, found.masks


def test_kinds_are_applied_in_the_order_given(bottles, tmp_path):
    source = read_manifest(bottles).images[0].file
    assert source.parts[-3:] == ("test", "good", "000.png")
    turned_first, _ = augmented(bottles, "rotate90,pad20,timestamp", tmp_path / "a", tmp_path / "f")
    stamped_first, _ = augmented(bottles, "timestamp, pad20", tmp_path / "b", tmp_path / "f")
    a = turned_first["mvtec-ad/rotate90+pad20+timestamp/bottle/test/good/000.png"]
    b = stamped_first["mvtec-ad/timestamp+pad20/bottle/test/good/000.png"]
    rgb = load_rgb(source)
    assert (load_rgb(a.file) == augment.timestamp(augment.pad_image(np.rot90(rgb)))).all()
    assert (load_rgb(b.file) == augment.pad_image(augment.timestamp(rgb))).all()
    assert (a.width, a.height, b.width, b.height) == (80, 100, 100, 80)
    hole = stamped_first["mvtec-ad/timestamp+pad20/bottle/test/hole/000.png"]
    assert load_mask(hole.masks[0])[20:60, 20:80].sum() == load_mask(hole.masks[0]).sum() == 4 * 8


def test_augmenting_what_is_augmented(bottles, tmp_path):
    augmented(bottles, "rotate90", tmp_path / "a", tmp_path / "f")
    twice, _ = augmented(tmp_path / "a", "pad20", tmp_path / "b", tmp_path / "f")
    once, _ = augmented(bottles, "rotate90,pad20", tmp_path / "c", tmp_path / "g")
    assert set(twice) == set(once) and {i.condition for i in twice.values()} == {"rotate90+pad20"}
    for key, image in twice.items():
        assert (load_rgb(image.file) == load_rgb(once[key].file)).all()
        assert image.file.is_relative_to(tmp_path / "f") or image.split == "train"
    assert len(read_manifest_of(tmp_path, "m", "a", "b")) == 15  # no two conditions share an id


def read_manifest_of(folder, *names):
    return {i.image_id for name in names for i in read_manifest(folder / name).images}


def test_a_capture_condition_stays_in_the_name(tmp_path, save_image):
    for path in ("white_bg/fruits/train/good/0.png", "white_bg/fruits/test/good/0.png"):
        save_image(tmp_path / "v" / path)
    vidad.run(vidad.VidadConfig(root=tmp_path / "v", out=tmp_path / "m"), QUIET)
    new, _ = augmented(tmp_path / "m", "pad20", tmp_path / "out", tmp_path / "f")
    assert set(new) == {f"vidad/white_bg+pad20/white_bg/fruits/{s}/good/0.png" for s in ("train", "test")}
    assert {i.condition for i in new.values()} == {"white_bg+pad20"}


def test_values_of_masks_and_names_that_differ_by_their_ending(tmp_path, save_image):
    """The mask of a magnetic tile has the image's name; VisA's masks number the defects; LOCO has several."""
    base = tmp_path / "tiles"
    kinds = np.zeros((40, 60), np.uint8)
    kinds[0, 0], kinds[1, 1] = 3, 7
    save_image(base / "MT_Break" / "Imgs" / "exp1_num_1.jpg")
    save_image(base / "MT_Break" / "Imgs" / "exp1_num_1.png", kinds)
    for n in range(2):
        save_image(base / "MT_Free" / "Imgs" / f"exp1_num_{n * 1000}.jpg")
    magnetic_tile.run(magnetic_tile.MagneticTileConfig(root=base, out=tmp_path / "m"), QUIET)
    rows = read_table(tmp_path / "m", MANIFEST).to_pylist()
    row = next(r for r in rows if r["label"])
    row["mask_paths"] = row["mask_paths"] * 2
    pq.write_table(pa.Table.from_pylist([row], MANIFEST.schema), tmp_path / "two.parquet")
    new, _ = augmented(tmp_path / "two.parquet", "rotate90", tmp_path / "out", tmp_path / "f", root=base)
    (image,) = new.values()
    assert len({image.file, *image.masks}) == 3
    assert (load_rgb(image.file) == np.rot90(load_rgb(base / row["path"]))).all()
    for mask in image.masks:
        assert (load_rgb(mask)[:, :, 0] == np.rot90(kinds)).all() and load_mask(mask).sum() == 2


def test_what_cannot_be_read_is_a_failed_row(bottles, tmp_path):
    base = tmp_path / "mvtec" / "bottle"
    whole = (base / "test/good/000.png").read_bytes()
    (base / "test/good/000.png").write_bytes(whole[:2000])
    (base / "ground_truth/hole/001_mask.png").write_text("no image")
    new, summary = augmented(bottles, "pad20", tmp_path / "out", tmp_path / "f")
    errors = {k.split("/bottle/")[1]: i.error for k, i in new.items() if i.error}
    assert summary.errors == 2 and set(errors) == {"test/good/000.png", "test/hole/001.png"}
    assert "test/good/000.png: cannot be decoded" in errors["test/good/000.png"]
    assert "001_mask.png: cannot be decoded" in errors["test/hole/001.png"]
    made = sorted(p.name for p in (tmp_path / "f").rglob("*.png"))
    assert made == ["000.png.png", "000.png.png"]  # the image and the mask of test/hole/000
    (base / "ground_truth/hole/000_mask.png").unlink()
    mvtec.run(mvtec.MvtecConfig(root=tmp_path / "mvtec", out=tmp_path / "m2"), QUIET)
    new, _ = augmented(tmp_path / "m2", "pad20", tmp_path / "out2", tmp_path / "g")
    lost = new["mvtec-ad/pad20/bottle/test/hole/000.png"]
    assert lost.error is None and lost.file.is_file() and not lost.masks[0].exists(), "the picture needs no mask"


def test_a_mask_of_another_size_than_its_image_is_a_failed_row(bottles, tmp_path, save_image):
    save_image(tmp_path / "mvtec/bottle/ground_truth/hole/001_mask.png", np.zeros((20, 30), np.uint8))
    images, summary = augmented(bottles, "pad20", tmp_path / "a", tmp_path / "new")
    (failed,) = [i for i in images.values() if i.error]
    assert summary.errors == 1 and "30 x 20 px, its image 60 x 40" in failed.error


def test_many_rows_that_failed_before_do_not_stop_the_stage(tmp_path, save_image):
    root = tmp_path / "mvtec"
    for n, name in enumerate(["train/good/0", "test/good/0", *(f"test/hole/{n:02d}" for n in range(25))]):
        path = save_image(root / "bottle" / f"{name}.png", n)
        if n > 1:
            path.write_bytes(b"")
    mvtec.run(mvtec.MvtecConfig(root=root, out=tmp_path / "m"), QUIET)  # 25 rows with errors
    _, summary = augmented(tmp_path / "m", "pad20", tmp_path / "a", tmp_path / "new")
    assert (summary.rows, summary.errors) == (27, 25)


@pytest.mark.slow
def test_shards_in_worker_processes_and_resuming_give_the_same(bottles, tmp_path):
    whole, _ = augmented(bottles, "timestamp", tmp_path / "a", tmp_path / "f", workers=2)
    _, first = augmented(bottles, "timestamp", tmp_path / "b", tmp_path / "g", RunOptions(quiet=True, shard="0/2"))
    assert not first.complete and 0 < first.rows < 5
    parts, second = augmented(bottles, "timestamp", tmp_path / "b", tmp_path / "g", RunOptions(quiet=True, shard="1/2"))
    assert second.complete and second.written == 5 - first.rows and set(parts) == set(whole)
    pictures = [
        {p.relative_to(folder): digest for p, digest in hashes(folder).items()}
        for folder in (tmp_path / "f", tmp_path / "g")
    ]
    assert pictures[0] == pictures[1] and len(pictures[0]) == 6  # and the mark
    _, again = augmented(bottles, "timestamp", tmp_path / "a", tmp_path / "f")
    assert again.up_to_date and again.written == 0
    with pytest.raises(InputError, match="other settings .kind was.*--overwrite"):
        augmented(bottles, "pad20", tmp_path / "a", tmp_path / "f")
    with pytest.raises(InputError, match="images was"):
        augmented(bottles, "timestamp", tmp_path / "a", tmp_path / "elsewhere")
    (tmp_path / "mvtec/bottle/ground_truth/hole/000_mask.png").write_bytes(b"another mask")
    with pytest.raises(InputError, match="the mask files have changed"):
        augmented(bottles, "timestamp", tmp_path / "a", tmp_path / "f")


def test_inputs_are_never_overwritten(tmp_path, save_image):
    """A foreign manifest whose image lies exactly where the new one would go, also behind a link."""
    old = save_image(tmp_path / "f" / "images" / "d" / "pad20" / "x.png.png")
    before = hashes(tmp_path / "f")
    table = pa.table(
        {"image_id": ["d/x.png"], "path": [str(old)], "dataset": ["d"], "category": ["c"], "split": ["test"]}
    )
    pq.write_table(table, tmp_path / "m.parquet")
    (tmp_path / "link").symlink_to(tmp_path / "f")
    for folder in ("f", "link"):
        with pytest.raises(InputError, match="images/d/pad20/x.png.png there is an image of the manifest"):
            augmented(tmp_path / "m.parquet", "pad20", tmp_path / "out", tmp_path / folder)
    assert hashes(tmp_path / "f") == before and not (tmp_path / "out").exists()
    new, _ = augmented(tmp_path / "m.parquet", "rotate90", tmp_path / "out", tmp_path / "f")  # beside it is fine
    assert new["d/rotate90/x.png"].error is None and before.items() <= hashes(tmp_path / "f").items()
    pq.write_table(table.set_column(0, "image_id", pa.array(["d/../../../x.png"])), tmp_path / "up.parquet")
    new, _ = augmented(tmp_path / "up.parquet", "pad20", tmp_path / "out2", tmp_path / "f")
    assert [i.file.relative_to(tmp_path / "f").as_posix() for i in new.values()] == [
        "images/d/pad20/%2E%2E/%2E%2E/%2E%2E/x.png.png"
    ]


def test_wrong_use_is_said_plainly(bottles, tmp_path):
    with pytest.raises(InputError, match="--kind: 'blur' is none of rotate90, pad20, timestamp"):
        augmented(bottles, "rotate90,blur", tmp_path / "out", tmp_path / "f")
    with pytest.raises(InputError, match="--kind: '' is none of"):
        augmented(bottles, " ", tmp_path / "out", tmp_path / "f")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="--images .*file: a file, not a folder"):
        augmented(bottles, "pad20", tmp_path / "out", tmp_path / "file")
    rows = [r for r in read_table(bottles, MANIFEST).to_pylist() if r["split"] == "train"]
    pq.write_table(pa.Table.from_pylist(rows, MANIFEST.schema), tmp_path / "train.parquet")
    with pytest.raises(InputError, match="no test images"):
        augmented(tmp_path / "train.parquet", "pad20", tmp_path / "out", tmp_path / "f")
