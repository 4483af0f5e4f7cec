"""Scoring with a trained VisualAD: an anomaly map and an image score for every image, no training image needed."""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from stages.artifacts.tables import MAPS, SCORES
from stages.artifacts.writer import Artifact, Spec, Summary
from stages.datasets.manifest import files_fingerprint, images_of, read_manifest
from stages.errors import ImageError
from stages.maps import to_row
from stages.settings import RunOptions, argument, option
from stages.visualad.settings import SIGMA

METHOD = "visualad"
MAP_ROWS = 32            # maps of a part: at 518 x 518 some 17 MB before compression


@dataclass(frozen=True, kw_only=True)
class ScoreVisualadConfig:
    manifest: Path = argument("the images: manifest artifact, a folder of them, or a Parquet file")
    checkpoint: Path = option("what train-visualad wrote")
    out: Path = option("where the scores go")
    maps: Path | None = option("where the anomaly maps go; without it only scores are kept", None)
    explain: Path | None = option("folder for pictures: where the anchors look (Figure 6), and how far normal and"
                                  " anomalous patches lie apart (patches.png, Figure 5)", None)
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
    from stages.torch_setup import device_and_precision, prepare_torch

    prepare_torch()
    from stages.visualad.checkpoint import fingerprint, load
    from stages.visualad.scoring import scored

    manifest = read_manifest(config.manifest, config.root)
    images = images_of(manifest, config.splits, config.manifest)
    device, precision = device_and_precision(config.device, config.precision)
    parameters = {"method": config.name, "splits": config.splits, "sigma": config.sigma,
                  "precision": config.precision, "weights": fingerprint(config.checkpoint, config.backbone)}
    inputs = {"manifest": manifest.fingerprint, "image files": files_fingerprint(images.values())}
    keys = [(i, config.name) for i in images]
    with ExitStack() as stack:
        notes = {"training": str(config.checkpoint.resolve())}      # its loss curves go into the report
        scores = stack.enter_context(Artifact(config.out, SCORES, Spec("score", parameters, inputs, notes=notes), keys,
                                              options))
        silent = replace(options, quiet=True)        # one progress bar for both
        maps = stack.enter_context(Artifact(config.maps, MAPS, Spec("score maps", parameters, inputs), keys, silent,
                                            MAP_ROWS)) if config.maps else None
        open_keys = [set(a.pending) for a in (scores, maps) if a]
        todo = [images[k[0]] for k in keys if any(k in o for o in open_keys)]
        if todo:
            model, look = load(config.checkpoint, config.backbone)
            model = model.to(device)
            if precision == "bf16":
                model.backbone.in_bf16()
            scores.ran_on = f"{device} {precision}"
            for image, anomaly_map, score in scored(model, look, todo, config, device, precision == "bf16"):
                key = (image.image_id, config.name)
                columns = dict(zip(SCORES.key, key, strict=True))
                error = {"error": str(anomaly_map)} if isinstance(anomaly_map, ImageError) else {}
                if key in open_keys[0]:
                    scores.write(columns | (error or {"score": score}))
                if maps and key in open_keys[1]:
                    maps.write(columns | error if error else to_row(key, anomaly_map.numpy()))
    return scores.summary
