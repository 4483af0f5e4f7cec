"""Which rows a shard does."""

import hashlib
import re

from stages.base.errors import InputError


def parse_shard(text: str) -> tuple[int, int]:
    """'3/16' -> (3, 16). Raises InputError for anything else; shards count from 0."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not int(match[1]) < int(match[2]):
        raise InputError(f"--shard {text}: expected I/N with I from 0 to N-1, for example 3/16")
    return int(match[1]), int(match[2])


def shard_of(keys: list[tuple], shard: int, shards: int) -> list[tuple]:
    """Every `shards`-th key in the order of the keys' hashes: the same share for the same keys,
    whatever their order, and shares that differ by one row at most."""
    if shards == 1:
        return list(keys)
    ranked = sorted(keys, key=lambda key: hashlib.blake2b(repr(key).encode()).digest())
    mine = set(ranked[shard::shards])
    return [key for key in keys if key in mine]


def prefix(shard: int, shards: int) -> str:
    """How the names of a shard's parts begin."""
    return f"part-{shard:05d}-of-{shards:05d}"


def spelled(prefix: str) -> str:
    """'part-00003-of-00016' -> '3/16'."""
    shard, shards = re.findall(r"\d+", prefix)[:2]
    return f"{int(shard)}/{int(shards)}"
