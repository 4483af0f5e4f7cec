"""The folder of an artifact as a whole: what is in it, and the changes that happen under its lock.

Every change leaves a folder that the same command can go on from, wherever it is killed.
"""

import json
import os
import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from stages.artifacts import locks, parts
from stages.artifacts.files import OWN_FOLDERS, OWN_TEMPORARY, flush_folder, remove_tree, temporaries, write_json
from stages.artifacts.parts import Written
from stages.artifacts.record import COMPLETE, FORMAT, MEND, PARTIAL, Damaged, Spec, difference, find_record, new_record
from stages.artifacts.tables import Table
from stages.base.errors import InputError

REPLACING = "replacing"  # in a partial record: what else is in the folder is of other settings and has to go


DIGESTS = "_files.json"  # of the files that a stage reads: quickly made again


def own(name: str) -> bool:
    """Whether a name in an artifact's folder is of something that adcli makes there and --overwrite takes away."""
    return name in (COMPLETE, PARTIAL, DIGESTS, *OWN_FOLDERS) or bool(parts.NAME.fullmatch(name))


def passing(name: str) -> bool:
    """Whether it is of a lock or of a file in the making."""
    return bool(locks.NAME.fullmatch(name) or OWN_TEMPORARY.fullmatch(name))


def strangers(out: Path) -> list[str]:
    """What others put into an artifact's folder, names in order."""
    return sorted(e.name for e in out.iterdir() if not own(e.name) and not passing(e.name))


def notes_fit(record: dict, spec: Spec) -> bool:
    """Whether a record's notes are of the kinds that this command writes; they are in no key, and damage to them
    is not seen otherwise."""
    said, new = record["notes"], json.loads(json.dumps(spec.notes, default=str))
    kinds = [{n: (type(v), v == "") for n, v in notes.items()} for notes in (said, new)]  # an empty root is none
    return kinds[0] == kinds[1] and not any("\0" in str(value) for value in said.values())


def moved(record: dict, spec: Spec) -> bool:
    """Whether the images of a manifest, whose paths start at its note `root`, lie elsewhere by now."""
    return record["notes"].get("root") != spec.notes.get("root")


class OtherSettings(InputError):
    """The artifact that is there was made with other settings, or by another version."""


@dataclass(frozen=True)
class State:
    """An artifact on disk. extra: parts that a complete record does not know; stale: parts of other settings. Both can
    only come about where a file system has no locks."""

    record: dict
    complete: bool
    rows: list[Written]
    extra: list[Path]
    stale: list[Path]


def read(out: Path, table: Table, spec: Spec, known: set[tuple]) -> State | None:
    """What is there of an artifact; None without a record.

    known: the keys that it can hold.

    Raises:
        OtherSettings: its record is another one's.
        Damaged: its record or a part cannot be read, or a part of a complete one is gone.
    """
    found = find_record(out)
    if found is None:
        return None
    record, complete = found
    if record.get("format") != FORMAT or record["key"] != spec.key:
        raise OtherSettings(difference(out, record, spec))
    if record.get(REPLACING):
        return State(record, False, [], [], [])
    found_parts = sorted({*parts.names(out), *(parts.of_record(out, record) if complete else ())})
    there = {}
    for part in found_parts:
        try:
            there[part] = parts.read_keys(part, table, known, spec.key)
        except Damaged:
            if os.path.lexists(part):
                raise  # otherwise, without locks, another process has just removed what was there twice
    stale = [part for part, rows in there.items() if rows is None]
    extra = _unlisted(out, record, there) if complete else []
    listed_first = sorted((p for p in there if p not in stale), key=lambda p: p in extra)
    return State(record, complete, [row for part in listed_first for row in there[part] or ()], extra, stale)


def _unlisted(out: Path, record: dict, there: dict[Path, list[Written] | None]) -> list[Path]:
    """Parts that a complete record does not name. Raises Damaged where one that it names is gone or has other rows."""
    listed = record.get("parts")
    if not isinstance(listed, dict):
        raise Damaged(f"{out / COMPLETE}: damaged (`parts` is missing); {MEND}")
    counts = Counter({part.name: len(rows or []) for part, rows in there.items()})
    for name, n in listed.items():
        if name not in counts:
            raise Damaged(f"{out / name}: this part of the artifact is gone; {MEND}")
        if counts[name] != n:
            raise Damaged(f"{out / name}: {counts[name]} rows where {n} were written; {MEND}")
    return [part for part in there if part.name not in listed]


def prepare(
    out: Path, table: Table, spec: Spec, keys: list[tuple], others_write: bool, overwrite: bool
) -> State | None:
    """Make the folder ready for rows of this spec; what is there of it already, None for a new artifact.

    others_write: processes of other shards are alive.

    Raises:
        OtherSettings, Damaged: as `read`, unless `overwrite`, or what was made with other settings holds nothing.
        InputError: the folder holds something else.
    """
    record, known = new_record(spec, table.name, len(keys)), set(keys)
    try:
        state = read(out, table, spec, known)
    except OtherSettings:
        if not overwrite and (others_write or not _replaceable(out)):
            raise
        replace(out, record)
        return None
    except Damaged:
        if not overwrite:
            raise
        mend(out, table, spec, known, record)
        state = read(out, table, spec, known)
    if state is None:
        begin(out, record)
    elif state.record.get(REPLACING):
        replace(out, state.record)
    else:
        if moved(state.record, spec) or (overwrite and not notes_fit(state.record, spec)):
            write_json(out / (COMPLETE if state.complete else PARTIAL), state.record | {"notes": spec.notes})
        for part in state.stale:
            part.unlink()
    return state


