"""A tiny InternVL whose vision tower imitates an ImageNet network, for runs without any download.

    python -m pipelines.demo_models.distilled_vlm MANIFEST DIR [SURFACES] [SEED]

DIR: the model, whose language model is random. As in `distilled` the tower's first layers are written down, and least
squares fit the last maps, here those of the adapter, to the first 29 principal components of EfficientNet-Lite0's
features at strides 8, 16 and 32. What is fitted sees the training images of MANIFEST and rendered surfaces (of the
folder SURFACES, by default DIR/../surfaces), never an image of another split. Printed: what the fit leaves, and the
pixel AUROC of linear probes on the adapter's 8 x 8 tokens, trained on the training images, on the test images.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from stages.training.prepared import torch

from torch import Tensor, nn
from torch.nn import functional

from pipelines.demo_models.distilled import (
    GREY,
    IMAGE,
    NEAR,
    STRENGTH,
    components,
    draw_units,
    examples,
    lite0,
    ridge,
    write_quarters,
    write_strengths,
)
from pipelines.demo_models.filter_backbone import FREQUENCIES, SHARP, STEADY
from pipelines.demo_models.random_vlm import tiny_internvl
from pipelines.demo_models.towers_probe import compare
from stages.datasets.images import load_masks, load_rgb

SIZE, PATCH, HEAD, HIDDEN = 224, 14, 48, 1024  # px; width of an attention head; units of an MLP
GRID, TOKENS = SIZE // PATCH, SIZE // PATCH // 2  # patches and tokens per side
KEPT = 29  # channels of the targets; twice as many units of the adapter, for a sum and what is below 0
ROW, COLUMN, FITTED = (slice(NEAR.stop + a, NEAR.stop + b) for a, b in ((0, GRID), (GRID, 2 * GRID), (32, 32 + KEPT)))
WIDTH = 8 * HEAD
SCALE = STEADY * (2 / WIDTH) ** 0.5  # undoes a layer norm's division
FAR = 6.0  # by about so much less, in nats, a patch attends to one that is not beside it


def shape() -> dict:
    """Of the vision tower, as InternVLVisionConfig names it."""
    return {
        "hidden_size": WIDTH,
        "num_attention_heads": WIDTH // HEAD,
        "intermediate_size": HIDDEN,
        "attention_bias": True,
        "image_size": [SIZE, SIZE],
        "patch_size": [PATCH, PATCH],
    }


@torch.no_grad()
def written(tower: nn.Module) -> None:
    """Write the layers that are not fitted."""
    for p in tower.parameters():
        p.zero_()
    write_quarters(tower.embeddings.patch_embeddings.projection.weight)
    places = tower.embeddings.position_embeddings[0]  # (1 + GRID^2, WIDTH), the class token's first
    places[:, -2], places[:, -1] = STEADY, -STEADY
    at, line = torch.arange(GRID**2), torch.eye(GRID)
    places[1:, ROW], places[1:, COLUMN] = line[at // GRID], line[at % GRID]
    for layer in tower.encoder.layer:
        layer.lambda_1.fill_(1), layer.lambda_2.fill_(1)
        for norm in (layer.layernorm_before, layer.layernorm_after):
            norm.weight.fill_(SCALE)
    first, second = tower.encoder.layer
    write_strengths(first.mlp.fc1, first.mlp.fc2)
    attention, some = second.attention, torch.eye(FREQUENCIES)
    beside = ((at[:GRID, None] - at[:GRID]).abs() <= 1).float() * FAR * HEAD**0.5
    for place, head in ((ROW, HEAD), (COLUMN, HEAD + GRID)):  # the second head sees 3 x 3 patches, the first all
        attention.q_proj.weight[head : head + GRID, place] = beside
        attention.k_proj.weight[head : head + GRID, place] = line
    for head, target in ((0, IMAGE), (1, NEAR)):
        of = slice(head * HEAD, head * HEAD + FREQUENCIES)
        attention.v_proj.weight[of, STRENGTH], attention.projection_layer.weight[target, of] = some, some


def pooled(patches: Tensor) -> Tensor:
    """(n, 1 + GRID^2, C) of the tower -> means of 2 x 2 patches (n, TOKENS, TOKENS, C)."""
    grid = patches[:, 1:].unflatten(1, (TOKENS, 2, TOKENS, 2))
    return grid.mean((2, 4))


@torch.no_grad()
def fitted(model: nn.Module, pixels: Tensor, targets: Tensor) -> float:
    """Fit the last MLP of the tower and the adapter to targets (n, TOKENS, TOKENS, KEPT); the share of their variance
    that is left. Random are the inputs of that MLP's units, drawn from torch's generator."""
    tower, adapter = model.model.vision_tower, model.model.multi_modal_projector
    last, used, caught = tower.encoder.layer[-1], slice(0, NEAR.stop), {}
    seen = last.layernorm_after.register_forward_hook(lambda m, i, o: caught.__setitem__("x", (i[0], o)))
    both = [(tower(few), caught["x"])[1] for few in pixels.split(16)]
    seen.remove()
    residual, normed = (torch.cat([b[n] for b in both]) for n in (0, 1))
    draw_units(last.mlp.fc1, normed[:, 1:, used].flatten(0, 1))
    units = torch.cat([pooled(functional.gelu(last.mlp.fc1(few))) for few in normed.split(16)])
    inputs = torch.cat([pooled(residual[..., used]), units], -1)
    matrix, offset = ridge(inputs.flatten(0, 2), targets.flatten(0, 2))
    last.mlp.fc2.weight[FITTED], last.mlp.fc2.bias[FITTED] = matrix[NEAR.stop :].T, offset
    for p in adapter.parameters():
        p.zero_()
    adapter.layer_norm.weight.fill_(SCALE)
    seen = adapter.layer_norm.register_forward_hook(lambda m, i, o: caught.__setitem__("x", o))
    four = torch.cat([(tokens(model, few), caught["x"])[1] for few in pixels.split(16)])  # the patches of a token
    seen.remove()
    matrix, offset = ridge(four.flatten(0, 1), targets.flatten(0, 2))
    adapter.linear_1.weight[: 2 * KEPT] = torch.cat([matrix.T, -matrix.T]) * SHARP
    adapter.linear_1.bias[: 2 * KEPT] = torch.cat([offset, -offset]) * SHARP
    width = adapter.linear_2.weight.shape[0]
    turned = torch.linalg.qr(torch.randn(width, width))[0][:, :KEPT]
    adapter.linear_2.weight[:, : 2 * KEPT] = torch.cat([turned, -turned], 1) / SHARP
    return float((tokens(model, pixels) @ turned - targets).square().mean() / targets.var(correction=0))


@torch.no_grad()
def tokens(model: nn.Module, pixels: Tensor) -> Tensor:
    """(n, TOKENS, TOKENS, C) as the language model gets them."""
    found = [
        model.model.get_image_features(pixel_values=few, return_dict=True).pooler_output for few in pixels.split(16)
    ]
    return torch.cat([torch.cat(list(f)).reshape(-1, TOKENS, TOKENS, f[0].shape[-1]) for f in found])


def shares_of(masks: Sequence[Path]) -> Tensor:
    """(TOKENS, TOKENS): share of each token's cell that is anomalous."""
    if not masks:
        return torch.zeros(TOKENS, TOKENS)
    whole = torch.tensor(load_masks(masks)).float()[None, None]
    return functional.adaptive_avg_pool2d(functional.interpolate(whole, (SIZE, SIZE)), TOKENS)[0, 0]


