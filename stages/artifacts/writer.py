"""Writing an artifact: crash-safe parts, resuming, shards, cache check, provenance.

    with Artifact(out, CAPTIONS, spec, keys, options) as artifact:
        for key in artifact.pending:            # empty when everything is up to date
            artifact.write({...})               # a row; with `error` when it failed
    return artifact.summary

An artifact is a directory: `part-00000-of-00004-000017.parquet` (shard, shards, sequence) and
`_adcli.json`, which is there exactly when every row of every shard is: a fit target for make.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
import time
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stages.artifacts.files import make_folder, write_atomically, write_json
from stages.artifacts.reader import COMPLETE, PARTIAL
from stages.artifacts.tables import Table
from stages.errors import InputError, TooManyErrors
from stages.memory import peak_rss_mb
from stages.progress import Progress
from stages.settings import RunOptions

FLUSH_ROWS = 128        # a part: what a kill can cost at most, together with
FLUSH_SECONDS = 5.0     # the time after which a slow stage writes fewer rows


@dataclass(frozen=True)
class Spec:
    """What an artifact is made from. `parameters`, `inputs` and `seed` decide what the rows say and
    form the cache key; `notes` (device, batch size, root, worker count) are only recorded."""

    stage: str
    parameters: dict
    inputs: dict[str, str]                   # name -> fingerprint
    seed: int = 0
    notes: dict = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Hash of all that decides the content."""
        said = {"stage": self.stage, "parameters": self.parameters, "inputs": self.inputs,
                "seed": self.seed}
        return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Summary:
    """What a stage tells its caller at the end."""

    stage: str
    out: str
    rows: int                                # in the artifact now
    expected: int                            # when all shards are done
    written: int                             # by this run
    errors: int                              # rows with `error` in the artifact now
    first_errors: tuple[str, ...]
    tokens: int                              # written by engines in this run
    seconds: float
    peak_rss_mb: int                         # largest of this process and its children
    up_to_date: bool
    complete: bool


