"""Any tree of images, described by patterns or a CSV file; or by nothing at all: unlabelled images."""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from stages.artifacts.paths import below
from stages.artifacts.writer import Summary
from stages.base.config import RunOptions
from stages.base.errors import ImageError, InputError
from stages.base.regular import regular
from stages.datasets import annotations
from stages.datasets.config import FolderConfig
from stages.datasets.entries import Entry, first, image_files, many, write_manifest
from stages.datasets.labels import read_labels
from stages.datasets.opening import opened, upright_size
from stages.datasets.pairing import Pairing, like_masks, pair

DRAWN = "_masks"  # folder below --out; readers of tables leave names with `_` alone
PART = re.compile(r"\{(\d+)\}")


@dataclass(frozen=True)
class Marked:
    """One image and what its annotation says."""

    entry: Entry
    file: Path
    annotation: annotations.Annotation


def run(config: FolderConfig, options: RunOptions) -> Summary:
    """Index a folder. Without any pattern, labels and annotations every image is an unlabelled test image: such a task
    can be captioned, scored (against itself) and ranked. What belongs to nothing is counted and named.

    Raises:
        InputError: a pattern that matches nothing, an image matched by two patterns, masks or annotations of which
            none belongs to an image, an image without the folder that its category is named after.
    """
    if config.masks and config.annotations:
        raise InputError("--masks and --annotations: both say where the defects are; give one of them")
    if not config.category:
        raise InputError("--category: expected a name, not nothing; leave it out for the category `all`")
    files = image_files(config.root)
    masks = _match(config.root, files, config.masks, "--masks")
    entries, said, unused = _entries(config, files, set(masks))
    mentioned = {*masks, *unused} | ({_relative(config.labels, config.root)} if config.labels else set())
    names = {
        e.path.parts[int(n) - 1] for n in PART.findall(config.category) for e in entries if len(e.path.parts) > int(n)
    }
    if masks:
        entries, lines = _with_masks(config, entries, masks, names)
        said += lines
    else:
        said += like_masks([e.path for e in entries], "--masks, if they are masks")
    draw, parameters = None, _parameters(config)
    if config.annotations:
        found = _annotations(config)
        entries, marked, lines = _with_annotations(config, entries, found, names)
        said += lines
        mentioned |= {_relative(f, config.root) for f in found}
        parameters["annotations"] = _fingerprint(m.file for m in marked)
        draw = _drawing(config, marked)
    name = config.name or config.root.resolve().name
    return write_manifest(
        name, config.root, entries, config.out, parameters, options, draw=draw, said=said, mentioned=mentioned
    )


def _parameters(config: FolderConfig) -> dict:
    parameters = {k: getattr(config, k) for k in ("train_normal", "test_normal", "test_anomalous", "masks", "category")}
    return parameters | ({"test": config.test} if config.test else {})


def _relative(path: Path, root: Path) -> Path:
    resolved, top = path.resolve(), root.resolve()
    return resolved.relative_to(top) if resolved.is_relative_to(top) else path


# -- images ---------------------------------------------------------------------------------------------------


def _entries(
    config: FolderConfig, files: list[Path], masks: set[Path]
) -> tuple[list[Entry], list[str], tuple[Path, ...]]:
    """(the images that patterns or labels name, or all but the masks; what is to be said; masks that it is about)."""
    images = [f for f in files if f not in masks]
    groups = {
        "--train-normal": (config.train_normal, "train", 0),
        "--test-normal": (config.test_normal, "test", 0),
        "--test-anomalous": (config.test_anomalous, "test", 1),
        "--test": (config.test, "test", None),
    }
    given = [flag for flag, (pattern, _, _) in groups.items() if pattern]
    if config.labels:
        if given:
            raise InputError(f"--labels and {given[0]}: both say what the images are; give one of them")
        labels = read_labels(config.labels, config.root, files, lambda image: category_of(image, config.category))
        return list(labels.entries), list(labels.said), labels.unused
    if not given:
        return [Entry(f, category_of(f, config.category), "test", None) for f in images], [], ()
    entries: dict[Path, tuple[str, Entry]] = {}
    for flag, (pattern, split, label) in groups.items():
        for path in _match(config.root, images, pattern, flag):
            if path in entries:
                raise InputError(f"{config.root / path}: matched by both {entries[path][0]} and {flag}")
            defect = (path.parent.name or "anomaly") if label else None
            entries[path] = flag, Entry(path, category_of(path, config.category), split, label, defect=defect)
    return [entry for _, entry in entries.values()], [], ()


