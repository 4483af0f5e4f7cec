"""Whether DSSL's target tells defects: the normal mass of a patch, the sum of Eq. 11 over the memory's normal images,
should be lower where a patch shows a defect. Eq. 17 teaches the language model that very distribution, so that what
does not separate here cannot be learned from it. Also the heads that are trained to separate.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stages.training.prepared import torch

from torch import Tensor

from stages.datasets.images import load_rgb
from stages.datasets.manifest import Image
from stages.vmad.dssl import boxes_at, log_similarity, random_boxes, roi
from stages.vmad.memory import Class
from stages.vmad.model import Vmad

MEASURED, FITTED = 32, 128  # images of each label
PATCHES = 16  # of an image
STEPS, RATE = 300, 1e-3  # of the heads' training, on all patches at once
HARDLY = 0.6  # AUROC below which it is said that the target hardly separates


@dataclass(frozen=True)
class Separation:
    """defect, normal: mean normal mass (0..1) of such patches by Eq. 11; auroc: of low normal mass as a sign of a
    defect; text_auroc: the same by Eq. 16, which learns from Eq. 11; defects, normals, images: how many."""

    defect: float
    normal: float
    auroc: float
    text_auroc: float
    defects: int
    normals: int
    images: int

    def said(self, target: str) -> str:
        """One line."""
        line = (
            f"DSSL's target ({target}), normal mass {self.defect:.3f} of {self.defects} defect patches and"
            f" {self.normal:.3f} of {self.normals} normal ones of {self.images} images: AUROC {self.auroc:.3f};"
            f" by the language model's side {self.text_auroc:.3f}"
        )
        others = [name for name in ("trained-heads", "patches") if name != target]
        hint = f". It hardly separates them: --dssl-target {' or '.join(others)}"
        return line + (hint if self.auroc < HARDLY else "")


@dataclass(frozen=True)
class Patches:
    """Of one image. features: f (1, C, h, w); inputs: SAM's (1, 3, K, K); boxes: (1, n, 4), px; defect: (n,) bool."""

    features: Tensor
    inputs: Tensor
    boxes: Tensor
    defect: Tensor


def halves(images: Iterable[Image], memory: Iterable[Image], seed: int) -> tuple[list[Image], list[Image]]:
    """(to fit heads on, to measure on), of each label half of the images that have what is needed and are not in the
    memory, at most FITTED and MEASURED; of a single one both."""
    held = {i.image_id for i in memory}
    fit, measure = [], []
    for label in (0, 1):
        able = sorted((i for i in images if i.label == label and (i.masks or not label)), key=lambda i: i.image_id)
        free = [i for i in able if i.image_id not in held] or able
        random.Random(f"{seed} {label}").shuffle(free)
        half = (len(free) + 1) // 2
        measure += free[:half][:MEASURED]
        fit += (free[half:] or free)[:FITTED]
    return fit, measure


@torch.no_grad()
def patches_of(model: Vmad, image: Image) -> Patches:
    """Of a normal image PATCHES at random; of an anomalous one as many on its defect, and of PATCHES at random those
    that do not touch it. From torch's CPU generator. Raises ImageError."""
    rgb, transform, size = load_rgb(image.file), model.transform, model.settings.box_size
    content = transform.content_size(rgb.shape)
    contents = torch.tensor([content])
    boxes = random_boxes(contents, PATCHES, size)[0]
    defect = torch.zeros(PATCHES, dtype=torch.bool)
    if image.label:
        mask = transform.mask(image.masks, content)
        if mask.any():
            clean = [b for b in boxes if not mask[int(b[1]) : int(b[3]), int(b[0]) : int(b[2])].any()]
            on = boxes_at(mask, content, PATCHES, size)
            boxes, defect = torch.stack([*clean, *on]), torch.tensor([False] * len(clean) + [True] * len(on))
    inputs = model.for_sam(transform.sam_input(rgb)[None].to(model.device), contents.to(model.device))
    return Patches(model.visual_features(inputs), inputs, boxes[None].to(model.device), defect)


