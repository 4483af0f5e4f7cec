"""A frozen vision transformer with random weights, for runs without any download. No figure made with it says
anything of a pretrained one.

    python -m pipelines.demo_models.random_backbone DIR [WIDTH LAYERS PATCH SIZE]
"""

import sys
from pathlib import Path

from stages.training.torch_setup import prepare_torch


def write(folder: Path, width: int = 128, layers: int = 6, patch: int = 8, size: int = 112, seed: int = 0) -> None:
    """CLIP's vision tower of that shape (heads of 32 or narrower) and its image processor."""
    prepare_torch()
    import torch
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(seed)
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=max(width // 32, 1),
        image_size=size,
        patch_size=patch,
    )
    CLIPVisionModel(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": size}, crop_size=size).save_pretrained(folder)


if __name__ == "__main__":
    write(Path(sys.argv[1]), *map(int, sys.argv[2:]))
