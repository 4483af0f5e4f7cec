"""A frozen vision transformer whose weights are written down rather than learned, for runs without any download.

    python -m pipelines.demo_models.filter_backbone DIR [PATCH SIZE]

A CLIP vision tower of two blocks. Its patch embedding is a cosine transform, its first block takes the strengths of the
frequencies, its second what they differ by from the image's mean. No image was used to make it; what is measured
with it says that VisualAD's training works, and nothing of a pretrained backbone.
"""

import sys
from pathlib import Path

from stages.training.torch_setup import prepare_torch

FREQUENCIES = 40  # kept of the patch's, lowest first
WIDTH = 128
STEADY = 40.0  # +- in two channels of every token: layer norms then scale all tokens about alike
SHARP = 4.0  # gelu(SHARP x) / SHARP is nearly relu(x)
MOST = 3.0  # standard deviations at which strengths saturate


def write(folder: Path, patch: int = 16, size: int = 320) -> None:
    """The model and its image processor. patch, size: px."""
    prepare_torch()
    import torch
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    vit = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=size,
            patch_size=patch,
            hidden_act="gelu",
        )
    )
    inner = getattr(vit, "vision_model", vit)
    first, second = inner.encoder.layers
    plain, strength, contrast = (slice(n * FREQUENCIES, (n + 1) * FREQUENCIES) for n in range(3))
    eye = torch.eye(FREQUENCIES)
    with torch.no_grad():
        for p in vit.parameters():
            p.zero_()
        filters, deviations = cosines(patch)
        inner.embeddings.patch_embedding.weight[plain] = (filters / deviations[:, None, None])[:, None] / 3
        inner.embeddings.position_embedding.weight[:, -2:] = torch.tensor([STEADY, -STEADY])
        for norm in (
            inner.pre_layrnorm,
            first.layer_norm1,
            first.layer_norm2,
            second.layer_norm1,
            second.layer_norm2,
            inner.post_layernorm,
        ):
            norm.weight.fill_(STEADY * (2 / WIDTH) ** 0.5)  # undoes the division by the deviation
        subtract_mean(first, slice(0, 1), slice(0, 1))  # of the brightness
        for n, (sign, start) in enumerate(((1, 0), (-1, 0), (1, MOST), (-1, MOST))):
            units = slice(n * FREQUENCIES, (n + 1) * FREQUENCIES)
            first.mlp.fc1.weight[units, plain], first.mlp.fc1.bias[units] = sign * SHARP * eye, -SHARP * start
            first.mlp.fc2.weight[strength, units] = eye / SHARP * (-1 if start else 1)
        subtract_mean(second, strength, contrast)
        units = slice(0, FREQUENCIES)
        second.mlp.fc1.weight[units, strength], second.mlp.fc2.weight[contrast, units] = SHARP * eye, eye / SHARP
        second.mlp.fc2.bias[-2:] = torch.tensor([-STEADY, STEADY])  # no longer needed
    vit.save_pretrained(folder)
    CLIPImageProcessor(
        size={"shortest_edge": size}, crop_size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3
    ).save_pretrained(folder)


def subtract_mean(block, source: slice, target: slice) -> None:
    """Subtract the mean of the channels `source` over all tokens from the channels `target`: queries and keys are
    zero, so that every token attends to all alike."""
    import torch

    eye = torch.eye(source.stop - source.start)
    block.self_attn.v_proj.weight[source, source], block.self_attn.out_proj.weight[target, source] = eye, -eye


def cosines(patch: int):
    """(FREQUENCIES, patch, patch) orthonormal cosine filters, lowest frequency first, and (FREQUENCIES,) the
    deviations that their answers have on images whose spectrum falls with the frequency, as most do."""
    import torch

    k = torch.arange(patch)
    line = torch.cos(torch.pi * (k + 0.5) * k[:, None] / patch) * (2 / patch) ** 0.5
    line[0] /= 2**0.5
    chosen = torch.argsort((k[:, None] + k).flatten(), stable=True)[:FREQUENCIES]
    filters = torch.einsum("ai,bj->abij", line, line).flatten(0, 1)[chosen]
    frequency = (k[:, None] ** 2 + k**2).sqrt().flatten()[chosen]
    return filters, patch / 16 * (1 + frequency) ** -1.2


if __name__ == "__main__":
    write(Path(sys.argv[1]), *map(int, sys.argv[2:]))
