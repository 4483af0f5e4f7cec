"""MVTec LOCO AD: `<category>/{train,validation}/good/NNN.png`,
`<category>/test/{good,logical_anomalies,structural_anomalies}/NNN.png` and a folder of masks per anomalous image,
`<category>/ground_truth/<kind>/NNN/MMM.png`.

A mask file is one region. Its grey value names the kind of defect, for which `<category>/defects_config.json`
says how many pixels have to be found (`saturation_of`); official evaluation: saturated PRO up to a false positive
rate of 0.05, image AUROC and sPRO for logical and for structural anomalies apart, each with all good images, then
their mean.
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np

from stages.artifacts.writer import Summary
from stages.base.config import RunOptions
from stages.base.errors import ImageError, InputError
from stages.base.regular import regular
from stages.datasets.config import MvtecConfig
from stages.datasets.entries import Entry, image_files
from stages.datasets.images import load_rgb
from stages.datasets.mvtec import index_categories

SPLITS = {"train": "train", "validation": "val", "test": "test"}
CONFIG = "defects_config.json"


def run(config: MvtecConfig, options: RunOptions) -> Summary:
    """Index an MVTec LOCO tree. A missing mask is said (`write_manifest`). Raises
    InputError as `index_categories` does."""
    return index_categories("mvtec-loco", entries_of(image_files(config.root)), config, options)


def entries_of(files: Iterable[Path]) -> list[Entry]:
    """The images of a tree in this layout; other files are passed over. files: relative to the root."""
    images, masks = [], defaultdict(list)
    for path in files:
        if len(path.parts) > 4 and path.parts[-4].lower() == "ground_truth":
            masks[path.parents[3], path.parts[-3].lower(), path.parent.name].append(path)
        elif len(path.parts) > 3 and path.parts[-3].lower() in SPLITS:
            images.append(path)
    entries = []
    for path in images:
        base, split, kind = path.parents[2], SPLITS[path.parts[-3].lower()], path.parent.name
        if kind.lower() == "good":
            entries.append(Entry(path, base.name, split, 0))
            continue
        expected = base / "ground_truth" / kind / path.stem / "000.png"
        found = sorted(masks.get((base, kind.lower(), path.stem), [expected]))
        entries.append(Entry(path, base.name, split, 1, defect=kind, masks=tuple(found)))
    return entries


@cache
def _config(path: Path) -> dict[int, tuple[float, bool]]:
    try:
        return {
            int(d["pixel_value"]): (float(d["saturation_threshold"]), bool(d["relative_saturation"]))
            for d in json.loads(regular(path).read_text())
        }
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise InputError(
            f"{path}: not a list of defects with pixel_value, saturation_threshold and relative_saturation"
            f" ({type(e).__name__}: {e})"
        ) from None


def saturation_of(mask_file: Path) -> tuple[np.ndarray, float]:
    """One mask file -> (H, W) bool, and the pixels of it whose finding counts as finding all.

    Raises:
        ImageError: the mask cannot be read, or holds a value that the configuration does not name.
        InputError: no readable defects_config.json four folders above it.
    """
    values = load_rgb(mask_file)[:, :, 0]
    known = _config(mask_file.parents[3] / CONFIG)
    mask, value = values > 0, int(values.max())
    if value and value not in known:
        raise ImageError(f"{mask_file}: its value {value} is not in {CONFIG}")
    threshold, relative = known.get(value, (1.0, True))
    return mask, threshold * (int(mask.sum()) if relative else 1)
