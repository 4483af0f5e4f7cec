"""`adcli evaluate`: scores of images, or with --questions answers to questions."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from adcli.ending import ANEW
from adcli.options import command

DOC = """Metrics with 95% intervals, the papers' tables, and a report to look at. Needs no torch.

Example: adcli evaluate runs/demo/scores.parquet --manifest runs/demo/manifest.parquet --out runs/demo/results

OUT is a folder: metrics.parquet, report.html, tables/, thresholds.parquet, ranking.csv and, where there are maps,
heatmaps/ are written into it. An option such as --report puts that one elsewhere. Where OUT ends in .parquet it is the
table of metrics itself, and only the outputs that are named are written beside it.

Answers to questions have options of their own: `adcli evaluate --questions QUESTIONS --help` lists them.

Example: adcli evaluate runs/demo/scores.parquet --manifest runs/demo/manifest.parquet \\
  --out runs/demo/metrics.parquet --report runs/demo/report.html
"""
QUESTIONS = """Metrics of answers to questions, with 95% intervals, SAGE's tables, and a report to look at.

Example: adcli evaluate --questions runs/qa/questions.parquet --answers runs/qa/answers.parquet --out runs/qa/results

Accuracy per level and for groups, sentence similarity, a judge's marks. Needs torch for the sentence similarity alone.

OUT is a folder: metrics.parquet, report.html and tables/ are written into it. An option such as --report puts that one
elsewhere. Where OUT ends in .parquet it is the table of metrics itself, and only the outputs that are named are written
beside it.

Example: adcli evaluate --questions runs/qa/questions.parquet --answers runs/qa/answers.parquet \\
  --judgements runs/qa/judgements.parquet --manifest runs/qa/manifest.parquet --out runs/qa/metrics.parquet \\
  --report runs/qa/report.html
"""
OUTPUTS = {  # field -> its name in the folder
    "report": "report.html",
    "tables": "tables",
    "thresholds": "thresholds.parquet",
    "heatmaps": "heatmaps",
    "ranking": "ranking.csv",
}
METRICS = "metrics.parquet"


def in_one_folder(config: Any) -> Any:
    """The configuration with every output that is not named in the folder --out. config: of a stage of evaluate.

    A table of metrics is no such folder: a name that ends in .parquet, or an artifact that is there already."""
    from stages.artifacts.record import COMPLETE, PARTIAL

    out: Path = config.out
    if out.suffix == ".parquet" or out.is_file() or any((out / mark).exists() for mark in (COMPLETE, PARTIAL)):
        return config
    missing = [n for n in OUTPUTS if hasattr(config, n) and getattr(config, n) is None]
    if not getattr(config, "maps", None):
        missing = [n for n in missing if n != "heatmaps"]
    return replace(config, out=out / METRICS, **{n: out / OUTPUTS[n] for n in missing})


def add_to(app: typer.Typer, arguments: list[str]) -> None:
    """Add the subcommand with the options for what `arguments` evaluate."""
    if any(word.split("=")[0] in ("--questions", "--answers") for word in arguments):
        name, stage, doc, first = "EvaluateQaConfig", "questions", QUESTIONS, ("judgements", "manifest")
    else:
        name, stage, doc, first = "EvaluateConfig", "images", DOC, ("maps",)
    config, run = f"stages.evaluate.config:{name}", f"stages.evaluate.{stage}:run"
    without = ("shard", "max_errors", "retry")
    command(app, "evaluate", config, run, doc, first, without, ANEW, in_one_folder)
