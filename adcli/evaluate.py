"""`adcli evaluate`: scores of images, or with --questions answers to questions."""

import typer

from adcli.ending import ANEW
from adcli.options import command

DOC = """Metrics with 95% intervals, the papers' tables, and a report to look at. Needs no torch.

Answers to questions have options of their own: `adcli evaluate --questions QUESTIONS --help` lists them.

Example: adcli evaluate runs/demo/scores.parquet --manifest runs/demo/manifest.parquet \\
  --out runs/demo/metrics.parquet --report runs/demo/report.html
"""
QUESTIONS = """Answers to questions: accuracy per level and for groups, sentence similarity, a judge's marks, with 95%
intervals; SAGE's tables and a report to look at. Needs torch for the sentence similarity alone.

Example: adcli evaluate --questions runs/qa/questions.parquet --answers runs/qa/answers.parquet \\
  --judgements runs/qa/judgements.parquet --manifest runs/qa/manifest.parquet --out runs/qa/metrics.parquet \\
  --report runs/qa/report.html
"""


def add_to(app: typer.Typer, arguments: list[str]) -> None:
    """Add the subcommand with the options for what `arguments` evaluate."""
    if any(word.split("=")[0] in ("--questions", "--answers") for word in arguments):
        from stages.evaluate import questions as stage

        config, doc = stage.EvaluateQaConfig, QUESTIONS
    else:
        from stages.evaluate import images as stage

        config, doc = stage.EvaluateConfig, DOC
    command(app, "evaluate", config, stage.run, doc, without=("shard", "max_errors", "retry"), again=ANEW)
