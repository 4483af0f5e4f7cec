"""Files that are either wholly there or not there at all."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from stages.errors import InputError


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write under a temporary name, flush to disk, rename over `path`, flush the folder.

    After a crash at any instant `path` holds the old content or the new, never a part of it.

    Raises:
        InputError: the disk is full, the quota is used up, or the folder may not be written.
    """
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        with open(temporary, "wb") as f:
            write(f)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except OSError as e:
        raise _said_plainly(e, path) from e
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: dict) -> None:
    """`write_atomically` of indented JSON."""
    text = json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n"
    write_atomically(path, lambda f: f.write(text.encode()))


def make_folder(path: Path) -> None:
    """`mkdir -p`. Raises InputError when a file is in the way or the place may not be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise InputError(f"{path}: a file is there already; give another --out") from None
    except NotADirectoryError:
        raise InputError(f"{path}: a part of this path is a file, not a folder") from None
    except OSError as e:
        raise _said_plainly(e, path) from e


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)      # the rename itself must survive a power cut
    finally:
        os.close(handle)


def _said_plainly(e: OSError, path: Path) -> Exception:
    if e.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(f"{path}: the disk is full; free some space and run the same command again"
                          " (what is finished is kept)")
    if e.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return InputError(f"{path}: may not be written ({e.strerror}); give another --out")
    return e
