"""Several processes of one run (torchrun): the first one writes and speaks, all of them hear what it decided."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from stages.errors import InputError

T = TypeVar("T")


def rank() -> int:
    """Number of this process, from 0; 0 where there is only one."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """How many processes work on this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def joined(device: str) -> Iterator[None]:
    """Meet the other processes, if there are any, and part from them in order: a process that ends while its
    connections are open is counted as failed. device: 'cpu' (over gloo) or 'cuda' (over NCCL)."""
    if count() == 1:
        yield
        return
    from accelerate import PartialState

    state = PartialState(cpu=device == "cpu")
    try:
        yield
    finally:
        state.destroy_process_group()


def from_first(work: Callable[[], T]) -> T:
    """What `work` gives on the first process, on every process; the others wait. An InputError is raised on all of
    them, so that none is left waiting for one that has ended."""
    if count() == 1:
        return work()
    from accelerate.utils import broadcast_object_list

    outcome = None
    if rank() == 0:
        try:
            outcome = work()
        except InputError as e:
            outcome = e
    outcome, = broadcast_object_list([outcome], from_process=0)
    if isinstance(outcome, InputError):
        raise outcome
    return outcome
