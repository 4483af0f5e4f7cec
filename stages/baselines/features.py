"""`--features`: what the backbone says of every image, kept in a folder where the next model reads it.

The folder holds one artifact of FEATURES per level (`level-2`), so that PatchCore, which reads 2 and 3, finds what
PaDiM has left. The image files, the network and the size decide what is in it, and nothing else. Features are kept as
float32: float16 would be half as large, and every score another one.
"""

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from stages.training.prepared import torch

import numpy as np
from anomalib.models.components import TimmFeatureExtractor
from torch import Tensor, nn

from stages.artifacts.folder import OtherSettings, require_place
from stages.artifacts.parquet import opened
from stages.artifacts.parts import UNREADABLE, names
from stages.artifacts.record import COMPLETE, MEND, Damaged
from stages.artifacts.tables import FEATURES
from stages.artifacts.writer import Artifact, Spec, open_all
from stages.base.config import RunOptions
from stages.base.errors import ImageError, InputError, first_line
from stages.base.progress import Progress
from stages.baselines.backbone import Backbone, OneByOne
from stages.baselines.config import BaselineConfig
from stages.baselines.reading import batches, pixels
from stages.datasets.manifest import Image

ROWS = 16  # images of a part: 2 to 6 MB with lite0 at 256 px, 17 to 67 MB with WideResNet-50
PARTS = 2  # of each level that are held in memory


@dataclass(frozen=True)
class Kept:
    """Features on disk. parts: (image_id, level) -> the file that holds it; errors: image_id -> why it has none;
    number: of each image; size: of the images, px."""

    parts: dict[tuple[str, int], Path]
    errors: dict[str, str]
    number: dict[str, int]
    size: int

    def load(self, image: Image) -> Tensor:
        """What goes to a model in place of an image: (1, S, S), its number everywhere. Raises ImageError for an image
        that could not be read."""
        if error := self.errors.get(image.image_id):
            raise ImageError(error)
        return torch.tensor(float(self.number[image.image_id])).expand(1, self.size, self.size)


class Reader(nn.Module):
    """In the place of anomalib's feature extractor: what `Kept.load` gives -> {level: (B, C, h, w)}."""

    def __init__(self, kept: Kept, levels: Sequence[int]) -> None:
        super().__init__()
        self.kept, self.levels, self.ids = kept, levels, list(kept.number)
        self.read = lru_cache(PARTS * len(levels))(read_part)

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        ids = [self.ids[int(n)] for n in images[:, 0, 0, 0].tolist()]  # float32 counts to 16 million
        return {
            level: torch.from_numpy(np.stack([self.read(self.kept.parts[i, level])[i] for i in ids])).to(images.device)
            for level in self.levels
        }


def read_part(part: Path) -> dict[str, np.ndarray]:
    """image_id -> (C, h, w) float32, of the rows without error. Raises Damaged."""
    try:
        rows = opened(part).read(columns=["image_id", "channels", "height", "width", "features"])
        return {
            image_id.as_py(): np.frombuffer(content.as_buffer(), "<f4").reshape([n.as_py() for n in shape])
            for image_id, *shape, content in zip(*rows.columns, strict=True)
            if content.is_valid
        }
    except UNREADABLE as e:
        raise Damaged(f"{part}: damaged ({first_line(e)}); {MEND}") from e


def artifacts(
    config: BaselineConfig, backbone: Backbone, images: Sequence[Image], contents: str, options: RunOptions
) -> list[Artifact]:
    """One per level that the model reads, not opened yet. contents: fingerprint of the image files.

    Raises:
        InputError: what is there was made with other settings, or of other images.
    """
    assert config.features is not None
    silent = replace(options, quiet=True, limit=None, shard="0/1")  # each shard's model needs those of all images
    same = {
        "architecture": backbone.architecture,
        "weights": backbone.weights,
        "mean": list(backbone.mean),
        "std": list(backbone.std),
        "size": config.size,
        "timm": version("timm"),
    }
    made = []
    for level in config.levels:
        spec = Spec("score features", same | {"level": level}, {"image files": contents})
        keys = [(i.image_id, level) for i in images]
        made.append(Artifact(config.features / f"level-{level}", FEATURES, spec, keys, silent, ROWS))
        try:
            require_place(made[-1].out, spec, options.overwrite)
        except OtherSettings as e:
            raise OtherSettings(str(e).replace("another --out", "another --features")) from e
    return made


