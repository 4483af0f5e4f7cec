"""A folder of good pictures and a folder of others, wherever they are: what an inspection starts with."""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

from stages.artifacts.writer import Summary
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.datasets.config import SURFACES, SURFACES_MARK, GoodAndNewConfig
from stages.datasets.entries import Entry, first, image_files, many, write_manifest
from stages.datasets.labels import ANOMALOUS, NORMAL
from stages.datasets.pairing import like_masks

FEW = 25  # good pictures of a kind below which none is held out: fewer than five would draw no line
SHARE = 5  # one of so many is held out,
STRETCHES = 10  # in about so many runs of neighbours
ALL = "all"  # the category where there is only one
DEFECT = re.compile(  # a word in the name of a folder of defective pictures
    "abnormal|anomal(y|ies|ous)|bent|blister(s|ed)?|(blow)?holes?|break(s|age)?|broken|burn(s|t|ed)?|chip(s|ped)?"
    "|contaminat(ed|ions?)|corro(ded|sion)|crack(s|ed)?|damaged?|defect(s|ive)?|deform(ed|ations?)|dent(s|ed)?|dirty?"
    "|faulty?|fractured?|frayed|leak(s|y|ing)?|melt(ed)?|misplaced|misprint(s|ed)?|missing|peel(ed|ing)?|pinholes?|pores?"
    "|reject(s|ed)?|rough|rust(y|ed)?|scrap|scratch(es|ed)?|scuff(s|ed)?|smear(s|ed)?|squeezed|stain(s|ed)?|tears?|torn"
    "|warp(s|ed)?|worn|wrinkle(s|d)?"
)


def run(config: GoodAndNewConfig, options: RunOptions) -> Summary:
    """Index both folders. Good pictures are training images, but for a fifth that is held out as validation images: a
    model has not seen them, as it has not seen the new ones, so that the scores of both can be compared. Pictures below
    --test are test images, labelled where folder names say what they are.

    Where every folder directly below --test has a namesake below --good, these are categories.

    Raises:
        InputError: a folder that is not there, holds no image, or lies in the other; a name in --defects that no folder
            has.
    """
    check_folders(config)
    good, test = image_files(config.good), image_files(config.test)
    kinds = kinds_of(good, test)
    labels, said = labels_of(test, bool(kinds), config)
    if lacks := [] if kinds else without_namesake(good, test):
        said.append(
            f"no folder {first(lacks)} below {config.good}: all pictures are compared as of one kind; where there are"
            " several, add good pictures of each"
        )
    said += like_masks([*good, *test], "move them out, if they are masks")
    root = Path(os.path.commonpath([os.path.abspath(config.good), os.path.abspath(config.test)]))
    places = [Path(os.path.relpath(p, root)) for p in (config.good, config.test)]
    entries, lines = _good(good, kinds, places[0])
    for path in test:
        label, defect = labels[path]
        category = path.parts[0] if kinds else ALL
        entries.append(Entry(places[1] / path, category, "test", label, defect=defect))
    name = config.name or (SURFACES if (root / SURFACES_MARK).exists() else root.resolve().name or "pictures")
    paths = {"good": os.path.abspath(config.good), "test": os.path.abspath(config.test)}
    parameters = {"defects": config.defects, "held out": SHARE, "not below": FEW}
    return write_manifest(
        name, root, entries, config.out, parameters, options, said=[*lines, *said], inside=places, paths=paths
    )


def check_folders(config: GoodAndNewConfig) -> None:
    """Raises InputError for a folder that is not there, with the nearest name beside it, and two that are not apart."""
    for option, folder in (("--good", config.good), ("--test", config.test)):
        if not folder.is_dir():
            beside = [p.name for p in folder.parent.iterdir() if p.is_dir()] if folder.parent.is_dir() else []
            near = get_close_matches(folder.name, beside, 1)
            hint = f"; did you mean {folder.with_name(near[0])}?" if near else ""
            what = "a file, not a directory" if folder.exists() else "no such directory"
            raise InputError(f"{option} {folder}: {what}{hint}")
    both = f"--good {config.good} and --test {config.test}"
    good, test = (Path(os.path.realpath(f)) for f in (config.good, config.test))
    if good == test:
        raise InputError(f"{both}: the same folder; new pictures cannot be compared with themselves")
    if good.is_relative_to(test) or test.is_relative_to(good):
        raise InputError(f"{both}: one lies in the other; keep them apart")


