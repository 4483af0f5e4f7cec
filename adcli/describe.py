"""`adcli data describe`: who made a table, from what, and what that was made from."""

import json
import os
import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stages.base.config import RunOptions, argument

if TYPE_CHECKING:
    from stages.artifacts.origin import Input, Made

DOC = """Say who made a table, from what, with which settings, and so on up the chain.

Weights below an artifact, and what a command wrote for people (the report, the ranking, heat maps), are described by
the table they belong to. Inputs are found by the paths that were recorded. `unchanged` says that a table holds what it
held then; of images, checkpoints and other folders it is only said whether they are there. A table that adcli did not
write is `made elsewhere`.

Example: adcli data describe runs/demo/scores.parquet
"""
WITHOUT = ("shard", "overwrite", "max_errors", "retry", "max_megapixels", "quiet")  # of RunOptions
LONGEST = 60  # characters of one setting's value; --json has all
COMMANDS = 3  # command lines of one artifact that are shown


@dataclass(frozen=True, kw_only=True)
class DescribeConfig:
    artifact: Path = argument("an artifact, a folder of artifacts, a Parquet file, or what was written with one")


def describe_and_say(config: DescribeConfig, options: RunOptions) -> None:
    """Print the chain. Raises InputError where nothing of the kind is there."""
    from stages.artifacts.origin import chain, tops

    found = chain(config.artifact)
    if options.json:
        print(json.dumps({"artifacts": [asdict(made) for made in found.values()]}, default=str))
        return
    asked = Path(os.path.abspath(config.artifact))
    width = max(shutil.get_terminal_size((80, 24)).columns, 40)
    shown: set[str] = set()
    for made in tops(config.artifact, found):
        if made.path not in shown:
            if not Path(made.path).is_relative_to(asked):
                print(f"{plain(short(str(asked)))} belongs to")
            print("\n".join([plain(short(made.path)), *lines(made, found, shown, width, "  ")]))


def lines(made: "Made", found: dict[str, "Made"], shown: set[str], width: int, indent: str) -> Iterator[str]:
    """About one table, then about what it was made from, further indented. shown: paths that need no more lines."""
    shown.add(made.path)
    for name, text in facts(made):
        yield from wrapped(f"{name:<9} {text}", width, indent, indent + " " * 10)
    if made.inputs:
        yield f"{indent}from"
    for given in made.inputs:
        yield from of_input(given, found, shown, width, indent + "  ")


def of_input(given: "Input", found: dict[str, "Made"], shown: set[str], width: int, indent: str) -> Iterator[str]:
    """The line of an input, and what is known of it where that was not shown yet."""
    above = bool(given.tables) and all(t in shown for t in given.tables)
    said = f"{given.name} {short(given.path)} ({given.state}{'; see above' if above else ''})"
    yield from wrapped(said, width, indent, indent + "    ")
    for table in given.tables:
        if table not in shown:
            if table != given.path:
                yield from wrapped(short(table), width, indent + "  ", indent + "  ")
            yield from lines(found[table], found, shown, width, indent + "  ")


def facts(made: "Made") -> Iterator[tuple[str, str]]:
    """(heading, text) about one table."""
    if made.record is None:
        who = "an artifact's part without its record (_adcli.json)" if made.key else "made elsewhere"
        yield "table", f"{who}, {many(made.rows)}"
        yield "columns", ", ".join(f"{name} ({kind})" for name, kind in made.columns)
        return
    r = made.record
    of = "" if made.complete else f" of {r.get('expected', '?')}, not complete"
    failed = f", {made.errors} failed" if made.errors else ""
    yield "table", f"{r.get('table', '?')}, {many(made.rows)}{of}{failed}"
    commit = f", commit {r['commit'][:12]}" if isinstance(r.get("commit"), str) else ""
    yield "made by", f"{r['stage']} of adcli {r.get('version', '?')}{commit}{when(r.get('date'))}"
    commands = commands_of(r)
    for command in commands[:COMMANDS]:
        yield "command", command
    if len(commands) > COMMANDS:
        yield "", f"and {len(commands) - COMMANDS} more"
    yield "settings", "; ".join(f"{name} {value_of(value)}" for name, value in r["parameters"].items()) or "none"
    yield "seed", str(r.get("seed", "?"))
    if runs := r.get("runs"):
        where = ", ".join(dict.fromkeys(f"{run.get('device')} of {run.get('host')}" for run in runs))
        yield "took", f"{r.get('seconds', '?')} s in {len(runs)} run{'s' * (len(runs) != 1)} on {where}"
        if rate := rate_of(runs, made.rows or 0, r.get("expected")):
            yield "rate", rate
    if caveat := r["notes"].get("caveat"):
        yield "note", str(caveat)


def rate_of(runs: list[dict], rows: int, expected: object) -> str:
    """What a row took in the runs that wrote any, the loading of models included, and what others would take at that
    rate: those that are missing, or 1,000. Empty where nothing can be said."""
    at_work = [run for run in runs if run.get("rows") and run.get("seconds")]
    written, seconds = (sum(run[name] for run in at_work) for name in ("rows", "seconds"))
    if not written:
        return ""
    tokens = sum(run.get("tokens", 0) for run in at_work)
    more = f", {short_number(tokens / seconds)} tokens/s" if tokens else ""
    missing = expected - rows if isinstance(expected, int) and expected > rows else 0
    ahead = f"the {missing:,} missing" if missing else "1,000 more"
    row, rate = short_number(seconds / written), short_number(written / seconds)
    return (
        f"{row} s a row, {rate} rows/s{more} of one process, its start included; {ahead} take"
        f" {spelt((missing or 1000) * seconds / written)}, divided by the number of shards"
    )


def short_number(value: float) -> str:
    """'0.528', '61.2', '2,000'."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def spelt(seconds: float) -> str:
    """'12 s', '2.5 min', '3.1 h'."""
    if seconds < 100:
        return f"{seconds:.2g} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def many(rows: int | None) -> str:
    """'1 row'; '? rows' where nobody knows."""
    return "1 row" if rows == 1 else f"{'?' if rows is None else rows} rows"


def commands_of(record: dict) -> list[str]:
    """The command lines that wrote rows, each once, in the order of their runs; of older records the first alone."""
    said = [run.get("command") for run in record.get("runs", []) if run.get("rows")]
    return list(dict.fromkeys(c for c in said if isinstance(c, str))) or [str(record.get("command", "?"))]


def value_of(value: object) -> str:
    """One setting in a few words."""
    if isinstance(value, dict):
        value = ", ".join(f"{k} {v}" for k, v in value.items())
    if isinstance(value, list):
        value = ", ".join(map(str, value))
    text = " ".join(str(value).split()) or "''"
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def when(date: object) -> str:
    """', 2026-01-31 12:00:00 UTC' of a record's date."""
    return f", {date.replace('T', ' ').replace('+00:00', ' UTC')}" if isinstance(date, str) else ""


def short(path: str) -> str:
    """The path as it can be typed here: relative to the working directory where it lies below that."""
    place, here = Path(path), Path.cwd()
    return str(place.relative_to(here)) if place.is_relative_to(here) and place != here else path


def wrapped(text: str, width: int, first: str, then: str) -> list[str]:
    """Lines of a terminal; words, and so paths, stay whole."""
    return textwrap.wrap(
        plain(text),
        width,
        initial_indent=first,
        subsequent_indent=then,
        break_long_words=False,
        break_on_hyphens=False,
    )


def plain(text: str) -> str:
    """What would steer the terminal is written out."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
