"""Writing an artifact: crash-safe parts, resuming, shards, cache check, provenance.

    with Artifact(out, CAPTIONS, spec, keys, options) as artifact:
        for key in artifact.pending:            # empty when everything is up to date
            artifact.write({...})               # a row; with `error` when it failed
    return artifact.summary

An artifact is a directory: `part-00000-of-00004-000017.parquet` (shard, shards, sequence) and
`_adcli.json`, which is there exactly when every row of every shard is: a fit target for make.
docs/artifacts.md says what holds at which instant.
"""

import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from stages.artifacts import folder, locks, parts
from stages.artifacts.files import make_folder, plain_error
from stages.artifacts.parts import Written
from stages.artifacts.record import COMPLETE, Spec, command_line, find_record, now
from stages.artifacts.shards import parse_shard, prefix, shard_of, spelled
from stages.artifacts.summary import Summary, said_of
from stages.artifacts.tables import Table
from stages.artifacts.values import encodable, require_encodable_keys
from stages.base.config import RunOptions
from stages.base.errors import InputError, TooManyErrors
from stages.base.memory import peak_rss_mb
from stages.base.progress import Progress

FLUSH_ROWS = 128  # a part: what a kill can cost at most, together with
FLUSH_SECONDS = 5.0  # the time after which a slow stage writes fewer rows


