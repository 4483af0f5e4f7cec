"""From a stage's frozen dataclass to a Typer command, and from its outcome to an exit code."""

import inspect
import json
import os
import sys
from collections.abc import Callable
from dataclasses import MISSING, Field, asdict, fields, replace
from importlib import import_module
from typing import Annotated, Any, get_type_hints

import typer

from adcli.completion import among, values_of
from adcli.ending import FAILED_ROWS, GOES_ON, one_line_errors
from adcli.help import EXAMPLE, NEEDED, RUN, SETTINGS, StageCommand
from stages.artifacts.shards import resolved
from stages.base.config import RunOptions, check_numbers, flag


def command(
    app: typer.Typer,
    name: str,
    config_class: type | str,
    run: Callable | str,
    doc: str,
    first: tuple[str, ...] = (),
    without: tuple[str, ...] = (),
    again: str = GOES_ON,
    prepare: Callable[[Any], Any] = lambda config: config,
    limit: bool = False,
) -> None:
    """Add a subcommand whose flags are the fields of `config_class` (and of RunOptions).

    config_class, run: the objects, or "module:name". Of the stage only the module of its configuration is imported for
    --help and wrong arguments; that of `run`, which may import torch, once the numbers, the places and the
    configuration's own `check` (where it has one) are in order.
    run: takes (config, options) and returns a Summary, or None. doc: the help text: a sentence, and with an example
    that works as it stands. first: options that stand among the needed ones in the help.
    without: names of RunOptions that mean nothing here; again: what is said when it is interrupted; prepare: what is
    made of the configuration before it is checked; limit: whether --limit is offered, which is where each row is made
    by itself. A class with `presets` (name -> values of its fields) also gets
    --preset: other defaults, so that what is given beside it wins.
    """
    config_class = loaded(config_class)
    shared = [f for f in fields(RunOptions) if f.name not in without and (limit or f.name != "limit")]

    def body(**values: Any) -> None:
        common = {f.name: values.pop(f.name) for f in shared}
        values.pop("preset", None)
        options = RunOptions(**common)
        with one_line_errors(options.debug, again):
            options = replace(options, shard=resolved(options.shard, os.environ))
            config = prepare(config_class(**values))
            check_start(config, options)
            summary = loaded(run)(config, options)
            if summary is None:  # a process that keeps no record (stages/training/distributed.py)
                return
            report(summary, options)
            if summary.errors or not_all_written(summary, options):
                raise typer.Exit(FAILED_ROWS)

    own = sorted(fields(config_class), key=lambda f: f.name not in config_class.__annotations__)
    hints, run_hints = get_type_hints(config_class), get_type_hints(RunOptions)
    parameters = [_parameter(f, hints[f.name], _group(f, first)) for f in own]  # inherited ones come last
    parameters += [_parameter(f, run_hints[f.name], RUN) for f in shared]
    if presets := getattr(config_class, "presets", None):
        parameters.append(_preset(presets))
    body.__signature__ = inspect.Signature(parameters)
    body.__annotations__ = {p.name: p.annotation for p in parameters}
    renamed = {flag(f.metadata["was"]): flag(f.name) for f in own if f.metadata.get("was")}
    kept = doc.replace(EXAMPLE, "\b\n" + EXAMPLE)  # lines as written, so that they can be copied
    app.command(name, help=kept, cls=type("StageCommand", (StageCommand,), {"renamed": renamed}))(body)


def loaded(what: Any) -> Any:
    """The object that "module:name" names; anything else as it is."""
    if not isinstance(what, str):
        return what
    module, _, name = what.partition(":")
    return getattr(import_module(module), name)


def check_start(config: Any, options: RunOptions) -> None:
    """What can be said before the stage is imported. Raises InputError."""
    from stages.artifacts.checks import check_places  # here, not for --help: pyarrow and Pillow
    from stages.datasets.opening import allow_megapixels

    check_numbers(options)
    allow_megapixels(options.max_megapixels)
    check_numbers(config)
    check_places(config)
    if hasattr(config, "check"):
        config.check()


def _group(field: Field, first: tuple[str, ...]) -> str:
    if field.name in first or field.default is MISSING:
        return NEEDED
    return field.metadata.get("group") or SETTINGS


def _parameter(field: Field, hint: Any, group: str) -> inspect.Parameter:
    text = field.metadata["help"]
    make = typer.Argument if field.metadata.get("positional") else typer.Option
    default = inspect.Parameter.empty if field.default is MISSING else field.default
    if hint is bool:  # a plain flag: --quiet, not --quiet/--no-quiet
        info = typer.Option(flag(field.name), help=text, show_default=False, rich_help_panel=group)
    else:
        shown = default not in (inspect.Parameter.empty, None, "")
        info = make(help=text, show_default=shown, rich_help_panel=group, autocompletion=values_of(field.name))
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[hint, info]
    )


def _preset(presets: dict[str, dict[str, Any]]) -> inspect.Parameter:
    def use(context: typer.Context, value: str) -> str:
        if value and value not in presets:
            raise typer.BadParameter(f"{value!r} is none of {', '.join(presets)}")
        context.default_map = presets.get(value)
        return value

    said = "; ".join(
        f"{name}: " + " ".join(f"--{k.replace('_', '-')} {v}" for k, v in values.items())
        for name, values in presets.items()
    )
    info = typer.Option(
        help=f"options to start from, those given beside it win ({said})",
        callback=use,
        autocompletion=among(presets),
        is_eager=True,
        show_default=False,
        rich_help_panel=SETTINGS,
    )
    return inspect.Parameter("preset", inspect.Parameter.KEYWORD_ONLY, default="", annotation=Annotated[str, info])


def not_all_written(summary: Any, options: RunOptions) -> bool:
    """True when rows of the only shard are missing and nobody asked for a part: an engine that gave no reply."""
    return options.shard == "0/1" and options.limit is None and not summary.complete


def report(summary: Any, options: RunOptions) -> None:
    """The end of a stage: one JSON line on stdout with --json, otherwise a line for people."""
    if options.json:
        print(json.dumps(asdict(summary), default=str))
    if options.quiet:
        return
    for line in lines_for_people(summary, options.limit):
        print(line, file=sys.stderr)


def lines_for_people(s: Any, limit: int | None = None) -> list[str]:
    """s: Summary; limit: that of the run."""
    if s.up_to_date:
        return [f"{s.out}: up to date ({s.rows} rows)", *_failures(s)]
    rate = f", {s.written / s.seconds:.1f} rows/s" if s.written else ""
    lines = [
        f"{s.out}: {s.rows} of {s.expected} rows, {s.written} new in {s.seconds:.1f} s{rate},"
        f" peak memory {s.peak_rss_mb} MB",
        *_failures(s),
    ]
    if not s.complete and limit:
        lines.append(f"{s.rows} of {s.expected} rows; the same command without --limit does the rest")
    elif not s.complete:
        lines.append("not complete yet: other shards are still to be run")
    return lines


def _failures(s: Any) -> list[str]:
    if not s.errors:
        return []
    again = "the same command tries them again"
    if s.final == s.errors:
        again = "all final, as nothing would change the outcome: only --retry all tries them again"
    elif s.final:
        again += f", but for {s.final} that are final: only --retry all tries those"
    rows = f"{s.errors} row{'s' * (s.errors != 1)}"
    return [f"{rows} failed (column `error`; {again}):", *(f"  {e}" for e in s.first_errors)]
