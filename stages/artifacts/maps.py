"""Anomaly maps as rows of MAPS, and back."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stages.artifacts.reader import scan
from stages.artifacts.tables import MAPS
from stages.base.errors import InputError

AT_ONCE = 16  # maps in memory while reading
KINDS = {2: "<f2", 4: "<f4", 8: "<f8"}  # bytes per pixel -> type

Key = tuple[str, str]  # (image_id, method)


def to_row(key: Key, anomaly_map: np.ndarray, kind: str = "<f2") -> dict:
    """A row of MAPS. anomaly_map: (H, W) float, kept as float16; kind: "<f4" for probabilities, whose float16 is 0
    below 3e-8: half of the pixels would tie.

    Raises:
        ValueError: a value that the kind cannot hold (beyond 65504, or NaN), which would be stored as infinity.
    """
    with np.errstate(over="ignore"):  # looked at below
        small = anomaly_map.astype(kind)
    if not np.isfinite(small).all():
        raise ValueError(f"the anomaly map holds values that are not finite in {np.dtype(kind).name}")
    return {
        "image_id": key[0],
        "method": key[1],
        "height": small.shape[0],
        "width": small.shape[1],
        "map": small.tobytes(),
    }


def from_row(row: dict) -> np.ndarray:
    """(H, W) float16, float32 or float64, as the number of bytes says. Raises InputError when they do not fit."""
    pixels = (row["height"] or 0) * (row["width"] or 0)
    size, rest = divmod(len(row["map"]), pixels) if pixels else (0, 0)
    if rest or size not in KINDS:
        raise InputError(
            f"{row['image_id']}: its map has {len(row['map'])} bytes for {row['width']} x {row['height']}"
            " pixels (expected float16, float32 or float64)"
        )
    return np.frombuffer(row["map"], KINDS[size]).reshape(row["height"], row["width"])


def map_keys(path: Path) -> dict[Key, str | None]:
    """(image_id, method) of every row -> its error. Raises InputError for a key that is there twice."""
    found: dict[Key, str | None] = {}
    for rows in scan(path, MAPS, ("image_id", "method", "error")):
        for row in rows.to_pylist():
            key = (row["image_id"], row["method"])
            if key in found:
                raise InputError(f"{path}: two maps of {key[0]} by {key[1]}")
            found[key] = row["error"]
    return found


def read_maps(path: Path, wanted: set[Key]) -> Iterator[tuple[Key, np.ndarray]]:
    """The maps of these keys in the order of the files, a few in memory at a time. Rows with `error` are left out."""
    by_method = defaultdict(set)
    for image_id, method in wanted:
        by_method[method].add(image_id)
    for rows in scan(path, MAPS, rows=AT_ONCE):
        for image_id, method, height, width, content in zip(
            *(rows[c] for c in ("image_id", "method", "height", "width", "map")), strict=True
        ):
            if image_id.as_py() in by_method.get(method.as_py(), ()) and content.is_valid:
                key = (image_id.as_py(), method.as_py())
                yield (
                    key,
                    from_row(
                        {
                            "image_id": key[0],
                            "height": height.as_py(),
                            "width": width.as_py(),
                            "map": content.as_buffer(),
                        }
                    ),
                )
