"""`adcli train-visualad`."""

import typer

from adcli.options import command

DOC = """Train VisualAD: two learned tokens in a frozen vision transformer, on images with masks of one data set.

The model finds anomalies on other data sets without seeing any of their images. The backbone is a local
directory or a hub id; nothing of it is trained.

Example: adcli train-visualad runs/tiles/manifest.parquet --backbone /models/clip-vit-large-patch14-336 \\
  --out runs/tiles/visualad.parquet
"""


def add_to(app: typer.Typer, arguments: list[str]) -> None:
    """Add the subcommand."""
    config, run = "stages.visualad.config:TrainVisualadConfig", "stages.visualad.train:run"
    command(app, "train-visualad", config, run, DOC, first=("backbone", "epochs"))