def category_of(path: Path, category: str) -> str:
    """'{1}' and 'bottle/good/0.png' -> 'bottle'; a category without braces as it is. Raises InputError for a path that
    has not so many folders."""
    folders = path.parts[:-1]

    def part(match: re.Match) -> str:
        n = int(match[1])
        if not 1 <= n <= len(folders):
            raise InputError(
                f"--category {category}: {path} lies below {len(folders)} folders, there is no {match[0]}"
                " for it (patterns can leave it out)"
            )
        return folders[n - 1]

    return PART.sub(part, category)


def _match(root: Path, files: list[Path], pattern: str, flag: str) -> list[Path]:
    """Those of `files` that the pattern or a folder that it matches holds. Raises InputError for none."""
    if not pattern:
        return []
    matched = {Path(pattern)} if (root / pattern).exists() else set()
    try:
        for form in {pattern, *(unicodedata.normalize(f, pattern) for f in ("NFC", "NFD"))}:
            matched |= {p.relative_to(root) for p in root.glob(form)}
    except (ValueError, NotImplementedError) as e:
        raise InputError(f"{flag} {pattern}: not a glob below ROOT ({e})") from None
    found = [f for f in files if f in matched or not matched.isdisjoint(f.parents)]
    if not found:
        alike = sorted({str(p) for f in files for p in f.parents if p.name and p.name == Path(pattern).name})
        hint = f"; folders of this name are {first(alike)}" if alike else ""
        if "[" in pattern:
            hint += "; a bracket of a name is written [[] in a glob"
        raise InputError(f"{flag} {pattern}: matches no image below {root}{hint}")
    return found


# -- masks ----------------------------------------------------------------------------------------------------


def _with_masks(
    config: FolderConfig, entries: list[Entry], masks: list[Path], names: Collection[str]
) -> tuple[list[Entry], list[str]]:
    """(the entries with their masks, what is to be said). names: of folders that divide the tree into categories."""
    pairing = pair((e.path for e in entries if e.label == 1), masks, names)
    if not pairing.files and any(e.label == 1 for e in entries):
        raise InputError(f"--masks {config.masks}: {many(masks, 'mask')}, {_why_none(pairing)}")
    for image, files in pairing.files.items():
        if len({f.parent for f in files}) > 1:
            raise InputError(f"{image}: several masks fit ({files[0]}, {files[1]}); make --masks narrower")
    others = pair((e.path for e in entries if e.label != 1), pairing.left, names)
    said = _unpaired("mask", others.left, (*pairing.unclear, *others.unclear))
    if others.files:
        left = [f for files in others.files.values() for f in files]
        said.append(f"{many(left, 'mask')} of images that are not anomalous, left out: {first(left)}")
    found = [replace(e, masks=e.masks or pairing.files.get(e.path, ())) for e in entries]
    if bare := [e.path for e in found if e.label == 1 and not e.masks]:
        said.append(
            f"{many(bare, 'anomalous image')} without a mask, so that pixel metrics are impossible for"
            f" {'it' if len(bare) == 1 else 'them'}: {first(bare)}"
        )
    return found, said


def _why_none(pairing: Pairing) -> str:
    """Why not one mask is paired."""
    if not pairing.unclear:
        return "none with the stem of an anomalous image"
    return (
        f"none that fits just one anomalous image ({first(pairing.unclear)}: several); rename them, name folders of"
        " masks like those of images, or pair within folders by --category {1}"
    )


def _unpaired(what: str, left: Collection[Path], unclear: Collection[Path]) -> list[str]:
    said = [f"{many(left, what)} with the stem of no image: {first(left)}"] if left else []
    if unclear:
        said.append(
            f"{many(unclear, what)} with the stem of several images, left out: {first(unclear)}"
            " (--category {1} pairs within the folders)"
        )
    return said


# -- annotations ----------------------------------------------------------------------------------------------


def _annotations(config: FolderConfig) -> list[Path]:
    """The files below --annotations, which may lie below ROOT or elsewhere. Raises InputError for none."""
    folder = config.annotations
    assert folder is not None  # the caller has looked
    if not folder.is_dir() and (config.root / folder).is_dir():
        folder = config.root / folder
    if not folder.is_dir():
        raise InputError(f"--annotations {config.annotations}: no such folder")
    found = [
        f
        for f in sorted(folder.rglob("*"))
        if f.suffix.lower() in annotations.ENDINGS and f.is_file() and f.name[0] != "."
    ]
    if not found:
        raise InputError(f"--annotations {folder}: holds no .xml and no .json file")
    return found


