"""Progress of long work: a live bar on a terminal, a plain line every 30 s in a log, or nothing."""

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

PLAIN_LINE_SECONDS = 30


class Progress:
    """`start`, `advance` once per row, `stop`. Writes to stderr; stdout is for results."""

    def __init__(self, label: str, total: int, quiet: bool) -> None:
        """total: rows still to do (not those found done)."""
        self.label, self.total, self.quiet = label, total, quiet
        self.done = self.errors = 0
        self.started = self.last_line = time.monotonic()
        self._bar: Bar | None = None
        if not quiet and total and sys.stderr.isatty():
            self._start_bar()

    def _start_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("[red]{task.fields[errors]}"),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task(self.label, total=self.total, rate="", errors="")
        self._bar.start()

    def advance(self, failed: bool = False) -> None:
        """One more row is done."""
        self.done += 1
        self.errors += failed
        now = time.monotonic()
        rate = self.done / max(now - self.started, 1e-9)
        if self._bar:
            errors = f"{self.errors} failed" if self.errors else ""
            self._bar.update(self._task, advance=1, rate=f"{rate:.1f}/s", errors=errors)
        elif not self.quiet and now - self.last_line > PLAIN_LINE_SECONDS:
            self.last_line = now
            left = (self.total - self.done) / rate
            print(
                f"{self.label}: {self.done}/{self.total} rows, {rate:.2f}/s, {left:.0f} s left, {self.errors} failed",
                file=sys.stderr,
                flush=True,
            )

    def say(self, text: str) -> None:
        """A line above the bar: what was found, what was decided."""
        if self.quiet:
            return
        if self._bar:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def steps(self, label: str, total: int, done: int = 0) -> "Steps":
        """Progress within the row in hand, for rows that take minutes: `advance` once per step, `stop`. done: of the
        total, by an earlier run."""
        return Steps(self, label, total, done)

    def stop(self) -> None:
        """Leave the terminal as it was."""
        if self._bar:
            self._bar.stop()


class Steps:
    """Made by `Progress.steps`: a second bar below the first, or plain lines."""

    def __init__(self, rows: Progress, label: str, total: int, done: int) -> None:
        self.rows, self.label, self.total = rows, label, total
        self.done = self.before = done
        self.started = self.last_line = time.monotonic()
        bar = rows._bar
        self._task = bar.add_task(label, total=total, completed=done, rate="", errors="") if bar else None

    def advance(self) -> None:
        """One more step is done."""
        self.done += 1
        now = time.monotonic()
        rate = (self.done - self.before) / max(now - self.started, 1e-9)
        if self.rows._bar and self._task is not None:
            self.rows._bar.update(self._task, advance=1, rate=f"{rate:.1f}/s")
        elif not self.rows.quiet and now - self.last_line > PLAIN_LINE_SECONDS:
            self.last_line = now
            left = (self.total - self.done) / rate
            print(
                f"{self.label}: step {self.done} of {self.total}, {rate:.2f}/s, {left:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    def stop(self) -> None:
        """Take the bar away."""
        if self.rows._bar and self._task is not None:
            self.rows._bar.remove_task(self._task)
