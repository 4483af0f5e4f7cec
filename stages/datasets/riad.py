"""RIAD (VMAD's paper, section IV): photographs of 24 kinds of objects with masks in COCO's format.

The paper says what is stored, not where, and the release was not at hand. So any layout is read in which every image
lies below a folder named after its object, and is listed in a COCO file (`images`, `annotations`, `categories`, the
categories being kinds of defects) anywhere below the root; `file_name` is looked up beside that file, in `images`
beside it, one folder above, and from the root. An image with annotations is anomalous, one without is normal. COCO's
polygons and run lengths, compressed or not, are drawn into PNG files, numbered by kind of defect. The texts are read by
`data import-questions --format riad`.

RIAD has no test images of objects that it trains on: whole objects are held out (cross-category, 16 and 8).
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stages.artifacts.files import make_folder, write_atomically
from stages.artifacts.outputs import claim
from stages.artifacts.paths import for_image
from stages.artifacts.writer import Summary
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.base.read_json import read_json
from stages.datasets.config import RiadConfig
from stages.datasets.entries import Entry, image_files, write_manifest
from stages.datasets.masks import INDEX_VALUES
from stages.datasets.run_lengths import mask_of

HELD_OUT = ("metal_welding", "u_block", "toy_brick", "wind_turbine")  # the test classes that Table II names
NO_OBJECT = {
    "images",
    "image",
    "imgs",
    "img",
    "annotations",
    "train",
    "val",
    "test",
    "good",
    "ok",
    "normal",
    "ng",
    "abnormal",
    "anomaly",
    "defect",
    "masks",
}


@dataclass
class Listed:
    """An image in a COCO file. regions: (kind of defect, segmentation) of each annotation."""

    size: tuple[int, int]
    regions: list[tuple[str, Any]] = field(default_factory=list)


def run(config: RiadConfig, options: RunOptions) -> Summary:
    """Index RIAD and draw its masks. An image that no COCO file lists, that several list, or whose annotation cannot be
    drawn becomes a row with `error`; so does a listed image that is not there.

    Raises:
        InputError: no COCO file, one that is broken, an image that lies below no object's folder, or held-out objects
            that are not there or leave none to train on; a file of others where a mask is to be.
    """
    if config.masks.resolve().is_relative_to(config.root.resolve()):
        raise InputError(
            f"--masks {config.masks}: lies in the data set, which is never written to; give another folder"
        )
    files = list(image_files(config.root))
    listed, errors = read_coco(config.root, files)
    objects = {path: object_of(path, config.root) for path in {*files, *listed}}
    names = sorted(set(objects.values()))
    held_out = held_out_of(names, config)
    kinds = sorted({kind for image in listed.values() for kind, _ in image.regions})
    drawn_to = [for_image(Path(), p.as_posix(), ".png").as_posix() for p in objects if p in listed]
    claim(config.masks, drawn_to)
    entries = []
    for path in sorted(objects):
        split = "test" if objects[path] in held_out else "train"
        entries.append(_entry(path, objects[path], split, listed.get(path), errors.get(path), kinds, config))
    parameters = {"test_objects": sorted(held_out), "kinds": kinds, "masks": str(config.masks.resolve())}
    return write_manifest("riad", config.root, entries, config.out, parameters, options, config.seed)


def _entry(
    path: Path, name: str, split: str, image: Listed | None, error: str | None, kinds: Sequence[str], config: RiadConfig
) -> Entry:
    if image is None or error:
        return Entry(path, name, split, None, error=error or f"{config.root / path}: no COCO file lists it")
    if not image.regions:
        return Entry(path, name, split, 0)
    target = for_image(config.masks, path.as_posix(), ".png").resolve()
    try:
        mask = drawn(image, kinds)
    except (ValueError, TypeError, IndexError) as e:
        return Entry(path, name, split, 1, error=f"{config.root / path}: its annotation cannot be drawn ({e})")
    _write(target, mask)
    defect = "+".join(sorted({kind for kind, _ in image.regions}))
    return Entry(path, name, split, 1, defect=defect, masks=(target,))


def held_out_of(names: Sequence[str], config: RiadConfig) -> set[str]:
    """The objects to test on, none with --test-objects 0. Raises InputError when they are not there, or none is left to
    train on."""
    if config.test_objects == 0 and not config.test:
        return set()
    if config.test:
        chosen = set(config.test.split(","))
        if strange := sorted(chosen - set(names)):
            raise InputError(f"--test {strange[0]}: none of the objects {', '.join(names)}")
    else:
        first = [n for n in HELD_OUT if n in names]
        rest = random.Random(config.seed).sample([n for n in names if n not in first], len(names) - len(first))
        chosen = set([*first, *rest][: max(config.test_objects, 0)])
    if not 0 < len(chosen) < len(names):
        raise InputError(
            f"{config.root}: {len(names)} objects, {len(chosen)} of them for test: none is left to train"
            " on, or to test on (--test-objects)"
        )
    return chosen


def object_of(path: Path, root: Path) -> str:
    """The first folder on the way to an image that is named after no part of a data set. Raises InputError."""
    name = next((p for p in path.parts[:-1] if p.lower() not in NO_OBJECT), None)
    if name is None:
        raise InputError(
            f"{root / path}: lies below no folder named after its object (give the folder that holds the"
            " objects' folders)"
        )
    return name


def read_coco(root: Path, files: Sequence[Path]) -> tuple[dict[Path, Listed], dict[Path, str]]:
    """(what is listed, why some of it is of no use), by path relative to the root. Raises InputError as `run` does."""
    there, found, errors, read = set(files), {}, {}, 0
    for file in sorted(p for p in root.rglob("*.json") if p.is_file()):
        content = read_json(file)
        if not (isinstance(content, dict) and {"images", "annotations", "categories"} <= set(content)):
            continue
        read += 1
        for path, image in _listed(file, content, root, there):
            if path in found:
                errors[path] = f"{root / path}: two COCO files list it, or one does twice; the second is {file}"
            elif path not in there:
                errors[path] = f"{root / path}: no such image, though {file} lists it"
            found[path] = image
    if not read:
        raise InputError(f"{root}: no COCO file here (expected JSON with `images`, `annotations` and `categories`)")
    return found, errors


def _listed(file: Path, content: dict, root: Path, there: set[Path]) -> Iterator[tuple[Path, Listed]]:
    try:
        kinds = {c["id"]: str(c["name"]) for c in content["categories"]}
        images = {
            i["id"]: (_find(file, str(i["file_name"]), root, there), Listed((int(i["height"]), int(i["width"]))))
            for i in content["images"]
        }
        for a in content["annotations"]:
            images[a["image_id"]][1].regions.append((kinds[a["category_id"]], a["segmentation"]))
    except (KeyError, TypeError, ValueError) as e:
        raise InputError(f"{file}: not as COCO has it ({type(e).__name__}: {e})") from None
    yield from images.values()


def _find(file: Path, name: str, root: Path, there: set[Path]) -> Path:
    """Where `name` lies, relative to the root; beside the COCO file when it lies nowhere."""
    own = file.parent.relative_to(root)
    places = [base / name for base in (own, own / "images", own.parent, own.parent / "images", Path())]
    return next((p for p in places if p in there), places[0])


def drawn(image: Listed, kinds: Sequence[str]) -> np.ndarray:
    """(H, W) uint8, 0 = normal: the kind's number from 1, or 255 for all where there are too many to be told from a
    drawn mask. Raises ValueError, TypeError or IndexError for a segmentation that is not COCO's."""
    import cv2

    canvas = np.zeros(image.size, np.uint8)
    for kind, segmentation in image.regions:
        value = kinds.index(kind) + 1 if len(kinds) < INDEX_VALUES else 255
        if isinstance(segmentation, dict):
            canvas[mask_of(segmentation, image.size)] = value
            continue
        polygons = [np.array(p, float).reshape(-1, 2).round().astype(np.int32) for p in segmentation]
        if not polygons or min(map(len, polygons)) < 3:
            raise ValueError("a polygon of fewer than three points")
        cv2.fillPoly(canvas, polygons, value)
    return canvas


def _write(path: Path, mask: np.ndarray) -> None:
    from PIL import Image

    make_folder(path.parent)
    write_atomically(path, lambda f: Image.fromarray(mask).save(f, "png"))
