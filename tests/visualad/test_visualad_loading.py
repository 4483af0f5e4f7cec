"""VisualAD's training: what its defaults do, images from worker processes, no look at a step's values on the host."""

import json
import re
import shutil
import traceback

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode

from stages.base.errors import ImageError, InputError
from stages.datasets.manifest import read_manifest
from stages.training.trainer import LOADERS, common_arguments
from stages.visualad.backbone import load_backbone
from stages.visualad.checkpoint import load
from stages.visualad.config import TrainVisualadConfig
from stages.visualad.data import ImageTransform, TrainingSet
from stages.visualad.model import VisualAD
from stages.visualad.train import run as train
from stages.visualad.train import trainable, trainer_of
from tests.spots import make_spots
from tests.visualad.test_visualad_stages import QUIET, clip, config, spots, weights

__all__ = ["clip", "spots"]  # fixtures


@pytest.mark.slow
def test_worker_processes_change_no_bit_of_the_weights(spots, clip, tmp_path):
    made = []
    for workers in (0, 2):
        out = tmp_path / str(workers)
        train(config(spots, clip, out, epochs=2, loader_workers=workers), QUIET)
        made.append((weights(out), (out / "_checkpoint" / "losses.csv").read_text()))
    assert made[0] == made[1]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_image_that_breaks_is_named_in_one_line(spots, clip, tmp_path, workers, monkeypatch):
    """It breaks after all were decoded, while the training runs."""
    root = tmp_path / "images"
    shutil.copytree(spots.parent, root)
    broken = next(i.file for i in read_manifest(root / spots.name, root).images)

    def then_broken(*arguments):
        found = trainable(*arguments)
        broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
        return found

    monkeypatch.setattr("stages.visualad.train.trainable", then_broken)
    with pytest.raises(ImageError) as caught:
        train(config(root / spots.name, clip, tmp_path / "t", loader_workers=workers, root=root), QUIET)
    assert re.fullmatch(rf"{re.escape(str(broken))}: cannot be decoded \(.{{1,80}}\)", str(caught.value))


def test_workers_are_the_default_beside_a_gpu_alone(tmp_path):
    def workers(device, asked):
        return common_arguments(tmp_path, device, "fp32", 0, asked, 1, 1)["dataloader_num_workers"]

    assert [workers(d, None) for d in ("cuda", "cpu")] == [LOADERS, 0] and workers("cuda", 0) == 0


@pytest.mark.slow
def test_the_defaults_lower_the_loss(clip, tmp_path):
    """One pass of 24 steps: the mean over the last third is below that over the first."""
    images = make_spots(tmp_path, 192)
    train(
        TrainVisualadConfig(
            manifest=images, root=tmp_path, backbone=str(clip), out=tmp_path / "v", size=56, layers="2,4"
        ),
        QUIET,
    )
    curve = [float(line.split(",")[1]) for line in (tmp_path / "v/_checkpoint/losses.csv").read_text().split()[1:]]
    assert len(curve) == 24 and sum(curve[-8:]) < sum(curve[:8])


@pytest.mark.slow
def test_a_checkpoint_is_run_with_the_weights_it_was_trained_on_wherever_they_lie(spots, clip, tmp_path):
    train(config(spots, clip, tmp_path / "v", epochs=1), QUIET)
    moved, tuned = shutil.copytree(clip, tmp_path / "moved"), shutil.copytree(clip, tmp_path / "tuned")
    (moved / "notes.txt").write_text("copied")
    assert load(tmp_path / "v", str(moved))
    tensors = load_file(tuned / "model.safetensors")
    tensors[next(n for n in tensors if n.endswith("layers.0.mlp.fc1.weight"))][0, 0] += 0.1
    save_file(tensors, tuned / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"--backbone .*tuned: not the weights that .* was trained on, .* of .*clip"):
        load(tmp_path / "v", str(tuned))
    record = json.loads((tmp_path / "v/_checkpoint/visualad.json").read_text())
    del record["digest"]
    (tmp_path / "v/_checkpoint/visualad.json").write_text(json.dumps(record))
    assert load(tmp_path / "v/_checkpoint", str(tuned)), "of earlier versions nothing is known"


class Looks(TorchDispatchMode):
    """Counts the values that a program fetches from tensors, which on a GPU waits for all that runs there; not those
    of the optimiser and of the data loader, which lie on the CPU then, too."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            frames = traceback.extract_stack()
            if not any(f in frame.filename for frame in frames for f in ("torch/optim", "torch/utils/data")):
                self.found.append(frames[-3])
        return func(*args, **(kwargs or {}))


@pytest.mark.slow
def test_steps_between_two_log_lines_fetch_nothing_from_the_device(spots, clip, tmp_path):
    def looks(epochs):
        c = config(spots, clip, tmp_path / str(epochs), epochs=epochs)
        backbone, mean, std = load_backbone(str(clip))
        model = VisualAD(backbone, c.settings())
        images = read_manifest(spots, spots.parent).images
        trainer = trainer_of(model, TrainingSet(images, ImageTransform(56, tuple(mean), tuple(std))), c)
        trainer.args.logging_steps = trainer.args.save_steps = 1000
        trainer.args.save_strategy = "no"
        with Looks() as counted:
            trainer.train()
        return len(counted.found), counted.found

    (few, _), (many, where) = looks(1), looks(3)
    assert many == few, where
