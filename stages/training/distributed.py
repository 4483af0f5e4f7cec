"""The processes of one training run, as torchrun starts them: the main one keeps the record, the others help."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from stages.artifacts.shards import parse_shard
from stages.base.config import RunOptions
from stages.base.errors import InputError

T = TypeVar("T")


def rank() -> int:
    """This process's number, from 0."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Number of this process on its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def world() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def world_here() -> int:
    """How many of them this machine has."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def per_process_batch(batch_size: int) -> int:
    """Samples of each process per step; batch_size: of all processes together.

    Raises:
        InputError: they cannot all have as many.
    """
    if batch_size % world():
        raise InputError(f"--batch-size {batch_size}: no multiple of the {world()} processes")
    return batch_size // world()


def accumulation_steps(batch_size: int, micro_batch: int) -> int:
    """Micro-batches of a process whose gradients are added up to one step. Raises InputError where they do not add up
    to the batch."""
    own = per_process_batch(batch_size)
    if own % micro_batch:
        raise InputError(f"--batch-size {batch_size}: {own} per process are no multiple of --micro-batch {micro_batch}")
    return own // micro_batch


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """Meet the other processes, if there are any, and part from them in order: a process that ends while its
    connections are open can be counted as failed. device: 'cpu' (over gloo) or 'cuda' (over NCCL)."""
    if world() == 1:
        yield
        return
    from accelerate import PartialState

    state = PartialState(cpu=device == "cpu")
    try:
        yield
    finally:
        state.destroy_process_group()


def broadcast_from_main(work: Callable[[], T]) -> T:
    """What `work` returns on the main process, on every process; within `process_group`, the others wait. An InputError
    is raised on all of them, so that none is left waiting for one that has ended."""
    if world() == 1:
        return work()
    from accelerate.utils import broadcast_object_list

    outcome = None
    if rank() == 0:
        try:
            outcome = work()
        except InputError as e:
            outcome = e
    (outcome,) = broadcast_object_list([outcome], from_process=0)
    if isinstance(outcome, InputError):
        raise outcome
    return outcome


def spread(options: RunOptions) -> RunOptions:
    """For a stage whose rows are trainings of their own: under torchrun each process does its own share of the shard,
    on its own GPU, and the first one shows its progress. From here on it is alone, as torch and its libraries see it.
    To be called before anything asks for a GPU."""
    if world() == 1:
        return options
    shard, shards = parse_shard(options.shard)
    mine = f"{shard * world() + rank()}/{shards * world()}"
    here, quiet = local_rank(), options.quiet or rank() > 0
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    os.environ["CUDA_VISIBLE_DEVICES"] = gpus[here % len(gpus)] if gpus != [""] else str(here)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)
    return replace(options, shard=mine, quiet=quiet)
