"""Several processes: workers that a stage starts, and those of one training run, as torchrun starts them (the first
keeps the record, the others help)."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.context import SpawnContext, SpawnProcess
from threading import RLock
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from stages.base.errors import InputError

if TYPE_CHECKING:
    from multiprocessing.pool import Pool

T = TypeVar("T")
_starting = RLock()


def worker_pool(workers: int, prepare: Callable[[], None] | None = None) -> "Pool":
    """Fresh processes (spawned, not forked: OpenCV and torch have threads) for functions of importable modules.

    workers: 0 = one per core; prepare: called first in each. Unlike `multiprocessing.Pool` they do not run the calling
    script again, so that it needs no `if __name__ == "__main__":`.
    """
    return _WithoutTheScript().Pool(workers or None, prepare)


class _Worker(SpawnProcess):
    @staticmethod
    def _Popen(process):
        """A new process is told what to import as `__main__`, unless the present one has neither file nor spec."""
        with _starting:
            script = sys.modules["__main__"]
            sys.modules["__main__"] = ModuleType("__main__")
            try:
                return SpawnProcess._Popen(process)
            finally:
                sys.modules["__main__"] = script


class _WithoutTheScript(SpawnContext):
    Process = _Worker


def rank() -> int:
    """This process's number, from 0."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def share(batch_size: int) -> int:
    """Images of each process per step.

    Raises:
        InputError: they cannot all have as many.
    """
    if batch_size % world():
        raise InputError(f"--batch-size {batch_size}: no multiple of the {world()} processes")
    return batch_size // world()


@contextmanager
def joined(device: str) -> Iterator[None]:
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


def from_first(work: Callable[[], T]) -> T:
    """What `work` gives on the first process, on every process; within `joined`, the others wait. An InputError is
    raised on all of them, so that none is left waiting for one that has ended."""
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