def main(manifest: Path, out: Path, surfaces: Path | None = None, seed: int = 0) -> None:
    """Fit, probe and write the model."""
    from transformers import AutoProcessor, InternVLForConditionalGeneration

    every, n, learn = examples(manifest, surfaces or out.parent / "surfaces")
    tiny_internvl(out, seed=seed, vision=shape(), tiles=1)
    processor = AutoProcessor.from_pretrained(out)
    processor.image_processor.image_mean = processor.image_processor.image_std = list(GREY)
    processor.save_pretrained(out)
    model = InternVLForConditionalGeneration.from_pretrained(out).eval()
    pixels = torch.cat(
        [processor.image_processor(load_rgb(f).copy(), return_tensors="pt").pixel_values for f, _ in every]
    )
    shares, inside = torch.stack([shares_of(m) for _, m in every]), torch.ones(len(every), TOKENS, TOKENS).bool()
    teacher, random = lite0(pixels, TOKENS), tokens(model, pixels)
    matrix, offset = components(teacher[:learn].flatten(0, 2))
    targets = (teacher[:learn] @ matrix + offset)[..., :KEPT]
    torch.manual_seed(seed)
    written(model.model.vision_tower)
    left = fitted(model, pixels[:learn], targets)
    print(
        f"{learn} images learned from, {len(every) - learn} held out; {left:.3f} of the targets' variance is left",
        flush=True,
    )
    model.save_pretrained(out)
    found = {"lite0": teacher, "random": random, "distilled": tokens(model, pixels)}
    compare(found, shares, inside, n, learn, out / "distilled.txt")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4, 5):
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:4]), *map(int, sys.argv[4:]))
