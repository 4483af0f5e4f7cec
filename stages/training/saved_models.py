"""What a directory with a model is looked at for before any library is loaded and before an artifact is touched.
Loads without pyarrow: the configurations of the methods need it."""

import json
from pathlib import Path
from typing import Any

from stages.base.errors import InputError, first_line
from stages.base.regular import regular
from stages.training.weights import check_checkpoint

FOLDER = "_checkpoint"  # of a training's artifact; readers of Parquet pass over names with an underscore
ADAPTER_WEIGHTS = "adapter_model.safetensors"  # PEFT's
MERGED_FROM = "merged_from.json"  # of a merged copy: the artifact and the weights that it was made of
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


def check_merged(target: Path | None, out: Path) -> None:
    """target: --merged. Raises InputError when something else than a copy of what --out trained is there, or it is,
    holds or lies in --out."""
    if target is None:
        return
    here, other = target.resolve(), out.resolve()
    if here == other or here in other.parents or other in here.parents:
        raise InputError(f"--merged {target}: lies in --out, or --out in it; give a folder of its own")
    if (target / MERGED_FROM).is_file():
        whose = read_json(target / MERGED_FROM, "--merged").get("out")
        if whose != str(other):
            raise InputError(f"--merged {target}: holds the copy of what {whose} trained; give a new folder")
    elif target.exists() and (not target.is_dir() or any(target.iterdir())):
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
