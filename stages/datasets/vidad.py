"""VID-AD (10 scenarios x 5 capture conditions), in whatever order its folders are nested.

The layout of the real download is not known to us, so the rule looks at folder names only: on the
way to an image there is a folder named after the scenario, one after the capture condition, and
`train` or `test`, in any order. Names are compared without case and punctuation.
"""

import re
from pathlib import Path

from stages.artifacts.writer import Summary
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.datasets.config import CONDITIONS, VidadConfig
from stages.datasets.entries import Entry, image_files, write_manifest

SCENARIOS = ("sticks", "fruits", "tools", "cookies", "tapes", "stationery", "ropes", "blocks", "dishes", "balls")
ASPECTS = {  # Table 2: the two aspects of each scenario, first and second
    "sticks": ("quantity", "length"),
    "fruits": ("quantity", "type"),
    "tools": ("quantity", "placement"),
    "cookies": ("quantity", "relation"),
    "tapes": ("length", "type"),
    "stationery": ("length", "placement"),
    "ropes": ("length", "relation"),
    "blocks": ("type", "placement"),
    "dishes": ("type", "relation"),
    "balls": ("placement", "relation"),
}
NORMAL = {"normal", "good", "ok"}
ANOMALOUS = {"anomaly", "anomalies", "anomalous", "abnormal", "bad", "ng", "defect", "logicalanomaly"}
SYNTHETIC_MARK = "SYNTHETIC"  # file in the root of rendered scenes


def run(config: VidadConfig, options: RunOptions) -> Summary:
    """Index a VID-AD tree. Raises InputError when no image fits the rule, or a task lacks a class."""
    scenarios = chosen(config.scenarios, SCENARIOS, "--scenarios")
    conditions = chosen(config.conditions, tuple(CONDITIONS), "--conditions")
    entries = [
        e
        for path in image_files(config.root)
        if (e := entry_of(path)) and e.category in scenarios and e.condition in conditions
    ]
    if not entries:
        raise InputError(
            f"{config.root}: no image lies below folders named after a scenario, a capture"
            " condition and train or test (see `adcli data index vidad --help`)"
        )
    _require_both_splits(entries, config.root)
    dataset = "vidad-synthetic" if (config.root / SYNTHETIC_MARK).exists() else "vidad"
    parameters = {"scenarios": scenarios, "conditions": conditions}
    return write_manifest(dataset, config.root, entries, config.out, parameters, options)


def chosen(text: str, names: tuple[str, ...], flag: str) -> tuple[str, ...]:
    """'a,b' -> those of `names`, in their order; all for ''. Raises InputError for others."""
    asked = [plain(t) for t in text.split(",") if t.strip()]
    known = {plain(n): n for n in names}
    for a in asked:
        if a not in known:
            raise InputError(f"{flag}: {a!r} is none of {', '.join(names)}")
    return tuple(n for n in names if not asked or plain(n) in asked)


def plain(name: str) -> str:
    """'Low-light CD' -> 'lowlightcd'."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def entry_of(path: Path) -> Entry | None:
    """What the folders of `path` say of the image; None when one of the three names is missing."""
    folders = [plain(p) for p in path.parts[:-1]]
    scenario = next((f for f in folders if f in SCENARIOS), None)
    condition = next((c for f in folders for c, names in CONDITIONS.items() if f in names), None)
    split = next((f for f in folders if f in ("train", "test")), None)
    if not (scenario and condition and split):
        return None
    used = {scenario, split} | CONDITIONS[condition]
    at = folders.index(split)
    rest = [
        name.lower()
        for name, f in zip(path.parts[:-1], folders, strict=True)
        if f not in used and folders.index(f) > at
    ]
    if (not rest and split == "train") or any(plain(r) in NORMAL for r in rest):
        return Entry(path, scenario, split, 0, condition)
    kinds = [r for r in rest if plain(r) not in ANOMALOUS]
    return Entry(
        path, scenario, split, 1 if rest else None, condition, "/".join(kinds) or ("anomaly" if rest else None)
    )


def _require_both_splits(entries: list[Entry], root: Path) -> None:
    found = {(e.category, e.condition, e.split) for e in entries}
    for category, condition, _ in sorted(found):
        for split in ("train", "test"):
            if (category, condition, split) not in found:
                raise InputError(f"{root}: {category} / {condition} has no {split} images")
