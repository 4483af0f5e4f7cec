"""What a row's result may depend on: its own seed, and the code that makes it."""

import hashlib
from pathlib import Path


def row_seed(seed: int, *key: object) -> int:
    """Hash of (seed, key parts) in 0 .. 2**63 - 1."""
    text = "\0".join(map(str, (seed, *key)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def source_fingerprint(package: Path) -> str:
    """Hash of a package's Python files, or of one file: for rule-based parts what weights are for a model, and as such
    part of the cache key."""
    files = sorted(package.glob("*.py")) if package.is_dir() else [package]
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:32]
