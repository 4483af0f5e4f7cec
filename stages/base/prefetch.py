"""Work done by a bounded pool of threads, ahead of the model that waits for it."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Generic, Self, TypeVar

from stages.base.errors import ImageError

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


class Prefetch(Generic[Item, Loaded]):
    """Iterates over (item, load(item)) in the order of the items, at most `ahead` of them in advance. An ImageError of
    `load` takes its result's place; other errors are raised where their item comes.

    Decoding and resizing happen in C without the interpreter's lock, so that threads are enough. Used in a `with`
    block, which ends them.
    """

    def __init__(self, load: Callable[[Item], Loaded], items: Iterable[Item], workers: int, ahead: int) -> None:
        """workers: threads."""
        self._load, self._items, self._ahead = load, iter(items), ahead
        self._pool = ThreadPoolExecutor(workers)
        self._queue: deque[tuple[Item, Future[Loaded]]] = deque()
        self._refill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _refill(self) -> None:
        for item in islice(self._items, self._ahead - len(self._queue)):
            self._queue.append((item, self._pool.submit(self._load, item)))

    def ready(self) -> bool:
        """Whether the next one is there without waiting."""
        return bool(self._queue) and self._queue[0][1].done()

    def __iter__(self) -> Iterator[tuple[Item, Loaded | ImageError]]:
        return self

    def __next__(self) -> tuple[Item, Loaded | ImageError]:
        if not self._queue:
            raise StopIteration
        item, result = self._queue.popleft()
        self._refill()
        try:
            return item, result.result()
        except ImageError as e:
            return item, e

    def __bool__(self) -> bool:
        """False when all items have been taken."""
        return bool(self._queue)
