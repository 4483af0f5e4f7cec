"""Images of requests decoded and fitted by threads, ahead of the model that waits for them."""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from stages.base.errors import ImageError
from stages.base.interrupts import finishing
from stages.base.prefetch import Prefetch
from stages.datasets.images import load_rgb
from stages.vlm.engine import Reply, Request
from stages.vlm.pixels import PixelLimits, fit

Ready = tuple[Request, list[np.ndarray]]
KEPT = 16  # images kept for the next requests: a reference image is shown with every question


class RequestPrefetch:
    """Iterates over (request, images) in order, at most `ahead` requests decoded in advance. A request whose image
    cannot be read comes as a Reply with `error`. Used in a `with` block, within which the first SIGTERM ends the
    iteration: what the engine has taken is answered, and then KeyboardInterrupt raised."""

    def __init__(self, requests: Iterable[Request], limits: PixelLimits, workers: int, ahead: int) -> None:
        """workers: threads; limits: what the images are fitted to."""
        load = lru_cache(KEPT)(lambda path: fit(load_rgb(path), limits))

        def decoded(request: Request) -> list[np.ndarray] | Reply:
            try:
                return [load(path) for path in request.images]
            except ImageError as e:
                return Reply(request.key, error=str(e))
            except Exception as e:  # one strange picture must not cost the other ten thousand
                names = ", ".join(map(str, request.images))
                return Reply(request.key, error=f"{names}: cannot be prepared ({type(e).__name__}: {e})")

        self._prefetch = Prefetch(decoded, requests, workers, ahead)

    def __enter__(self) -> "RequestPrefetch":
        self._finishing = finishing()
        self.end_asked = self._finishing.__enter__()
        return self

    def __exit__(self, *error: Any) -> bool | None:
        self._prefetch.__exit__()
        return self._finishing.__exit__(*error)

    def ready(self) -> bool:
        """Whether the next one is there without waiting."""
        return self._prefetch.ready()

    def __iter__(self) -> Iterator[Ready | Reply]:
        return self

    def __next__(self) -> Ready | Reply:
        if self.end_asked():
            raise StopIteration
        request, decoded = next(self._prefetch)
        return decoded if isinstance(decoded, Reply) else (request, decoded)

    def __bool__(self) -> bool:
        """False when all requests have been taken that will be."""
        return bool(self._prefetch) and not self.end_asked()
