"""Paths of images as question files write them -> image ids of a manifest."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from stages.artifacts.reader import read_table
from stages.artifacts.tables import MANIFEST
from stages.datasets.manifest import Manifest

Parts = tuple[str, ...]


@dataclass(frozen=True)
class ImagePath:
    """One image: its path relative to the manifest's root, and its absolute one, both in parts."""

    image_id: str
    relative: Parts
    absolute: Parts


def places_of(path: Path, manifest: Manifest) -> dict[str, list[ImagePath]]:
    """File name -> the images of the manifest at `path` that have it."""
    rows = read_table(path, MANIFEST)
    relative = dict(zip(rows["image_id"].to_pylist(), rows["path"].to_pylist(), strict=True))
    places = defaultdict(list)
    for image in manifest.images:
        place = ImagePath(image.image_id, _parts(relative[image.image_id]), _parts(str(image.file.absolute())))
        places[place.absolute[-1]].append(place)
    return places


def resolve(paths: Iterable[str], places: dict[str, list[ImagePath]]) -> tuple[dict[str, str], dict[str, str]]:
    """({path: image_id}, {path: why there is none}).

    In this order: the path is one relative to the manifest's root (or absolute, or an image_id); the end of one
    image's absolute path; or it ends with one image's relative path (the file was written for a root further up).
    The last is a guess where the manifest holds one folder of many alike (`test/good/001.png` of every category), so
    that it counts only when no other path of the file leads to the same image.
    """
    image_ids, errors, guessed = {}, {}, defaultdict(list)
    for path in sorted(set(paths)):
        same_name = places.get((_parts(path) or ("",))[-1], [])
        exact, suffix, guess = _candidates(_parts(path), same_name)
        best = next((c for c in (exact, suffix, guess) if c), [])
        if len(best) == 1:
            image_ids[path] = best[0]
            if best == guess and not exact and not suffix:
                guessed[best[0]].append(path)
        else:
            errors[path] = (
                f"{path}: {len(best)} images of the manifest have this path ({best[0]}, {best[1]}, ...)"
                if best
                else f"{path}: no image of the manifest has this path"
            )
    for image_id, claims in guessed.items():
        certain = [p for p, i in image_ids.items() if i == image_id and p not in claims]
        if certain or len({_parts(p) for p in claims}) > 1:
            for path in claims:
                del image_ids[path]
                errors[path] = f"{path}: no image of the manifest has this path ({image_id} only ends like it)"
    return image_ids, errors


def _candidates(path: Parts, same_name: list[ImagePath]) -> tuple[list[str], list[str], list[str]]:
    return (
        [p.image_id for p in same_name if path in (p.relative, p.absolute, _parts(p.image_id))],
        [p.image_id for p in same_name if p.absolute[-len(path) :] == path],
        [p.image_id for p in same_name if path[-len(p.relative) :] == p.relative],
    )


def _parts(path: str) -> Parts:
    """'a\\b/./c.png' -> ('a', 'b', 'c.png'); a leading slash does not matter."""
    return tuple(p for p in path.replace("\\", "/").split("/") if p not in ("", "."))
