"""Several processes of one run (torchrun): the first one writes and speaks, all of them hear what it decided."""

import os
from collections.abc import Callable
from typing import TypeVar

from stages.errors import InputError

T = TypeVar("T")


def rank() -> int:
    """Number of this process, from 0; 0 where there is only one."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """How many processes work on this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def join(device: str) -> None:
    """Meet the other processes, if there are any. device: 'cpu' (over gloo) or 'cuda' (over NCCL)."""
    if count() > 1:
        from accelerate import PartialState

        PartialState(cpu=device == "cpu")


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
