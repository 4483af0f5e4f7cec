"""VMAD's training with its defaults."""

import pytest
import torch

from stages.datasets.manifest import read_manifest
from stages.vmad.build import build_memory, new_model
from stages.vmad.checkpoint import load_vmad
from stages.vmad.config import FinetuneVmadConfig, LossWeights, VmadSettings
from stages.vmad.data import TrainingSet, collate, samples_of
from stages.vmad.memory import choose_memory
from stages.vmad.train import run as train
from tests.vmad_stages_world import QUIET


@pytest.mark.slow
def test_the_defaults_lower_the_loss(spots, models, tmp_path):
    """Ten epochs at 1e-6 are a small step for a model of random weights; the loss is that of the same draws before and
    after, without dropout."""
    config = FinetuneVmadConfig(
        manifest=spots,
        root=spots.parent,
        out=tmp_path / "v",
        device="cpu",
        precision="fp32",
        tasks="segmentation",
        **models,
    )
    assert (config.learning_rate, config.epochs, config.dropout, config.boxes) == (1e-6, 10, 0.05, 32)
    train(config, QUIET)
    torch.manual_seed(config.seed)
    before, text = new_model(models["llava"], models["sam"], VmadSettings(), LossWeights())
    after, _ = load_vmad(tmp_path / "v")
    images = read_manifest(spots, spots.parent).images
    chosen = choose_memory(images, config.memory, config.seed)
    found = []
    for model in (before.eval(), after):
        model.memory = build_memory(chosen, model, text, config.drawn)
        classes = {name: n for n, name in enumerate(chosen)}
        data = TrainingSet(samples_of(images, ["segmentation"]), text, model.transform, classes)
        torch.manual_seed(7)
        with torch.no_grad():
            losses = model(**collate([data[n] for n in range(len(data))], text.pad))
        found.append({name: float(value) for name, value in losses.items()})
    assert found[1]["loss"] < found[0]["loss"] - 1e-4, found
    assert all(found[1][name] < found[0][name] for name in ("text", "bce")), found
