"""`adcli ask`: a conversation on the terminal, or questions from standard input, one a line."""

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from adcli.ending import ANEW
from adcli.options import command

if TYPE_CHECKING:
    from stages.base.config import RunOptions
    from stages.vmad.config import AskConfig

DOC = """Ask a fine-tuned VMAD about one image, and go on asking.

The first answer comes with a mask, written beside the image. Follow-up questions are read from the terminal or, one
a line, from standard input, until it ends or a line is empty; a mask that belongs to a later answer replaces the
first. The model is told what a normal object looks like, as in training or by --normal. With --json each answer is
one line of JSON.

Example: adcli ask --checkpoint runs/riad/vmad.parquet --image /data/mvtec/bottle/test/contamination/000.png \\
  --object bottle
"""


def add_to(app: typer.Typer, arguments: list[str]) -> None:
    """Add the subcommand."""
    without = ("shard", "max_errors", "overwrite", "retry")
    command(app, "ask", "stages.vmad.config:AskConfig", talk, DOC, ("object", "question"), without, ANEW)


def talk(config: "AskConfig", options: "RunOptions") -> None:
    """Print the answers as they come. Leaves with exit code 0."""
    from stages.base.errors import InputError
    from stages.vmad.ask import answers, mask_path, write_mask

    path = mask_path(config)
    for answer in answers(config, questions(options.quiet or options.json)):
        if isinstance(answer, InputError):
            print(f"adcli: {answer}", file=sys.stderr)
            continue
        if answer.mask is not None:
            write_mask(path, answer.mask)
        if options.json:
            print(
                json.dumps(
                    {
                        "question": answer.question,
                        "answer": answer.text,
                        "mask": None if answer.mask is None else str(path),
                    }
                ),
                flush=True,
            )
            continue
        print(answer.text, flush=True)
        if answer.mask is not None and not options.quiet:
            print(f"mask: {path} (highest probability {answer.mask.max():.3f})", file=sys.stderr)
    raise typer.Exit(0)


def questions(silent: bool) -> Iterator[str]:
    """Lines of standard input up to its end or an empty one."""
    while True:
        if not silent and sys.stdin.isatty():
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline().strip()
        if not line:
            return
        yield line
