"""Ctrl-C and a scheduler's SIGTERM, kept back while something is held that has to be given back."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupts_later() -> Iterator[None]:
    """Within it SIGINT and SIGTERM wait for its end, where the first one's handler is called: for moments, in which
    `try: ... finally:` is not enough, since KeyboardInterrupt may be raised between any two lines, those of `finally`
    among them. A third one is not kept back. Signals that the process ignores, and other threads than the main one
    (which gets them), stay as they are."""
    came: list[tuple[int, FrameType | None]] = []
    waiting = True

    def note(number: int, frame: FrameType | None) -> None:
        if waiting and len(came) < 2:
            came.append((number, frame))
        else:
            before[number](number, frame)

    before: dict[int, Callable[[int, FrameType | None], object]] = {}
    if threading.current_thread() is threading.main_thread():
        found = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
        before = {s: handler for s, handler in found.items() if callable(handler)}
    for number in before:
        signal.signal(number, note)
    try:
        yield
    finally:
        waiting = False
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            number, frame = came[0]
            before[number](number, frame)
