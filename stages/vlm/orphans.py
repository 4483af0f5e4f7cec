"""Processes that a library started must not outlive a `kill -9` of ours: they would keep the GPU's memory, and
the same command, run again, would find no room.
"""

import subprocess
import sys
from pathlib import Path

# Reads until the pipe closes, which the system does when its only writer, our process, is gone for whatever
# reason; then ends those that are left.
GUARD = """
import os, signal, sys
sys.stdin.read()
for pid in map(int, sys.argv[1:]):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""


def descendants(pid: int) -> set[int]:
    """Children of a process, their children, and so on; empty where /proc does not tell (not Linux)."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = {int(c) for c in task.read_text().split()}
        except OSError:                        # the thread has just ended
            continue
        found |= children.union(*(descendants(c) for c in children))
    return found


def end_with_this_process(pids: set[int]) -> None:
    """Start a small process that kills `pids` once this process is no more. On an ordinary end they are gone
    by then."""
    if pids:
        subprocess.Popen([sys.executable, "-c", GUARD, *map(str, sorted(pids))], stdin=subprocess.PIPE,
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
