"""`--features`: the same scores and maps as without, to the bit, from a network that runs once per image."""

import os
import shutil
import signal
import time
from collections import namedtuple
from importlib.util import find_spec

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stages.artifacts.digests import read_state
from stages.artifacts.reader import read_table
from stages.artifacts.tables import FEATURES, MANIFEST, MAPS, SCORES
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.baselines.score import run
from stages.datasets.manifest import state_columns
from tests.baselines.world import SIZE, config
from tests.processes import Started

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("anomalib") is None, reason="needs adcli[baselines]"),
]
QUIET = RunOptions(quiet=True)


@pytest.fixture
def own(photos, tmp_path):
    """A copy of the photographs, whose manifest says what the files were like, with 18 normal training images."""
    shutil.copytree(photos.parent, tmp_path / "photos")
    rows = [
        r | ({"split": "train", "label": 0} if r["category"] == "grey" and r["label"] == 0 else {})
        for r in pq.read_table(photos).to_pylist()
    ]
    for n, r in enumerate(rows[:6]):
        with Image.open(tmp_path / "photos" / r["path"]) as image:
            image.transpose(Image.Transpose.ROTATE_180).save(tmp_path / "photos" / f"x{n}.png")
        rows.append(r | {"image_id": f"x{n}", "path": f"x{n}.png"})  # 18, which dfkde needs
    for r in rows:
        r |= state_columns(read_state(tmp_path / "photos" / r["path"]), [])
    pq.write_table(pa.Table.from_pylist(rows, schema=MANIFEST.schema), tmp_path / "photos" / "m.parquet")
    return tmp_path / "photos" / "m.parquet"


def scored(manifest, tiny, out, model="padim", options=QUIET, **more):
    """Scores and maps of a run, seconds apart."""
    maps = {} if model == "dfkde" else {"maps": out / "maps"}
    own = {"channels": 6} if model == "padim" else {}
    settings = config(
        model,
        tiny,
        **{"manifest": manifest, "root": manifest.parent, "out": out / "s", "name": "m"} | maps | own | more,
    )
    run(settings, options)
    tables = [read_table(out / "s", SCORES).drop_columns(["seconds"])]
    return tables + ([read_table(out / "maps", MAPS)] if maps else [])


MODELS = {"padim": {}, "patchcore": {}, "dfm": {}, "dfkde": {"layers": "3"}}
FAILED = {"padim": 3, "patchcore": 2, "dfm": 3, "dfkde": 3}  # an unreadable image, and the task with one good image


@pytest.mark.slow
def test_scores_and_maps_are_the_same_to_the_bit(own, tiny, tmp_path):
    """Those of images that cannot be read, and of a task that is too small, included; batches are of other images."""
    for model, more in MODELS.items():
        plain = scored(own, tiny, tmp_path / model, model, **more)
        kept = scored(own, tiny, tmp_path / f"{model}-kept", model, features=tmp_path / "features", **more)
        assert all(a.equals(b) for a, b in zip(plain, kept, strict=True)), model
        assert plain[0]["score"].null_count == FAILED[model], model
    rows = read_table(tmp_path / "features", FEATURES)  # three artifacts as one table
    assert sorted(set(rows["level"].to_pylist())) == [1, 2, 3] and len(rows) == 3 * 25
    assert rows["error"].drop_null().to_pylist() == rows["error"].drop_null().to_pylist()[:1] * 3


def test_another_model_does_not_run_the_network_again(own, tiny, tmp_path):
    """The files are none that can be read any more, which nothing but reading them would tell."""
    plain = scored(own, tiny, tmp_path / "plain", "patchcore")
    scored(own, tiny, tmp_path / "padim", features=tmp_path / "features")
    for file in own.parent.glob("*.png"):
        there = file.stat()
        file.write_bytes(b"\0" * there.st_size)
        os.utime(file, ns=(there.st_atime_ns, there.st_mtime_ns))
    for name, more in {"a": {}, "b": {"coreset": 1.0}, "c": {"image_score": "top1"}}.items():
        kept = scored(own, tiny, tmp_path / name, "patchcore", features=tmp_path / "features", **more)
        assert kept[0]["score"].null_count == FAILED["patchcore"]
        assert kept[0].equals(plain[0]) == (name == "a")
    rows = [r | {"category": "other", "label": None} for r in pq.read_table(own).to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, schema=MANIFEST.schema), own.parent / "other.parquet")
    kept = scored(own.parent / "other.parquet", tiny, tmp_path / "d", "patchcore", features=tmp_path / "features")
    assert kept[0]["score"].null_count == 1


def test_features_of_a_changed_image_are_not_taken(own, tiny, tmp_path):
    features = tmp_path / "features"
    scored(own, tiny, tmp_path / "before", features=features)
    shutil.copyfile(own.parent / "13.png", own.parent / "12.png")
    with pytest.raises(InputError, match=r"level-2 was made with other settings \(the image files have changed\).*"):
        scored(own, tiny, tmp_path / "after", "patchcore", features=features)
    assert not (tmp_path / "after").exists()
    again = RunOptions(quiet=True, overwrite=True)
    after = scored(own, tiny, tmp_path / "after", "patchcore", again, features=features)
    scores = dict(zip(after[0]["image_id"].to_pylist(), after[0]["score"].to_pylist(), strict=True))
    assert scores["i12"] == scores["i13"]
    with pytest.raises(InputError, match=r"size was 64, now 32.*another --features keeps both"):
        scored(own, tiny, tmp_path / "small", features=features, size=32)


@pytest.mark.slow
def test_a_kill_loses_nothing(own, tiny, tmp_path):
    rows = [r for r in pq.read_table(own).to_pylist() if r["image_id"] != "broken"]  # which would be tried again
    pq.write_table(pa.Table.from_pylist(rows, schema=MANIFEST.schema), own)
    plain = scored(own, tiny, tmp_path / "plain")
    out, words = tmp_path / "killed", {"out": "s", "maps": "maps", "features": "features"}
    given = [w for name, folder in words.items() for w in (f"--{name}", tmp_path / "killed" / folder)]
    given += ["--root", own.parent, "--backbone", tiny, "--size", SIZE, "--channels", 6, "--name", "m", "--workers", 1]
    given += ["--batch-size", 4, "--device", "cpu", "--quiet"]
    process = Started("score", own, "--method", "anomalib/padim", *given, models=True)
    while process.poll() is None and not list(out.rglob("level-*/part-*")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    files = {p: p.stat().st_mtime_ns for p in out.rglob("level-*/part-*")}
    assert files and not list(out.rglob("level-*/_adcli.json"))
    kept = scored(own, tiny, out, features=out / "features")
    assert all(a.equals(b) for a, b in zip(plain, kept, strict=True))
    assert all(p.stat().st_mtime_ns == files[p] for p in files)


def test_what_it_takes_is_said_and_more_than_there_is_refused(own, tiny, tmp_path, monkeypatch, capsys):
    scored(own, tiny, tmp_path / "a", options=RunOptions(), features=tmp_path / "features")
    # 16 x 16 x 32, 8 x 8 x 48 and 4 x 4 x 192 numbers of four bytes
    assert "25 images, levels 1, 2, 3, 57 kB each; up to 0.0 GB, " in capsys.readouterr().err
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(25 * 57_000))
    with pytest.raises(InputError, match=r"--features .*: 0.0 GB are needed \(25 images.*give another place"):
        scored(own, tiny, tmp_path / "b", features=tmp_path / "b" / "features")
    assert not (tmp_path / "b").exists()
    scored(own, tiny, tmp_path / "c", "patchcore", features=tmp_path / "features")  # nothing is to be written
