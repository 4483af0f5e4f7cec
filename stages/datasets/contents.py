"""What decoding the images and masks of a manifest shows, for `data check`."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.base.errors import ImageError
from stages.datasets.entries import SUFFIXES, first
from stages.datasets.images import load_mask, load_scaled
from stages.datasets.manifest import Image
from stages.datasets.pairing import pair
from stages.datasets.sizes import other_size

MOST = 0.5  # share of an image that hardly any defect exceeds, but most masks that are drawn the other way round


@dataclass(frozen=True)
class Seen:
    """What decoding one image and its masks showed; the lists hold one line each.

    masks: how many can be read; area: anomalous share of the image, 0 to 1, None without readable masks; digest: of the
    pixels, None when they cannot be decoded; white: as `stages.datasets.images.load_scaled`.
    """

    masks: int
    unreadable: tuple[str, ...]
    missing: tuple[str, ...]
    other_size: tuple[str, ...]
    area: float | None = None
    digest: bytes | None = None
    white: int | None = None


def look_at(image: Image) -> Seen:
    """Decode one image and its masks."""
    size = digest = white = None
    readable, unreadable, missing, wrong_size = [], [], [], []
    try:
        rgb, white = load_scaled(image.file)
        size, digest = rgb.shape[:2], hashlib.blake2b(rgb.tobytes(), digest_size=16).digest()
    except ImageError as e:
        unreadable.append(str(e))
    for path in image.masks:
        if not path.is_file():
            missing.append(str(path))
            continue
        try:
            readable.append(mask := load_mask(path))
        except ImageError as e:
            unreadable.append(str(e))
            continue
        if size and (said := other_size(path, mask.shape, size)):
            wrong_size.append(said)
    if image.error:
        unreadable.insert(0, image.error)  # every stage passes such a row over, and says this
    area = None
    if readable and len({m.shape for m in readable}) == 1:
        area = float(np.logical_or.reduce(readable).mean())
    return Seen(len(readable), tuple(unreadable), tuple(missing), tuple(wrong_size), area, digest, white)


def of_task(task: str, images: Sequence[Image], seen: dict[str, Seen]) -> Iterator[str]:
    """A sentence for every kind of fault in one task: its name, what, how many, the first few. seen: by image_id."""
    found = [(i, seen[i.image_id]) for i in images]
    if unreadable := [s.unreadable[0] for _, s in found if s.unreadable]:
        yield f"{task}: unreadable {len(unreadable)}, first {unreadable[0]}"
    for kind, lines in (
        ("masks of another size than their image", [n for _, s in found for n in s.other_size]),
        ("masks that are not there", [n for _, s in found for n in s.missing]),
    ):
        if lines:
            yield f"{task}: {kind} {len(lines)}, first {lines[0]}"
    if any(i.masks for i in images):
        yield from _line(
            f"{task}: anomalous images without a mask", [i.file for i in images if i.label == 1 and not i.masks]
        )
    areas = [(i, s.area) for i, s in found if s.area is not None]
    yield from _line(
        f"{task}: empty masks of anomalous images", [i.masks[0] for i, a in areas if i.label == 1 and not a]
    )
    yield from _line(
        f"{task}: masks of more than half of the image (drawn the other way round?)",
        [f"{i.masks[0]} ({100 * a:.0f}%)" for i, a in areas if a > MOST],
    )
    yield from _whites(task, found)


def _whites(task: str, found: list[tuple[Image, Seen]]) -> Iterator[str]:
    by_white = defaultdict(list)
    for image, s in found:
        if s.white:
            by_white[s.white].append(image.file)
    if len(by_white) > 1:
        said = ", ".join(
            f"{len(files)} with white at {white} (first {files[0]})" for white, files in sorted(by_white.items())
        )
        yield (
            f"{task}: images of more than 8 bits that are read differently, {said}: their brightness cannot be"
            " compared; save all with 8 bits"
        )


def of_all(images: Iterable[Image], seen: dict[str, Seen]) -> Iterator[str]:
    """The same for what concerns several images: masks that two of them share, pictures on both sides of the split,
    masks beside the others that belong to no anomalous image."""
    images = list(images)
    by_mask, by_content = defaultdict(list), defaultdict(list)
    for image in images:
        for mask in set(image.masks):
            by_mask[os.path.realpath(mask)].append(image)
        if digest := seen[image.image_id].digest:
            by_content[image.dataset, digest].append(image)
    shared = [
        f"{mask} ({first(i.file.name for i in of)})"
        for mask, of in sorted(by_mask.items())
        if len({i.file for i in of}) > 1
    ]
    yield from _line("masks that belong to several images", shared)
    twice = []
    for (_, _), of in by_content.items():
        train, test = ([i.file for i in of if (i.split == "train") == side] for side in (True, False))
        if train and test:
            twice.append(f"{test[0]} is {train[0]}")
    yield from _line("pictures in train that are also in test or val", twice)
    yield from _line("masks that belong to no anomalous image", stray_masks(images))


def stray_masks(images: Sequence[Image]) -> list[Path]:
    """Files in the folders that hold nothing but masks, which no row names: those with the stem of no image, and of the
    others those that are not empty."""
    used = {os.path.realpath(p) for i in images for p in (i.file, *i.masks)}
    with_images = {i.file.parent for i in images}
    folders = sorted({m.parent for i in images for m in i.masks} - with_images)
    unused = [
        f
        for folder in folders
        if folder.is_dir()
        for f in sorted(folder.iterdir())
        if f.suffix.lower() in SUFFIXES and f.name[0] != "." and os.path.realpath(f) not in used
    ]
    without_image = set(pair((i.file for i in images), unused).left)
    return [f for f in unused if f in without_image or _is_drawn(f)]


def _is_drawn(mask: Path) -> bool:
    try:
        return bool(load_mask(mask).any())
    except ImageError:
        return True


def _line(what: str, names: Sequence[object]) -> Iterator[str]:
    if names:
        yield f"{what} {len(names)}: {first(names)}"
