"""SIGKILL before the n-th file operation of a piece of work, for every n, in real processes.

    def work(folder):                                   # the command; run again it must go on from where it was killed
        run(TrainEncoderConfig(..., out=folder / "e"), RunOptions(quiet=True))

    def read(folder):                                   # what a reader sees: anything that == compares
        return read_table(folder / "e", ENCODERS).drop_columns("seconds"), weights_below(folder)

    points = killed_at_every_point(work, read, tmp_path)

The children are forked from the test's own process, where everything is imported already, so that a point costs
milliseconds. Import before what `work` loads, and start no threads: a process that has trained a network has some, and
training in one that is forked from it then waits for ever. So train in children alone.
"""

import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.listing import listing
from stages.artifacts.record import source_commit
from stages.base.errors import InputError

CHANGES = (
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.utime",
    "shutil.rmtree",
)
MOST = 2000  # points; a count that never ends is a defect of the test


def killed_at_every_point(
    work: Callable[[Path], Any],
    read: Callable[[Path], Any],
    tmp: Path,
    start: Callable[[Path], Any] | None = None,
    step: int = 1,
    ignore: str = "$.",
) -> int:
    """Kill `work(folder)` before its n-th file operation below `folder`, n = 1, 1 + step, ... until it gets to its end.

    After every kill `read(folder)` must raise InputError or say what it said before the work or what it says after
    undisturbed work; then the same work again must end with what undisturbed work ends with, and leave the same files
    behind (names of parts apart, which say how often a writer began).

    work: may raise InputError nowhere but where undisturbed work does. start: makes what is in the folder before
    (default: nothing, the folder is empty). step: 1 all the same where ADCLI_EVERY_POINT is set. ignore: regular
    expression of names that do not count as left behind.
    Returns how many points were tried.

    Raises:
        AssertionError: naming the point.
    """
    source_commit()  # asked once here, not in every child
    step = 1 if os.environ.get("ADCLI_EVERY_POINT") else step
    start = start or (lambda folder: None)
    undisturbed, before = tmp / "undisturbed", tmp / "before"
    before.mkdir(parents=True)
    start(before)
    accepted = [_read(read, before)]
    shutil.copytree(before, undisturbed)
    assert in_child(work, undisturbed) == 0, "undisturbed work failed"
    expected, names = read(undisturbed), listing(undisturbed, ignore)
    for n in range(1, MOST, step):
        folder = tmp / f"killed-{n}"
        shutil.copytree(before, folder)
        code = in_child(work, folder, kill_before=n)
        assert code in (0, -signal.SIGKILL), f"point {n}: the work ended with {code}"
        if code == 0:  # fewer than n operations
            shutil.rmtree(folder)
            return (n - 1) // step
        seen = _read(read, folder)
        assert seen is None or seen == expected or seen in accepted, f"point {n}: a reader sees {seen}"
        assert in_child(work, folder) == 0, f"point {n}: the same work failed after the kill"
        assert read(folder) == expected, f"point {n}: another outcome after the kill: {read(folder)}"
        left = listing(folder, ignore)
        assert left == names, f"point {n}: other files than undisturbed: {left ^ names}"
        shutil.rmtree(folder)
    raise AssertionError(f"more than {MOST} file operations")


def in_child(work: Callable[[Path], Any], folder: Path, kill_before: int = 0) -> int:
    """Run `work(folder)` in a forked child; kill_before: SIGKILL before this file operation below `folder`, 0 = never.

    Returns 0, or 1 after an exception (its traceback goes to stderr), or minus the signal's number.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.fsync = lambda handle: None  # slow, and only a power cut would show the difference
            if kill_before:
                _kill_before(kill_before, folder.resolve())
            work(folder)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _read(read: Callable[[Path], Any], folder: Path) -> Any:
    """What a reader sees, None where it refuses."""
    try:
        return read(folder)
    except InputError:
        return None


def _kill_before(n: int, folder: Path) -> None:
    """From now on this process counts what it does to files below `folder` (audit events, and os.fsync, which has
    none) and kills itself before the n-th. Opening for reading and locking change nothing and are not counted."""
    counted = 0

    def count() -> None:
        nonlocal counted
        counted += 1
        if counted == n:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple) -> None:
        if event == "open":
            path, mode, flags = arguments
            writing = any(c in mode for c in "wax+") if isinstance(mode, str) else flags & (os.O_WRONLY | os.O_RDWR)
            if writing and below(path):
                count()
        elif event in CHANGES and any(below(a) for a in arguments[:2]):
            count()

    def below(path: Any) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return False
        path = os.fsdecode(path)
        # a relative name is relative to an open folder: shutil.rmtree at work
        return path.startswith(str(folder)) or (not path.startswith("/") and "/" not in path)

    os.fsync = lambda handle: count()
    sys.addaudithook(hook)
