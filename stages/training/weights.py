"""What identifies a model's weights, part of the cache key of every stage that runs one; and whether they fit."""

import hashlib
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.base.errors import InputError, cannot_be_loaded, last_line
from stages.base.regular import regular

WEIGHTS = (".json", ".safetensors", ".txt", ".jinja", ".model")


def check_checkpoint(path_or_id: str, what: str) -> None:
    """Look at a model's directory before any library is loaded. A hub id passes: only the hub knows it.

    what: the option that named it, such as `--encoder`.

    Raises:
        InputError: it looks like a path and there is no such directory, or the directory holds no `*.safetensors`.
    """
    place = Path(path_or_id)
    if not place.is_dir():
        if place.exists():
            raise InputError(f"{what} {path_or_id}: a file; give the directory of a checkpoint")
        if _looks_like_a_path(path_or_id):
            raise InputError(f"{what} {path_or_id}: no such directory")
        return
    if not any(place.glob("*.safetensors")):
        raise InputError(f"{what} {path_or_id}: {_no_safetensors(place)}")


def _looks_like_a_path(text: str) -> bool:
    """Not `name` or `owner/name`, or with a first folder that is there."""
    first, *more = text.split("/")
    return (
        not first
        or first[0] in ".~"
        or "\\" in text
        or len(more) > 1
        or more == [""]
        or (bool(more) and Path(first).is_dir())
    )


def _no_safetensors(place: Path) -> str:
    old = sorted(p.name for p in place.glob("*.bin") if p.name != "training_args.bin")
    if not old:
        return "holds no *.safetensors; give the directory of a checkpoint"
    if old != ["pytorch_model.bin"]:
        return (
            f"holds weights in {old[0]}, but no *.safetensors, which alone are read; load it once with transformers"
            " and write it with save_pretrained"
        )
    source, target = str(place / old[0]), str(place / "model.safetensors")
    code = (
        f"import torch; from safetensors.torch import save_file; save_file({{k: v.clone() for k, v in"
        f" torch.load({source!r}, weights_only=True).items()}}, {target!r}, {{'format': 'pt'}})"
    )
    return (
        "holds weights in pytorch_model.bin, but no *.safetensors, which alone are read; convert them once:"
        f" python -c {shlex.quote(code)}"
    )


def checkpoint_fingerprint(name: str, revision: str = "") -> str:
    """`id@commit` of a hub model; for a local directory the hash of its files' names and bytes.

    Raises:
        OSError, ValueError: a hub id that is neither cached nor to be fetched (from transformers).
    """
    if not Path(name).is_dir():
        from stages.training.torch_setup import prepare_torch

        prepare_torch()
        from transformers import AutoConfig

        return f"{name}@{AutoConfig.from_pretrained(name, revision=revision or None)._commit_hash}"
    digest = hashlib.sha256()
    for file in sorted(p for p in Path(name).iterdir() if p.suffix in WEIGHTS):
        digest.update(file.name.encode())
        with regular(file).open("rb") as f:
            while block := f.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()[:32]


def fingerprint_of(option: str, name: str, revision: str = "") -> str:
    """`checkpoint_fingerprint` of what a user named. Raises InputError that names the option: it cannot be loaded."""
    try:
        return checkpoint_fingerprint(name, revision)
    except (OSError, ValueError) as e:
        raise cannot_be_loaded(f"{option} {name}", e) from e


@contextmanager
def must_fit(folder: Path, model: str) -> Iterator[None]:
    """Around the loading of a checkpoint's tensors into the model that they were trained with. model: in words.

    Raises:
        InputError: other shapes or names.
    """
    try:
        yield
    except (RuntimeError, OSError, ValueError) as e:
        raise InputError(f"{folder}: does not fit {model} ({last_line(e)})") from e
