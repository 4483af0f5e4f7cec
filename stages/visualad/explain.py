"""What a trained VisualAD sees, as pictures: where its anchors look (Figure 6), how patches lie apart (Figure 5)."""

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from stages.artifacts.files import make_folder, write_atomically
from stages.artifacts.paths import for_image
from stages.base.errors import ImageError
from stages.datasets.images import load_rgb
from stages.datasets.manifest import Image
from stages.visualad.backbone import parts_of
from stages.visualad.data import ImageTransform
from stages.visualad.model import VisualAD
from stages.visualad.patch_clouds import patch_clouds

PATCHES = "patches.png"  # Figure 5
SIDE = 160  # px of one cell
MAX_PATCHES = 2000  # patches of either kind in Figure 5
PER_IMAGE = 20  # of one image, so that no image fills the figure
STAGES = ("backbone alone", "with the two tokens", "with tokens and SAF")


class PatchClouds:
    """Gathers normal and anomalous patches of the deepest layer for Figure 5, over batches."""

    def __init__(self, model: VisualAD, transform: ImageTransform) -> None:
        self.model, self.transform, self.random = model, transform, np.random.default_rng(0)
        self.kept: dict[bool, list[np.ndarray]] = {False: [], True: []}

    def add(self, images: list[Image], pixels: Tensor) -> None:
        """images: those of `pixels` (B, 3, S, S); unlabelled ones and anomalous ones without mask are passed over."""
        features = patch_features(self.model, pixels).float().cpu().numpy()  # (3, B, N, C)
        for image, own in zip(images, features.swapaxes(0, 1), strict=True):
            if image.label is None or (image.label and not image.masks):
                continue
            try:
                mask = self.transform.mask(image.masks)
            except ImageError:  # its score has no need of the mask
                continue
            share = functional.avg_pool2d(mask[None], self.model.backbone.patch)[0].flatten().numpy()
            for anomalous in (False, True):
                at = np.flatnonzero(share >= 0.5 if anomalous else share == 0)
                at = self.random.permutation(at)[: min(PER_IMAGE, MAX_PATCHES - len(self.kept[anomalous]))]
                self.kept[anomalous] += list(own[:, at].swapaxes(0, 1))

    def write(self, path: Path) -> bool:
        """The picture; False where one kind has fewer than two patches."""
        if any(len(v) < 2 for v in self.kept.values()):
            return False
        clouds = {
            name: tuple(np.stack(self.kept[kind])[:, n] for kind in (False, True)) for n, name in enumerate(STAGES)
        }
        make_folder(path.parent)
        write_atomically(path, lambda f: f.write(patch_clouds(clouds)))
        return True


def patch_features(model: VisualAD, pixels: Tensor) -> Tensor:
    """(3, B, N, C): patches of the deepest layer in the order of STAGES, each after its final norm."""
    layer = model.settings.layers[-1:]
    _, alone = model.backbone(pixels, model.tokens[:0], layer)
    _, beside = model.backbone(pixels, model.tokens + model.positions, layer)
    beside = model.norm(beside[0])
    return torch.stack([parts_of(model.backbone.vit).norm(alone[0]), beside, model.saf[-1](beside)])


def attention_path(folder: Path, image_id: str) -> Path:
    """FOLDER/attention/<image_id>.png; PATCHES lies beside the folder."""
    return for_image(folder / "attention", image_id, ".png")


def write_attention(folder: Path, image: Image, attention: Tensor) -> None:
    """FOLDER/attention/<image_id>.png: a row per layer; the image, then each anchor's attention over it.

    attention: (K, m, N), rows that sum to 1, patches in raster order of a square grid.
    """
    picture = cv2.resize(load_rgb(image.file), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    rows = [np.hstack([picture, *(_over(picture, a) for a in layer)]) for layer in attention.float().cpu().numpy()]
    path = attention_path(folder, image.image_id)
    make_folder(path.parent)
    png = cv2.imencode(".png", np.vstack(rows)[:, :, ::-1])[1].tobytes()
    write_atomically(path, lambda f: f.write(png))


def _over(picture: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """picture: (SIDE, SIDE, 3) uint8, weights: (N,) >= 0 -> the same, dimmed where the anchor does not look."""
    side = round(len(weights) ** 0.5)
    grid = (weights / max(weights.max(), 1e-12)).reshape(side, side).astype(np.float32)
    weight = cv2.resize(grid, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)[:, :, None]
    heat = cv2.applyColorMap((weight * 255).astype(np.uint8), cv2.COLORMAP_TURBO)[:, :, ::-1]
    return (picture * 0.5 + heat * 0.5).astype(np.uint8)
