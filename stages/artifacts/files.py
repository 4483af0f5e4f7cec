"""Files that are either wholly there or not there at all."""

import errno
import glob
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from stages.base.errors import InputError

TEMPORARY = ".tmp-"  # what a process has in the making, followed by its number
LONGEST_NAME = 100  # bytes of a name that stands in that of its temporary file; file systems take 255 in all
OWN_TEMPORARY = re.compile(r"\.tmp-(\d+-.+|_checkpoint)", re.DOTALL)  # with a shard in place of a name, too
OWN_FOLDERS = ("_encoders", "_checkpoint", "_training", "_tensorboard", "_masks")  # that stages make beside a table


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write under a temporary name, flush to disk, rename over `path`, flush the folder.

    After a crash at any instant `path` holds the old content or the new, never a part of it.

    Raises:
        InputError: the disk is full, the quota is used up, or the folder is gone or may not be written.
    """
    put_in_place(write_temporary(path, write), path)


def write_alone(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """`write_atomically` of a file that one process at a time makes: what killed ones have left of it is removed."""
    for left in path.parent.glob(f"{TEMPORARY}*-{glob.escape(short(path.name))}"):
        if OWN_TEMPORARY.fullmatch(left.name):
            _remove(left)
    write_atomically(path, write)


def write_bytes(path: Path, content: bytes) -> None:
    """`write_atomically` of what is in memory already."""
    write_atomically(path, lambda f: f.write(content))


def short(name: str) -> str:
    """What stands for a file's name in that of its temporary file: the name, or a digest of a long one, so that every
    name that a file may have can be written."""
    raw = os.fsencode(name)
    return name if len(raw) <= LONGEST_NAME else "~" + hashlib.blake2b(raw, digest_size=16).hexdigest()


def write_temporary(path: Path, write: Callable[[BinaryIO], Any]) -> Path:
    """The first half of `write_atomically`: the content under a temporary name beside `path`, flushed to disk."""
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{short(path.name)}")
    try:
        with temporary.open("wb") as f:
            write(f)
            f.flush()
            os.fsync(f.fileno())
    except OSError as e:
        _remove(temporary)
        raise plain_error(e, path) from e
    except BaseException:
        _remove(temporary)
        raise
    return temporary


def put_in_place(temporary: Path, path: Path) -> None:
    """The second half: the rename, and the flush without which a power cut could undo it."""
    try:
        temporary.replace(path)
        flush_folder(path.parent)
    except OSError as e:
        _remove(temporary)
        raise plain_error(e, path) from e
    except BaseException:
        _remove(temporary)
        raise


def write_json(path: Path, value: dict) -> None:
    """`write_atomically` of indented JSON. Text that is no valid Unicode is escaped."""
    text = json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n"
    write_atomically(path, lambda f: f.write(text.encode(errors="backslashreplace")))


def make_folder(path: Path) -> None:
    """`mkdir -p`. Raises InputError when a file is in the way or the place may not be written."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise InputError(f"{path}: a file is there already; give another place") from None
    except NotADirectoryError:
        raise InputError(f"{path}: a part of this path is a file, not a folder") from None
    except OSError as e:
        raise plain_error(e, path) from e


def flush_files(folder: Path) -> None:
    """What lies in a folder, at any depth, is on disk."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as f:
                os.fsync(f.fileno())


def flush_folder(folder: Path) -> None:
    """What was renamed in or removed from a folder stays so after a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def temporaries(folder: Path) -> Iterator[Path]:
    """Everything in an artifact's folder with a temporary name of adcli's, and in the folders that adcli makes in it;
    folders of artifacts of their own are left out."""
    for base, folders, files in os.walk(folder):
        if base != str(folder) and any(name.startswith("_adcli.") for name in files):
            folders.clear()
            continue
        yield from (Path(base, name) for name in (*folders, *files) if OWN_TEMPORARY.fullmatch(name))
        folders[:] = [name for name in folders if not OWN_TEMPORARY.fullmatch(name)]
        if base == str(folder):
            folders[:] = [name for name in folders if name in OWN_FOLDERS]


def remove_tree(path: Path) -> None:
    """Remove a file or a folder, whether it is there or not."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def plain_error(e: OSError, path: Path) -> InputError:
    """What the system says of `path`, with the way out."""
    if e.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(
            f"{path}: the disk is full; free some space and run the same command again (what is finished is kept)"
        )
    if e.errno == errno.EFBIG:
        return InputError(
            f"{path}: larger than a file may be here (`ulimit -f` shows the limit); raise it, and run the same command"
            " again"
        )
    if e.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return InputError(f"{path}: may not be written ({e.strerror}); give another place")
    if e.errno in (errno.ENOENT, errno.ESTALE):
        return InputError(f"{path}: its folder is gone, something removed it meanwhile; run the same command again")
    return InputError(f"{path}: {e.strerror or e}; run the same command again, or give another place")


def _remove(temporary: Path) -> None:
    with suppress(OSError):
        temporary.unlink()
