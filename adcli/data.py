"""`adcli data`: index a data set into a manifest, check or augment it, or render synthetic scenes."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from adcli.options import DONE, FAILED_ROWS, command

if TYPE_CHECKING:
    from stages.datasets.check import CheckConfig
    from stages.settings import RunOptions

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

MVTEC = """Index MVTec AD: <category>/train/good, test/<defect>, ground_truth/<defect>/NNN_mask.png.

Masks are paired by stem, with or without _mask; an anomalous image without one becomes a failed row.

Example: adcli data index mvtec-ad /data/mvtec_anomaly_detection --out runs/mvtec/manifest.parquet
"""

VISA = """Index VisA, as published (Data/Images, Data/Masks) or as its copy in the layout of MVTec AD (1cls).

What is train and what is test in the published layout says split_csv/1cls.csv beside the categories;
image_anno.csv in each category names the defects.

Example: adcli data index visa /data/VisA --out runs/visa/manifest.parquet
"""

LOCO = """Index MVTec LOCO AD: <category>/{train,validation,test}/..., a folder of masks per anomalous image.

Each mask is a region of its own, with the saturation that defects_config.json gives its kind (sPRO).

Example: adcli data index mvtec-loco /data/mvtec_loco_anomaly_detection --out runs/loco/manifest.parquet
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


CHECK = """Decode every image and mask of a manifest, count them, and compare with the known counts.

Known are those of MVTec AD, VisA, VID-AD and the magnetic tiles; anything else is only counted. Exit code
3 when something is missing, too much, unreadable, or a mask has another size than its image.

Example: adcli data check runs/demo/manifest.parquet
"""

AUGMENT = """Turn, frame or stamp the test images, masks alike (LVLM paper, section 4.3).

rotate90: 90 degrees counter-clockwise; pad20: a white border of 20 px; timestamp: a date in the top right
corner. The new manifest holds the training images too, as they are, under a condition that names the kinds.

Example: adcli data augment runs/demo/manifest.parquet --kind rotate90,timestamp \\
  --out runs/demo/turned.parquet --images runs/demo/turned
"""


def check_and_say(config: "CheckConfig", options: "RunOptions") -> None:
    """Print what was found. Leaves with exit code 3 when it differs from what is known."""
    from stages.datasets import check

    found = check.run(config, options)
    if options.json:
        print(json.dumps(asdict(found)))
    elif not options.quiet:
        print(check.as_text(found))
    raise typer.Exit(FAILED_ROWS if found.differences else DONE)


def add_to(app: typer.Typer, arguments: list[str]) -> None:
    """Add `data index ...`, `data check`, `data augment` and `data synth ...`."""
    from stages.datasets import augment, check, folder, loco, magnetic_tile, mvtec, vidad, visa
    from stages.datasets.synth import vidad as synth_vidad

    data = typer.Typer(help="Index, check and augment data sets, or render synthetic scenes.",
                       no_args_is_help=True, rich_markup_mode=None)
    index = typer.Typer(help="Manifest of a data set in its original layout.", no_args_is_help=True,
                        rich_markup_mode=None)
    synth = typer.Typer(help="Render scenes with known logical state.", no_args_is_help=True,
                        rich_markup_mode=None)
    command(index, "vidad", vidad.VidadConfig, vidad.run, VIDAD)
    command(index, "magnetic-tile", magnetic_tile.MagneticTileConfig, magnetic_tile.run, TILES)
    command(index, "mvtec-ad", mvtec.MvtecConfig, mvtec.run, MVTEC)
    command(index, "mvtec-loco", loco.LocoConfig, loco.run, LOCO)
    command(index, "visa", visa.VisaConfig, visa.run, VISA)
    command(index, "folder", folder.FolderConfig, folder.run, FOLDER)
    command(data, "check", check.CheckConfig, check_and_say, CHECK, without=("shard", "max_errors", "overwrite"))
    command(data, "augment", augment.AugmentConfig, augment.run, AUGMENT)
    command(synth, "vidad", synth_vidad.SynthConfig, synth_vidad.run, SYNTH)
    synth.callback()(lambda: None)      # keeps `vidad` a subcommand although it is the only one
    data.add_typer(index, name="index")
    data.add_typer(synth, name="synth")
    app.add_typer(data, name="data")
