"""What files hold, for cache keys: a digest of their bytes, computed again only where size or modification time moved.

A file that was replaced by one of the same size with the same modification time to the nanosecond (somebody set it
back) is taken for the old one: nothing but reading every byte each time would notice.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import astuple, dataclass, field
from functools import partial
from pathlib import Path

from stages.artifacts.files import write_atomically
from stages.base.errors import InputError
from stages.base.progress import Progress
from stages.base.regular import regular
from stages.base.threads import threads

KEPT = "_files.json"  # below an artifact: states of the files that its manifest does not know
DIGEST_BYTES = 16
THREADS = 16  # network file systems answer slowly, but in parallel


@dataclass(frozen=True)
class FileState:
    """size: bytes; mtime_ns: modification time; digest: BLAKE2b of the content, 32 hexadecimal digits."""

    size: int
    mtime_ns: int
    digest: str


MOVED = FileState(-1, -1, "")  # stands for a file that is to be read


@dataclass(frozen=True)
class Files:
    """images, masks: fingerprints of their contents, for cache keys, whatever the files' places and times; unrecorded:
    absolute path -> state of the files that the manifest does not know as they are now."""

    images: str
    masks: str
    unrecorded: Mapping[str, FileState] = field(default_factory=dict)

    def keep(self, out: Path) -> None:
        """Remember the files that the manifest does not know, so that the same command reads them once. Called when
        the artifact is open."""
        keep(out, self.unrecorded)


def states_of(known: Mapping[Path, Iterable[FileState]], quiet: bool) -> dict[Path, FileState | None]:
    """The state of every file; None where there is none that can be read.

    known: paths with what earlier looks found. One is believed whose size and modification time are the file's now; a
    file without such a one is read, in threads.
    """
    with threads(THREADS) as pool:
        looks = pool.map(lambda item: _as_known(*item), known.items())
        found = dict(zip(known, looks, strict=True))
        unread = [path for path, state in found.items() if state is MOVED]
        progress = Progress("reading files for their digests", len(unread), quiet)
        try:
            for path, state in zip(unread, pool.map(read_state, unread), strict=True):
                found[path] = state
                progress.advance(state is None)
        finally:
            progress.stop()
    return found


def _as_known(path: Path, known: Iterable[FileState]) -> FileState | None:
    """What is known where it still holds, MOVED where the file is to be read, None where there is none."""
    try:
        there = path.stat()
    except (OSError, ValueError):  # ValueError: a NUL byte
        return None
    return next((s for s in known if (s.size, s.mtime_ns) == (there.st_size, there.st_mtime_ns)), MOVED)


def read_state(path: Path) -> FileState | None:
    """The file's state now; None where it cannot be read, or is no file (a pipe, a device)."""
    try:
        with regular(path).open("rb") as f:
            there = os.fstat(f.fileno())
            digest = hashlib.file_digest(f, partial(hashlib.blake2b, digest_size=DIGEST_BYTES)).hexdigest()
            return FileState(there.st_size, there.st_mtime_ns, digest)
    except OSError:
        return None


def read_kept(out: Path) -> dict[str, FileState]:
    """Absolute path -> state, as `keep` wrote them; empty where there are none, or none that can be read."""
    try:
        kept = {path: FileState(*state) for path, state in json.loads(regular(out / KEPT).read_bytes()).items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
    whole = all(isinstance(s.digest, str) and {type(s.size), type(s.mtime_ns)} == {int} for s in kept.values())
    return kept if whole else {}


def keep(out: Path, states: Mapping[str, FileState]) -> None:
    """Write states below an artifact that is open, where they differ from those there. A folder that may not be
    written keeps none: the next run then reads the files again, and nothing else changes."""
    if not states or read_kept(out) == states:
        return
    text = json.dumps({path: astuple(state) for path, state in states.items()})  # ASCII: names need not be UTF-8
    with suppress(OSError, InputError):
        write_atomically(out / KEPT, lambda f: f.write(text.encode()))
