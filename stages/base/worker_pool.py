"""Worker processes of a stage, on this machine."""

import signal
import sys
from collections.abc import Callable
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.pool import Pool
from threading import RLock
from types import ModuleType

_starting = RLock()


def worker_pool(workers: int, prepare: Callable[[], None] | None = None) -> Pool:
    """Fresh processes (spawned, not forked: OpenCV and torch have threads) for functions of importable modules.

    workers: 0 = one per core; prepare: called first in each. Unlike `multiprocessing.Pool` they do not run the calling
    script again, so that it needs no `if __name__ == "__main__":`.

    SIGINT is blocked in them from their start on: a terminal's Ctrl-C reaches all of its processes, and workers would
    print tracebacks. The parent ends them when it leaves its `with` block.
    """
    return _WithoutTheScript().Pool(workers or None, prepare)


class _Worker(SpawnProcess):
    @staticmethod
    def _Popen(process):
        """A new process is told what to import as `__main__`, unless the present one has neither file nor spec. It
        inherits which signals are blocked."""
        resource_tracker.ensure_running()  # when it starts, it unblocks SIGINT
        with _starting:
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            script = sys.modules["__main__"]
            sys.modules["__main__"] = ModuleType("__main__")
            try:
                return SpawnProcess._Popen(process)
            finally:
                sys.modules["__main__"] = script
                signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


class _WithoutTheScript(SpawnContext):
    Process = _Worker
