"""anomalib's models that are trained by gradient steps, against their own parts called directly."""

import json
from importlib.util import find_spec

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.artifacts.maps import read_maps
from stages.artifacts.reader import read_table
from stages.artifacts.tables import MANIFEST, SCORES
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.baselines.score import run
from stages.training.torch_setup import prepare_torch
from tests.baselines.world import SIZE, config, loaded, outputs, saved

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(find_spec("anomalib") is None, reason="needs adcli[baselines]")
QUIET = RunOptions(quiet=True)
LAYERS = {"cflow": "2,3"}  # the fourth, which it reads by default, has too few positions at 64 px


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """A directory with a random ResNet-18, which Reverse Distillation and FastFlow know."""
    prepare_torch()
    return saved("resnet18", tmp_path_factory.mktemp("backbone") / "resnet18")


@pytest.fixture
def backbones(tiny, resnet):
    return {"stfpm": tiny, "cflow": tiny, "reverse-distillation": resnet, "fastflow": resnet}


def epoch_of(images):
    """What `fit_trained` takes; remembers the order that it was asked for."""

    def epoch(numbers, at_once):
        epoch.asked.append(list(numbers))
        yield from images[list(numbers)].split(at_once)

    epoch.asked = []
    return epoch


def its_module(model, name, architecture):
    """anomalib's module, built with its defaults but for the backbone and the size."""
    from anomalib.models import Cflow, Fastflow, ReverseDistillation, Stfpm
    from anomalib.pre_processing import PreProcessor
    from torchvision.transforms.v2 import Resize

    if model == "stfpm":
        return Stfpm(name, [1, 2, 3])
    if model == "cflow":
        return Cflow(name, [2, 3])
    size = PreProcessor(Resize((SIZE, SIZE)))
    if model == "fastflow":
        return Fastflow(architecture, pre_trained=False, pre_processor=size)
    return ReverseDistillation(architecture, [1, 2, 3], pre_trained=False, pre_processor=size)


def trained_by_lightning(model, name, architecture, folder, images, orders, seed):
    """The same model trained by Lightning's own trainer, on batches in the same order."""
    from anomalib.data.dataclasses.torch import ImageBatch
    from lightning.pytorch import Trainer, seed_everything
    from safetensors.torch import load_file

    seed_everything(seed, verbose=False)
    module = its_module(model, name, architecture)
    if architecture == "resnet18":  # its weights from the file, in place of downloaded ones
        state = load_file(f"{folder}/model.safetensors")
        network = module.model.feature_extractor if model == "fastflow" else module.model.encoder.feature_extractor
        assert not network.load_state_dict(state, strict=False).missing_keys
    for part in ("pre_processor", "post_processor", "evaluator", "visualizer"):
        setattr(module, part, None)

    class Batches:
        def __iter__(self):
            yield ImageBatch(image=images[orders[trainer.current_epoch]])

        def __len__(self):
            return 1

    trainer = Trainer(
        max_epochs=len(orders),
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **module.trainer_arguments,
    )
    torch.manual_seed(seed)
    trainer.fit(module, Batches())
    return module.model.eval()


@pytest.mark.slow
@pytest.mark.parametrize("model", ["stfpm", "cflow", "reverse-distillation", "fastflow"])
@pytest.mark.filterwarnings("ignore")
def test_scores_and_maps_are_those_of_lightnings_trainer(model, backbones, pixels):
    from stages.baselines.train import fit_trained

    settings = config(model, backbones[model], epochs=2, layers=LAYERS.get(model, ""))
    backbone, epoch = loaded(settings.backbone, settings.levels), epoch_of(pixels)
    ours = fit_trained(settings, backbone, epoch, 10, 7, "cpu").predict
    assert [sorted(order) for order in epoch.asked] == [list(range(10))] * 2 and epoch.asked[0] != epoch.asked[1]
    theirs = trained_by_lightning(
        model, backbone.timm_name, backbone.architecture, settings.backbone, pixels, list(epoch.asked), 7
    )
    one = 1 if model == "cflow" else 2  # its map depends on the batch
    for some in pixels[10:].split(one):
        for mine, its in zip(outputs(ours, some), outputs(theirs, some), strict=True):
            assert torch.allclose(mine.flatten(), its.flatten(), rtol=1e-5, atol=1e-5), (mine - its).abs().max()
            assert model == "cflow" or its.std() > 1e-6
    assert outputs(ours, pixels[10:])[1].shape == (2, 1, SIZE, SIZE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "epochs", "ratio"),
    [("stfpm", 6, 0.9), ("cflow", 2, 0.97), ("reverse-distillation", 3, 0.9), ("fastflow", 4, 0.9)],
)
def test_training_lowers_the_loss(model, epochs, ratio, backbones, pixels):
    from stages.baselines.train import build_module, train

    settings = config(model, backbones[model], epochs=epochs, layers=LAYERS.get(model, ""))
    torch.manual_seed(0)
    np.random.seed(0)
    module = build_module(settings, loaded(settings.backbone, settings.levels))
    losses = train(module, settings, epoch_of(pixels), range(12), 0)
    assert len(losses) == epochs and losses[-1] < ratio * losses[0], losses


