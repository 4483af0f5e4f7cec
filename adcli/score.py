"""`adcli score`."""

import typer

from adcli.options import command

DOC = """Score every image of a manifest; higher = more anomalous.

--method text-knn: mean distance of the caption to its 5 nearest normal captions in the fine-tuned
encoder's space (VID-AD, Eq. 6-9), with the nearest captions and the words that differ.

Example: adcli score runs/demo/captions.parquet --method text-knn --manifest \\
  runs/demo/manifest.parquet --encoders runs/demo/encoders.parquet --out runs/demo/scores.parquet
"""


def add_to(app: typer.Typer) -> None:
    """Add the subcommand."""
    from stages.text_encoder.score import ScoreTextKnnConfig, run

    command(app, "score", ScoreTextKnnConfig, run, DOC)