def require_space(config: BaselineConfig, backbone: Backbone, some: Sequence[Artifact]) -> str:
    """What is still to be kept, as a line for the user; empty where nothing is. Raises InputError where the disk has no
    room for it."""
    missing = [a for a in some if not (a.out / COMPLETE).exists()]
    if not missing:
        return ""
    with torch.inference_mode():
        maps = _network(config, backbone)(torch.zeros(1, 3, config.size, config.size))
    levels = [a.spec.parameters["level"] for a in missing]
    each = sum(maps[level].numel() * 4 for level in levels)
    images = len(missing[0].keys)
    there = sum(part.stat().st_size for a in missing if a.out.is_dir() for part in names(a.out))
    place = next(p for p in (missing[0].out, *missing[0].out.resolve().parents) if p.exists())
    needed, free = max(images * each - there, 0), shutil.disk_usage(place).free
    said = f"{images} images, levels {', '.join(map(str, levels))}, {each / 1e3:.0f} kB each"
    if needed > free:
        raise InputError(
            f"--features {config.features}: {needed / 1e9:.1f} GB are needed ({said}), {free / 1e9:.1f} are free there;"
            " give another place or a smaller --size, or leave it out"
        )
    return (
        f"keeping features in {config.features}: {said}; up to {needed / 1e9:.1f} GB, {free / 1e9:.1f} are free there"
    )


def keep(
    some: Sequence[Artifact],
    images: Sequence[Image],
    config: BaselineConfig,
    backbone: Backbone,
    device: str,
    progress: Progress,
    ahead: int,
) -> Kept:
    """Complete the artifacts. images: all of the manifest; ahead: units of work that come afterwards, for the progress.

    Raises:
        InputError: another process writes them, or a part is damaged.
    """
    with ExitStack() as stack:
        open_all(some, stack)
        lacking = {a.spec.parameters["level"]: set(a.pending) for a in some}
        todo = [i for i in images if any((i.image_id, level) in keys for level, keys in lacking.items())]
        progress.expect(len(todo) + ahead, "images read or fitted to")
        network = _network(config, backbone).to(device) if todo else None
        for batch in batches(todo, pixels(config, backbone), config):
            good = [x for _, x in batch if not isinstance(x, ImageError)]
            maps = {}
            if good and network:
                with torch.inference_mode():
                    maps = {n: iter(m.cpu().numpy()) for n, m in network(torch.stack(good).to(device)).items()}
            for image, x in batch:
                for artifact in some:
                    level = artifact.spec.parameters["level"]
                    features = None if isinstance(x, ImageError) else next(maps[level])
                    if (image.image_id, level) in lacking[level]:
                        row = {"error": str(x)} if features is None else _columns(features)
                        artifact.write({"image_id": image.image_id, "level": level} | row, tried=features is not None)
            progress.prepare(len(batch))
    return _index(some, images, config.size)


def _columns(features: np.ndarray) -> dict:
    channels, height, width = features.shape
    content = features.astype("<f4").tobytes()
    return {"channels": channels, "height": height, "width": width, "features": content}


def _index(some: Sequence[Artifact], images: Sequence[Image], size: int) -> Kept:
    parts, errors = {}, {}
    for artifact in some:
        for part in names(artifact.out):
            try:
                rows = opened(part).read(columns=["image_id", "level", "error"]).to_pylist()
            except UNREADABLE as e:
                raise Damaged(f"{part}: damaged ({first_line(e)}); {MEND}") from e
            parts |= {(r["image_id"], r["level"]): part for r in rows}
            errors |= {r["image_id"]: r["error"] for r in rows if r["error"]}
    return Kept(parts, errors, {i.image_id: n for n, i in enumerate(images)}, size)


def _network(config: BaselineConfig, backbone: Backbone) -> nn.Module:
    return OneByOne(TimmFeatureExtractor(backbone.timm_name, list(config.levels))).eval()
