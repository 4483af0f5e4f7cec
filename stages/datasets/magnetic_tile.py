"""Magnetic tile surface defects: `MT_<class>/Imgs/<name>.jpg`, the mask `<name>.png` beside it.

The data set has no split. Normal tiles are divided by tile, not by picture: one tile was photographed
under up to six exposures, whose running numbers follow each other closely (in the file names,
`exp3_num_108719`), and such near-twins on both sides would flatter every method.
"""

import random
import re
from pathlib import Path

from stages.artifacts.writer import Summary
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.datasets.config import MagneticTileConfig
from stages.datasets.entries import Entry, image_files, write_manifest

SAME_TILE_GAP = 100  # gaps in the running number are below 60 within a tile and mostly above 200 between


def run(config: MagneticTileConfig, options: RunOptions) -> Summary:
    """Index the tiles: category `tile`, defect `blowhole`, `break`, ... Raises InputError when MT_Free
    is missing or a fraction is not between 0 and 1."""
    if not 0 < config.train_fraction < 1:
        raise InputError(f"--train-fraction {config.train_fraction}: expected a number between 0 and 1")
    if not 0 <= config.train_defects < 1:
        raise InputError(f"--train-defects {config.train_defects}: expected 0 or a number below 1")
    files = list(image_files(config.root))
    there = set(files)
    photos = [f for f in files if f.suffix.lower() == ".jpg" and _class_of(f)]
    normal = [f for f in photos if _class_of(f) == "free"]
    if not normal:
        raise InputError(f"{config.root}: no normal tiles (MT_Free/Imgs/*.jpg)")
    defects = [f for f in photos if f not in set(normal)]
    train = train_half(normal, config.train_fraction, config.seed)
    train |= train_half(defects, config.train_defects, config.seed) if config.train_defects else set()
    entries = []
    for photo in photos:
        kind = _class_of(photo)
        mask = photo.with_suffix(".png")
        if kind == "free":
            entries.append(Entry(photo, "tile", "train" if photo in train else "test", 0))
        else:
            entries.append(
                Entry(
                    photo,
                    "tile",
                    "train" if photo in train else "test",
                    1,
                    defect=kind,
                    masks=(mask,) if mask in there else (),
                )
            )
    parameters = {"train_fraction": config.train_fraction}
    if config.train_defects:
        parameters["train_defects"] = config.train_defects
    return write_manifest("magnetic-tile", config.root, entries, config.out, parameters, options, config.seed)


def _class_of(path: Path) -> str | None:
    """'MT_Free/Imgs/a.jpg' -> 'free'."""
    return next((p[3:].lower() for p in path.parts if p.upper().startswith("MT_")), None)


def train_half(normal: list[Path], fraction: float, seed: int) -> set[Path]:
    """Whole tiles in random order until `fraction` of the pictures is reached."""
    tiles = tiles_of(normal)
    random.Random(seed).shuffle(tiles)
    train: set[Path] = set()
    for tile in tiles:
        if len(train) >= fraction * len(normal):
            break
        train |= set(tile)
    return train


def tiles_of(photos: list[Path]) -> list[list[Path]]:
    """Pictures grouped by tile: neighbours in running number, at most SAME_TILE_GAP apart."""
    numbered = sorted((int(m[1]) if (m := re.search(r"num_(\d+)", p.stem)) else -1, p) for p in photos)
    tiles: list[list[Path]] = []
    last = None
    for number, photo in numbered:
        if last is None or number - last > SAME_TILE_GAP:
            tiles.append([])
        tiles[-1].append(photo)
        last = number
    return tiles
