"""VID-AD (10 scenarios x 5 capture conditions), in whatever order its folders are nested.

The authors' code (github.com/nkthiroto/VID-AD) reads `Sticks_Mesh_BG/test/logical_anomalies/Single-Aspect-A/` and, of
White BG, `Sticks/...`; copies differ. So the rule looks at folder names only: on the way to an image there is a folder
named after the scenario, one after the capture condition, and `train` or `test`, in any order. Names are compared
without case and punctuation.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from stages.artifacts.writer import Summary
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.datasets.config import CONDITIONS, VidadConfig
from stages.datasets.entries import Entry, first, image_files, write_manifest

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
ANOMALOUS = {"anomaly", "anomalies", "anomalous", "abnormal", "bad", "ng", "defect"}
ANOMALOUS |= {"logicalanomaly", "logicalanomalies"}
SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
KNOWN = {  # a word, or several in a row written as one -> what it says
    **{s: ("scenario", s) for s in SCENARIOS},
    **{name: ("condition", c) for c, names in CONDITIONS.items() for name in names},
    **{name: ("split", split) for name, split in SPLITS.items()},
    **{name: ("normal", name) for name in NORMAL},
    **{name: ("anomalous", name) for name in ANOMALOUS},
}
WHITE, ORIGINAL = "white_bg", {"original", "default"}  # the authors' names of White BG, which they also leave away
DUAL = {"dual", "both", "mix", "mixed", "combined"}
FILLERS = {"single", "and", "aspect", "aspects", "violation", "violations"}
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
    said = _unnamed(entries, config.root)
    dataset = "vidad-synthetic" if (config.root / SYNTHETIC_MARK).exists() else "vidad"
    parameters = {"scenarios": scenarios, "conditions": conditions}
    return write_manifest(dataset, config.root, entries, config.out, parameters, options, said=said)


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
    """What the folders of `path` say of the image; None when scenario, condition or split is missing. One folder may
    say several of them (`Sticks_White_BG`, `train_normal`), and numbers count for nothing (`01_Sticks`); where a folder
    says just one of them, that counts more than a word within another name. `Sticks/train` is of White BG."""
    folders = [list(_read(folder)) for folder in path.parts[:-1]]
    said: dict[str, tuple[str, int]] = {}
    for alone in (True, False):
        for at, words in enumerate(folders):
            for kind, word in words if not alone or len(words) == 1 else ():
                said.setdefault(kind, (word, at))
    if not said.keys() >= {"scenario", "split"}:
        return None
    if "condition" not in said:
        between = [word for at in range(said["scenario"][1], said["split"][1]) for word in folders[at]]
        if not between or any(kind == "left" and word not in ORIGINAL for kind, word in between):
            return None
        said["condition"] = WHITE, said["scenario"][1]
    scenario, condition, split = (said[kind][0] for kind in ("scenario", "condition", "split"))
    below = range(said["split"][1], len(folders))
    kinds = {kind for at in below for kind, _ in folders[at]}
    known = {(kind, said[kind][0]) for kind in ("scenario", "condition", "split")}
    rest = []
    for at in below:
        left = [word for kind, word in folders[at] if (kind, word) not in known and kind not in ("normal", "anomalous")]
        if left:
            rest.append(path.parts[at] if len(left) == len(folders[at]) else "_".join(left))
    if "normal" in kinds or (split == "train" and not rest and "anomalous" not in kinds):
        return Entry(path, scenario, split, 0, condition)
    aspects = dict.fromkeys(filter(None, (_aspect(r, scenario) for r in rest)))  # single/Q, dual/Q+L: said twice
    defect = "/".join(aspects or map(str.lower, rest)) or ("anomaly" if "anomalous" in kinds else None)
    return Entry(path, scenario, split, 1 if defect else None, condition, defect)


def _read(folder: str) -> Iterator[tuple[str, str]]:
    """(what it is, the word) for each word of a folder's name, the longest that is known first: `scenario`,
    `condition`, `split`, `normal`, `anomalous`, or `left`. Numbers are passed over beside words."""
    words = re.findall(r"[^\W_]+", _apart(folder))
    words = [w for w in words if not w.isdigit()] or words
    at = 0
    while at < len(words):
        for end in range(len(words), at, -1):
            if found := KNOWN.get("".join(words[at:end])):
                yield found
                at = end
                break
        else:
            yield "left", words[at]
            at += 1


def _apart(name: str) -> str:
    """'SingleA' -> 'single a'."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def _aspect(name: str, scenario: str) -> str:
    """The violated aspect as Table 3's groups name it: `quantity`, `length`, `quantity+length`, for names such as
    `Single-Aspect-A`, `Q`, `Q+L`, `quantity_length`, `Dual-Aspects`; '' for one that says of none which it is, as
    `single`; any other name as it is."""
    both = ASPECTS[scenario]
    words = [w for w in re.findall(r"[a-z]+", _apart(name)) if w not in FILLERS]
    letters = (
        {"a": both[0], "b": both[1]} | {aspect[0]: aspect for aspect in both} | {aspect: aspect for aspect in both}
    )
    if (words and set(words) <= DUAL) or set(words) == {"a", "b"} or words == ["ab"]:
        return "+".join(both)
    if len(words) == 1 and len(words[0]) == 2 and set(words[0]) == {aspect[0] for aspect in both}:  # ql
        return "+".join(both)
    if not letters.keys() >= set(words):
        return name.lower()
    return "+".join(aspect for aspect in both if aspect in {letters[w] for w in words})


def _unnamed(entries: list[Entry], root: Path) -> list[str]:
    """Says which folders are taken for White BG since they name no capture condition. Raises InputError where another
    folder is that task, too."""
    found: dict[str, set[Path]] = {}
    named: dict[str, Path] = {}
    for e in entries:
        if e.condition == WHITE:
            kinds = [[kind for kind, _ in _read(folder)] for folder in e.path.parts[:-1]]
            if any("condition" in k for k in kinds):
                named[e.category] = e.path.parent
            else:
                last = max(at for at, k in enumerate(kinds) if "scenario" in k)
                found.setdefault(e.category, set()).add(Path(*e.path.parts[: last + 1]))
    for category, folders in found.items():
        others = sorted([*map(str, folders), *([str(named[category])] if category in named else [])])
        if len(others) > 1:
            raise InputError(
                f"{root}: {' and '.join(others[:2])} are both {category} / {WHITE}, for a folder that names no capture"
                " condition is taken for White BG; name it, or index one of them"
            )
    taken = sorted(str(folder) for folders in found.values() for folder in folders)
    return [f"taken for White BG, since no capture condition is named: {first(taken)}"] if taken else []


def _require_both_splits(entries: list[Entry], root: Path) -> None:
    found = {(e.category, e.condition, e.split) for e in entries}
    for category, condition, _ in sorted(found):
        for split in ("train", "test"):
            if (category, condition, split) not in found:
                raise InputError(f"{root}: {category} / {condition} has no {split} images")
