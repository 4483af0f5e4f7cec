"""`adcli data`: index a data set into a manifest, or render synthetic scenes."""

import typer

from adcli.options import command

VIDAD = """Index VID-AD: 10 scenarios x 5 capture conditions.

On the way from ROOT to an image there must be one folder named after the scenario (fruits, ...), one
after the capture condition (white_bg, Cable BG, low-light CD, ...) and `train` or `test`, nested in any
order; case and punctuation do not matter. Below `test`, folders named normal, good or ok hold normal
images, any other folder names the violated aspect. Scenes rendered by `adcli data synth vidad` are
recognised and named `vidad-synthetic`.

Example: adcli data index vidad runs/demo/scenes --out runs/demo/manifest.parquet
"""

TILES = """Index the magnetic tile defects: MT_<class>/Imgs/<name>.jpg, mask <name>.png beside it.

Half of the normal tiles (MT_Free) go to train, split by tile and not by picture.

Example: adcli data index magnetic-tile ../shared/data/magnetic-tile --out runs/tiles/manifest.parquet
"""

FOLDER = """Index any folder of images.

Without a pattern every image is an unlabelled test image, which can still be captioned, scored and
ranked. Masks are paired by stem.

Example: adcli data index folder runs/demo/scenes --out runs/demo/unlabelled.parquet

Example: adcli data index folder runs/demo/scenes/fruits/white_bg --train-normal 'train/normal/*.jpg' \\
  --test-normal 'test/normal/*.jpg' --test-anomalous 'test/*type/*.jpg' --out runs/demo/labelled.parquet
"""

SYNTH = """Render the ten scenarios of VID-AD's Table 2 under its five capture conditions.

Every logical layout is the same under all conditions. The pictures are made up: figures measured on
them are no results on VID-AD.

Example: adcli data synth vidad --out runs/demo/scenes --scenarios fruits --conditions white_bg --size 360
"""


def add_to(app: typer.Typer) -> None:
    """Add `data index ...` and `data synth ...`."""
    from stages.datasets import folder, magnetic_tile, vidad
    from stages.datasets.synth import vidad as synth_vidad

    data = typer.Typer(help="Index data sets, or render synthetic scenes.", no_args_is_help=True,
                       rich_markup_mode=None)
    index = typer.Typer(help="Manifest of a data set in its original layout.", no_args_is_help=True,
                        rich_markup_mode=None)
    synth = typer.Typer(help="Render scenes with known logical state.", no_args_is_help=True,
                        rich_markup_mode=None)
    command(index, "vidad", vidad.VidadConfig, vidad.run, VIDAD)
    command(index, "magnetic-tile", magnetic_tile.MagneticTileConfig, magnetic_tile.run, TILES)
    command(index, "folder", folder.FolderConfig, folder.run, FOLDER)
    command(synth, "vidad", synth_vidad.SynthConfig, synth_vidad.run, SYNTH)
    synth.callback()(lambda: None)      # keeps `vidad` a subcommand although it is the only one
    data.add_typer(index, name="index")
    data.add_typer(synth, name="synth")
    app.add_typer(data, name="data")
