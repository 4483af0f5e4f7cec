"""VMAD's Figures 9 and 10 from our own runs.

    python -m pipelines.vmad_figures MANIFEST OUT WITH [WITHOUT]

MANIFEST: test images with masks; WITH: a trained model with LTC (Figure 9); WITHOUT: one without DSSL, and else as WITH
(Figure 10). Written to OUT:

figure9.png   for a few anomalous images, where LTC looks: the weights of Eq. 20 in the last and in the first of its
              levels (the paper's layer-1 and layer-4), and the length of what Eq. 21 adds to each token. The paper does
              not say what its maps are.
figure10.png  left, the masks without and with DSSL; right, t-SNE of the images' tokens Psi(z), averaged and
              L2-normalised as in Eq. 16, normal and anomalous. tokens.csv has the points, and each panel's title how
              well the two separate before t-SNE: the silhouette by label, and how many images have their nearest
              neighbour of the same class among those of their own label.

An image, or the mask of one that is shown, that cannot be read is left out and named, and another one takes its place.
"""

import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from stages.base.errors import InputError
from stages.base.plots import as_png, pyplot
from stages.datasets.images import load_masks, load_rgb
from stages.datasets.manifest import Image, read_manifest
from stages.datasets.trainable import unreadable
from stages.report.figures import ANOMALOUS, NORMAL
from stages.report.heatmaps import blended

SHOWN = 6  # rows of pictures
MOST = 400  # images in t-SNE, half of each label where there are as many
Picture = np.ndarray  # (H, W, 3) uint8


@dataclass(frozen=True)
class Looks:
    """Of one image, on the grid of CLIP's patches (rho times coarser for `fused`). picture: what CLIP was given;
    levels: n of Eq. 21."""

    picture: Picture
    levels: int
    last: np.ndarray
    first: np.ndarray
    fused: np.ndarray


