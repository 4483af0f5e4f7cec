"""Locks of an artifact: one of its folder, held for moments, and one of every shard that is being written.

The system releases them when their process ends, however it ends. Some cluster file systems have no locks: there a
lock is taken at once (`real` is false), nobody is ever seen alive, and completion removes what was written twice.
"""

import errno
import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from stages.artifacts.files import make_folder, plain_error

FOLDER = ".lock"
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


def take(path: Path, wait: bool, make: bool = False) -> Lock | None:
    """Take a lock; None when another process holds it and `wait` is false. make: the folder, too, where it is missing.

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
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        except OSError as e:
            if e.errno not in NO_LOCKS:
                os.close(handle)
                raise plain_error(e, path) from e
            real = False
        except BaseException:
            os.close(handle)
            raise
        if _is_still(path, handle):
            return Lock(path, handle, real)
        os.close(handle)  # whoever held it removed the file: lock the one that is there now


def living(folder: Path, own: str) -> set[str]:
    """Prefixes of the other shards that a process is writing now; lock files of ended ones are removed. To be called
    with the folder's lock held, without which nobody takes a shard's."""
    alive = set()
    for file in folder.glob(f"{SHARD}part-*"):
        prefix = file.name.removeprefix(SHARD)
        if prefix == own:
            continue
        if lock := take(file, wait=False):
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
