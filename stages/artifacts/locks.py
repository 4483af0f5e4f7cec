"""Locks of an artifact: one of its folder, held for moments, and one of every shard that is being written.

The system releases them when their process ends, however it ends. Some cluster file systems have no locks: there a
lock is taken at once (`real` is false), nobody is ever seen alive, and completion removes what was written twice.
"""

import errno
import fcntl
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from stages.artifacts.files import make_folder, plain_error
from stages.base.interrupts import interrupts_later

FOLDER = ".lock"
NAME = re.compile(r"\.lock(-part-\d{5}-of-\d{5})?")
PATIENCE = 5.0  # s after which a wait is said
POLL = 0.02  # s between two looks
SHARD = ".lock-"  # followed by the prefix of the shard's parts
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@dataclass(frozen=True)
class Lock:
    """A lock that this process holds."""

    path: Path
    handle: int
    real: bool

    def release(self, remove: bool = False) -> None:
        """Let go of it; remove: with its file, which whoever waits for it notices."""
        try:
            if remove and _is_still(self.path, self.handle):
                self.path.unlink(missing_ok=True)
        except OSError as e:
            raise plain_error(e, self.path) from e
        finally:
            os.close(self.handle)


def take(path: Path, make: bool = False) -> Lock | None:
    """Take a lock; None when another process holds it. make: the folder, too, where it is missing.

    Raises:
        InputError: the file may not be written, or its folder is gone.
    """
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as e:
            if make and e.errno == errno.ENOENT:
                make_folder(path.parent)
                continue
            raise plain_error(e, path) from e
        real = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        except OSError as e:
            if e.errno not in NO_LOCKS:
                os.close(handle)
                raise plain_error(e, path) from e
            real = False
        if _is_still(path, handle):
            return Lock(path, handle, real)
        os.close(handle)  # whoever held it removed the file: lock the one that is there now


@contextmanager
def tried(path: Path, keep: Callable[[], bool], make: bool = False) -> Iterator[Lock | None]:
    """A lock for moments, None when another process holds it. keep: whether the file stays when it is let go of.

    Interrupts wait for the end: a lock that were not let go of would keep this process itself waiting for ever, when it
    cleans up.

    Raises:
        InputError: as `take`.
    """
    with interrupts_later():
        lock = take(path, make)
        try:
            yield lock
        finally:
            if lock:
                lock.release(remove=not keep())


@contextmanager
def held(path: Path, keep: Callable[[], bool], make: bool = False) -> Iterator[None]:
    """As `tried`, but where another process holds the lock, it is waited for, which an interrupt ends; a long wait is
    said once, as the holder may be stopped."""
    patience = time.monotonic() + PATIENCE
    while True:
        with tried(path, keep, make) as lock:
            if lock:
                yield
                return
        if time.monotonic() > patience:
            _say_waiting(path)
            patience = float("inf")
        time.sleep(POLL)


def _say_waiting(path: Path) -> None:
    holder = ""
    with suppress(OSError):  # let go of at this moment
        holder = _holder(path.stat())
    who = f" ({holder})" if holder else ""
    print(f"adcli: waiting for another process that has {path.parent} open{who}", file=sys.stderr, flush=True)


def _holder(file: os.stat_result) -> str:
    """`process N` of this machine that holds a file's lock; empty where the system does not tell."""
    place = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    with suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if "->" not in fields and fields[1:2] == ["FLOCK"] and fields[5:6] == [place]:
                return f"process {fields[4]}"
    return ""


def living(folder: Path, own: str) -> set[str]:
    """Prefixes of the other shards that a process is writing now; lock files of ended ones are removed. To be called
    with the folder's lock held, without which nobody takes a shard's."""
    alive = set()
    for file in folder.glob(f"{SHARD}part-*"):
        prefix = file.name.removeprefix(SHARD)
        if prefix == own:
            continue
        if lock := take(file):
            lock.release(remove=True)
        else:
            alive.add(prefix)
    return alive


def _is_still(path: Path, handle: int) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    mine = os.fstat(handle)
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)
