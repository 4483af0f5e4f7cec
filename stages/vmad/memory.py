"""DSSL's memory (Eq. 10, Eq. 14, Eq. 15): of each class a twentieth of its normal and of its anomalous images.

The visual side is frozen, so that its features are computed once. The language side is trained, and needs the images
again at every step; they are kept as CLIP's pixels, 0.3 MB each.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.datasets.manifest import Image

Class = tuple[str, str]  # (dataset, category)


@dataclass(frozen=True)
class MemoryBatch:
    """For each image of a batch, what was drawn from the memory of its class; see `Memory`. valid: (B, m) bool,
    false where the class has fewer than m images."""

    clip_inputs: Tensor
    features: Tensor
    normal: Tensor
    valid: Tensor
    described: Tensor
    described_mask: Tensor


@dataclass(frozen=True)
class Memory:
    """n images, on the CPU. clip_inputs: (n, 3, S, S) uint8; features: (n, C), GAP(f); normal: (n,) bool; owner: (n,)
    number of the class; described, described_mask: (classes, L) token ids of t_x; per_label: images of each
    label that are drawn at a time."""

    clip_inputs: Tensor
    features: Tensor
    normal: Tensor
    owner: Tensor
    described: Tensor
    described_mask: Tensor
    per_label: int

    def draw(self, classes: Tensor) -> MemoryBatch:
        """classes: (B,). Drawn from torch's CPU generator, without repetition."""
        chosen = [self._rows(c) for c in classes.tolist()]
        longest = max(map(len, chosen))
        rows = torch.stack([torch.cat([r, r[:1].expand(longest - len(r))]) for r in chosen])
        valid = torch.tensor([[n < len(r) for n in range(longest)] for r in chosen])
        of = classes.cpu()
        return MemoryBatch(
            self.clip_inputs[rows],
            self.features[rows],
            self.normal[rows],
            valid,
            self.described[of],
            self.described_mask[of],
        )

    def _rows(self, number: int) -> Tensor:
        own = self.owner == number
        of_label = [torch.nonzero(own & (self.normal == normal))[:, 0] for normal in (True, False)]
        return torch.cat([r[torch.randperm(len(r))[: self.per_label]] for r in of_label])


def choose_memory(images: Iterable[Image], share: float, seed: int) -> dict[Class, tuple[Image, ...]]:
    """The images of each class's memory: `share` of the normal and of the anomalous ones, at least one of each that
    there are, normal ones first; classes in the order of their names."""
    by_class: dict[Class, dict[int, list[Image]]] = {}
    for image in sorted(images, key=lambda i: i.image_id):
        by_class.setdefault((image.dataset, image.category), {0: [], 1: []})[image.label].append(image)
    memory = {}
    for name, of_label in sorted(by_class.items()):
        rng = random.Random(f"{seed} {name}")
        memory[name] = tuple(i for label in (0, 1) for i in _share(of_label[label], share, rng))
    return memory


def _share(images: Sequence[Image], share: float, rng: random.Random) -> list[Image]:
    count = min(max(round(share * len(images)), 1), len(images))
    return sorted(rng.sample(list(images), count), key=lambda i: i.image_id)
