"""Commands whose options depend on --method: only the configuration of the method that is named gets imported."""

from typing import NamedTuple

import typer

from adcli.completion import among
from adcli.options import command


class Method(NamedTuple):
    """config, run: "module:name", see `options.command`; text: the help below the command's first sentence; first:
    options that stand among the needed ones; limit: see `options.command`."""

    config: str
    run: str
    text: str
    first: tuple[str, ...] = ()
    limit: bool = False


def by_method(
    app: typer.Typer,
    name: str,
    sentence: str,
    example: str,
    methods: dict[str, Method],
    arguments: list[str],
    without: tuple[str, ...] = (),
) -> None:
    """Add the subcommand `name` with the options of the method that `arguments` name; where they name none, one that
    says which there are. example: for the latter's help."""
    if method := methods.get(asked(arguments) or ""):
        doc = f"{sentence}\n\n{method.text}"
        command(app, name, method.config, method.run, doc, ("method", *method.first), without, limit=method.limit)
        return

    option = typer.Option(help=f"one of {', '.join(methods)}", autocompletion=among(methods))

    def choose(method: str = option) -> None:
        raise typer.BadParameter(f"{method!r} is none of {', '.join(methods)}", param_hint="--method")

    loose = {"allow_extra_args": True, "ignore_unknown_options": True}  # they belong to some method
    each = f"Each method has options of its own: `adcli {name} --method NAME --help` lists them."
    app.command(name, help=f"{sentence}\n\n{each}\n\n\b\n{example}", context_settings=loose)(choose)


def asked(arguments: list[str]) -> str | None:
    """The value of --method, written with a blank or with an equals sign."""
    for i, word in enumerate(arguments):
        if word == "--method":
            return next(iter(arguments[i + 1 :]), None)
        if word.startswith("--method="):
            return word.partition("=")[2]
    return None