def main(manifest: Path, out: Path, with_dssl: Path, without: Path | None = None) -> None:
    """Raises InputError: no checkpoint, or no test images of both labels that can be read."""
    from stages.training.torch_setup import prepare_torch, resolved_precision

    prepare_torch()
    from stages.vmad.checkpoint import load_vmad

    everything = read_manifest(manifest).images
    images = [i for i in everything if i.split == "test" and i.label is not None]
    broken: dict[str, str] = {}
    shown = readable([i for i in images if i.label == 1 and i.masks], SHOWN, True, broken)
    of_label = ([i for i in images if i.label == label] for label in (0, 1))
    chosen = [i for own in of_label for i in readable(own, MOST // 2, False, broken)]
    if broken:
        print(f"left out, as they cannot be read: {len(broken)} images")
        print(*(f"  {name}: {why}" for name, why in broken.items()), sep="\n")
    if not shown or len({i.label for i in chosen}) < 2:
        raise InputError(
            f"{manifest}: no normal, or no anomalous test images with masks that can be read; the figures show both"
        )
    device, _ = resolved_precision("auto", "fp32")
    out.mkdir(parents=True, exist_ok=True)
    masks, points = {}, {}
    for name, place in {"without DSSL": without, "with DSSL": with_dssl}.items():
        if place is None:
            continue
        model, text = load_vmad(place)
        model.to(device)
        if place == with_dssl and model.settings.projector == "ltc":
            (out / "figure9.png").write_bytes(figure9(shown, [looks(model, load_rgb(i.file)) for i in shown]))
        if without is not None:
            masks[name] = drawn_masks(model, text, shown, told(place, everything, shown))
            points[name] = tokens(model, chosen)
    if without is not None:
        said = {name: separation(z, chosen) for name, z in points.items()}
        flat = {name: embedded(z) for name, z in points.items()}
        (out / "figure10.png").write_bytes(figure10(shown, masks, chosen, flat, said))
        with (out / "tokens.csv").open("w", newline="") as f:
            rows = csv.writer(f)
            rows.writerow(("image_id", "label", "model", "x", "y"))
            for name, at in flat.items():
                rows.writerows((i.image_id, i.label, name, *map(float, p)) for i, p in zip(chosen, at, strict=True))
        for name, (silhouette, nearest) in said.items():
            print(f"{name}: silhouette {silhouette:.3f}, nearest neighbour of the same label {100 * nearest:.1f} %")
    print(f"figures: {out}")


def readable(images: Sequence[Image], most: int, masks: bool, broken: dict[str, str]) -> list[Image]:
    """`spread` over those that can be decoded, with `masks` together with their masks; `broken` gets the reasons of the
    others that it would have taken."""
    left = list(images)
    while why := unreadable(found := spread(left, most), masks):
        broken |= why
        left = [i for i in left if i.image_id not in why]
    return found


def spread(images: Sequence[Image], most: int) -> list[Image]:
    """At most as many, of all categories by turns, each category's spread over its images."""
    of: dict[tuple, list[Image]] = {}
    for i in sorted(images, key=lambda i: i.image_id):
        of.setdefault((i.dataset, i.category), []).append(i)
    if not of:
        return []
    each = -(-most // len(of))
    few = [[own[n * len(own) // min(each, len(own))] for n in range(min(each, len(own)))] for own in of.values()]
    turns = [own[n] for n in range(each) for own in few if n < len(own)]
    return turns[:most]


def looks(model, rgb: Picture) -> Looks:
    """model: Vmad with LTC of several levels. Where it looks at an image."""
    import torch

    from stages.vmad.ltc import from_regions, side_of

    clip_input = model.transform.clip_input(rgb)
    with torch.inference_mode():
        given = model.clip_layers(model.for_clip(clip_input[None].to(model.device)))
        ltc, levels = model.projector.compress, given.float().chunk(model.projector.layers, -1)
        coarse = ltc.downsample(levels[-1])
        weights = [one.weights(coarse, fine, ltc.rho) for one, fine in zip(ltc.injection, levels[:-1], strict=True)]
        added = [one(coarse, fine, ltc.rho) for one, fine in zip(ltc.injection, levels[:-1], strict=True)]
        fused = ltc.integrate(torch.cat(added, -1)).norm(dim=-1)[0]  # Eq. 21
        grids = [from_regions(w, ltc.rho)[0].cpu().numpy() for w in (weights[-1], weights[0])]
    side = side_of(len(fused))
    return Looks(clip_input.permute(1, 2, 0).numpy(), len(weights), *grids, fused.reshape(side, side).cpu().numpy())


def told(checkpoint: Path, everything: Sequence[Image], images: Sequence[Image]) -> Mapping[tuple[str, str], str]:
    """What the model is told of each class's normal scene, as in training. Raises InputError as `for_scoring` does."""
    from stages.vmad.checkpoint import sources
    from stages.vmad.descriptions import classes_of, for_scoring

    return for_scoring("", sources(checkpoint)[1]["descriptions"], everything, classes_of(images)).texts


def drawn_masks(model, text, images: Sequence[Image], normal: Mapping[tuple[str, str], str]) -> list[np.ndarray]:
    """The model's mask of each image, (h, w) of 0..1. normal: see `told`."""
    from stages.vmad.score import model_input, predict, prompt_about

    found = []
    for i in images:
        prompts = [text.prompt(prompt_about(i, "", normal))]
        (one,) = predict(model, text, [model_input(model, load_rgb(i.file))], prompts, 32, "fp32")
        found.append(one.map.numpy())
    return found


def tokens(model, images: Sequence[Image]) -> np.ndarray:
    """(n, D): Psi(z) of each image, the mean of its tokens, of length 1 (Eq. 13, Eq. 16)."""
    import torch

    rows = []
    with torch.inference_mode():
        for i in images:
            pixels = model.for_clip(model.transform.clip_input(load_rgb(i.file))[None].to(model.device))
            mean = model.pooled_tokens(model.clip_layers(pixels))
            rows.append(torch.nn.functional.normalize(mean, dim=-1)[0].cpu().numpy())
    return np.stack(rows)


def separation(z: np.ndarray, images: Sequence[Image]) -> tuple[float, float]:
    """(silhouette by label, -1 to 1; share of images whose nearest neighbour, of all others of the same class, has
    their label). z: (n, D) of length 1."""
    from sklearn.metrics import silhouette_score

    labels = np.array([i.label for i in images])
    same = np.array([[(a.dataset, a.category) == (b.dataset, b.category) for b in images] for a in images])
    near = np.where(same & ~np.eye(len(z), dtype=bool), z @ z.T, -np.inf)
    alone = np.isinf(near.max(1))
    right = labels[near.argmax(1)] == labels
    return float(silhouette_score(z, labels)), float(right[~alone].mean()) if not alone.all() else float("nan")


def embedded(z: np.ndarray) -> np.ndarray:
    """(n, D) -> (n, 2) by t-SNE, the same for the same features."""
    from sklearn.manifold import TSNE

    return TSNE(perplexity=min(30, (len(z) - 1) / 3), init="pca", random_state=0).fit_transform(z.astype(np.float64))


def figure9(images: Sequence[Image], found: Sequence[Looks]) -> bytes:
    """One row per image: itself, layer-1, layer-4, fused."""
    heads = ("image", "layer-1 (last)", f"layer-{found[0].levels} (first)", "fused")
    rows = [[x.picture, *(over(x.picture, grid) for grid in (x.last, x.first, x.fused))] for x in found]
    return grid_of(images, heads, rows)


def figure10(
    images: Sequence[Image],
    masks: dict[str, list[np.ndarray]],
    chosen: Sequence[Image],
    flat: dict[str, np.ndarray],
    said: dict[str, tuple[float, float]],
) -> bytes:
    """Left: one row per image: itself, its mask, the models' masks. Right: t-SNE, a panel per model."""
    plt = pyplot()
    figure = plt.figure(figsize=(11, 1.35 * max(len(images), 4)), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1.2, 1])
    rows = []
    for n, i in enumerate(images):
        rgb, mask = load_rgb(i.file), load_masks(i.masks).astype(np.uint8) * 255
        rows.append([rgb, np.repeat(mask[:, :, None], 3, 2), *(over(rgb, of[n], (0, 1)) for of in masks.values())])
    place(left, images, ("image", "mask", *masks), rows)
    labels = np.array([i.label for i in chosen])
    for ax, (name, at) in zip(right.subplots(len(flat), 1), flat.items(), strict=True):
        for label, colour, word in ((0, NORMAL, "normal"), (1, ANOMALOUS, "anomalous")):
            ax.scatter(*at[labels == label].T, s=9, color=colour, label=word, linewidths=0)
        ax.set(title=f"{name}: silhouette {said[name][0]:.3f}, nearest {100 * said[name][1]:.0f} %")
        ax.set_xticks([])
        ax.set_yticks([])
    right.axes[0].legend(frameon=False)
    return as_png(figure)


def grid_of(images: Sequence[Image], heads: Sequence[str], rows: Sequence[Sequence[Picture]]) -> bytes:
    """A figure of pictures alone."""
    figure = pyplot().figure(figsize=(1.7 * len(heads), 1.7 * len(rows)), layout="constrained")
    place(figure, images, heads, rows)
    return as_png(figure)


def place(figure, images: Sequence[Image], heads: Sequence[str], rows: Sequence[Sequence[Picture]]) -> None:
    """Rows of pictures with heads, the category at the left."""
    axes = figure.subplots(len(rows), len(heads), squeeze=False)
    for line, image, pictures in zip(axes, images, rows, strict=True):
        for ax, picture in zip(line, pictures, strict=True):
            ax.imshow(picture)
            ax.set_xticks([])
            ax.set_yticks([])
        line[0].set_ylabel(image.category, fontsize=7)
    for ax, head in zip(axes[0], heads, strict=True):
        ax.set_title(head, fontsize=8)


def over(rgb: Picture, grid: np.ndarray, scale: tuple[float, float] | None = None) -> Picture:
    """Values as colours over the picture. scale: of the colours, the values' own range by default."""
    ends = scale or (float(grid.min()), float(grid.max()))
    return blended(rgb, cv2.resize(grid.astype(np.float32), rgb.shape[1::-1], interpolation=cv2.INTER_NEAREST), ends)[2]


if __name__ == "__main__":
    if not 4 <= len(sys.argv) <= 5:
        sys.exit("python -m pipelines.vmad_figures MANIFEST OUT WITH [WITHOUT]")
    try:
        main(*map(Path, sys.argv[1:]))
    except InputError as e:
        sys.exit(f"error: {e}")