@pytest.mark.slow
def test_a_training_image_is_scored_by_a_model_trained_without_its_fifth(tiny, pixels):
    from stages.baselines.train import fit_trained

    epoch = epoch_of(pixels)
    ours = fit_trained(config("stfpm", tiny, epochs=2), loaded(tiny), epoch, 12, 7, "cpu")
    assert len(epoch.asked) == 2, "none of the five is trained before its score is asked for"
    seen = outputs(ours.predict, pixels)[0]
    unseen = ours.left_out(pixels[3:5], [3, 4])
    asked = [set(order) for order in epoch.asked[2:]]
    assert 3 not in asked[0] and 9 <= len(asked[0]) <= 10 and not any({3, 4} <= order for order in asked)
    again = ours.left_out(pixels[3:5], [3, 4])
    assert torch.equal(unseen.anomaly_map, again.anomaly_map) and len(epoch.asked) == 2 + len(asked)
    assert torch.equal(outputs(ours.predict, pixels)[0], seen)
    other = fit_trained(config("stfpm", tiny, epochs=2), loaded(tiny), epoch_of(pixels), 12, 7, "cpu")
    assert torch.equal(other.left_out(pixels[3:5], [3, 4]).anomaly_map, unseen.anomaly_map), "in any order the same"


def test_a_loss_that_is_no_number_is_the_tasks_error_and_is_not_tried_again(tiny, pixels):
    from stages.base.errors import ImageError
    from stages.baselines.train import fit_trained

    broken, epoch = pixels.clone(), epoch_of(pixels)
    broken[0] = float("nan")
    with pytest.raises(ImageError, match="training anomalib/stfpm diverged in epoch 1: its loss is no number"):
        fit_trained(config("stfpm", tiny, epochs=2), loaded(tiny), epoch_of(broken), 12, 7, "cpu")
    ours = fit_trained(config("stfpm", tiny, epochs=1), loaded(tiny), epoch, 12, 7, "cpu")
    pixels_before = pixels.clone()
    pixels[:] = float("nan")
    try:
        for _ in range(2):
            with pytest.raises(ImageError, match="diverged"):
                ours.left_out(pixels_before[:1], [0])
    finally:
        pixels[:] = pixels_before
    assert len(epoch.asked) == 2


def arguments(photos, backbone, out, model="stfpm", **more):
    given = {"manifest": photos, "root": photos.parent, "out": out / "s", "maps": out / "maps", "epochs": 1}
    return config(model, backbone, **given | more)


@pytest.mark.slow
def test_the_stage_scores_every_image_and_says_what_made_the_rows(photos, tiny, tmp_path, capfd):
    summary = run(arguments(photos, tiny, tmp_path), RunOptions())
    assert (summary.rows, summary.errors, summary.complete) == (19, 3, True)
    rows = {r["image_id"]: r for r in read_table(tmp_path / "s", SCORES).to_pylist()}
    assert rows["li00"]["error"] == "d / lone has 1 readable normal training images, anomalib/stfpm needs at least 2"
    maps = dict(read_maps(tmp_path / "maps", {("i12", "anomalib/stfpm+tiny")}))
    (stored,) = maps.values()
    assert stored.dtype == np.float32 and stored.max() == np.float32(rows["i12"]["score"])
    said = json.loads((tmp_path / "s" / "_adcli.json").read_text())["parameters"]
    assert (said["epochs"], said["training_scores"], said["layers"]) == (1, "five folds", [1, 2, 3])
    lines = capfd.readouterr().err
    assert "fitting anomalib/stfpm to 8 normal images; 1 epochs, and as many for each of 5 models" in lines
    with pytest.raises(InputError, match="epochs was 1, now 2"):
        run(arguments(photos, tiny, tmp_path, epochs=2), QUIET)


