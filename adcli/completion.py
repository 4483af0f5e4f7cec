"""Completion in the shell: what `--install-completion` puts where the shell starts asks `adcli` itself, with the words
typed so far in the environment. Only the options of the command that these words name are built."""

import os
import shlex
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module

VARIABLE = "_ADCLI_COMPLETE"  # set by the shell's script
VALUES = {  # option -> where its values stand, "module:name"; read when they are asked for
    "dtype": "stages.vlm.options:DTYPES",
    "engine": "stages.vlm.options:ENGINES",
    "judge": "stages.vlm.models:SHORT_NAMES",
    "method": "adcli.inspect:METHODS",  # other commands choose their options by it, see methods.py
    "retry": "stages.base.config:RETRY",
    "rewriter": "stages.vlm.models:SHORT_NAMES",
    "vlm": "stages.vlm.models:SHORT_NAMES",
}


def answer(build: Callable) -> int:
    """Print what the word at the cursor may become, for the script of the shell; returns an exit code. build: from
    arguments to the application."""
    import typer

    try:
        before, current, after = typed(os.environ)
        if "COMP_WORDS" in os.environ:  # without the `=` that bash takes for a word
            os.environ["COMP_WORDS"] = "\n".join(map(shlex.quote, ("adcli", *before, current)))
            os.environ["COMP_CWORD"] = str(1 + len(before))
        typer.main.get_command(build([*before, *after])).main(prog_name="adcli", complete_var=VARIABLE)
    except Exception:  # nobody asked for a traceback in the middle of a line
        return 1
    return 0


def typed(environment: Mapping[str, str]) -> tuple[list[str], str, list[str]]:
    """(words before the cursor, the word at it, words behind it) of the line after `adcli`. bash gives all words and
    the cursor's number; the other shells give the line up to the cursor."""
    if (line := environment.get("COMP_WORDS")) is not None:
        words, at = split(line), int(environment["COMP_CWORD"])
        current = "".join(words[at : at + 1])
    else:
        line = environment.get("_TYPER_COMPLETE_ARGS", "")
        words = split(line)
        at = len(words) - (not line.endswith(" "))
        current = "".join(words[at:])
    before, after = ([w for w in some if w != "="] for some in (words[1:at], words[at + 1 :]))
    return before, "" if current == "=" else current, after


def split(line: str) -> list[str]:
    """Words as a shell sees them; a quotation that is still open ends with the line."""
    lexer = shlex.shlex(line, posix=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    words = []
    try:
        words.extend(lexer)
    except ValueError:
        words.append(lexer.token)
    return words


def among(values: Iterable[str]) -> Callable[[str], list[str]]:
    """For typer.Option(autocompletion=...): those of `values` that begin as what was typed."""

    def begin(incomplete: str) -> list[str]:
        return [value for value in values if value.startswith(incomplete)]

    return begin


def values_of(field: str) -> Callable[[str], list[str]] | None:
    """`among` the values of a field of that name; None where nobody knows them, and the shell offers files."""
    if field not in VALUES:
        return None

    def begin(incomplete: str) -> list[str]:
        module, _, name = VALUES[field].partition(":")
        return among(getattr(import_module(module), name))(incomplete)

    return begin
