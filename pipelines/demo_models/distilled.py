"""A tiny SAM whose vision encoder imitates an ImageNet network, for runs without any download.

    python -m pipelines.demo_models.distilled MANIFEST DIR [SURFACES]

DIR/sam: its first layers are written down (strengths of frequencies, what they differ by from neighbours and from the
image, see filter_backbone); the last linear maps are fitted by least squares to the first 29 principal components of
EfficientNet-Lite0's features at strides 8, 16 and 32. What is fitted sees the training images of MANIFEST and rendered
surfaces (of the folder SURFACES, by default DIR/surfaces), never an image of another split. Printed: what the fit
leaves, and the pixel AUROC of linear probes, trained on the training images, on the test images.
"""

import sys
from pathlib import Path

from stages.training.prepared import torch

from torch import Tensor, nn
from torch.nn import functional

from pipelines.demo_models.filter_backbone import FREQUENCIES, MOST, SHARP, STEADY, cosines
from pipelines.demo_models.random_vmad import CANVAS, tiny_sam
from pipelines.demo_models.towers_probe import compare
from stages.baselines.backbone import load_backbone
from stages.baselines.config import LITE0
from stages.datasets.images import load_rgb
from stages.datasets.manifest import Image, read_manifest
from stages.vmad.transform import ClipSamTransform

PATCH, HEAD, HIDDEN, KEPT = 16, 48, 1024, 30  # px; width of an attention head; units of an MLP; channels of the targets
GRID = CANVAS // PATCH
RAW = 4 * FREQUENCIES  # of the four 8 px quarters of a patch
STRENGTH, IMAGE, NEAR = (slice(RAW + i * FREQUENCIES, RAW + (i + 1) * FREQUENCIES) for i in range(3))
WIDTH = 6 * HEAD
SCALE = STEADY * (2 / WIDTH) ** 0.5  # undoes a layer norm's division
GREY = (0.5, 0.5, 0.5)
FRAME = ClipSamTransform(CANVAS, GREY, GREY, CANVAS, GREY, GREY)
LEVELS, NORMALS = (2, 3, 4), 4  # of lite0: strides 8, 16, 32; every fourth normal test image is probed


def read(images: list[tuple[Path, tuple[Path, ...]]]) -> tuple[Tensor, Tensor, Tensor]:
    """(pixels -1..1, 0 outside the image: (n, 3, CANVAS, CANVAS); share of each cell that is anomalous and whether it
    lies in the image: (n, GRID, GRID))."""
    pixels, shares, inside = [], [], []
    at = torch.arange(GRID) * PATCH + PATCH / 2
    for file, masks in images:
        rgb = load_rgb(file)
        h, w = FRAME.content_size(rgb.shape)
        x = FRAME.sam_input(rgb).float() / 127.5 - 1
        x[:, h:], x[:, :, w:] = 0, 0
        pixels.append(x)
        shares.append(functional.avg_pool2d(FRAME.mask(masks, (h, w))[None].float(), PATCH)[0])
        inside.append((at[:, None] < h) & (at < w))
    return torch.stack(pixels), torch.stack(shares), torch.stack(inside)


@torch.inference_mode()
def lite0(pixels: Tensor, grid: int = GRID) -> Tensor:
    """(n, grid, grid, C): features of three strides at the cells. pixels: -1..1."""
    import timm

    name = load_backbone(LITE0, LEVELS, CANVAS).timm_name
    net = timm.create_model(name, pretrained=True, features_only=True, out_indices=LEVELS).eval()
    at_cells = [
        torch.cat([functional.interpolate(f, (grid, grid), mode="area" if f.shape[-1] > grid else "bilinear") for f in
                   net(few)], 1) for few in pixels.split(8)
    ]  # fmt: skip
    return torch.cat(at_cells).permute(0, 2, 3, 1).clone()


def components(features: Tensor) -> tuple[Tensor, Tensor]:
    """features: (n, C) -> (matrix (C, KEPT), offset (KEPT,)): to principal components of variance 1 and, last, minus
    their sum, so that a layer norm has no mean to take away."""
    mean, deviation = features.mean(0), features.std(0)
    _, _, axes = torch.pca_lowrank((features - mean) / deviation, KEPT - 1, center=False)
    matrix = axes / deviation[:, None]
    matrix = matrix / (features @ matrix).std(0)
    matrix = torch.cat([matrix, -matrix.sum(1, keepdim=True)], 1)
    return matrix, -mean @ matrix


