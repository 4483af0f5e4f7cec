"""`adcli`: one subcommand per stage. Only the module of the subcommand asked for is imported."""

import importlib
import signal
import sys

import typer

COMMANDS = {   # name -> (module, line in `adcli --help`), in the order of the pipeline
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
}

EPILOG = ("Every stage reads and writes Parquet, resumes when it was interrupted, and takes --help; run in "
          "this order, the examples there work as they stand, from `data synth vidad` on. "
          "Exit codes: 0 done, 1 defect of adcli, 2 usage or input, 3 done with failed rows, "
          "130 interrupted.")


def build(arguments: list[str]) -> typer.Typer:
    """The application with the subcommand named first in `arguments`; the others are only names."""
    app = typer.Typer(help="Image anomaly detection with vision-language models, stage by stage.",
                      epilog=EPILOG, no_args_is_help=True, pretty_exceptions_enable=False,
                      add_completion=False, rich_markup_mode=None)
    app.callback()(lambda: None)
    for name, (module, line) in COMMANDS.items():
        if arguments[:1] == [name]:
            importlib.import_module(module).add_to(app, arguments)
        else:
            app.command(name, help=line)(lambda: None)
    return app


def main() -> None:
    """Entry point of the console script."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)   # a scheduler's stop is a Ctrl-C
    build(sys.argv[1:])(prog_name="adcli")
