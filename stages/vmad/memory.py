"""DSSL's memory (Eq. 10, Eq. 14, Eq. 15): of each class a twentieth of its normal and of its anomalous images.

The visual side is frozen, so that its features are computed once. Of the language side CLIP is frozen, and what the
projector reads of it is computed once, too, and kept in the training's dtype on the CPU: for LTC 5 layers x 576 tokens
x 1024 x 2 bytes = 5.9 MB per image in bf16, 4.5 GB for RIAD's 764 of the memory. Where the processes of a machine have
no room for that (`fits_host`) CLIP's pixels are kept, 0.3 MB each, and CLIP runs on them at every step: slower, with
the same result, where a smaller memory would be another method. The projector is trained, and runs at every step.
"""

import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from stages.datasets.manifest import Image

Class = tuple[str, str]  # (dataset, category)
CONTROL_GROUP = Path("/sys/fs/cgroup")
OLD_GROUP = ("memory.limit_in_bytes", "memory.usage_in_bytes")  # of version 1
HOST_SHARE = 0.5  # of the memory that is free on the host, for all processes there: loaders and libraries need some


@dataclass(frozen=True)
class MemoryBatch:
    """For each image of a batch, what was drawn from the memory of its class; see `Memory`. valid: (B, m) bool,
    false where the class has fewer than m images."""

    images: Tensor
    features: Tensor
    normal: Tensor
    valid: Tensor
    described: Tensor
    described_mask: Tensor

    def to(self, device: torch.device) -> "MemoryBatch":
        """The same on a device, but for the images, of which the projector takes a few at a time."""
        return MemoryBatch(self.images, *(getattr(self, f.name).to(device) for f in fields(self)[1:]))


@dataclass(frozen=True)
class Memory:
    """n images or patches of images, on the CPU. images: (n, N, layers C), what the projector reads of CLIP, or (n, 3,
    S, S) uint8, CLIP's pixels; features: (n, C), GAP(f) of an image, a patch's; normal: (n,) bool; owner: (n,)
    number of the class; described, described_mask: (classes, L) token ids of t_x; per_label: images of each
    label that are drawn at a time."""

    images: Tensor
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
            self.images[rows],
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


def fits_host(images: int, bytes_each: int, processes: int) -> bool:
    """Whether each of the processes of this machine may keep so much. processes: on this machine."""
    return images * bytes_each * processes <= HOST_SHARE * free_on_host()


def free_on_host() -> int:
    """Bytes that processes can still take: of the machine, or of the control group that a job is held in."""
    import psutil

    return min(psutil.virtual_memory().available, *_left_of_groups())


def _left_of_groups() -> Iterator[int]:
    """Of this process's control groups, and of the root's, which is a container's own."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:  # no Linux
        lines = []
    yield sys.maxsize
    for own in ("/", *(line.split(":", 2)[2] for line in lines if line.split(":")[1] in ("", "memory"))):
        for base, limit, used in (("", "memory.max", "memory.current"), ("memory", *OLD_GROUP)):
            folder = CONTROL_GROUP / base / own.strip("/")
            try:
                yield max(int((folder / limit).read_text()) - int((folder / used).read_text()), 0)
            except (OSError, ValueError):  # not of this version, or "max"
                continue


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
