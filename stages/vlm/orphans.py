"""Processes that a library started must not outlive a `kill -9` of ours: they would keep the GPU's memory, and
the same command, run again, would find no room.

A guard, started before the library loads, notes our descendants twice a second. When the pipe from us closes,
which the system does when this process is gone for whatever reason, it ends those that are left.
"""

import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

EVERY = 0.5  # seconds


def descendants(pid: int) -> set[int]:
    """Children of a process, their children, and so on; empty where /proc does not tell (not Linux)."""
    pids: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = {int(c) for c in task.read_text().split()}
        except OSError:  # the thread has just ended
            continue
        pids |= children.union(*(descendants(c) for c in children))
    return pids


def born(pid: int) -> str | None:
    """When a process started, in the system's ticks: a number is given again to another one some day."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None


def end_children_with_this_process() -> None:
    """Start the guard. On an ordinary end there is nothing left for it to do."""
    bare = ("-I", "-S")  # what site-packages load at a start of Python may take seconds, in which the guard is blind
    subprocess.Popen(
        [sys.executable, *bare, __file__, str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def guard(pid: int) -> None:
    """Until standard input closes, note the descendants of `pid`; then end them and theirs."""
    seen: dict[int, str | None] = {}
    while not select.select([sys.stdin], [], [], EVERY)[0]:
        seen |= {p: born(p) for p in descendants(pid) - {os.getpid()} - seen.keys()}
    left = {p for p, start in seen.items() if start and born(p) == start}
    for p in left.union(*map(descendants, left)):
        with suppress(ProcessLookupError):
            os.kill(p, signal.SIGKILL)


if __name__ == "__main__":
    guard(int(sys.argv[1]))
