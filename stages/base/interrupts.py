"""Ctrl-C and a scheduler's SIGTERM, kept back while something is held that has to be given back."""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], object]
SIGNALS = (signal.SIGINT, signal.SIGTERM)
TOGETHER = 0.5  # s within which a second signal is the first one's copy: make, timeout, torchrun and the trap of a
#                 batch script pass on what a terminal or a scheduler has sent already


def handlers() -> dict[int, Any]:
    """SIGINT and SIGTERM -> what answers them now, of those that may be answered otherwise: signals that the process
    ignores stay as they are, and so does everything in other threads than the main one, which gets them."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    found = {s: signal.getsignal(s) for s in SIGNALS}
    return {s: handler for s, handler in found.items() if handler not in (signal.SIG_IGN, None)}


@contextmanager
def answered_by(handler: Handler, before: Mapping[int, Any]) -> Iterator[None]:
    """Within it `handler` answers the signals of `before`, afterwards what is named there."""
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextmanager
def interrupts_later() -> Iterator[None]:
    """Within it SIGINT and SIGTERM wait for its end, where the first one's handler is called: for moments, in which
    `try: ... finally:` is not enough, since KeyboardInterrupt may be raised between any two lines, those of `finally`
    among them. A third one is not kept back. A signal that ends the process without asking it still does."""
    came: list[tuple[int, FrameType | None]] = []
    waiting = True

    def note(number: int, frame: FrameType | None) -> None:
        if waiting and len(came) < 2:
            came.append((number, frame))
        else:
            before[number](number, frame)

    before = {s: handler for s, handler in handlers().items() if callable(handler)}
    try:
        with answered_by(note, before):
            try:
                yield
            finally:
                waiting = False
    finally:
        if came:
            number, frame = came[0]
            before[number](number, frame)


@contextmanager
def finishing() -> Iterator[Callable[[], bool]]:
    """Within it the first SIGTERM, which a scheduler sends some time before the end, waits for the work in hand: the
    function given tells whether one came, and who hands out work hands out no more. KeyboardInterrupt is raised at the
    end, also in place of an error, since the signal may have ended the processes of a library. A second one is answered
    at once, as before, and so is Ctrl-C. A SIGTERM that ends the process without asking it still does."""
    came: list[tuple[float, int, FrameType | None]] = []

    def note(number: int, frame: FrameType | None) -> None:
        if not came:
            came.append((time.monotonic(), number, frame))
        elif time.monotonic() - came[0][0] > TOGETHER:
            before[number](number, frame)

    def answer() -> None:
        if came:
            before[came[0][1]](*came[0][1:])
            raise KeyboardInterrupt

    before = {s: handler for s, handler in handlers().items() if s == signal.SIGTERM and callable(handler)}
    with answered_by(note, before):
        try:
            yield lambda: bool(came)
        except Exception:
            answer()
            raise
    answer()
