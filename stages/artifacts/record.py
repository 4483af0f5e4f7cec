"""The record beside an artifact's parts: what it was made from, by which command, and whether it is whole."""

import hashlib
import json
import re
import shlex
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from stages.artifacts.files import plain_error
from stages.base.errors import InputError
from stages.base.regular import NotRegular, regular

COMPLETE = "_adcli.json"  # there exactly when the artifact is complete
PARTIAL = "_adcli.partial.json"  # there while it is being made; where both are, this one counts
EITHER = "_adcli.*json"  # pattern of both names
FORMAT = 2  # of records and keys; what has another one is read, but not written to
Kind = type | tuple[type, ...]
NEEDED: dict[str, Kind] = {
    "stage": str,
    "key": str,
    "parameters": dict,
    "inputs": dict,
    "notes": dict,
}  # in every format
SHAPE: dict[str, Kind] = NEEDED | {
    "format": int,
    "table": str,
    "version": str,
    "seed": int,
    "expected": int,
    "runs": list,
}
NUMBER = (int, float)
OPTIONAL: dict[str, Kind] = {
    "paths": dict,
    "parts": dict,
    "replacing": bool,
    "rows": int,
    "errors": int,
    "tokens": int,
    "seconds": NUMBER,
}
RUN: dict[str, Kind] = {"shard": str, "rows": int, "tokens": int, "seconds": NUMBER, "device": str}
MEND = "the command that made it mends it with --overwrite"


CODE = ("code", "parser")  # settings that are a digest of adcli's own files
DECISIVE = ("stage", "parameters", "inputs", "seed")  # with FORMAT


@dataclass(frozen=True)
class Spec:
    """What an artifact is made from. `parameters`, `inputs` and `seed` decide what the rows say and
    form the cache key; `notes` (device, batch size, root, worker count) and `paths` are only recorded."""

    stage: str
    parameters: dict
    inputs: dict[str, str]  # name -> fingerprint
    seed: int = 0
    notes: dict = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)  # name of an input -> where it was

    @property
    def key(self) -> str:
        """Hash of all that decides the content."""
        return _key({name: getattr(self, name) for name in DECISIVE})


def _key(decisive: dict) -> str:
    said = json.loads(json.dumps({"format": FORMAT} | decisive, default=str))  # as it is read from a record again
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]


class Damaged(InputError):
    """A record or a part that cannot be what adcli wrote."""


def new_record(spec: Spec, table: str, expected: int) -> dict:
    """The record of an artifact without any row. expected: rows when it is complete."""
    return {
        "format": FORMAT,
        "stage": spec.stage,
        "table": table,
        "version": version("adcli"),
        "commit": source_commit(),
        "command": command_line(sys.argv),
        "date": now(),
        "key": spec.key,
        "parameters": spec.parameters,
        "inputs": spec.inputs,
        "paths": {name: str(path) for name, path in spec.paths.items()},
        "seed": spec.seed,
        "notes": spec.notes,
        "expected": expected,
        "runs": [],
    }


def load_record(file: Path) -> dict:
    """Read a record.

    Raises:
        FileNotFoundError: there is none.
        Damaged: it is not what adcli wrote.
        InputError: it cannot be read.
    """
    try:
        record = json.loads(regular(file).read_bytes())
    except FileNotFoundError:
        raise
    except (IsADirectoryError, NotRegular) as e:
        raise Damaged(f"{file}: damaged ({(e.strerror or 'no file').lower()}); {MEND}") from None
    except OSError as e:
        raise plain_error(e, file) from e
    except (ValueError, RecursionError):
        raise Damaged(f"{file}: damaged (not JSON); {MEND}") from None
    if wrong := _misshapen(record, file.name == COMPLETE):
        raise Damaged(f"{file}: damaged ({wrong}); {MEND}")
    return record


def _misshapen(record: object, complete: bool) -> str | None:
    """What is wrong with a record that was read; None when it can be what adcli wrote, in this format or another."""
    if not isinstance(record, dict):
        return f"a {type(record).__name__}, not an object"
    ours = record.get("format") == FORMAT
    needed = (SHAPE | ({"parts": dict} if complete else {})) if ours else NEEDED
    for name, kind in (SHAPE | OPTIONAL).items():
        if not isinstance(record[name], kind) if name in record else name in needed:
            return f"`{name}` is missing or not what it should be"
    for run in record.get("runs", []) if ours else []:
        if not isinstance(run, dict) or not all(isinstance(run.get(n), kind) for n, kind in RUN.items()):
            return "`runs` holds what is no run"
    if not all(isinstance(n, int) for n in record.get("parts", {}).values()):
        return "`parts` is not what it should be"
    if ours and record["key"] != _key({name: record[name] for name in DECISIVE}):
        return "its key is not that of its settings"
    return None


def recorded_key(record: Path) -> str | None:
    """The cache key in a record's file; None where there is no record that can be read."""
    try:
        return load_record(record)["key"]
    except (FileNotFoundError, NotADirectoryError, InputError):
        return None


def find_record(folder: Path) -> tuple[dict, bool] | None:
    """(record, whether the artifact is complete), or None without one. Raises as `load_record`."""
    for name in (PARTIAL, COMPLETE, PARTIAL):  # again, for one that a retreat renamed in between
        try:
            return load_record(folder / name), name == COMPLETE
        except FileNotFoundError:
            continue
    return None


def difference(out: Path, found: dict, spec: Spec) -> str:
    """One line that names what differs between the artifact on disk and this command."""
    if found.get("format", 1) != FORMAT:
        age = "an older" if found.get("format", 1) < FORMAT else "a newer"
        return (
            f"{out} was made by {age} adcli, whose cache keys differ: it can be read as it is; --overwrite"
            " replaces it, another --out keeps both"
        )
    if found["stage"] != spec.stage:
        what = [f"it is an artifact of `{found['stage']}`"]
    else:
        now = json.loads(json.dumps(asdict(spec), default=str))
        what = [
            _changed(name, found["parameters"].get(name), now["parameters"].get(name))
            for name in sorted({*found["parameters"], *now["parameters"]})
            if found["parameters"].get(name) != now["parameters"].get(name)
        ]
        what += [
            f"the {name} {'have' if _plural(name) else 'has'} changed"
            for name in sorted({*found["inputs"], *now["inputs"]})
            if found["inputs"].get(name) != now["inputs"].get(name)
        ]
        if found.get("seed") != spec.seed:
            what.append(f"seed was {found.get('seed')}, now {spec.seed}")
    return f"{out} was made with other settings ({'; '.join(what)}): --overwrite replaces it, another --out keeps both"


def _plural(name: str) -> bool:
    """Of an input's name: `image files`, not `content of the files`."""
    return name.partition(" of ")[0].endswith("s")


def _changed(name: str, then: object, now: object) -> str:
    """What differs in one setting, without digests, which tell a reader nothing."""
    if name in CODE:
        return f"adcli's own code has changed ({name})"
    if name == "weights":
        return "the weights have changed, or adcli's own code where that is the model (scene, rules)"
    return f"{name} was {then!r}, now {now!r}"


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def command_line(arguments: list[str]) -> str:
    """As it can be typed again; what a URL says of user and password is left out."""
    program = Path(arguments[0]).name if arguments else "python"
    return shlex.join(
        [
            "adcli" if program == "__main__.py" else program,
            *(re.sub(r"://[^/\s]*@", "://***@", a) for a in arguments[1:]),
        ]
    )


@lru_cache
def source_commit() -> str | None:
    """The commit of the source checkout that runs; None where adcli was installed from a package."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
