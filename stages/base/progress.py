"""Progress of long work: a live bar on a terminal, a plain line every 30 s in a log, or nothing."""

import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

PLAIN_LINE_SECONDS = 30
FIRST_LINE_SECONDS = 2  # after which the first one comes, where more than PLAIN_LINE_SECONDS are left


class Progress:
    """`start`, `advance` once per row, `stop`. Writes to stderr; stdout is for results.

    Work that comes before rows (images that a model is fitted to) is announced by `expect` and counted by `prepare`, so
    that the time left holds both from the start, each at its own pace.
    """

    def __init__(self, label: str, total: int, quiet: bool) -> None:
        """total: rows still to do (not those found done)."""
        self.label, self.total, self.quiet = label, total, quiet
        self.done = self.errors = self.expected = self.prepared = 0
        self.started = self.last_line = self._event = time.monotonic()
        self._on_rows = self._on_units = 0.0  # s
        self._pace: float | None = None  # s per row
        self.what = ""
        self._said = False
        self._bar: Bar | None = None
        if not quiet and total and sys.stderr.isatty():
            self._start_bar()

    def _start_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            TextColumn("[red]{task.fields[errors]}"),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task(self.label, total=self.total, rate="", left="", errors="")
        self._bar.start()

    def advance(self, failed: bool = False) -> None:
        """One more row is done."""
        lap, mean = self._lap(), self._on_rows / max(self.done, 1)
        if self.done and lap > mean / 2:  # not within a batch, whose first row gets the time of all
            self._pace = mean
        self._on_rows += lap
        self.done += 1
        self.errors += failed
        rate = f"{1 / max(self._pace, 1e-9):.2f}/s" if self._pace else ""
        self._show(1, rate, ", ".join(filter(None, (f"{self.done}/{self.total} rows", rate))))

    def expect(self, units: int, what: str) -> None:
        """So many units of work, called `what`, come before rows; each is taken to last as long as a row until the
        first of them is done. Time up to now is not counted: libraries were loaded."""
        self._lap()
        self.expected, self.what = units, what

    def prepare(self, units: int = 0) -> None:
        """So many more units of the work before rows are done; 0: time up to now is not counted."""
        lap = self._lap()
        if units:
            self._on_units += lap
            self.prepared += units
        done = f"{self.prepared}/{self.expected} {self.what}"
        self._show(0, done, done)

    def seconds_left(self) -> float | None:
        """At the pace so far, rows and units each at their own once that is known; None before there is one."""
        unit = self._on_units / self.prepared if self.prepared else self._pace
        row = self._pace or unit
        if row is None or unit is None:
            return None
        return (self.total - self.done) * row + max(self.expected - self.prepared, 0) * unit

    def _lap(self) -> float:
        """Seconds since the last event."""
        before, self._event = self._event, time.monotonic()
        return self._event - before

    def _show(self, advance: int, rate: str, done: str) -> None:
        """rate: for the bar; done: for a plain line."""
        left = self.seconds_left()
        if self._bar:
            errors = f"{self.errors} failed" if self.errors else ""
            remains = "" if left is None else f"{timedelta(seconds=round(left))} left"
            self._bar.update(self._task, advance=advance, rate=rate, left=remains, errors=errors)
            return
        first = not self._said and (left or 0) > PLAIN_LINE_SECONDS
        if self.quiet or self._event - self.last_line <= (FIRST_LINE_SECONDS if first else PLAIN_LINE_SECONDS):
            return
        self.last_line, self._said = self._event, True
        remains = "" if left is None else f", {left:.0f} s left"
        print(f"{self.label}: {done}{remains}, {self.errors} failed", file=sys.stderr, flush=True)

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
        self._task = bar.add_task(label, total=total, completed=done, rate="", left="", errors="") if bar else None

    def advance(self) -> None:
        """One more step is done."""
        self.done += 1
        now = time.monotonic()
        rate = (self.done - self.before) / max(now - self.started, 1e-9)
        if self.rows._bar and self._task is not None:
            remains = f"{timedelta(seconds=round((self.total - self.done) / rate))} left"
            self.rows._bar.update(self._task, advance=1, rate=f"{rate:.1f}/s", left=remains)
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
