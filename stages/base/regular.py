"""Files of users are opened when they are files: a pipe, a socket or a device may never come to an end."""

import errno
import os
from pathlib import Path
from stat import S_ISDIR, S_ISREG


class NotRegular(OSError):
    """What lies at a path is neither a file nor a folder."""


def regular(path: Path) -> Path:
    """The path itself, for whoever opens it next.

    Raises:
        NotRegular: a pipe, a socket or a device, also behind a link.
        IsADirectoryError: a folder.
        FileNotFoundError, or another OSError: as `Path.stat`.
    """
    mode = path.stat().st_mode
    if S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not S_ISREG(mode):
        raise NotRegular(errno.EINVAL, "a pipe, a socket or a device, not a file", str(path))
    return path
