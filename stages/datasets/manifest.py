"""Reading a manifest: one row per image, with paths that can be opened."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from stages.artifacts.digests import FileState
from stages.artifacts.reader import fingerprint, read_provenance, read_table
from stages.artifacts.record import COMPLETE, Damaged
from stages.artifacts.tables import MANIFEST
from stages.base.errors import InputError
from stages.datasets.conditions import some_without

MEAN = "mean"  # in tables, the category of rows that average over categories
SPLITS = ("train", "val", "test")
Task = tuple[str, str, str | None]  # (dataset, category, condition): one-class methods work within it


@dataclass(frozen=True)
class Image:
    """A manifest row; `file` and `masks` are paths to open. `error` when it could not be read. recorded: what `data
    index` saw of the image file, then of each mask file; empty where the manifest says nothing."""

    image_id: str
    file: Path
    dataset: str
    category: str
    condition: str | None
    split: str
    label: int | None
    defect: str | None
    masks: tuple[Path, ...]
    width: int | None
    height: int | None
    error: str | None
    recorded: tuple[FileState | None, ...] = ()

    @property
    def task(self) -> Task:
        return (self.dataset, self.category, self.condition)


@dataclass(frozen=True)
class Manifest:
    """images: in order of image_id; fingerprint: of what the table says, for cache keys."""

    images: tuple[Image, ...]
    fingerprint: str


def read_manifest(path: Path, root: Path | None = None, partial: bool = False) -> Manifest:
    """Read a manifest artifact, a directory of them, or a foreign Parquet file.

    root: overrides the root that `data index` recorded; a foreign manifest's relative paths are
    taken from here, or from the working directory. partial: as in `read_table`.

    Raises:
        InputError: see `read_table`; a split that is not train, val or test; a label that is not 0, 1 or null; no
            images; a category called `mean`; capture conditions of some images of a data set alone.
    """
    rows = read_table(path, MANIFEST, partial)
    if strange := sorted(set(rows["split"].to_pylist()) - set(SPLITS)):
        raise InputError(f"{path}: column `split` holds {strange[0]!r}; a manifest has train, val and test there")
    if other := set(rows["label"].to_pylist()) - {0, 1, None}:
        raise InputError(
            f"{path}: column `label` holds {min(other)}; expected 0 (normal), 1 (anomalous) or null (unknown)"
        )
    if MEAN in rows["category"].to_pylist():
        raise InputError(
            f"{path}: a category is called `{MEAN}`, as tables call the mean over categories; rename it and index again"
        )
    conditions = [c or None for c in rows["condition"].to_pylist()]
    if mixed := some_without(zip(rows["dataset"].to_pylist(), conditions, strict=True)):
        dataset, n, example = mixed
        raise InputError(
            f"{path}: {n} images of {dataset} have no condition, and others have one ({example}); give all of"
            " them one, or index them as two data sets"
        )
    if not len(rows) and not partial:
        raise InputError(f"{path}: an empty manifest; index the data set again (adcli data index --help)")
    roots = {} if root else _recorded_roots(path)
    images = []
    for r in rows.to_pylist():
        base = root or roots.get(r["image_id"], Path())
        masks = [m for m in r["mask_paths"] if m is not None]
        images.append(
            Image(
                r["image_id"],
                base / r["path"],
                r["dataset"],
                r["category"],
                r["condition"] or None,
                r["split"],
                r["label"],
                r["defect"],
                tuple(base / m for m in masks),
                r["width"],
                r["height"],
                r["error"] or _wrong_path(r["path"], r["mask_paths"]),
                recorded_states(r),
            )
        )
    return Manifest(tuple(images), fingerprint(rows, MANIFEST))


def _wrong_path(path: str, masks: list[str | None]) -> str | None:
    """Why the files of a foreign manifest's row cannot be opened, whatever lies there."""
    if None in masks:
        return "column `mask_paths` holds a null; the list of an image without masks is empty"
    if wrong := next((p for p in (path, *masks) if p and "\0" in p), None):
        return f"{wrong!r}: a path with a NUL byte, which no file has"
    return None


def recorded_states(row: dict) -> tuple[FileState | None, ...]:
    """What a manifest row says of its image file and of each mask file; empty where it does not."""
    sizes = (row["file_size"], *(row["mask_file_sizes"] or ()))
    times = (row["file_mtime_ns"], *(row["mask_file_mtimes_ns"] or ()))
    digests = (row["file_digest"], *(row["mask_file_digests"] or ()))
    if not len(sizes) == len(times) == len(digests) == 1 + len(row["mask_paths"]):
        return ()
    return tuple(None if None in said else FileState(*said) for said in zip(sizes, times, digests, strict=True))


def state_columns(image: FileState | None, masks: Iterable[FileState | None]) -> dict:
    """The manifest's columns of what the files are like; None = not there."""
    masks = list(masks)
    return {
        "file_size": image and image.size,
        "file_mtime_ns": image and image.mtime_ns,
        "file_digest": image and image.digest,
        "mask_file_sizes": [m and m.size for m in masks],
        "mask_file_mtimes_ns": [m and m.mtime_ns for m in masks],
        "mask_file_digests": [m and m.digest for m in masks],
    }


def _recorded_roots(path: Path) -> dict[str, Path]:
    """image_id -> the root that `data index` recorded for it; several artifacts may have several."""
    roots: dict[str, Path] = {}
    for record in read_provenance(path):
        part = read_table(Path(record["artifact"]), MANIFEST)
        root = record["notes"].get("root")
        if not isinstance(root, str) or not root or "\0" in root:
            raise Damaged(
                f"{Path(record['artifact'], COMPLETE)}: damaged (`notes` names no root); give --root, or run the"
                " command that made it with --overwrite"
            )
        roots |= dict.fromkeys(part["image_id"].to_pylist(), Path(root))
    return roots


def splits_of(splits: str) -> set[str]:
    """'train, val' -> the names. Raises InputError for another name than SPLITS."""
    names = {name.strip() for name in splits.split(",")}
    if other := names - set(SPLITS):
        raise InputError(f"--splits {sorted(other)[0]}: expected train, val, test, comma-separated")
    return names


def images_of(manifest: Manifest, splits: str, where: Path) -> dict[str, Image]:
    """image_id -> image of the comma-separated splits. Raises InputError for another name, or no image in them."""
    names = splits_of(splits)
    images = {i.image_id: i for i in manifest.images if i.split in names}
    if not images:
        raise InputError(f"{where}: no image in the splits {splits}")
    return images


def by_task(images: Iterable[Image]) -> dict[Task, list[Image]]:
    """Images of each task, tasks in order of their names."""
    tasks: dict[Task, list[Image]] = {}
    for image in images:
        tasks.setdefault(image.task, []).append(image)
    return dict(sorted(tasks.items(), key=lambda item: tuple(map(str, item[0]))))


def reference_images(task_images: Iterable[Image]) -> list[Image]:
    """The images that stand for `normal` in one task: the training images that are not labelled
    anomalous. A task without any training image and without any label (a plain folder) is its own
    reference, as outlier ranking assumes: most of its images are normal."""
    task_images = list(task_images)
    train = [i for i in task_images if i.split == "train" and i.label != 1]
    if train or any(i.label is not None for i in task_images):
        return train
    return task_images
