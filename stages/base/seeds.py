"""What a row's result may depend on: its own seed, and the code that makes it."""

import hashlib
from pathlib import Path
from types import ModuleType


def row_seed(seed: int, *key: object) -> int:
    """Hash of (seed, key parts) in 0 .. 2**63 - 1."""
    text = "\0".join(map(str, (seed, *key)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def source_of(module: ModuleType) -> Path:
    """The file of a module, for `source_fingerprint`."""
    assert module.__file__, f"{module.__name__} has no file"
    return Path(module.__file__)


def source_fingerprint(*places: Path) -> str:
    """Hash of Python files, those of a package where its folder is given: for rule-based parts what weights are for a
    model, and as such part of the cache key. Files count in the order of `places`."""
    files = [file for place in places for file in (sorted(place.glob("*.py")) if place.is_dir() else [place])]
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:32]
