"""Command lines of adcli in scripts and texts: whether the program would take them."""

import re
import shlex
from functools import cache
from pathlib import Path

import typer
from typer.main import get_command

from adcli.main import build
from tests.pipelines.recorded import value

USAGE_ERROR = typer.BadParameter.__base__  # click's, or that of the click that Typer brings
TORCHRUN = (("torchrun",), ("python", "-m", "torch.distributed.run"))  # followed by their options and `-m adcli`


@cache
def application(words: tuple[str, ...], method: str, questions: bool):
    """adcli with the subcommand's options, which depend on the method or on --questions. words: `data index vidad`."""
    more = ["--method", method] if method else []
    return get_command(build([*words, *more, *["--questions"] * questions]))


def check(arguments: list[str]) -> None:
    """Raises USAGE_ERROR where adcli would."""
    method = value(arguments, "--method") if "--method" in arguments else ""
    words = tuple(arguments[: 3 if arguments[0] == "data" else 1])
    command = application(words, method, "--questions" in arguments)
    context = command.make_context("adcli", list(arguments))
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)


def shown(page: Path) -> str:
    """What a reader sees of a page: HTML comments are left out."""
    return re.sub(r"<!--.*?-->", "", page.read_text(), flags=re.S)


def fenced(page: Path) -> str:
    """The blocks of a page with command lines: not those in Python or marked as text."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", shown(page), re.M | re.S)
    return "\n".join(text for language, text in blocks if language not in ("python", "text"))


def lines_of(page: Path) -> list[list[str]]:
    """The words of every line in those blocks; lines that end in a backslash are joined, `$ ` before a command and
    comments are left out."""
    joined = fenced(page).replace("\\\n", " ")
    return [words for line in joined.splitlines() if (words := words_of(line.removeprefix("$ ")))]


def words_of(line: str) -> list[str]:
    """As a shell splits them; none for a line of a program's output that no shell would take."""
    try:
        return shlex.split(line, comments=True)
    except ValueError:
        return []


def adcli_of(words: list[str]) -> list[str] | None:
    """The arguments of adcli in a command line, also behind torchrun; None for any other line."""
    if words[:1] == ["adcli"]:
        return words[1:]
    if any(tuple(words[: len(start)]) == start for start in TORCHRUN) and "adcli" in words:
        return words[words.index("adcli") + 1 :]
    return None