@torch.no_grad()
def write_quarters(weight: Tensor) -> None:
    """Cosine filters of each quarter of a patch into the first RAW channels of a patch embedding (WIDTH, 3, P, P)."""
    half = weight.shape[-1] // 2
    filters, deviations = cosines(half)
    for q in range(4):
        y, x = half * (q // 2), half * (q % 2)
        rows = slice(q * FREQUENCIES, (q + 1) * FREQUENCIES)
        weight[rows, :, y : y + half, x : x + half] = (filters / deviations[:, None, None] / 9)[:, None]


@torch.no_grad()
def write_strengths(lin1: nn.Linear, lin2: nn.Linear) -> None:
    """An MLP that puts each frequency's strength, |x| up to MOST, mean of the quarters, into the channels STRENGTH."""
    eye, mean = torch.eye(RAW), torch.eye(FREQUENCIES).repeat(1, 4) / 4 / SHARP
    for n, (sign, start) in enumerate(((1, 0), (-1, 0), (1, MOST), (-1, MOST))):
        units = slice(n * RAW, (n + 1) * RAW)
        lin1.weight[units, :RAW], lin1.bias[units] = sign * SHARP * eye, -SHARP * start
        lin2.weight[STRENGTH, units] = -mean if start else mean


@torch.no_grad()
def draw_units(lin1: nn.Linear, normed: Tensor) -> None:
    """Draw what an MLP's units read of its first channels. normed: (cells, channels), what they are to see."""
    units, channels = lin1.out_features, normed.shape[1]
    mean, deviation = normed.mean(0), normed.std(0) + 1e-3
    drawn = torch.randn(units, channels) / channels**0.5 / deviation
    lin1.weight[:, :channels], lin1.bias[:] = drawn, torch.randn(units) * 0.5 - drawn @ mean


@torch.no_grad()
def written(encoder: nn.Module) -> None:
    """Write the layers that are not fitted; random are only the inputs of the last MLP's units."""
    for p in encoder.parameters():
        p.zero_()
    write_quarters(encoder.patch_embed.projection.weight)
    encoder.pos_embed[..., -2], encoder.pos_embed[..., -1] = STEADY, -STEADY
    first, second = encoder.layers
    for norm in (first.layer_norm1, first.layer_norm2, second.layer_norm1, second.layer_norm2):
        norm.weight.fill_(SCALE)
    write_strengths(first.mlp.lin1, first.mlp.lin2)
    attention, some = second.attn, torch.eye(FREQUENCIES)
    value = attention.qkv.weight[2 * WIDTH :]
    away = (torch.arange(2 * GRID - 1) - GRID + 1).abs()
    for table in (attention.rel_pos_h, attention.rel_pos_w):
        table[:, 0] = -20.0 * (away > 1)  # the second head sees 3 x 3 cells, the first all
    attention.qkv.bias[HEAD] = 1.0
    for head, target in ((0, IMAGE), (1, NEAR)):
        of = slice(head * HEAD, head * HEAD + FREQUENCIES)
        value[of, STRENGTH], attention.proj.weight[target, of] = some, some


def ridge(inputs: Tensor, targets: Tensor, weight: float = 1e-3) -> tuple[Tensor, Tensor]:
    """(matrix (C, K), offset (K,)) of least squares."""
    mean, deviation = inputs.mean(0), inputs.std(0) + 1e-4
    x = (inputs - mean) / deviation
    matrix = torch.linalg.solve(x.T @ x + weight * len(x) * torch.eye(x.shape[1]), x.T @ (targets - targets.mean(0)))
    matrix = matrix / deviation[:, None]
    return matrix, targets.mean(0) - mean @ matrix


@torch.no_grad()
def fitted(encoder: nn.Module, pixels: Tensor, inside: Tensor, targets: Tensor, seed: int = 0) -> tuple[float, float]:
    """Fit the encoder's last maps to targets (cells, KEPT); (mean squared error of the targets' means, of the fit)."""
    torch.manual_seed(seed)
    last, neck, caught = encoder.layers[-1], encoder.neck, {}
    seen = last.layer_norm2.register_forward_hook(lambda m, i, o: caught.__setitem__("x", (i[0], o)))

    def residuals() -> tuple[Tensor, Tensor]:
        both = [(encoder(few), caught["x"])[1] for few in pixels.split(16)]
        return tuple(torch.cat([b[n] for b in both])[inside] for n in (0, 1))

    residual, normed = residuals()
    seen.remove()
    used = slice(0, NEAR.stop)
    draw_units(last.mlp.lin1, normed[:, used])
    units = functional.gelu(last.mlp.lin1(normed))
    matrix, offset = ridge(torch.cat([residual[:, used], units], 1), targets)
    reading = torch.zeros(KEPT + 2, WIDTH)
    reading[:KEPT, used] = matrix[: NEAR.stop].T
    reading[KEPT:, -2:] = torch.eye(2)
    neck.conv1.weight[:] = reading[..., None, None]
    back = torch.linalg.pinv(reading)[:, :KEPT]  # what the units write is read as their part of the fit
    last.mlp.lin2.weight[:], last.mlp.lin2.bias[:] = back @ matrix[NEAR.stop :].T, back @ offset
    scale = STEADY * (2 / (KEPT + 2)) ** 0.5
    neck.layer_norm1.weight.fill_(scale)
    neck.layer_norm2.weight[:KEPT] = scale
    caught.clear()
    seen = neck.layer_norm1.register_forward_hook(lambda m, i, o: caught.__setitem__("x", o))
    maps = torch.cat([(encoder(few), caught["x"])[1][:, :KEPT] for few in pixels.split(16)])
    seen.remove()
    around = functional.unfold(maps, 3, padding=1).transpose(1, 2)[inside.flatten(1)]
    matrix, offset = ridge(around, targets)
    neck.conv2.weight[:KEPT, :KEPT] = matrix.T.reshape(KEPT, KEPT, 3, 3)
    neck.conv2.weight[:KEPT, KEPT, 1, 1] = offset / STEADY
    neck.conv2.weight[KEPT:, KEPT:, 1, 1] = torch.eye(2)
    after = features(encoder, pixels)[inside][:, :KEPT]
    return float(targets.var(0, correction=0).mean()), float((after - targets).square().mean())


@torch.no_grad()
def features(encoder: nn.Module, pixels: Tensor) -> Tensor:
    """(n, GRID, GRID, C) as the mask decoder gets them."""
    return torch.cat([encoder(few).last_hidden_state for few in pixels.split(16)]).permute(0, 2, 3, 1)


def shape() -> dict:
    """Of the vision encoder, as SamVisionConfig names it."""
    return {"hidden_size": WIDTH, "num_attention_heads": WIDTH // HEAD, "mlp_dim": HIDDEN, "window_size": 0,
            "global_attn_indexes": [0, 1]}  # fmt: skip


def learned_from(images: list[Image], split: str) -> list[Image]:
    """Images of a split that can be read: all anomalous ones; of test's normal ones every fourth."""
    usable = [i for i in images if i.split == split and not i.error]
    normal = [i for i in usable if i.label == 0][:: NORMALS if split == "test" else 1]
    return [i for i in usable if i.label == 1] + normal


def surfaces_in(folder: Path) -> list[Path]:
    """Files of what `adcli data synth surfaces` rendered. Exits with a message where there are none."""
    files = sorted([*folder.glob("good/*.jpg"), *folder.glob("new/*/*.jpg")])
    if not files:
        sys.exit(f"{folder}: no surfaces here; render them with adcli data synth surfaces --out {folder}")
    return files


def examples(manifest: Path, surfaces: Path) -> tuple[list[tuple[Path, tuple[Path, ...]]], int, int]:
    """(images with their masks: of the training half, surfaces, held out; how many are the first, the first two)."""
    images = read_manifest(manifest).images
    files = surfaces_in(surfaces)
    train, test = (
        [(i.file, i.masks if i.label else ()) for i in learned_from(images, split)] for split in ("train", "test")
    )
    return [*train, *((f, ()) for f in files), *test], len(train), len(train) + len(files)


def main(manifest: Path, out: Path, surfaces: Path | None = None) -> None:
    """Fit, probe and write the model."""
    from transformers import SamImageProcessor, SamModel

    every, n, learn = examples(manifest, surfaces or out / "surfaces")
    pixels, shares, inside = read(every)
    sam = tiny_sam(out / "sam", CANVAS, PATCH, vision=shape())
    processor = SamImageProcessor.from_pretrained(sam, image_mean=list(GREY), image_std=list(GREY))
    model = SamModel.from_pretrained(sam).eval()
    teacher = lite0(pixels)
    random = features(model.vision_encoder, pixels)
    matrix, offset = components(teacher[:learn][inside[:learn]])
    written(model.vision_encoder)
    targets = teacher[:learn][inside[:learn]] @ matrix + offset
    before, after = fitted(model.vision_encoder, pixels[:learn], inside[:learn], targets)
    print(
        f"{learn} images learned from, {len(every) - learn} held out; {after / before:.3f} of the targets' variance is"
        " left",
        flush=True,
    )
    model.save_pretrained(sam)
    processor.save_pretrained(sam)
    found = {"lite0": teacher, "random": random, "distilled": features(model.vision_encoder, pixels)}
    compare(found, shares, inside, n, learn, sam / "distilled.txt")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
