"""Scoring with a trained VisualAD: an anomaly map and an image score for every image, no training image needed."""

from dataclasses import dataclass
from pathlib import Path

from stages.artifacts.scores_and_maps import check_outputs, scores_and_maps
from stages.artifacts.writer import Summary
from stages.base.config import RunOptions, argument, named_paths, option, require_at_least_zero, require_positive
from stages.base.errors import ImageError, InputError
from stages.datasets.files import look_at
from stages.datasets.manifest import images_of, read_manifest
from stages.training.runs import FOLDER
from stages.training.saved_models import check_model, read_json, trained_folder
from stages.visualad.config import RECORD, SIGMA, WEIGHTS, Settings

METHOD = "visualad"
MAP_ROWS = 32  # maps of a part: at 518 x 518 some 17 MB before compression


@dataclass(frozen=True, kw_only=True)
class ScoreVisualadConfig:
    manifest: Path = argument("the images: manifest artifact, a folder of them, or a Parquet file")
    checkpoint: Path = option("what train-visualad wrote")
    out: Path = option("where the scores go")
    maps: Path | None = option("where the anomaly maps go; without it only scores are kept", None)
    explain: Path | None = option(
        "folder for pictures: where the anchors look (Figure 6), and how far normal and"
        " anomalous patches lie apart (patches.png, Figure 5)",
        None,
    )
    method: str = option("visualad", METHOD)
    name: str = option("what tables call this run", METHOD)
    backbone: str = option("where the backbone lies, if not where it was trained", "")
    splits: str = option("images to score, comma-separated: test, train, val", "test")
    sigma: float = option("of the Gaussian over the map, px; the text has none (0)", SIGMA)
    batch_size: int = option("images per forward pass", 8)
    precision: str = option("fp32, bf16, or auto = bf16 where the processor has it", "auto")
    device: str = option("auto, cpu or cuda", "auto")
    workers: int = option("threads that load images", 4)
    root: Path | None = option("where the manifest's paths start, if not where it was indexed", None)


def run(config: ScoreVisualadConfig, options: RunOptions) -> Summary:
    """Score every image of the splits. An image that cannot be read is a row with `error`.

    Raises:
        InputError: no checkpoint, no backbone, or no image in the splits.
    """
    from stages.training.torch_setup import device_and_precision, prepare_torch

    require_positive(config, "batch_size", "workers")
    require_at_least_zero(config, "sigma")
    folder = trained_folder(config.checkpoint, FOLDER, (WEIGHTS, RECORD), "train-visualad")
    check_model(config.backbone or backbone_of(folder), "--backbone")
    device, precision = device_and_precision(config.device, config.precision)
    manifest = read_manifest(config.manifest, config.root)
    images = images_of(manifest, config.splits, config.manifest)
    check_outputs(config.out, {"--maps": config.maps, "--explain": config.explain})
    prepare_torch()
    from stages.visualad.checkpoint import fingerprint, load
    from stages.visualad.scoring import scored

    files = look_at(config.out, options.quiet, images=images.values())
    parameters = {
        "method": config.name,
        "splits": config.splits,
        "sigma": config.sigma,
        "precision": precision,
        "weights": fingerprint(config.checkpoint, config.backbone),
    }
    inputs = {"manifest": manifest.fingerprint, "image files": files.images}
    keys = [(i, config.name) for i in images]

    def results(todo, scores):
        model, look = load(config.checkpoint, config.backbone)
        model = model.to(device)
        if precision == "bf16":
            model.backbone.in_bf16()
        scores.ran_on = f"{device} {precision}"
        some = [images[k[0]] for k in todo]
        for image, anomaly_map, score in scored(model, look, some, config, device, precision == "bf16"):
            failed = isinstance(anomaly_map, ImageError)
            yield (
                (image.image_id, config.name),
                anomaly_map if failed else {"score": score},
                None if failed else anomaly_map.numpy(),
            )

    notes = {"training": str(config.checkpoint.resolve())}  # its loss curves go into the report
    return scores_and_maps(
        config.out,
        config.maps,
        parameters,
        inputs,
        keys,
        options,
        MAP_ROWS,
        results,
        notes,
        files=files,
        paths=named_paths(config),
    )


def backbone_of(folder: Path) -> str:
    """The backbone that a checkpoint names. Raises InputError for a record that names none, or of other settings."""
    record = read_json(folder / RECORD, "--checkpoint")
    try:
        Settings(**record["settings"])
        return record["backbone"]
    except (KeyError, TypeError) as e:
        raise InputError(f"{folder / RECORD}: not of this version of adcli ({e})") from e
