"""Checkpoints that a training wrote, and the rows of ENCODERS that name them: whole, and still the same."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path, PurePath

from stages.artifacts.files import flush_files, write_json
from stages.artifacts.reader import read_table
from stages.artifacts.record import COMPLETE, MEND, PARTIAL, Damaged, find_record
from stages.artifacts.tables import ENCODERS
from stages.base.errors import InputError
from stages.training.saved_models import MERGED_FROM, check_merged, header_of, read_json
from stages.training.weights import checkpoint_fingerprint


def lost_checkpoints(out: Path, key: str, overwrite: bool) -> frozenset[tuple]:
    """Keys of the rows in `out` whose checkpoint is gone or damaged, to be trained again.

    key: of the training that is to be run; rows of another one are replaced as a whole. overwrite: also compare the
    digests, which reads every byte.

    Raises:
        Damaged: there are such rows, and `overwrite` is false; names the first.
    """
    try:
        found = find_record(out)
        if not found or found[0]["key"] != key:
            return frozenset()
        rows = read_table(out, ENCODERS, partial=True).to_pylist()
    except InputError:  # said when the artifact is opened
        return frozenset()
    faults = {tuple(r[k] for k in ENCODERS.key): _fault(out, r, overwrite) for r in rows if r["path"]}
    lost = {task: fault for task, fault in faults.items() if fault}
    if lost and not overwrite:
        raise Damaged(f"{next(iter(lost.values()))}; the same command with --overwrite trains it again")
    return frozenset(lost)


def _fault(out: Path, row: dict, digests: bool) -> str | None:
    """What is wrong with the checkpoint that a row names; None when it is whole."""
    place = out / row["path"]
    if PurePath(row["path"]).is_absolute() or ".." in PurePath(row["path"]).parts:
        return f"{place}: a checkpoint outside of the artifact"
    try:
        weights = sorted(place.rglob("*.safetensors"))
        if not place.is_dir() or not weights:
            return f"{place}: this checkpoint is gone"
        for file in weights:
            header_of(file)
        if digests:
            require_weights(place, row)
    except InputError as e:
        return str(e).rpartition(";")[0]  # the way out is another here
    return None


def folder_fingerprint(place: Path) -> str:
    """`checkpoint_fingerprint` of a directory together with the directories of weights below it (LoRA's, a base)."""
    below = sorted({file.parent for file in place.rglob("*.safetensors")} - {place})
    own = checkpoint_fingerprint(str(place))
    if not below:
        return own
    said = [own, *(f"{p.relative_to(place).as_posix()} {checkpoint_fingerprint(str(p))}" for p in below)]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:32]


def require_weights(place: Path, row: dict) -> str:
    """The fingerprint of a checkpoint that an ENCODERS row names. Raises Damaged when the row has another one's."""
    found = folder_fingerprint(place)
    if row["weights"] not in (None, found):
        raise Damaged(f"{place}: these weights are not those that the training wrote; {MEND}")
    return found


def trained_fingerprint(folder: Path) -> str:
    """`folder_fingerprint` of what a training wrote. Where it lies in its artifact, Damaged is raised when the training
    wrote something else."""
    if any((folder.parent / name).is_file() for name in (COMPLETE, PARTIAL)):
        for row in read_table(folder.parent, ENCODERS).to_pylist():
            if row["path"] == folder.name:
                return require_weights(folder, row)
    return folder_fingerprint(folder)


def write_copy(checkpoint: Path, out: Path, target: Path, write: Callable[[Path], None]) -> None:
    """A merged copy of what `out` trained in `target`: wholly there or not at all; one of other weights, from before it
    was trained anew, is replaced. checkpoint: the folder; write: puts the copy into a new folder.

    Raises:
        InputError: something else is at `target`.
    """
    check_merged(target, out)
    made_of = {"out": str(out.resolve()), "weights": trained_fingerprint(checkpoint)}
    if (target / MERGED_FROM).is_file() and read_json(target / MERGED_FROM, "--merged") == made_of:
        return
    made = target.with_name(f".tmp-{target.name}")
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    write(made)
    write_json(made / MERGED_FROM, made_of)
    flush_files(made)
    shutil.rmtree(target, ignore_errors=True)
    made.rename(target)
