"""A row's own seed, so that batch size, shard and order change nothing."""

import hashlib


def row_seed(seed: int, *key: object) -> int:
    """Hash of (seed, key parts) in 0 .. 2**63 - 1."""
    text = "\0".join(map(str, (seed, *key)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1
