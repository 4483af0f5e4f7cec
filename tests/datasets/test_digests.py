"""Replaced images and masks are noticed by what they hold, whatever their sizes; each file is read once."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from stages.artifacts.digests import KEPT
from stages.artifacts.maps import to_row
from stages.artifacts.reader import read_table
from stages.artifacts.tables import CAPTIONS, MANIFEST, MAPS, SCORES
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.captions.caption import CaptionConfig
from stages.captions.caption import run as caption
from stages.datasets.augment import AugmentConfig
from stages.datasets.augment import run as augment
from stages.datasets.files import look_at
from stages.datasets.folder import FolderConfig
from stages.datasets.folder import run as index
from stages.datasets.manifest import read_manifest
from stages.evaluate.images import EvaluateConfig
from stages.evaluate.images import run as evaluate
from tests.qa import write
from tests.reading import checked

QUIET = RunOptions(quiet=True)
REPLACE = RunOptions(quiet=True, overwrite=True)


@pytest.fixture
def photos(tmp_path, save_image):
    """Three BMPs of one size; one has a mask."""
    root = tmp_path / "photos"
    for n, name in enumerate(("ok/a", "ok/b", "bad/c")):
        save_image(root / f"{name}.bmp", n)
    save_image(root / "masks" / "c.bmp", np.eye(40, 60, dtype=np.uint8) * 255)
    return root


def indexed(root, out, options=QUIET):
    return index(FolderConfig(root=root, out=out, test_normal="ok/*", test_anomalous="bad/*", masks="masks/*"), options)


def captioned(manifest, out, options=QUIET, root=None):
    return caption(CaptionConfig(manifest=manifest, out=out, root=root), options)


def foreign(manifest, path):
    """The same manifest as other tools would write it: without the columns of digests."""
    table = read_table(manifest, MANIFEST)
    pq.write_table(table.drop_columns([c for c in table.column_names if "file" in c]), path)
    return path


def later(path, seconds=10):
    there = path.stat()
    os.utime(path, ns=(there.st_atime_ns, there.st_mtime_ns + seconds * 10**9))


def replaced(path, save_image, keep_time=False):
    """Another image of the same number of bytes."""
    there = path.stat()
    save_image(path, 99)
    assert path.stat().st_size == there.st_size
    os.utime(path, ns=(there.st_atime_ns, there.st_mtime_ns + (0 if keep_time else 10**9)))


def key(out):
    return json.loads((out / "_adcli.json").read_text())["key"]


def test_index_writes_what_files_are_like(photos, tmp_path):
    indexed(photos, tmp_path / "m")
    row = read_table(tmp_path / "m", MANIFEST).to_pylist()[0]
    file, mask = photos / "bad" / "c.bmp", photos / "masks" / "c.bmp"
    assert row["file_digest"] == hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()
    assert row["mask_file_digests"] == [hashlib.blake2b(mask.read_bytes(), digest_size=16).hexdigest()]
    assert (row["file_size"], row["file_mtime_ns"]) == (file.stat().st_size, file.stat().st_mtime_ns)
    assert (row["mask_file_sizes"], row["mask_file_mtimes_ns"]) == ([mask.stat().st_size], [mask.stat().st_mtime_ns])


@pytest.mark.slow
def test_a_replaced_image_of_the_same_size_is_noticed_once(photos, tmp_path, save_image):
    indexed(photos, tmp_path / "m")
    captioned(tmp_path / "m", tmp_path / "c")
    replaced(photos / "ok" / "a.bmp", save_image)
    with pytest.raises(InputError, match="the image files have changed"):
        captioned(tmp_path / "m", tmp_path / "c")
    captioned(tmp_path / "m", tmp_path / "c", REPLACE)
    with pytest.raises(InputError, match="the content of the files has changed"):
        indexed(photos, tmp_path / "m")
    indexed(photos, tmp_path / "m", REPLACE)
    assert captioned(tmp_path / "m", tmp_path / "c").up_to_date, "the new manifest says what the file said before"


def test_files_that_were_only_touched_change_no_key(photos, tmp_path):
    indexed(photos, tmp_path / "m")
    captioned(tmp_path / "m", tmp_path / "c")
    for file in photos.rglob("*.bmp"):
        later(file)
    assert captioned(tmp_path / "m", tmp_path / "c").up_to_date
    assert indexed(photos, tmp_path / "m").up_to_date


def test_a_file_with_its_old_size_and_time_is_taken_for_the_old_one(photos, tmp_path, save_image):
    """The documented limit: nothing but reading every byte would tell."""
    indexed(photos, tmp_path / "m")
    captioned(tmp_path / "m", tmp_path / "c")
    replaced(photos / "ok" / "a.bmp", save_image, keep_time=True)
    assert captioned(tmp_path / "m", tmp_path / "c").up_to_date


@pytest.mark.slow
def test_a_copy_elsewhere_has_the_same_key(photos, tmp_path):
    indexed(photos, tmp_path / "m")
    captioned(tmp_path / "m", tmp_path / "c")
    shutil.copytree(photos, tmp_path / "moved", copy_function=shutil.copyfile)  # times are new
    assert captioned(tmp_path / "m", tmp_path / "c", root=tmp_path / "moved").up_to_date
    captioned(foreign(tmp_path / "m", tmp_path / "f.parquet"), tmp_path / "d", root=tmp_path / "moved")
    assert key(tmp_path / "c") == key(tmp_path / "d")


OPENED = """
import sys
opened = []
sys.addaudithook(lambda name, args: opened.append(str(args[0])) if name == "open" else None)
from pathlib import Path
from stages.captions.caption import CaptionConfig, run
from stages.base.config import RunOptions
manifest, out, root = map(Path, sys.argv[1:])
summary = run(CaptionConfig(manifest=manifest, out=out, root=root, workers=2), RunOptions(quiet=True))
print(summary.up_to_date, sum(o.endswith(".bmp") for o in opened))
"""


@pytest.mark.slow
def test_a_foreign_manifests_files_are_read_once(photos, tmp_path):
    """Counted in processes of their own; images are decoded for captions in further ones."""
    indexed(photos, tmp_path / "m")
    manifest = foreign(tmp_path / "m", tmp_path / "f.parquet")

    def reads():
        done = subprocess.run(
            [sys.executable, "-c", OPENED, manifest, tmp_path / "c", photos], capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    assert reads() == ["False", "3"]
    assert reads() == ["True", "0"]
    later(photos / "ok" / "a.bmp")
    assert reads() == ["True", "1"]
    assert reads() == ["True", "0"]
    (tmp_path / "c" / KEPT).write_text("[")
    assert reads() == ["True", "3"]
    assert set(json.loads((tmp_path / "c" / KEPT).read_text())) == {
        str(photos / "ok" / "a.bmp"),
        str(photos / "ok" / "b.bmp"),
        str(photos / "bad" / "c.bmp"),
    }


@pytest.mark.slow
def test_what_is_kept_is_no_part_and_survives_overwrite(photos, tmp_path):
    indexed(photos, tmp_path / "m")
    manifest, out = foreign(tmp_path / "m", tmp_path / "f.parquet"), tmp_path / "c"
    captioned(manifest, out, root=photos)
    caption(CaptionConfig(manifest=manifest, out=out, root=photos, max_tokens=9), REPLACE)
    assert (out / KEPT).is_file() and len(read_table(out, CAPTIONS)) == 3
    assert pq.read_table(out).num_rows == 3


def test_a_missing_file_is_missing_and_no_error(photos, tmp_path):
    indexed(photos, tmp_path / "m")
    images = read_manifest(tmp_path / "m").images
    before = look_at(tmp_path / "o", True, images, images)
    (photos / "masks" / "c.bmp").unlink()
    after = look_at(tmp_path / "o", True, images, images)
    assert after.images == before.images and after.masks != before.masks
    (photos / "bad" / "c.bmp").unlink()
    (photos / "bad" / "c.bmp").mkdir()  # neither is a directory a file
    assert look_at(tmp_path / "o", True, images).images != before.images


@pytest.mark.slow
def test_evaluate_notices_a_replaced_mask(photos, tmp_path, save_image):
    indexed(photos, tmp_path / "m")
    rng = np.random.default_rng(0)
    ids = [i.image_id for i in read_manifest(tmp_path / "m").images]
    write(tmp_path / "s.parquet", SCORES, [{"image_id": i, "method": "m", "score": n} for n, i in enumerate(ids)])
    write(tmp_path / "maps.parquet", MAPS, [to_row((i, "m"), rng.random((40, 60))) for i in ids])
    config = EvaluateConfig(
        scores=tmp_path / "s.parquet",
        manifest=tmp_path / "m",
        maps=tmp_path / "maps.parquet",
        out=tmp_path / "e",
        resamples=0,
    )
    evaluate(config, QUIET)
    assert evaluate(config, QUIET).up_to_date
    mask = photos / "masks" / "c.bmp"
    size = mask.stat().st_size
    save_image(mask, np.eye(40, 60, 5, dtype=np.uint8) * 255)
    later(mask)
    assert mask.stat().st_size == size
    with pytest.raises(InputError, match="the mask files have changed"):
        evaluate(config, QUIET)


def test_augment_notices_a_replaced_mask_and_says_what_its_own_files_are_like(photos, tmp_path, save_image):
    indexed(photos, tmp_path / "m")
    config = AugmentConfig(
        manifest=tmp_path / "m", kind="rotate90", out=tmp_path / "a", images=tmp_path / "i", workers=1
    )
    augment(config, QUIET)
    assert augment(config, QUIET).up_to_date
    for image in read_manifest(tmp_path / "a").images:
        for file, state in zip((image.file, *image.masks), image.recorded, strict=True):
            assert state.digest == hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()
    save_image(photos / "masks" / "c.bmp", np.eye(40, 60, 5, dtype=np.uint8) * 255)
    later(photos / "masks" / "c.bmp")
    with pytest.raises(InputError, match="the mask files have changed"):
        augment(config, QUIET)


def rows_of(photos, *changes):
    rows = [
        {"image_id": f"d/{n}", "path": path, "dataset": "d", "category": "c", "split": "test", "mask_paths": []}
        for n, path in enumerate(("ok/a.bmp", "ok/b.bmp"))
    ]
    rows[0] |= dict(changes)
    return rows


@pytest.mark.parametrize(
    "change, said",
    [
        (("mask_paths", [None]), "`mask_paths` holds a null"),
        (("path", "ok/a\0.bmp"), "NUL byte"),
        (("mask_paths", ["m\0"]), "NUL byte"),
    ],
)
def test_a_path_that_is_none_is_one_failed_row(change, said, photos, tmp_path):
    manifest = write(tmp_path / "f.parquet", MANIFEST, rows_of(photos, change))
    summary = captioned(manifest, tmp_path / "c", root=photos)
    assert (summary.rows, summary.errors) == (2, 1) and said in summary.first_errors[0]


def test_states_of_another_length_than_the_masks_are_not_believed(photos, tmp_path):
    rows = rows_of(photos, ("mask_file_digests", ["x" * 32]), ("file_digest", "y" * 32), ("file_size", 1))
    image = read_manifest(write(tmp_path / "f.parquet", MANIFEST, rows), photos).images[0]
    assert image.recorded == ()


def test_a_name_that_is_not_utf8_is_one_failed_row(photos, tmp_path):
    strange = os.fsencode(photos / "ok") + b"/caf\xe9.bmp"
    shutil.copyfile(photos / "ok" / "a.bmp", strange)
    folder = os.fsencode(photos) + b"/ok/gr\xfcn"
    Path(os.fsdecode(folder)).mkdir()
    shutil.copyfile(photos / "ok" / "b.bmp", folder + b"/b.bmp")
    summary = index(FolderConfig(root=photos, out=tmp_path / "m"), QUIET)
    assert (summary.rows, summary.errors) == (6, 2)
    failed = [r for r in read_table(tmp_path / "m", MANIFEST).to_pylist() if r["error"]]
    assert [r["image_id"] for r in failed] == ["photos/ok/caf\\xe9.bmp", "photos/ok/gr\\xfcn/b.bmp"]
    assert all("is not UTF-8; rename the file" in r["error"] for r in failed)
    assert captioned(tmp_path / "m", tmp_path / "c").errors == 2
    assert f"unreadable 2, first {failed[0]['error']}" in checked(tmp_path / "m")


def test_a_root_that_is_not_utf8_is_refused(photos, tmp_path):
    strange = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9"))
    photos.rename(strange)
    with pytest.raises(InputError, match=r"\\xe9: this folder's path is not UTF-8"):
        index(FolderConfig(root=strange, out=tmp_path / "m"), QUIET)
    assert not (tmp_path / "m").exists()


def test_digests_are_not_what_a_manifest_says(photos, tmp_path):
    indexed(photos, tmp_path / "m")
    ours, theirs = (read_manifest(m, photos) for m in (tmp_path / "m", foreign(tmp_path / "m", tmp_path / "f.parquet")))
    assert ours.fingerprint == theirs.fingerprint and not theirs.images[0].recorded and ours.images[0].recorded
