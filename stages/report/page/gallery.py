"""What a page shows of images: numbers for names and pictures, so that each stands in the page once."""

import zlib
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stages.base.errors import ImageError
from stages.datasets.images import load_masks, load_rgb
from stages.datasets.manifest import Image
from stages.datasets.references import grey
from stages.report.names import condition_name
from stages.report.page.pictures import SIDE, in_threads, webp
from stages.report.ranking import shown

LONGEST_OUTLINE = 6000  # characters of a mask's outline


class Numbered:
    """Values -> their numbers, in order of their first appearance."""

    def __init__(self) -> None:
        self.numbers: dict[Hashable, int] = {}

    def __call__(self, value: Hashable) -> int:
        return self.numbers.setdefault(value, len(self.numbers))

    @property
    def values(self) -> list:
        return list(self.numbers)


@dataclass
class Gallery:
    """Images of a page. texts: every name, caption and reply; compared: images whose `thumbnails`, (1024,) grey, are
    kept. By image number, of those that were `drawn`: outlines of masks, problems, sizes (width, height) of the
    pictures in px, digests of the pictures."""

    texts: Numbered = field(default_factory=Numbered)
    images: dict[str, int] = field(default_factory=dict)
    known: list[Image] = field(default_factory=list)
    compared: set[int] = field(default_factory=set)
    thumbnails: dict[int, np.ndarray] = field(default_factory=dict)
    outlines: dict[int, str] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)
    digests: dict[int, int] = field(default_factory=dict)

    def number(self, image: Image) -> int:
        """Of an image, which is shown from then on."""
        if image.image_id not in self.images:
            self.images[image.image_id] = len(self.known)
            self.known.append(image)
        return self.images[image.image_id]

    def text(self, value: str | None) -> int:
        """Of a text; -1 where there is none."""
        return self.texts(value) if value else -1

    def drawn(self, first: int = 0) -> Iterator[tuple[str, bytes]]:
        """(p and the number, WebP) of every image from `first` on that can be read."""
        jobs = [(image, n in self.compared) for n, image in enumerate(self.known)][first:]
        for number, made in enumerate(in_threads(_drawn, jobs), first):
            self.outlines[number], self.problems[number], self.sizes[number] = made.outline, made.problem, made.size
            if made.thumbnail is not None:
                self.thumbnails[number] = made.thumbnail
            if made.content:
                self.digests[number] = zlib.crc32(made.content)
                yield f"p{number}", made.content

    def described(self) -> dict[str, list]:
        """Columns of the images for the page; after `drawn`."""
        numbers = range(len(self.known))
        return {
            "id": [self.text(i.image_id) for i in self.known],
            "file": [self.text(shown(i.file) if i.file != Path() else i.image_id) for i in self.known],
            "dataset": [self.text(i.dataset) for i in self.known],
            "category": [self.text(i.category) for i in self.known],
            "condition": [self.text(i.condition) for i in self.known],
            "conditionName": [self.text(condition_name(i.condition, "")) for i in self.known],
            "split": [self.text(i.split) for i in self.known],
            "label": [i.label for i in self.known],
            "defect": [self.text(i.defect) for i in self.known],
            "outline": [self.text(self.outlines.get(n)) for n in numbers],
            "problem": [self.text(self.problems.get(n)) for n in numbers],
            "size": [self.sizes.get(n) for n in numbers],
            "digest": [self.digests.get(n) for n in numbers],
        }


@dataclass(frozen=True)
class _Drawn:
    """content: WebP; problem: why there is none."""

    content: bytes = b""
    size: tuple[int, int] = (0, 0)
    outline: str = ""
    problem: str = ""
    thumbnail: np.ndarray | None = None


def _drawn(job: tuple[Image, bool]) -> _Drawn:
    image, compared = job
    if image.file == Path():
        return _Drawn(problem="no manifest says where its picture lies")
    try:
        rgb = load_rgb(image.file)
    except ImageError as e:
        return _Drawn(problem=str(e))
    factor = min(SIDE / max(rgb.shape[:2]), 1)
    height, width = (max(round(x * factor), 1) for x in rgb.shape[:2])
    outline = _outline(image.masks, width, height)
    return _Drawn(webp(rgb, SIDE), (width, height), outline, thumbnail=grey(rgb).ravel() if compared else None)


def _outline(masks: tuple[Path, ...], width: int, height: int) -> str:
    """The edge of the masks as an SVG path in pixels of the picture; empty where there is none or it cannot be read."""
    import cv2

    if not masks:
        return ""
    try:
        mask = load_masks(masks).astype(np.uint8)
    except ImageError:
        return ""
    scaled = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA if mask.shape[1] > width else 0)
    found, _ = cv2.findContours((scaled > 0).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    for roughness in (0.7, 1.5, 3.0, 6.0):
        edges = [cv2.approxPolyDP(c, roughness, True)[:, 0] for c in found]
        path = "".join("M" + "L".join(f"{x} {y}" for x, y in edge) + "Z" for edge in edges)
        if len(path) <= LONGEST_OUTLINE:
            return path
    return ""