@torch.no_grad()
def measure(model: Vmad, images: Sequence[Image], classes: Sequence[Class], seed: int) -> Separation | None:
    """How well Eq. 11 and Eq. 16 separate now; None where there is no patch of either kind. model: with its memory;
    classes: as the memory counts them. What is drawn leaves torch's generator as it was. Raises ImageError."""
    numbers = {name: n for n, name in enumerate(classes)}
    masses, defect = [], []
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        for image in images:
            patches = patches_of(model, image)
            number = torch.tensor([numbers[image.dataset, image.category]])
            drawn = model.memory.draw(number).to(model.device)
            if not (drawn.valid & ~drawn.normal).any() or not drawn.normal.any():
                continue  # the mass would be 0 or 1
            sides = (
                model.visual_similarity(patches.features, patches.boxes, drawn),
                model.text_similarity(model.crops(patches.inputs, patches.boxes), drawn),
            )
            masses.append(torch.stack([normal_mass(side, drawn.normal & drawn.valid)[0] for side in sides]).cpu())
            defect.append(patches.defect)
    if not masses or (found := torch.cat(defect)).all() or not found.any():
        return None
    visual, text = torch.cat(masses, 1)
    return Separation(
        float(visual[found].mean()),
        float(visual[~found].mean()),
        auroc(-visual[found], -visual[~found]),
        auroc(-text[found], -text[~found]),
        int(found.sum()),
        int((~found).sum()),
        len(masses),
    )


def normal_mass(logarithms: Tensor, normal: Tensor) -> Tensor:
    """Sum of p over the normal images. logarithms: (B, n, m) of p; normal: (B, m) bool -> (B, n), 0..1."""
    return (logarithms.exp() * normal[:, None]).sum(-1)


def auroc(positive: Tensor, negative: Tensor) -> float:
    """Share of the pairs in which the positive is higher, ties half. Both (n,)."""
    difference = positive[:, None] - negative
    return float(((difference > 0).double() + (difference == 0).double() / 2).mean())


def train_heads(model: Vmad, images: Sequence[Image], classes: Sequence[Class], seed: int) -> None:
    """Train g_alpha and g_beta on patches of these images against the memory of their classes, with everything else
    frozen, and freeze them again: `heads_loss`, AdamW. Classes whose memory has one label alone teach nothing. Raises
    ImageError."""
    memory, dssl, numbers = model.memory, model.dssl, {name: n for n, name in enumerate(classes)}
    of_class: dict[int, list[tuple[Tensor, Tensor]]] = {}
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        for image in images:
            patches = patches_of(model, image)
            cells = patches.boxes * (patches.features.shape[-1] / model.transform.sam_size)
            number = numbers[image.dataset, image.category]
            if len(memory.normal[memory.owner == number].unique()) == 2:
                of_class.setdefault(number, []).append((roi(patches.features, cells)[0, :, :, 0, 0], patches.defect))
    heads = [p for head in (dssl.local, dssl.overall) for p in head.parameters()]
    with torch.enable_grad(), torch.autocast(model.device.type, enabled=False):
        optimiser = torch.optim.AdamW([p.requires_grad_(True) for p in heads], RATE)
        for _ in range(STEPS if of_class else 0):
            logarithms, normals, defects = [], [], []
            for number, found in of_class.items():
                own = memory.owner == number
                features, normal = (
                    memory.features[own][None].to(model.device),
                    memory.normal[own][None].to(model.device),
                )
                v = dssl.local(torch.cat([f for f, _ in found]).float())[None]
                p = log_similarity(v, dssl.overall(features), model.settings.temperature, torch.ones_like(normal))
                logarithms.append(p[0].masked_fill(~normal, float("-inf")).logsumexp(-1))
                normals.append(p[0].masked_fill(normal, float("-inf")).logsumexp(-1))
                defects += [d for _, d in found]
            loss = heads_loss(torch.cat(logarithms), torch.cat(normals), torch.cat(defects).to(model.device))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    for p in heads:
        p.requires_grad_(False)
        p.grad = None


def heads_loss(normal: Tensor, anomalous: Tensor, defect: Tensor) -> Tensor:
    """Mean of -log normal mass over normal patches plus mean of -log anomalous mass over defect patches. normal,
    anomalous: (n,) logarithms of the masses; defect: (n,) bool."""
    parts = [-values.mean() for values in (normal[~defect], anomalous[defect]) if len(values)]
    return torch.stack(parts).sum()
