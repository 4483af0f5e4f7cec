"""Any tree of images, described by glob patterns; or with no pattern at all: unlabelled images."""

from dataclasses import dataclass
from pathlib import Path

from stages.artifacts.writer import Summary
from stages.datasets.entries import Entry, image_files, image_stem, write_manifest
from stages.errors import InputError
from stages.settings import RunOptions, argument, option


@dataclass(frozen=True, kw_only=True)
class FolderConfig:
    root: Path = argument("folder that holds the images, however deep")
    out: Path = option("the manifest to write")
    train_normal: str = option("glob below ROOT of normal images to train on, e.g. 'ok/train/*.png'", "")
    test_normal: str = option("glob of normal images to test on", "")
    test_anomalous: str = option("glob of anomalous images to test on; the file's folder names the"
                                 " defect", "")
    masks: str = option("glob of the masks of anomalous images: paired by stem, with or without a"
                        " suffix _mask, _gt, _label or _segmentation", "")
    name: str = option("data set name; by default the folder's", "")
    category: str = option("category of all images", "all")


def run(config: FolderConfig, options: RunOptions) -> Summary:
    """Index a folder. Without any pattern every image is an unlabelled test image: such a task can be
    captioned, scored (against itself) and ranked.

    Raises:
        InputError: a pattern that matches nothing, an image matched by two patterns, masks of which
            none belongs to an image.
    """
    files = list(image_files(config.root))
    masks = _match(config.root, files, config.masks, "--masks")
    groups = {"--train-normal": (config.train_normal, "train", 0),
              "--test-normal": (config.test_normal, "test", 0),
              "--test-anomalous": (config.test_anomalous, "test", 1)}
    if not any(pattern for pattern, _, _ in groups.values()):
        entries = [Entry(f, config.category, "test", None) for f in files if f not in set(masks)]
    else:
        entries = _labelled(files, groups, masks, config)
    name = config.name or config.root.resolve().name
    parameters = {k: getattr(config, k) for k in
                  ("train_normal", "test_normal", "test_anomalous", "masks", "category")}
    return write_manifest(name, config.root, entries, config.out, parameters, options)


def _labelled(files: list[Path], groups: dict, masks: list[Path], config: FolderConfig) -> list[Entry]:
    by_stem: dict[str, list[Path]] = {}
    for mask in masks:
        by_stem.setdefault(image_stem(mask), []).append(mask)
    entries: dict[Path, tuple[str, Entry]] = {}
    for flag, (pattern, split, label) in groups.items():
        for path in _match(config.root, files, pattern, flag):
            if path in set(masks):
                continue
            if path in entries:
                raise InputError(f"{config.root / path}: matched by both {entries[path][0]} and {flag}")
            found = _own_mask(path, by_stem.get(path.stem, [])) if label else ()
            entries[path] = (flag, Entry(path, config.category, split, label, masks=found,
                                         defect=path.parent.name or "anomaly" if label else None))
    if masks and not any(e.masks for _, e in entries.values()):
        raise InputError(f"--masks {config.masks}: {len(masks)} masks, none with the stem of an anomalous"
                         " image")
    return [entry for _, entry in entries.values()]


def _match(root: Path, files: list[Path], pattern: str, flag: str) -> list[Path]:
    if not pattern:
        return []
    try:
        matched = {p.relative_to(root) for p in root.glob(pattern)}
    except (ValueError, NotImplementedError) as e:
        raise InputError(f"{flag} {pattern}: not a glob below ROOT ({e})") from None
    found = [f for f in files if f in matched]
    if not found:
        raise InputError(f"{flag} {pattern}: matches no image below {root}")
    return found


def _own_mask(image: Path, candidates: list[Path]) -> tuple[Path, ...]:
    """The mask with the image's stem; of several (defect folders that reuse numbers), the one whose
    folder has the image's folder's name. Raises InputError when that leaves more than one."""
    if len(candidates) > 1:
        candidates = [c for c in candidates if image.parent.name in c.parts]
    if len(candidates) > 1:
        raise InputError(f"{image}: several masks fit ({candidates[0]}, {candidates[1]}); make --masks"
                         " narrower")
    return tuple(candidates)
