"""The embedded default engine: classical computer vision, no weights, no network."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from stages.base.errors import InputError
from stages.base.seeds import source_fingerprint
from stages.base.worker_pool import worker_pool
from stages.datasets.opening import allow_megapixels, allowed_megapixels
from stages.vlm.engine import Reply, Request, Sampling

READ_AHEAD = 64  # requests in flight: the workers never wait, memory stays flat


@dataclass(frozen=True)
class SceneEngine:
    """workers: processes that decode and describe; 1 = in this process, 0 = one per core."""

    workers: int = 0
    name: str = "scene"
    ran_on: str = "cpu"
    caveat: str = ""
    deterministic: bool = True

    @property
    def fingerprint(self) -> str:
        """Hash of the captioner's own source."""
        return source_fingerprint(Path(__file__).parent)

    def run(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Reply]:
        """See Engine.run. Deterministic, so that sampling parameters and seeds change nothing."""
        if self.workers == 1:
            yield from map(answer, requests)
            return
        requests = iter(requests)
        with worker_pool(self.workers, partial(_ready, allowed_megapixels())) as pool:
            while batch := list(islice(requests, READ_AHEAD)):
                yield from pool.imap_unordered(answer, batch, chunksize=4)


def _ready(megapixels: float) -> None:
    """Make a worker process ready: one thread each, and the parent's limit of size."""
    import cv2

    cv2.setNumThreads(1)
    allow_megapixels(megapixels)


def answer(request: Request) -> Reply:
    """Describe the request's image, or compare its two; a reply with `error` when one cannot be decoded."""
    from stages.datasets.images import load_rgb
    from stages.vlm.scene.compare import answer_about_two
    from stages.vlm.scene.describe import describe

    if len(request.images) not in (1, 2):
        return Reply(request.key, error=f"scene describes one image or compares two, not {len(request.images)}")
    try:
        images, probabilities = [load_rgb(path) for path in request.images], None
        if len(images) == 2:
            text, probabilities = answer_about_two(*images)
        else:
            text = describe(images[0], request.text)
    except InputError as e:
        return Reply(request.key, error=str(e))
    except Exception as e:  # one strange picture must not cost the other ten thousand
        return Reply(request.key, error=f"scene failed: {type(e).__name__}: {e}")
    return Reply(request.key, text, "stop", 0, len(text.split()), probabilities if request.choices else None)
