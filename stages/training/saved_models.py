"""What a directory with a model is looked at for before any library is loaded and before an artifact is touched."""

import hashlib
import json
from pathlib import Path, PurePath
from typing import Any

from stages.artifacts.reader import read_table
from stages.artifacts.record import COMPLETE, MEND, PARTIAL, Damaged, find_record
from stages.artifacts.tables import ENCODERS
from stages.base.errors import InputError, first_line
from stages.base.regular import regular
from stages.training.weights import check_checkpoint, checkpoint_fingerprint

FOLDER = "_checkpoint"  # of a training's artifact; readers of Parquet pass over names with an underscore
ADAPTER_WEIGHTS = "adapter_model.safetensors"  # PEFT's
LARGEST_HEADER = 100_000_000  # bytes, safetensors' own limit


def check_model(path_or_id: str, what: str, needed: tuple[str, ...] = ("config.json",)) -> None:
    """`check_checkpoint`; of a directory also that the files are whole. A hub id passes: only the hub knows it.

    what: the option that named it, such as `--backbone`; needed: names of files that it must hold.

    Raises:
        InputError: no such directory, a file that is missing, weights that are not all there.
    """
    check_checkpoint(path_or_id, what)
    place = Path(path_or_id)
    if not place.is_dir():
        return
    for name in needed:
        if not (place / name).is_file():
            raise InputError(f"{what} {path_or_id}: holds no {name}; give a checkpoint in transformers' format")
    for file in sorted(place.glob("*.safetensors")):
        header_of(file)
    for index in sorted(place.glob("*.safetensors.index.json")):
        for name in sorted(set(read_json(index, what)["weight_map"].values())):
            if not (place / name).is_file():
                raise InputError(f"{what} {path_or_id}: {name} is missing, which {index.name} names")


def check_chat_template(path_or_id: str, what: str) -> None:
    """Raises InputError for a directory whose files hold no chat template; a hub id passes."""
    place = Path(path_or_id)
    if not place.is_dir() or any(place.glob("chat_template*")) or any(place.glob("additional_chat_templates/*")):
        return
    for name in ("tokenizer_config.json", "processor_config.json"):
        if (place / name).is_file() and read_json(place / name, what).get("chat_template"):
            return
    raise InputError(f"{what} {path_or_id}: this checkpoint has no chat template; take an instruction-tuned one")


def header_of(file: Path) -> dict:
    """Name -> {dtype, shape, data_offsets} of a safetensors file. Raises InputError for one that is not whole."""
    try:
        with regular(file).open("rb") as f:
            length = int.from_bytes(f.read(8), "little")
            if not 0 < length <= LARGEST_HEADER:
                raise ValueError("no header")
            header = json.loads(f.read(length))
        header.pop("__metadata__", None)
        if file.stat().st_size != 8 + length + max((t["data_offsets"][1] for t in header.values()), default=0):
            raise ValueError("its end is missing")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise InputError(f"{file}: not a whole safetensors file ({first_line(e)}); copy it again") from None
    return header


def trained_folder(place: Path, names: tuple[str, ...], by: str) -> Path:
    """The folder with what a training wrote: `place` itself, or FOLDER in it; names: files that are there.

    Raises:
        InputError: none there, or its weights are not whole.
    """
    for folder in (place, place / FOLDER):
        if all((folder / name).is_file() for name in names):
            for file in folder.glob("*.safetensors"):
                header_of(file)
            return folder
    raise InputError(f"--checkpoint {place}: no {names[0]} here (expected what {by} wrote)")


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


def check_merged(target: Path | None, out: Path, finished: str) -> None:
    """target: --merged; finished: the file that says it was written. Raises InputError when something else is there,
    or it is, holds or lies in --out."""
    if target is None or (target / finished).is_file():
        return
    here, other = target.resolve(), out.resolve()
    if here == other or here in other.parents or other in here.parents:
        raise InputError(f"--merged {target}: lies in --out, or --out in it; give a folder of its own")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"--merged {target}: holds something already; give a new folder")


def context_length(model_config: Any, max_length: int) -> int:
    """Longest sample, tokens; model_config: of transformers; max_length: 0 = the model's own. Raises InputError for one
    beyond the model's context."""
    room = model_config.get_text_config().max_position_embeddings
    if max_length > room:
        raise InputError(f"--max-length {max_length}: the model's context has {room} tokens")
    return max_length or room


def read_json(file: Path, what: str) -> dict:
    """Raises InputError for a file that holds no JSON object."""
    try:
        content = json.loads(regular(file).read_text())
        if isinstance(content, dict):
            return content
    except (OSError, ValueError):
        pass
    raise InputError(f"{what}: {file} cannot be read as a JSON object")
