"""Images decoded and fitted by a bounded pool of threads, ahead of the model that waits for them."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from itertools import islice
from pathlib import Path

import numpy as np

from stages.base.errors import ImageError
from stages.datasets.images import load_rgb
from stages.vlm.engine import Reply, Request
from stages.vlm.pixels import PixelLimits, fit

Ready = tuple[Request, list[np.ndarray]]
KEPT = 16  # images kept for the next requests: a reference image is shown with every question


class DecodedAhead:
    """Iterates over (request, images) in order, at most `ahead` requests decoded in advance. A request
    whose image cannot be read comes as a Reply with `error`.

    Decoding and resizing happen in C without the interpreter's lock, so that threads are enough.
    """

    def __init__(self, requests: Iterable[Request], limits: PixelLimits, workers: int, ahead: int) -> None:
        """workers: threads; limits: what the images are fitted to."""
        self._requests = iter(requests)
        self._pool = ThreadPoolExecutor(workers)
        self._ahead = ahead
        self._queue: deque[tuple[Request, Future]] = deque()
        self._load = lru_cache(KEPT)(lambda path: fit(load_rgb(path), limits))
        self._refill()

    def __enter__(self) -> "DecodedAhead":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _refill(self) -> None:
        for request in islice(self._requests, self._ahead - len(self._queue)):
            self._queue.append((request, self._pool.submit(self._images, request.images)))

    def _images(self, paths: tuple[Path, ...]) -> list[np.ndarray]:
        return [self._load(path) for path in paths]

    def ready(self) -> bool:
        """Whether the next one is there without waiting."""
        return bool(self._queue) and self._queue[0][1].done()

    def __iter__(self) -> Iterator[Ready | Reply]:
        return self

    def __next__(self) -> Ready | Reply:
        if not self._queue:
            raise StopIteration
        request, images = self._queue.popleft()
        self._refill()
        try:
            return request, images.result()
        except ImageError as e:
            return Reply(request.key, error=str(e))
        except Exception as e:  # one strange picture must not cost the other ten thousand
            names = ", ".join(map(str, request.images))
            return Reply(request.key, error=f"{names}: cannot be prepared ({type(e).__name__}: {e})")

    def __bool__(self) -> bool:
        """False when all requests have been taken."""
        return bool(self._queue)
