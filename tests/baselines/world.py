"""Settings, and models of anomalib, for the tests of the vision baselines."""

from pathlib import Path

from stages.baselines.config import BaselineConfig

SIZE = 64


def config(model, backbone, **more):
    return BaselineConfig(
        **{
            "manifest": Path("m"),
            "out": Path("o"),
            "method": f"anomalib/{model}",
            "backbone": backbone,
            "size": SIZE,
            "device": "cpu",
            "workers": 1,
            "batch_size": 4,
        }
        | more
    )


def saved(architecture, folder):
    """A directory with a random network of timm's; its path as text."""
    import timm
    import torch

    torch.manual_seed(0)
    timm.models.save_for_hf(timm.create_model(architecture, num_classes=2), folder, safe_serialization=True)
    return str(folder)


def loaded(name, levels=(1, 2, 3)):
    from stages.baselines.backbone import load_backbone

    return load_backbone(name, levels, SIZE)


def outputs(model, images):
    import torch

    with torch.inference_mode():
        out = model(images)
    return out.pred_score, out.anomaly_map
