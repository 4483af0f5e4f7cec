"""VisA, as published (raw) or as its MVTec-like copy (1cls).

raw: `<category>/Data/Images/{Normal,Anomaly}/NNN.JPG`, masks `<category>/Data/Masks/Anomaly/NNN.png` whose
values number the kinds of defects, split by `split_csv/1cls.csv`, kinds of defects named in
`<category>/image_anno.csv`.
1cls: `<category>/{train/good,test/good,test/bad,ground_truth/bad}`, masks in 0/255.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from stages.artifacts.writer import Summary
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.base.regular import regular
from stages.datasets.config import VisaConfig
from stages.datasets.entries import Entry, image_files, write_manifest
from stages.datasets.mvtec import entries_of, require_whole_categories

LAYOUTS = {"raw": "<category>/Data/Images", "1cls": "<category>/train/good"}
SPLIT_CSV = Path("split_csv", "1cls.csv")
ANNOTATIONS = ("image_anno.csv", "image_annot.csv")  # the file's name, and the name in its README


def run(config: VisaConfig, options: RunOptions) -> Summary:
    """Index VisA. An image that the split names and is not there becomes a row with `error`; a missing mask is said.

    Raises:
        InputError: neither layout is there, or both; the split is missing, unreadable, or does not list
            every image; a category lacks normal training images or test images.
    """
    files = list(image_files(config.root))
    layout = _layout(files, config)
    if layout == "raw":
        entries = raw_entries(config.root, files, config.split_csv)
    else:
        if config.split_csv:
            raise InputError(
                f"--split-csv {config.split_csv}: the folders of the 1cls layout are the split; leave the option out"
            )
        entries = entries_of(_one_class(files))
    require_whole_categories(config.root, entries)
    return write_manifest("visa", config.root, entries, config.out, {"layout": layout}, options)


def _layout(files: list[Path], config: VisaConfig) -> str:
    if config.layout not in ("auto", *LAYOUTS):
        raise InputError(f"--layout {config.layout!r}: none of auto, {', '.join(LAYOUTS)}")
    asked = [config.layout] if config.layout != "auto" else list(LAYOUTS)
    is_there = {"raw": any(map(_is_photo, files)), "1cls": bool(entries_of(_one_class(files)))}
    found = [layout for layout in asked if is_there[layout]]
    if not found:
        where = " or ".join(f"{LAYOUTS[layout]} ({layout})" for layout in asked)
        raise InputError(f"{config.root}: no images below {where}; give the folder that holds the categories")
    if len(found) > 1:
        raise InputError(f"{config.root}: holds both layouts; give --layout raw or --layout 1cls")
    return found[0]


def _one_class(files: list[Path]) -> list[Path]:
    """Without VisA_pytorch/2cls_*, which repeats the same images under another split."""
    return [f for f in files if not any(p.lower().startswith("2cls") for p in f.parts[:-1])]


def _is_photo(path: Path) -> bool:
    """candle/Data/Images/Normal/0000.JPG"""
    return len(path.parts) > 4 and [p.lower() for p in path.parts[-4:-2]] == ["data", "images"]


def raw_entries(root: Path, files: list[Path], split_csv: Path | None) -> list[Entry]:
    """The images of the raw layout as the split lists them; categories that are not there are passed
    over. files: relative to `root`. Raises InputError as `run` does."""
    photos = [f for f in files if _is_photo(f)]
    places = sorted({f.parents[4] for f in photos})
    if len(places) > 1:
        raise InputError(f"{root}: categories lie in {places[0]} and in {places[1]}; give one of these folders")
    base = places[0]
    split = split_csv or root / base / SPLIT_CSV
    spelled = {f.as_posix().lower(): f for f in files}  # the CSV writes .JPG, a copy may have .jpg
    defects = {f: _defects(root / f) for f in {p.parents[3] for p in photos}}
    entries = []
    for row in _split_rows(split):
        image = base / row["image"]
        image = spelled.get(image.as_posix().lower(), image)
        if base / row["object"] not in defects:
            continue
        if row["label"] == "normal":
            entries.append(Entry(image, row["object"], row["split"], 0))
            continue
        mask = base / (row["mask"] or f"{row['object']}/Data/Masks/Anomaly/{image.stem}.png")
        mask = spelled.get(mask.as_posix().lower(), mask)
        kind = defects[base / row["object"]].get(image.stem.lower(), "anomaly")
        entries.append(Entry(image, row["object"], row["split"], 1, defect=kind, masks=(mask,)))
    _require_listed(photos, entries, split)
    return entries


def _split_rows(path: Path) -> Iterator[dict]:
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; it comes with VisA and says which images are train and which"
            " are test (--split-csv names another place)"
        )
    for number, row in enumerate(_csv_rows(path, ("object", "split", "label", "image", "mask")), 2):
        if row["split"] not in ("train", "test") or row["label"] not in ("normal", "anomaly"):
            raise InputError(
                f"{path}: line {number} says split {row['split']!r}, label {row['label']!r}; expected"
                " train or test, normal or anomaly"
            )
        yield row


def _csv_rows(path: Path, columns: tuple[str, ...]) -> Iterator[dict]:
    with regular(path).open(newline="", encoding="utf-8-sig", errors="replace") as f:
        reader = csv.DictReader(f)
        for name in columns:
            if name not in (reader.fieldnames or ()):
                raise InputError(f"{path}: no column `{name}`; expected {','.join(columns)}")
        for row in reader:
            yield {name: (row[name] or "").strip() for name in columns}


def _defects(folder: Path) -> dict[str, str]:
    """Stem of an anomalous image -> its kinds of defects, 'bent,melt'; empty without annotations."""
    path = next((folder / name for name in ANNOTATIONS if (folder / name).is_file()), None)
    if path is None:
        return {}
    kinds = {}
    for row in _csv_rows(path, ("image", "label")):
        names = [n.strip() for n in row["label"].split(",") if n.strip()]
        if names and names != ["normal"]:  # normal images count from 0000 in their own folder
            kinds[Path(row["image"]).stem.lower()] = ",".join(names)
    return kinds


def _require_listed(photos: list[Path], entries: list[Entry], split: Path) -> None:
    unlisted = sorted(set(photos) - {e.path for e in entries})
    if unlisted:
        raise InputError(
            f"{split}: does not list {len(unlisted)} of the {len(photos)} images, first {unlisted[0]}"
            " (--split-csv names another split)"
        )
