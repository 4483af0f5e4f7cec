"""Which rows a shard does."""

import hashlib
import re
from collections.abc import Mapping

from stages.base.errors import InputError


def parse_shard(text: str) -> tuple[int, int]:
    """'3/16' -> (3, 16). Raises InputError for anything else; shards count from 0."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not int(match[1]) < int(match[2]):
        raise InputError(
            f"--shard {text}: expected I/N with I from 0 to N-1, for example 3/16, or slurm in a task of an array"
        )
    return int(match[1]), int(match[2])


def resolved(text: str, environment: Mapping[str, str]) -> str:
    """'slurm' -> the shard of this task of a Slurm array: 0/16 for the first of --array=1-16, of --array=0-15 and of
    --array=0-30:2; anything else as it is.

    Raises:
        InputError: in no task of an array, or its ids are not evenly spaced (--array=1,5,6), which says nothing of how
            many there are below this one.
    """
    if text != "slurm":
        return text
    found = [environment.get(f"SLURM_ARRAY_TASK_{name}", "") for name in ("ID", "MIN", "MAX", "COUNT")]
    if not all(value.isdecimal() for value in found):
        raise InputError(
            "--shard slurm: this is no task of a Slurm array (SLURM_ARRAY_TASK_ID, MIN, MAX and COUNT are not set);"
            " submit it with sbatch --array=1-16, or give I/N"
        )
    task, first, last, count = map(int, found)
    step = int(environment.get("SLURM_ARRAY_TASK_STEP") or 1)
    if (last - first) // step + 1 != count or (task - first) % step:
        raise InputError(
            f"--shard slurm: {count} tasks from {first} to {last} are not evenly spaced; submit all of them as one"
            f" range (--array=1-16); tasks that are done already end at once"
        )
    return f"{(task - first) // step}/{count}"


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
