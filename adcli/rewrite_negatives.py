"""`adcli rewrite-negatives`."""

import typer

from adcli.options import command

DOC = """Rewrite the captions of normal training images into contradictions (VID-AD, section 4.2).

Every rewrite is checked: same structure and length, replacements only, at least one attribute
contradicted, not the caption of another normal image. --rewriter rules needs no model; a model name
asks that model, up to five times a row.

Example: adcli rewrite-negatives runs/demo/captions.parquet --manifest runs/demo/manifest.parquet \\
  --out runs/demo/negatives.parquet
"""


def add_to(app: typer.Typer, arguments: list[str]) -> None:
    """Add the subcommand."""
    config, run = "stages.captions.config:NegativesConfig", "stages.captions.negatives:run"
    command(app, "rewrite-negatives", config, run, DOC, first=("rewriter",), limit=True)
