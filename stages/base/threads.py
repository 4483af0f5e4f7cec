"""Threads that do not keep an interrupted command from ending."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def threads(workers: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """A pool whose work is finished at the end of the block. When the block ends with an exception, what was not begun
    is dropped, and nobody waits for a thread that is reading from a file system that does not answer."""
    pool = ThreadPoolExecutor(workers)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()
