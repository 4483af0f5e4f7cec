"""`adcli evaluate`."""

import typer

from adcli.options import command

DOC = """Metrics with 95% intervals, the paper's tables, and a report to look at. Needs no torch.

Example: adcli evaluate runs/demo/scores.parquet --manifest runs/demo/manifest.parquet \\
  --out runs/demo/metrics.parquet --report runs/demo/report.html
"""


def add_to(app: typer.Typer, arguments: list[str]) -> None:
    """Add the subcommand."""
    from stages.evaluate import EvaluateConfig, run

    command(app, "evaluate", EvaluateConfig, run, DOC, without=("shard", "max_errors"))