def _with_annotations(
    config: FolderConfig, entries: list[Entry], files: list[Path], names: Collection[str]
) -> tuple[list[Entry], list[Marked], list[str]]:
    """(the entries with the masks that will be drawn, those to be drawn, what is to be said)."""
    relative = {_relative(f, config.root): f for f in files}
    pairing, problems = _by_name_inside(pair((e.path for e in entries), relative, names), entries, relative)
    deciding = all(e.label is None for e in entries) and not config.test and not config.labels
    marked, done, foreign, empty, normal = [], [], [], 0, 0
    for entry in entries:
        for file in (relative[f] for f in pairing.files.get(entry.path, ())[:1]):
            try:
                annotation = annotations.read_annotation(file)
                if annotation is not None:
                    annotations.require_drawable(annotation, _size(config.root / entry.path), file)
            except InputError as e:
                problems.append(str(e))
                continue
            if annotation is None:
                foreign.append(file)
                continue
            if deciding:
                entry = replace(entry, label=1 if annotation.shapes else 0)
            if annotation.shapes and entry.label == 1:
                target = below(config.out.resolve() / DRAWN, entry.path.as_posix(), suffix=".png")
                entry = replace(entry, masks=(target,), defect="+".join(sorted({s.name for s in annotation.shapes})))
                marked.append(Marked(entry, file, annotation))
            normal += entry.label == 0 and bool(annotation.shapes)
            empty += entry.label == 1 and not annotation.shapes
        done.append(entry)
    if not marked:
        why = problems[0] if problems else f"{many(files, 'file')}, none of an anomalous image with a shape"
        raise InputError(f"--annotations {config.annotations}: no mask can be drawn ({why})")
    said = _said(pairing, problems, foreign)
    if empty:
        said.append(f"annotations without a shape, of anomalous images: {empty}; pixel metrics are impossible for them")
    if normal:
        said.append(f"annotations with shapes, of normal images, not drawn: {normal}")
    if bare := [e.path for e in done if not pairing.files.get(e.path) and e.label != 0]:
        said.append(f"{many(bare, 'image')} without an annotation{', unlabelled' * deciding}: {first(bare)}")
    return done, marked, said


def _by_name_inside(pairing: Pairing, entries: list[Entry], relative: dict[Path, Path]) -> tuple[Pairing, list[str]]:
    """(the pairing, and files that fit no image, or several, by their names paired by the image that they name inside;
    what is wrong with such files). Of several images of that name the one whose path ends like it counts."""
    found = {k: list(v) for k, v in pairing.files.items()}
    left: list[Path] = []
    unclear: list[Path] = []
    problems: list[str] = []
    for file in (*pairing.left, *pairing.unclear):
        try:
            annotation = annotations.read_annotation(relative[file])
        except InputError as e:
            problems.append(str(e))
            continue
        written = Path(unicodedata.normalize("NFC", (annotation.image if annotation else "").replace("\\", "/")))
        named = [e.path for e in entries if unicodedata.normalize("NFC", e.path.name) == written.name]
        whole = [p for p in named if written.as_posix().endswith(p.as_posix())]
        best = whole if len(whole) == 1 else named
        if written.name and len(best) == 1:
            found.setdefault(best[0], []).append(file)
        else:
            (unclear if file in pairing.unclear else left).append(file)
    return Pairing({k: tuple(v) for k, v in found.items()}, tuple(left), tuple(unclear)), problems


def _said(pairing: Pairing, problems: list[str], foreign: list[Path]) -> list[str]:
    said = _unpaired("annotation", pairing.left, pairing.unclear)
    if more := [f for files in pairing.files.values() for f in files[1:]]:
        said.append(f"{many(more, 'annotation')} beside another one of the same image, left out: {first(more)}")
    if problems:
        said.append(
            f"{many(problems, 'annotation')} not drawn, so that pixel metrics are impossible for the images,"
            f" first {problems[0]}"
        )
    if foreign:
        said.append(f"{many(foreign, 'file')} neither of VOC nor of labelme: {first(foreign)}")
    return said


def _size(image: Path) -> tuple[int, int]:
    try:
        with opened(image) as header:
            return upright_size(header)
    except ImageError as e:
        raise InputError(str(e)) from None


def _fingerprint(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(regular(file).read_bytes()).digest())
    return digest.hexdigest()[:32]


def _drawing(config: FolderConfig, marked: list[Marked]) -> Callable[[], None]:
    """Draws what is not there: a mask of other annotations cannot be, as they are part of the artifact's key."""

    def draw() -> None:
        for m in (m for m in marked if not m.entry.masks[0].exists()):
            annotations.draw_mask(m.annotation.shapes, _size(config.root / m.entry.path), m.entry.masks[0])

    return draw
