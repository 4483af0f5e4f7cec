"""How a command ends: exit codes, one line for every error, Ctrl-C. Imports nothing heavy."""

import atexit
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from stages.base.errors import InputError
from stages.base.interrupts import TOGETHER

DONE, OUR_DEFECT, USAGE, FAILED_ROWS, INTERRUPTED = 0, 1, 2, 3, 130
CLOSED_PIPE = 141  # 128 + SIGPIPE, as a shell reports other tools whose reader has gone
PATIENCE = 1.0  # s that an interrupted command waits for its threads
LONGEST = 400  # characters of a library's message
GOES_ON = "the same command goes on from here"
ANEW = "the same command starts again"
MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


def sentence(error: BaseException, again: str = GOES_ON) -> tuple[str, int]:
    """(one line for people, exit code) of what ended a command; again: how to go on after an interruption."""
    if isinstance(error, KeyboardInterrupt):
        return f"interrupted; {again}", INTERRUPTED
    if isinstance(error, InputError):
        return one_line(str(error), None), USAGE
    if hasattr(error, "format_message"):  # Typer's
        return wrong_usage(error), USAGE
    said = one_line(str(error))
    if isinstance(error, MemoryError) or any(m.lower() in said.lower() for m in MEMORY):
        return (
            f"out of memory ({said or 'of this computer'}): a smaller --batch-size, smaller images or fewer"
            " --workers need less; what is finished is kept"
        ), OUR_DEFECT
    if isinstance(error, ImportError) and (error.name or "").split(".")[0] not in ("adcli", "stages", "prompts"):
        return (
            f"the package {error.name or 'that this needs'} is missing or cannot be loaded ({said}): pip install"
            " 'adcli[models]' installs what the models need; --debug shows where"
        ), OUR_DEFECT
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}; check the path and its permissions", USAGE
    return f"a defect of adcli: {type(error).__name__}: {said} (--debug shows where)", OUR_DEFECT


def one_line(text: str, longest: int | None = LONGEST) -> str:
    """Line breaks and what would steer the terminal taken out."""
    text = " ".join(text.split())
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return text if longest is None or len(text) <= longest else text[:longest] + "..."


def wrong_usage(error: BaseException) -> str:
    """Typer's message, and which --help lists what there is."""
    said = one_line(error.format_message())  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "adcli"
    words = " ".join(w for w in path.split() if not w.startswith("{"))
    return f"{said.rstrip('.')} (`{words} --help` lists what there is)"


class one_line_errors:
    """Turns what is raised within it into one line on stderr and `typer.Exit`; with debug the traceback comes first.
    Of several processes of one run the first one speaks, but for defects. again: see `sentence`."""

    def __init__(self, debug: bool, again: str = GOES_ON) -> None:
        self.debug, self.again = debug, again

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, trace) -> None:
        if error is None or isinstance(error, SystemExit):
            return
        import typer

        if isinstance(error, typer.Exit):
            return
        if isinstance(error, BrokenPipeError) and reader_has_gone():
            raise typer.Exit(CLOSED_PIPE)
        if self.debug:
            traceback.print_exception(error)
        line, code = sentence(error, self.again)
        if code == OUR_DEFECT or os.environ.get("RANK", "0") == "0":
            print(f"adcli: {line}", file=sys.stderr)
        raise typer.Exit(code) from None


def reader_has_gone() -> bool:
    """Whether stdout or stderr is a pipe that nobody reads any more (`adcli models | head -1`). What is still to be
    written goes nowhere then, so that Python's own last flush does not fail."""
    gone = False
    for stream in (sys.stdout, sys.stderr):
        try:
            pipe = select.poll()
            pipe.register(stream.fileno(), 0)
            if pipe.poll(0):
                gone = True
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        except (OSError, ValueError):  # no file of the system
            pass
    return gone


def exit_code_of(work: Callable[[], None], debug: bool, again: str = GOES_ON) -> int:
    """Run a command to its end."""
    import typer

    try:
        with one_line_errors(debug, again):
            try:
                work()
            except typer.Abort:  # an answer to a prompt that was not given
                raise KeyboardInterrupt from None
            sys.stdout.flush()  # here, where a closed pipe is no traceback
        return DONE
    except typer.Exit as e:
        return e.exit_code


def end_on_signals() -> None:
    """Ctrl-C and a scheduler's SIGTERM raise KeyboardInterrupt once, so that what is finished gets written; a second
    one ends this process and its workers at once."""
    first: list[float] = []

    def interrupted(number: int, frame: FrameType | None) -> None:
        if not first:
            first.append(time.monotonic())
            raise KeyboardInterrupt
        if time.monotonic() - first[0] > TOGETHER:
            end_at_once()

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or `adcli ... &` in a script
            signal.signal(number, interrupted)


def leave(code: int) -> NoReturn:
    """End this process. After an interrupt a thread that hangs in a read (a file system that does not answer) is left
    to the system: Python itself would wait for it."""
    if code == INTERRUPTED and _hanging(PATIENCE):
        atexit._run_exitfuncs()  # what sys.exit would have run, but for the wait
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _hanging(patience: float) -> bool:
    """Whether threads that Python would wait for are at work after `patience` seconds."""
    end = time.monotonic() + patience
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            try:
                thread.join(max(0.0, end - time.monotonic()))
            except RuntimeError:  # the interrupt came while it was being started
                return True
            if thread.is_alive():
                return True
    return False


def end_at_once() -> NoReturn:
    """Without another word to the libraries, which may hang."""
    if "multiprocessing" in sys.modules:
        import multiprocessing

        for child in multiprocessing.active_children():
            child.kill()
    os.write(2, b"\nadcli: ended at once; the same command repeats what was not written yet\n")
    os._exit(INTERRUPTED)