def require_place(out: Path, spec: Spec, overwrite: bool) -> None:
    """What `prepare` would refuse for all that can be said without reading a part, before anything is touched: for a
    command that writes several artifacts, none of which is to be replaced when another one is refused.

    Raises:
        OtherSettings, Damaged, InputError: as `prepare`.
    """
    if not out.exists():
        return
    try:
        found = find_record(out)
    except Damaged:
        if not overwrite:
            raise
        return
    if found is None:
        _require_empty(out)
    elif (found[0].get("format") != FORMAT or found[0]["key"] != spec.key) and not (overwrite or _replaceable(out)):
        raise OtherSettings(difference(out, found[0], spec))


def _replaceable(out: Path) -> bool:
    """Whether an artifact of other settings holds nothing that could be lost."""
    found = find_record(out)
    return bool(found and found[0].get(REPLACING)) or holds_nothing(out)


def close(out: Path, record: dict, run: dict, rows: list[Written], complete: bool, whole: bool) -> None:
    """Write the record at the end of a run.

    run: its entry. complete: what the record was until now; whole: every key has its row. A complete one stays so.
    """
    runs = [*record["runs"], run]
    record = record | {
        "runs": runs,
        "rows": len(rows),
        "errors": sum(row.error is not None for row in rows),
        "seconds": round(sum(r["seconds"] for r in runs), 2),
        "tokens": sum(r["tokens"] for r in runs),
    }
    if whole:
        record["parts"] = dict(sorted(Counter(row.part.name for row in rows).items()))
    write_json(out / (COMPLETE if complete else PARTIAL), record)
    if whole and not complete:
        rename(out / PARTIAL, out / COMPLETE)


def begin(out: Path, record: dict) -> None:
    """Put the record of a new artifact into an empty folder. Raises InputError where other files are in it."""
    _require_empty(out)
    write_json(out / PARTIAL, record)


def _require_empty(out: Path) -> None:
    others = [e.name for e in out.iterdir() if not passing(e.name)]
    if others:
        raise InputError(f"{out}: holds other files ({others[0]}, ...) and no artifact of adcli; give another --out")


def replace(out: Path, record: dict) -> None:
    """Put a new artifact in place of another. The record comes first and says that the rest has to go, so that after a
    kill nothing of the old artifact reads as a table, and whoever comes next goes on with the removal. What adcli did
    not make stays."""
    if not (out / PARTIAL).is_file():
        remove_tree(out / PARTIAL)  # a folder with this name
    write_json(out / PARTIAL, record | {REPLACING: True})
    remove_tree(out / COMPLETE)
    for entry in out.iterdir():
        if own(entry.name) and entry.name != PARTIAL:
            remove_tree(entry)
    flush_folder(out)
    if strange := strangers(out):
        print(f"adcli: {out}: not made by adcli and left there: {', '.join(strange)}", file=sys.stderr)
    write_json(out / PARTIAL, {name: value for name, value in record.items() if name != REPLACING})


def mend(out: Path, table: Table, spec: Spec, known: set[tuple], record: dict) -> None:
    """Take away what is damaged: single parts, whose rows are then done again, or with the record all there is.
    record: a new one for that case."""
    try:
        found = find_record(out)
    except Damaged:
        replace(out, record)
        return
    if found and found[1]:
        rename(out / COMPLETE, out / PARTIAL)
    for part in parts.names(out):
        try:
            parts.read_keys(part, table, known, spec.key)
        except Damaged:
            remove_tree(part)  # a folder, perhaps


def rename(old: Path, new: Path) -> None:
    """Rename within a folder, flushed to disk."""
    old.replace(new)
    flush_folder(new.parent)


def holds_nothing(out: Path) -> bool:
    """Whether an artifact that is not complete has neither rows nor anything else that took work."""
    if (out / COMPLETE).exists():
        return False
    return not any(
        e.is_file() or any(f.is_file() for f in e.rglob("*"))
        for e in out.iterdir()
        if own(e.name) and e.name not in (PARTIAL, DIGESTS)
    )


def withdraw(out: Path) -> None:
    """Remove an artifact that holds nothing: the record last, without which nothing reads as one."""
    for entry in out.iterdir():
        if own(entry.name) and entry.name != PARTIAL:
            remove_tree(entry)
    (out / PARTIAL).unlink(missing_ok=True)


def remove_temporaries(out: Path, own: str, alive: set[str], real: bool, complete: bool) -> None:
    """Remove what killed processes had in the making; what belongs to a living process stays.

    own: prefix of this shard's parts, alive: those of the others. real: the file system has locks; where it has none
    nobody knows who lives, and others' files stay until the artifact is complete.
    """
    for path in list(temporaries(out)):
        owner = re.search(r"part-\d{5}-of-\d{5}", path.name) if path.parent == out else None
        record = path.parent == out and path.name.endswith((COMPLETE, PARTIAL))  # written with the folder locked
        if real:
            goes = record or (owner[0] not in alive if owner else not alive)
        else:
            goes = complete or (owner is not None and owner[0] == own)
        if goes:
            remove_tree(path)
