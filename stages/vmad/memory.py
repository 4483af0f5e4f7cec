"""DSSL's memory (Eq. 10, 14 and 15): of each class a twentieth of its normal and of its anomalous images.

The visual side is frozen, so that its features are computed once. The language side is trained, and needs the images
again at every step; they are kept as CLIP's pixels, 0.3 MB each.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.base.prompts import load_prompt
from stages.datasets.images import load_rgb
from stages.datasets.manifest import Image
from stages.vmad.data import Text, filled, spoken
from stages.vmad.dssl import overall_features
from stages.vmad.model import Vmad

Class = tuple[str, str]  # (dataset, category)


@dataclass(frozen=True)
class Drawn:
    """Of each image of a batch, what was drawn from the memory of its class; see `Memory`. there: (B, m) bool, false
    where the class has fewer than m images."""

    squares: Tensor
    features: Tensor
    normal: Tensor
    there: Tensor
    described: Tensor
    described_mask: Tensor


@dataclass(frozen=True)
class Memory:
    """n images, on the CPU. squares: (n, 3, S, S) uint8; features: (n, C), GAP(f); normal: (n,) bool; owner: (n,)
    number of the class; described, described_mask: (classes, L) token ids of t_x; count: images of each label that
    are drawn at a time."""

    squares: Tensor
    features: Tensor
    normal: Tensor
    owner: Tensor
    described: Tensor
    described_mask: Tensor
    count: int

    def draw(self, classes: Tensor) -> Drawn:
        """classes: (B,). Drawn from torch's CPU generator, without repetition."""
        chosen = [self._rows(c) for c in classes.tolist()]
        longest = max(map(len, chosen))
        rows = torch.stack([torch.cat([r, r[:1].expand(longest - len(r))]) for r in chosen])
        there = torch.tensor([[n < len(r) for n in range(longest)] for r in chosen])
        of = classes.cpu()
        return Drawn(
            self.squares[rows],
            self.features[rows],
            self.normal[rows],
            there,
            self.described[of],
            self.described_mask[of],
        )

    def _rows(self, number: int) -> Tensor:
        own = self.owner == number
        of_label = [torch.nonzero(own & (self.normal == normal))[:, 0] for normal in (True, False)]
        return torch.cat([r[torch.randperm(len(r))[: self.count]] for r in of_label])


def choose_memory(images: Iterable[Image], share: float, seed: int) -> dict[Class, tuple[Image, ...]]:
    """The images of each class's memory: `share` of the normal and of the anomalous ones, at least one of each that
    there are, normal ones first; classes in the order of their names."""
    by_class: dict[Class, dict[int, list[Image]]] = {}
    for image in sorted(images, key=lambda i: i.image_id):
        by_class.setdefault((image.dataset, image.category), {0: [], 1: []})[image.label].append(image)
    drawn = {}
    for name, of_label in sorted(by_class.items()):
        rng = random.Random(f"{seed} {name}")
        drawn[name] = tuple(i for label in (0, 1) for i in _share(of_label[label], share, rng))
    return drawn


def _share(images: Sequence[Image], share: float, rng: random.Random) -> list[Image]:
    count = min(max(round(share * len(images)), 1), len(images))
    return sorted(rng.sample(list(images), count), key=lambda i: i.image_id)


@torch.no_grad()
def remember(chosen: dict[Class, tuple[Image, ...]], model: Vmad, text: Text, count: int) -> Memory:
    """Read the images and compute the visual side. model: on its device. Raises ImageError."""
    squares, features, normal, owner = [], [], [], []
    device = model.mean.device
    for number, images in enumerate(chosen.values()):
        for image in images:
            rgb = load_rgb(image.file)
            frame = torch.tensor([model.look.frame(rgb.shape)], device=device)
            f = model.visual_features(model.for_sam(model.look.framed(rgb)[None].to(device), frame))
            features.append(overall_features(f, frame, model.look.canvas / f.shape[-1])[0].cpu())
            squares.append(model.look.square(rgb))
            normal.append(image.label == 0)
            owner.append(number)
    sentence = load_prompt("vmad/normal").text
    ids = [
        text.tokenizer(filled(sentence, {"object": spoken(category)}), add_special_tokens=False).input_ids
        for _, category in chosen
    ]
    described, mask = padded(ids)
    return Memory(
        torch.stack(squares), torch.stack(features), torch.tensor(normal), torch.tensor(owner), described, mask, count
    )


def padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """(ids, mask), both (rows, longest), zeros to the right."""
    longest = max(map(len, rows))
    ids = torch.tensor([[*r, *[0] * (longest - len(r))] for r in rows])
    return ids, torch.tensor([[1] * len(r) + [0] * (longest - len(r)) for r in rows])