class Artifact:
    """One artifact, open for one shard. `keys` are the keys of all shards, in any order."""

    def __init__(
        self,
        out: Path,
        table: Table,
        spec: Spec,
        keys: list[tuple],
        options: RunOptions,
        flush_rows: int = FLUSH_ROWS,
        again: frozenset[tuple] = frozenset(),
    ) -> None:
        """flush_rows: of a part. again: keys whose rows are made again although they are there without an error, for
        stages that have lost what these rows name."""
        if len(set(keys)) < len(keys):
            twice, _ = Counter(keys).most_common(1)[0]
            raise InputError(f"two rows with the key {' / '.join(map(str, twice))}")
        if options.retry not in ("possible", "all"):
            raise InputError(f"--retry {options.retry}: expected possible or all")
        require_encodable_keys(keys, table)
        self.out, self.table, self.spec, self.options = Path(out), table, spec, options
        self.keys, self.flush_rows = keys, flush_rows
        self.shard, self.shards = parse_shard(options.shard)
        self._summary: Summary | None = None
        self.pending: list[tuple] = []
        self.ran_on = "cpu"  # device and precision, for the record; stages set it
        self._known = set(keys)
        self._prefix = prefix(self.shard, self.shards)
        self._again = again
        self._failed: dict[tuple, Written] = {}  # rows that are there and are tried again
        self._own: locks.Lock | None = None  # this shard's
        self._lost = False  # the artifact is another one's
        self._made: list[Path] = []  # folders, the deepest first

    def __enter__(self) -> "Artifact":
        self.started = self.flushed = time.monotonic()
        self.rows: list[dict] = []
        self.written = self.tokens = self.failures_in_a_row = 0
        self.up_to_date = False
        if self._is_up_to_date():
            self._tidy()
        else:
            try:
                self._open()
            except OSError as e:
                raise plain_error(e, self.out) from e
        self._open_keys = set(self.pending)
        self.progress = Progress(self.spec.stage, len(self.pending), self.options.quiet)
        return self

    def write(self, row: dict, tried: bool = True) -> None:
        """Add one row; columns that are not given are null. tried=False: the row failed before any work
        (its image cannot be read), which says nothing of the rows to come. Text that is no valid Unicode makes
        it a failed row.

        Raises:
            TooManyErrors: see --max-errors; rows that failed in an earlier run do not count.
            InputError: the artifact is another one's by now, or cannot be written.
        """
        row = encodable({name: row.get(name) for name in self.table.schema.names}, self.table)
        key = self._key(row)
        self._open_keys.remove(key)
        self.rows.append(row)
        self.written += 1
        self.tokens += row.get("completion_tokens") or 0
        failed = row.get("error") is not None
        self.progress.advance(failed)
        if len(self.rows) >= self.flush_rows or time.monotonic() - self.flushed > FLUSH_SECONDS:
            self._flush()
        if not failed and tried:
            self.failures_in_a_row = 0
        elif tried and key not in self._failed:
            self.failures_in_a_row += 1
        if self.options.max_errors and self.failures_in_a_row >= self.options.max_errors:
            raise TooManyErrors(
                f"{self.failures_in_a_row} rows failed in succession, the last with:"
                f" {row['error']} (--max-errors; 0 goes on regardless)"
            )

    @property
    def summary(self) -> Summary:
        """What the stage tells its caller: there once the artifact has been left, or was found to be up to date."""
        assert self._summary is not None, "the artifact is still open"
        return self._summary

    def write_all(self, rows: Iterable[dict]) -> None:
        """Add those of `rows` that are not there yet, for stages that have them all at once."""
        pending = set(self.pending)
        for row in rows:
            if self._key(row) in pending:
                self.write(row, tried=False)

    @contextmanager
    def current(self) -> Iterator[None]:
        """For stages that put files below the artifact themselves: within it the folder is locked, so that no other
        command replaces the artifact between the look and the rename.

        Raises:
            InputError: another command has made another artifact of it, or it is gone.
        """
        with self._current():
            yield

    def __exit__(self, kind, error, trace) -> None:
        self.progress.stop()
        if self.up_to_date:
            return
        try:
            if not self._lost:
                self._flush()
                if not (error is not None and self._withdraw()):
                    self._close()
        except OSError as e:
            raise plain_error(e, self.out) from e
        finally:
            self._let_go()
            self._drop_lock()

    # -- opening ------------------------------------------------------------------------------------

    def _is_up_to_date(self) -> bool:
        """Whether nothing is left to do, found without touching the folder: it may be on a read-only disk."""
        if not (self.out / COMPLETE).exists():
            return False
        try:
            state = folder.read(self.out, self.table, self.spec, self._known)
        except InputError:
            return False  # said by whoever looks with the folder locked
        if state is None or not state.complete or state.extra or state.stale or self._to_try(state.rows):
            return False
        if folder.moved(state.record, self.spec) or (
            self.options.overwrite and not folder.notes_fit(state.record, self.spec)
        ):
            return False
        self.up_to_date = True
        self._sum_up(state.rows, complete=True)
        return True

    def _tidy(self) -> None:
        """Tell make that an artifact that is up to date has been looked at, and remove what a process that was killed
        at its very end left. Where that cannot be, nothing is lost."""
        with suppress(OSError, InputError):
            os.utime(self.out / COMPLETE)
            left = any(self.out.glob(f"{locks.FOLDER}*")) or any(self.out.rglob(".tmp-*"))
            if not left:
                return
            with locks.tried(self.out / locks.FOLDER, self._shard_locks) as lock:
                if lock:
                    self._clean(locks.living(self.out, ""), lock.real)

    def _open(self) -> None:
        self._made = [p for p in (self.out, *self.out.parents) if not p.exists()]
        make_folder(self.out)
        try:
            with self._folder_locked(make=True):
                try:
                    own, alive = self._take_shard()
                    state = folder.prepare(
                        self.out, self.table, self.spec, self.keys, bool(alive), self.options.overwrite
                    )
                    self._clean(alive, own.real)
                except BaseException:
                    self._let_go()
                    raise
        except BaseException:
            self._remove_made()
            raise
        done = {row.key for row in state.rows} if state else set()
        self._failed = self._to_try(state.rows) if state else {}
        todo = [key for key in self._mine() if key not in done or key in self._failed]
        self.pending = sorted(todo, key=self._failed.__contains__)[: self.options.limit]  # those never made come first

    def _take_shard(self) -> tuple[locks.Lock, set[str]]:
        """Take this shard's lock; returns it and the prefixes of the other shards that are being written."""
        self._own = own = locks.take(self.out / f"{locks.SHARD}{self._prefix}")
        if not own:
            raise InputError(
                f"{self.out}: another process is writing shard {self.options.shard} of"
                " this artifact; wait for it or stop it"
            )
        alive = locks.living(self.out, self._prefix)
        if others := [p for p in sorted(alive) if not p.endswith(f"-of-{self.shards:05d}")]:
            raise InputError(
                f"{self.out}: another process is writing shard {spelled(others[0])} of this artifact, and"
                f" --shard {self.options.shard} would write some of its rows, too; wait for it or stop it"
            )
        return own, alive

    # -- writing ------------------------------------------------------------------------------------

    def _flush(self) -> None:
        self.flushed = time.monotonic()
        rows, self.rows = self.rows, []  # first, so that an interrupt here can write nothing twice
        fresh = [row for row in rows if self._key(row) not in self._failed]
        again: dict[Path, dict[tuple, dict]] = {}
        for row in rows:
            if failed := self._failed.get(self._key(row)):
                again.setdefault(failed.part, {})[failed.key] = row
        temporary = None
        try:
            if fresh:
                temporary = parts.prepare(self.out / f"{self._prefix}.parquet", fresh, self.table, self.spec.key)
            if rows:
                with self._current() as (_, complete):
                    if temporary and not complete:  # complete: without locks, another count was quicker
                        parts.add(temporary, self.out, self._prefix)
                    for part, new in again.items():
                        parts.replace_rows(part, new, self.table, self.spec.key)
        finally:
            if temporary:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)

    @contextmanager
    def _current(self) -> Iterator[tuple[dict, bool]]:
        """The folder locked, and the artifact still this writer's: (its record, whether it is complete)."""
        with self._folder_locked():
            found = find_record(self.out)
            if found and found[0]["key"] == self.spec.key and not found[0].get(folder.REPLACING):
                yield found
                return
            self._lost = True
            if not found:
                raise InputError(
                    f"{self.out}: the artifact is gone, something removed it meanwhile; run the same command again"
                )
            raise InputError(
                f"{self.out}: another command has replaced this artifact with one of other settings"
                " meanwhile; this one stops and leaves nothing there (another --out keeps both)"
            )

    # -- closing ------------------------------------------------------------------------------------

    def _close(self) -> None:
        with self._current() as (record, complete):
            state = folder.read(self.out, self.table, self.spec, self._known)
            assert state is not None and self._own is not None  # `_current` has read the record; the shard is ours
            rows, whole = state.rows, {row.key for row in state.rows} == self._known
            if whole:
                rows = parts.drop_doubles(rows, self.table, self.spec.key)
                for part in state.stale:
                    part.unlink()
            if not complete or self.written or state.extra:
                folder.close(self.out, record, self._run(), rows, complete, whole)
            if whole:
                self._clean(locks.living(self.out, self._prefix), self._own.real)
            self._let_go()
        self._sum_up(rows, whole)

    def _run(self) -> dict:
        """This run's entry in the record."""
        return {
            "shard": self.options.shard,
            "command": command_line(sys.argv),
            "date": now(),
            "rows": self.written,
            "tokens": self.tokens,
            "seconds": round(time.monotonic() - self.started, 2),
            "device": self.ran_on,
            "host": socket.gethostname(),
            "peak_rss_mb": peak_rss_mb(),
        }

    def _withdraw(self) -> bool:
        """After a start that came to nothing: take away what this run put there. False when there is more by now."""
        with self._current():
            assert self._own is not None  # opened, and not let go of yet
            if locks.living(self.out, self._prefix) or not folder.holds_nothing(self.out):
                return False
            folder.withdraw(self.out)
            self._clean(set(), self._own.real)
            self._let_go()
        self._remove_made()
        return True

    def _remove_made(self) -> None:
        with suppress(OSError):  # something else is in one of them
            for path in self._made:
                path.rmdir()

    def _clean(self, alive: set[str], real: bool) -> None:
        folder.remove_temporaries(self.out, self._prefix, alive, real, (self.out / COMPLETE).exists())

    def _let_go(self) -> None:
        if self._own:
            self._own.release(remove=True)
            self._own = None

    def _drop_lock(self) -> None:
        """Remove the folder's lock where an error kept `_close` from it: it goes with the last writer."""
        with suppress(OSError, InputError):
            if (self.out / locks.FOLDER).exists():
                with locks.tried(self.out / locks.FOLDER, self._shard_locks):
                    pass

    # -- small things -------------------------------------------------------------------------------

    def _key(self, row: dict) -> tuple:
        return tuple(row[name] for name in self.table.key)

    def _mine(self) -> list[tuple]:
        return shard_of(self.keys, self.shard, self.shards)

    def _to_try(self, rows: list[Written]) -> dict[tuple, Written]:
        """Rows of this shard that failed, or have lost what they name, and are made again."""
        again = [
            r
            for r in rows
            if r.key in self._again or (r.error is not None and (self.options.retry == "all" or not r.final))
        ]
        mine = set(self._mine()) if again else set()
        return {row.key: row for row in again if row.key in mine}

    def _sum_up(self, rows: list[Written], complete: bool) -> None:
        self._summary = Summary(
            stage=self.spec.stage,
            out=str(self.out),
            expected=len(self.keys),
            written=self.written,
            tokens=self.tokens,
            seconds=time.monotonic() - self.started,
            peak_rss_mb=peak_rss_mb(),
            up_to_date=self.up_to_date,
            complete=complete,
            **said_of(rows),
        )

    def _shard_locks(self) -> bool:
        return any(self.out.glob(f"{locks.SHARD}*"))

    def _folder_locked(self, make: bool = False) -> AbstractContextManager[None]:
        """The folder's lock, whose file goes with the last shard's."""
        return locks.held(self.out / locks.FOLDER, self._shard_locks, make)


def open_all(artifacts: Sequence[Artifact], stack: ExitStack) -> None:
    """Enter the artifacts of one command: all of them, or none is touched. Raises InputError where one is refused."""
    for artifact in artifacts:
        folder.require_place(artifact.out, artifact.spec, artifact.options.overwrite)
    for artifact in artifacts:
        stack.enter_context(artifact)