@pytest.mark.slow
def test_an_image_gets_the_same_map_in_any_batch(photos, tiny, tmp_path):
    """CFlow's is scaled by the highest likelihood of the batch."""
    rows = [r for r in pq.read_table(photos).to_pylist() if r["category"] == "grey" and r["image_id"] < "i14"]
    pq.write_table(pa.Table.from_pylist(rows, schema=MANIFEST.schema), tmp_path / "m.parquet")
    found = []
    for batch in (1, 6):
        out = tmp_path / str(batch)
        run(
            arguments(
                tmp_path / "m.parquet",
                tiny,
                out,
                "cflow",
                root=photos.parent,
                layers="1,2,3",
                batch_size=batch,
                splits="test",
            ),
            QUIET,
        )
        found.append(dict(read_maps(out / "maps", {(f"i{n:02d}", "anomalib/cflow+tiny") for n in range(8, 14)})))
    assert len(found[0]) == 6 and all(np.allclose(found[0][k], found[1][k], atol=1e-5) for k in found[0])


def test_another_network_than_anomalib_knows_is_refused(photos, tiny, tmp_path):
    with pytest.raises(InputError, match="anomalib/fastflow: anomalib has it for no other backbones than resnet18"):
        run(arguments(photos, tiny, tmp_path, "fastflow"), QUIET)
    assert not (tmp_path / "s").exists()


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["anomalib", "top1"])
def test_other_image_scores(rule, photos, tiny, tmp_path):
    run(arguments(photos, tiny, tmp_path, "padim", epochs=None, channels=6, image_score=rule), QUIET)
    rows = [r for r in read_table(tmp_path / "s", SCORES).to_pylist() if not r["error"]]
    assert len(rows) == 16 and all(r["score"] > 0 for r in rows)


@pytest.fixture
def weights(tmp_path):
    """What EfficientAD needs: a random teacher and two other pictures."""
    from anomalib.models.image.efficient_ad.torch_model import EfficientAdModel
    from PIL import Image

    folder = tmp_path / "weights"
    (folder / "imagenette" / "dog").mkdir(parents=True)
    for n in range(2):
        noise = np.random.default_rng(n).integers(0, 255, (40, 50, 3), np.uint8)
        Image.fromarray(noise).save(folder / "imagenette" / "dog" / f"{n}.png")
    torch.manual_seed(0)
    torch.save(EfficientAdModel().teacher.state_dict(), folder / "pretrained_teacher_small.pth")
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_model_with_weights_of_its_own(weights, tmp_path):
    """EfficientAD: the teacher is the one of the file, and its statistics are those of the training images."""
    from stages.baselines.backbone import without_backbone
    from stages.baselines.train import build_module, predictor, train

    settings = config("efficient-ad", "lite0", epochs=2, checkpoint=weights, size=256)
    images = torch.nn.functional.interpolate(torch.rand(3, 3, 8, 8), size=(256, 256))
    torch.manual_seed(0)
    module = build_module(settings, without_backbone(settings), weights)
    losses = train(module, settings, epoch_of(images), range(2), 0)
    assert len(losses) == 2 and losses[1] < losses[0]
    state = torch.load(weights / "pretrained_teacher_small.pth", weights_only=True)
    assert all(torch.equal(value, state[name]) for name, value in module.model.teacher.state_dict().items())
    with torch.inference_mode():
        features = module.model.teacher(images[:2])
    assert torch.allclose(module.model.mean_std["mean"].flatten(), features.mean((0, 2, 3)), atol=1e-5)
    scores, maps = outputs(predictor(module, False), images)
    assert maps.shape == (3, 1, 256, 256) and torch.equal(scores.flatten(), maps.amax((1, 2, 3)))
    normal = maps[:2, :, 8:-8, 8:-8]
    assert 0 < (normal > 0).float().mean() < 0.2, "0 is the 90 % quantile of both maps on the training images"

    before = without_backbone(settings).weights
    (weights / "imagenette" / "dog" / "0.png").unlink()
    assert without_backbone(settings).weights != before
