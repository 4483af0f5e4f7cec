"""`adcli train-encoder`."""

import typer

from adcli.options import command

DOC = """Fine-tune a text encoder per task: captions against their contradictions (VID-AD, Eq. 1-5).

Each checkpoint opens with sentence_transformers.SentenceTransformer(directory).

Example: adcli train-encoder runs/demo/negatives.parquet --manifest runs/demo/manifest.parquet \\
  --out runs/demo/encoders.parquet
"""


def add_to(app: typer.Typer, arguments: list[str]) -> None:
    """Add the subcommand."""
    config, run = "stages.text_encoder.config:TrainEncoderConfig", "stages.text_encoder.train:run"
    command(app, "train-encoder", config, run, DOC, first=("encoder",))