def kinds_of(good: Iterable[Path], test: Iterable[Path]) -> set[str]:
    """The folders directly below --test, where each has a namesake below --good and no picture lies beside them; empty
    where that is not so, or where the names say good or bad."""
    there, asked = ({p.parts[0] if len(p.parts) > 1 else "" for p in files} for files in (good, test))
    return asked if "" not in asked and asked <= there and not any(map(says, asked)) else set()


def without_namesake(good: Iterable[Path], test: Iterable[Path]) -> list[str]:
    """Folders directly below --test that --good has not, where it has others of them."""
    there, asked = ({p.parts[0] for p in files if len(p.parts) > 1} for files in (good, test))
    return sorted(n for n in asked - there if not says(n)) if {n for n in asked & there if not says(n)} else []


def says(name: str) -> str:
    """'normal' or 'defect' where a folder's name says so, otherwise ''."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    if any(w in NORMAL for w in words):
        return "defect" if {"no", "not"} & set(words) else "normal"
    return "defect" if any(w in ANOMALOUS or DEFECT.fullmatch(w) for w in words) else ""


def labels_of(
    test: Sequence[Path], kinds: bool, config: GoodAndNewConfig
) -> tuple[dict[Path, tuple[int | None, str | None]], list[str]]:
    """(path -> label and defect, what is to be said). kinds: the first folder names the category. Raises InputError."""
    named = {n.strip() for n in config.defects.split(",")} - {""}
    folders = {p: p.parts[kinds:-1] for p in test}
    names = list(dict.fromkeys(n for f in folders.values() for n in f))
    if strange := named - set(names):
        raise InputError(
            f"--defects {min(strange)}: no folder of this name below {config.test}; there are {first(names)}"
        )
    normal = {n for n in names if says(n) == "normal"} - named
    defects = named or {n for n in names if says(n) == "defect"}
    beside: dict[str, set[str]] = {}  # kind -> folders beside those of its good pictures
    kind = {p: p.parts[0] if kinds else ALL for p in folders}
    for path, inside in () if named else folders.items():
        if normal & set(inside):
            beside.setdefault(kind[path], set())
    for path, inside in folders.items():
        if inside and kind[path] in beside and not (normal | defects) & set(inside):
            beside[kind[path]].add(inside[-1])
    labels: dict[Path, tuple[int | None, str | None]] = {}
    for path, inside in folders.items():
        own = defects | beside.get(kind[path], set())
        defect = next((n for n in reversed(inside) if n in own), None)
        labels[path] = (1, defect) if defect else (0 if normal & set(inside) else None, None)
    counts = Counter(label for label, _ in labels.values())
    if not (counts[0] or counts[1]):
        hint = f" ({first(names)}: --defects names those that hold defects)" if names else ""
        return labels, [f"no folder below {config.test} says what its pictures are{hint}: a ranking, no metrics"]
    said = f"folders of defects: {', '.join(sorted({d for _, d in labels.values() if d})) or 'none'}"
    said += f"; of good pictures: {', '.join(sorted(normal)) or 'none'}"
    neither = [path for path, (label, _) in labels.items() if label is None]
    said += f"; {many(neither, 'picture')} in neither" if neither else ""
    return labels, [f"{said} (by their names; --defects says it otherwise)"]


def _good(files: Sequence[Path], kinds: Collection[str], place: Path) -> tuple[list[Entry], list[str]]:
    """(entries of the good pictures, what is to be said). Those of kinds that --test has not are left out."""
    entries: list[Entry] = []
    lines: list[str] = []
    if kinds:
        lines = [f"{many(kinds, 'kind')} of pictures, each with its own good ones: {first(sorted(kinds))}"]
    for kind in sorted(kinds) or [ALL]:
        own = [f for f in files if f.parts[0] == kind] if kinds else list(files)
        out = held_out(len(own))
        entries += [Entry(place / f, kind, "val" if n in out else "train", 0) for n, f in enumerate(own)]
        front = f"{kind}: " if kinds else ""
        if out:
            lines.append(f"{front}{len(own) - len(out)} good pictures to fit to; {len(out)} held out, to draw the line")
        else:
            lines.append(
                f"{front}only {many(own, 'good picture')}: the line is a rough guess, and scores depend on which"
                f" pictures these are; from {FEW} on a fifth is held out to draw the line"
            )
    return entries, lines


def held_out(count: int) -> set[int]:
    """Which of `count` pictures in the order of their names are held out: a fifth, in runs of neighbours, of about
    STRETCHES stretches one each. Neighbours often show the same part; one whose sibling is fitted to scores too low.
    None of fewer than FEW."""
    if count < FEW:
        return set()
    run = max(count // (SHARE * STRETCHES), 1)
    return {n for n in range(count) if n % (SHARE * run) >= (SHARE - 1) * run}
