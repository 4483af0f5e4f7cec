"""What identifies a model's weights: part of the cache key of every stage that runs one."""

import hashlib
from pathlib import Path

WEIGHTS = (".json", ".safetensors", ".txt", ".jinja", ".model")


def checkpoint_fingerprint(name: str, revision: str = "") -> str:
    """`id@commit` of a hub model; for a local directory the hash of its files' names and bytes.

    Raises:
        OSError, ValueError: a hub id that is neither cached nor to be fetched (from transformers).
    """
    if not Path(name).is_dir():
        from stages.torch_setup import prepare_torch

        prepare_torch()
        from transformers import AutoConfig

        return f"{name}@{AutoConfig.from_pretrained(name, revision=revision or None)._commit_hash}"
    digest = hashlib.sha256()
    for file in sorted(p for p in Path(name).iterdir() if p.suffix in WEIGHTS):
        digest.update(file.name.encode())
        with open(file, "rb") as f:
            while block := f.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()[:32]
