"""`adcli caption`."""

import typer

from adcli.options import command

DOC = """Describe every image of a manifest in words (one row per image, prompt and sample).

--vlm scene segments and describes without any weights. Anything else is a vision-language model, run by
transformers, vLLM or a server (--engine): a short name (`adcli models` lists them), a hub id or a local
directory. The prompt is the same for training and test images. Facts for SAGE are captions, too: --prompt
sage/facts --samples 5 --temperature 0.9 draws five sentences per image (scene, which draws nothing, gives one).

Example: adcli caption runs/demo/manifest.parquet --out runs/demo/captions.parquet
"""


def add_to(app: typer.Typer, arguments: list[str]) -> None:
    """Add the subcommand."""
    config, run = "stages.captions.config:CaptionConfig", "stages.captions.caption:run"
    command(app, "caption", config, run, DOC, first=("vlm", "prompt"), limit=True)
