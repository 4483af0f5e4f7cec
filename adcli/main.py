"""`adcli`: one subcommand per stage. Only the module of the subcommand asked for is imported."""

import importlib
import io
import os
import sys
from typing import TYPE_CHECKING

from adcli import __version__, completion

if TYPE_CHECKING:
    import typer

COMMANDS = {  # name -> (module, line in `adcli --help`), in the order of the pipeline
    "data": ("adcli.data", "Index, check and augment data sets, ask questions about them, render scenes."),
    "caption": ("adcli.caption", "Describe every image in words."),
    "rewrite-negatives": ("adcli.rewrite_negatives", "Rewrite normal captions into contradictions."),
    "train-encoder": ("adcli.train_encoder", "Fine-tune a text encoder per task on both."),
    "train-visualad": ("adcli.train_visualad", "Train two tokens in a frozen ViT to find anomalies anywhere."),
    "finetune-mllm": ("adcli.finetune_mllm", "Fine-tune a multimodal language model (SAGE, VMAD)."),
    "score": ("adcli.score", "Score every image of a manifest."),
    "ask": ("adcli.ask", "Talk with a fine-tuned model about one image (VMAD)."),
    "models": ("adcli.models", "Vision-language models with a short name."),
    "evaluate": ("adcli.evaluate", "Metrics, tables and the HTML report."),
    "inspect": ("adcli.inspect", "Rank your own pictures: a folder of good ones, one of new ones."),
}
# Until their end: they start again.
KEEPS_NOTHING = (["ask"], ["models"], ["evaluate"], ["data", "check"], ["data", "describe"])

EPILOG = (
    "Every stage reads and writes Parquet, resumes when it was interrupted, and takes --help; run in "
    "this order, the examples there work as they stand, from `data synth vidad` on. "
    "Exit codes: 0 done, 1 defect of adcli, 2 usage or input, 3 done with failed rows, "
    "130 interrupted."
)


def build(arguments: list[str]) -> "typer.Typer":
    """The application with the subcommand named first in `arguments`; the others are only names."""
    import typer

    app = typer.Typer(
        help="Image anomaly detection with vision-language models, stage by stage.",
        epilog=EPILOG,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )

    def show(context: typer.Context, asked: bool) -> None:
        if asked and not context.resilient_parsing:
            print(f"adcli {__version__}")
            raise typer.Exit

    def top(version: bool = typer.Option(False, "--version", help="print the version", callback=show, is_eager=True)):
        pass

    app.callback()(top)
    for name, (module, line) in COMMANDS.items():
        if arguments[:1] == [name]:
            importlib.import_module(module).add_to(app, arguments)
        else:
            app.command(name, help=line)(lambda: None)
    return app


def run(arguments: list[str]) -> int:
    """Run one command line; returns its exit code. Errors are one line on stderr, see adcli.ending."""
    if completion.VARIABLE in os.environ:
        return completion.answer(build)
    from adcli.ending import ANEW, GOES_ON, exit_code_of

    def work() -> None:
        import typer

        command = typer.main.get_command(build(arguments))
        try:
            with command.make_context("adcli", list(arguments)) as context:
                command.invoke(context)
        except Exception as e:
            if type(e).__name__ != "NoArgsIsHelpError":
                raise
            print(e.format_message())
            raise typer.Exit(2) from None

    again = ANEW if any(arguments[: len(words)] == words for words in KEEPS_NOTHING) else GOES_ON
    return exit_code_of(work, "--debug" in arguments, again)


def main() -> None:
    """Entry point of the console script. Nothing but this file is loaded before the checks and the signals' handlers,
    so that neither Windows nor an early Ctrl-C gives a traceback."""
    if sys.platform == "win32":
        print("adcli: does not run on Windows itself; install WSL (wsl --install) and run it there", file=sys.stderr)
        sys.exit(2)
    from adcli.ending import end_on_signals, leave

    end_on_signals()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: names of files need not be UTF-8
    leave(run(sys.argv[1:]))