class Artifact:
    """One artifact, open for one shard. `keys` are the keys of all shards, in any order."""

    def __init__(self, out: Path, table: Table, spec: Spec, keys: list[tuple], options: RunOptions,
                 flush_rows: int = FLUSH_ROWS) -> None:
        if len(set(keys)) < len(keys):
            twice = next(k for k in keys if keys.count(k) > 1)
            raise InputError(f"two rows with the key {' / '.join(map(str, twice))}")
        self.out, self.table, self.spec, self.options = Path(out), table, spec, options
        self.keys, self.flush_rows = keys, flush_rows
        self.shard, self.shards = parse_shard(options.shard)
        self.summary: Summary | None = None
        self.pending: list[tuple] = []
        self.ran_on = "cpu"                     # device and precision, for the record; stages set it

    def __enter__(self) -> "Artifact":
        self.started = self.flushed = time.monotonic()
        self.rows: list[dict] = []
        self.written = self.tokens = self.failures_in_a_row = 0
        make_folder(self.out)
        self._shard_lock = self._lock(f".lock-{self._prefix}", wait=False)
        try:
            with self._folder_locked():
                up_to_date = self._prepare()
        except BaseException:
            os.close(self._shard_lock)
            raise
        if up_to_date:
            os.utime(self.out / COMPLETE)        # tells make that it has been looked at
        else:
            mine = shard_of(self.keys, self.shard, self.shards)
            done = self._done_keys()
            self.pending = [key for key in mine if key not in done]
        self._open = set(self.pending)
        self.progress = Progress(self.spec.stage, len(self.pending), self.options.quiet)
        return self

    def write(self, row: dict, tried: bool = True) -> None:
        """Add one row; columns that are not given are null. tried=False: the row failed before any work
        (its image cannot be read), which says nothing of the rows to come.

        Raises:
            TooManyErrors: see --max-errors.
        """
        row = {name: row.get(name) for name in self.table.schema.names}
        key = tuple(row[name] for name in self.table.key)
        self._open.remove(key)
        self.rows.append(row)
        self.written += 1
        self.tokens += row.get("completion_tokens") or 0
        failed = row.get("error") is not None
        self.progress.advance(failed)
        if len(self.rows) >= self.flush_rows or time.monotonic() - self.flushed > FLUSH_SECONDS:
            self._flush()
        if tried:
            self.failures_in_a_row = self.failures_in_a_row + 1 if failed else 0
        if self.options.max_errors and self.failures_in_a_row >= self.options.max_errors:
            raise TooManyErrors(f"{self.failures_in_a_row} rows failed in succession, the last with:"
                                f" {row['error']} (--max-errors; 0 goes on regardless)")

    def write_all(self, rows: Iterable[dict]) -> None:
        """Add those of `rows` that are not there yet, for stages that have them all at once."""
        pending = set(self.pending)
        for row in rows:
            if tuple(row[name] for name in self.table.key) in pending:
                self.write(row, tried=False)

    def __exit__(self, kind, error, trace) -> None:
        self.progress.stop()
        try:
            self._flush()
            self._close()
        finally:
            os.close(self._shard_lock)

    # -- parts ------------------------------------------------------------------------------------

    @property
    def _prefix(self) -> str:
        return f"part-{self.shard:05d}-of-{self.shards:05d}"

    def _parts(self) -> list[Path]:
        return sorted(self.out.glob("part-*.parquet"))

    def _flush(self) -> None:
        self.flushed = time.monotonic()
        rows, self.rows = self.rows, []      # first, so that an interrupt here can write nothing twice
        if not rows:
            return
        names = [p.stem for p in self.out.glob(f"{self._prefix}-*.parquet")]
        number = max((int(name.rsplit("-", 1)[1]) + 1 for name in names), default=0)
        self._write_part(self.out / f"{self._prefix}-{number:06d}.parquet",
                         pa.Table.from_pylist(rows, schema=self.table.schema))

    def _write_part(self, path: Path, rows: pa.Table) -> None:
        write_atomically(path, lambda f: pq.write_table(rows, f, compression="zstd"))

    def _key_rows(self, path: Path) -> list[tuple[tuple, str | None]]:
        columns = [c for c in (*self.table.key, "error") if c in self.table.schema.names]
        rows = pq.ParquetFile(path).read(columns=columns).to_pylist()
        return [(tuple(r[k] for k in self.table.key), r.get("error")) for r in rows]

    def _done_keys(self) -> set[tuple]:
        return {key for part in self._parts() for key, _ in self._key_rows(part)}

    # -- opening and closing, under the folder's lock -----------------------------------------------

    def _prepare(self) -> bool:
        """Make the folder ready for this spec; True when there is nothing left to do."""
        for written in (f"{self._prefix}-*", COMPLETE, PARTIAL):       # records only under the folder's lock
            for stale in self.out.glob(f".tmp-*-{written}"):
                stale.unlink(missing_ok=True)
        found = self._record()
        if found and found["key"] != self.spec.key:
            if not self.options.overwrite:
                raise InputError(self._difference(found))
            self._remove_content()
            found = None
        if found is None:
            self._require_empty()
            write_json(self.out / PARTIAL, self._new_record())
            return False
        if (self.out / COMPLETE).exists():
            if not found["errors"]:
                return True
            (self.out / COMPLETE).rename(self.out / PARTIAL)
        self._drop_failed_rows()
        return False

    def _record(self) -> dict | None:
        for name in (COMPLETE, PARTIAL):
            if (self.out / name).exists():
                return json.loads((self.out / name).read_text())
        return None

    def _new_record(self) -> dict:
        return {"stage": self.spec.stage, "table": self.table.name, "version": version("adcli"),
                "key": self.spec.key, "parameters": self.spec.parameters, "inputs": self.spec.inputs,
                "seed": self.spec.seed, "notes": self.spec.notes, "expected": len(self.keys),
                "runs": []}

    def _difference(self, found: dict) -> str:
        """One line that names what differs between the artifact on disk and this command."""
        if found["stage"] != self.spec.stage:
            what = [f"it is an artifact of `{found['stage']}`"]
        else:
            now = json.loads(json.dumps(asdict(self.spec), default=str))
            what = [f"{name} was {found['parameters'].get(name)!r}, now {now['parameters'].get(name)!r}"
                    for name in sorted({*found["parameters"], *now["parameters"]})
                    if found["parameters"].get(name) != now["parameters"].get(name)]
            what += [f"the {name} has changed" for name in sorted({*found["inputs"], *now["inputs"]})
                     if found["inputs"].get(name) != now["inputs"].get(name)]
            if found["seed"] != self.spec.seed:
                what.append(f"seed was {found['seed']}, now {self.spec.seed}")
        return (f"{self.out} was made with other settings ({'; '.join(what)}): --overwrite replaces it,"
                " another --out keeps both")

    def _remove_content(self) -> None:
        for entry in self.out.iterdir():
            if entry.name.startswith(".lock"):
                continue
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def _require_empty(self) -> None:
        others = [e.name for e in self.out.iterdir() if not e.name.startswith((".lock", ".tmp-"))]
        if others:
            raise InputError(f"{self.out}: holds other files ({others[0]}, ...) and no artifact of"
                             " adcli; give another --out")

    def _drop_failed_rows(self) -> None:
        """Take this shard's failed rows out of the parts, so that they are done again."""
        mine = set(shard_of(self.keys, self.shard, self.shards))
        for part in self._parts():
            keep = [not (error is not None and key in mine) for key, error in self._key_rows(part)]
            if all(keep):
                continue
            if any(keep):
                rows = pq.ParquetFile(part).read()
                self._write_part(part, rows.filter(pa.array(keep)))
            else:
                part.unlink()

    def _close(self) -> None:
        with self._folder_locked():
            said = [r for part in self._parts() for r in self._key_rows(part)]
            errors = [(key, error) for key, error in said if error is not None]
            complete = {key for key, _ in said} == set(self.keys)
            record = self._record()
            up_to_date = (self.out / COMPLETE).exists()
            peak = peak_rss_mb()
            seconds = time.monotonic() - self.started
            if not up_to_date:
                record["runs"].append({
                    "shard": self.options.shard, "rows": self.written, "seconds": round(seconds, 2),
                    "tokens": self.tokens, "device": self.ran_on,
                    "host": socket.gethostname(), "peak_rss_mb": peak})
                record |= {"rows": len(said), "errors": len(errors),
                           "seconds": round(sum(r["seconds"] for r in record["runs"]), 2),
                           "tokens": sum(r["tokens"] for r in record["runs"])}
                write_json(self.out / PARTIAL, record)
                if complete:
                    (self.out / PARTIAL).rename(self.out / COMPLETE)
        if complete:
            (self.out / f".lock-{self._prefix}").unlink(missing_ok=True)
        self.summary = Summary(
            stage=self.spec.stage, out=str(self.out), rows=len(said), expected=len(self.keys),
            written=self.written, errors=len(errors),
            first_errors=tuple(f"{' / '.join(map(str, key))}: {error}" for key, error in errors[:3]),
            tokens=self.tokens, seconds=seconds, peak_rss_mb=peak, up_to_date=up_to_date,
            complete=complete)

    # -- locks --------------------------------------------------------------------------------------

    def _lock(self, name: str, wait: bool) -> int:
        """An advisory lock that the system releases when the process ends, however it ends.

        Some cluster file systems have no locks: there the shards must not overlap, which --shard sees
        to, and the record of runs may lose an entry, no row does.
        """
        handle = os.open(self.out / name, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise InputError(f"{self.out}: another process is writing shard {self.options.shard} of"
                             " this artifact; wait for it or stop it") from None
        except OSError as e:
            if e.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                os.close(handle)
                raise
        return handle

    @contextmanager
    def _folder_locked(self):
        handle = self._lock(".lock", wait=True)
        try:
            yield
        finally:
            os.close(handle)


def parse_shard(text: str) -> tuple[int, int]:
    """'3/16' -> (3, 16). Raises InputError for anything else; shards count from 0."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not int(match[1]) < int(match[2]):
        raise InputError(f"--shard {text}: expected I/N with I from 0 to N-1, for example 3/16")
    return int(match[1]), int(match[2])


def shard_of(keys: list[tuple], shard: int, shards: int) -> list[tuple]:
    """Every `shards`-th key in the order of the keys' hashes: the same share for the same keys,
    whatever their order, and shares that differ by one row at most."""
    if shards == 1:
        return list(keys)
    ranked = sorted(keys, key=lambda key: hashlib.blake2b(repr(key).encode()).digest())
    mine = set(ranked[shard::shards])
    return [key for key in keys if key in mine]
