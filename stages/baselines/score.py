"""`score --method anomalib/<model>`: the vision baselines that papers compare with, as anomalib has them."""

import warnings
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec

from stages.artifacts.scores_and_maps import Result, scores_and_maps
from stages.artifacts.writer import Artifact, Summary
from stages.base.config import RunOptions, named_paths
from stages.base.errors import InputError
from stages.baselines.config import MODELS, BaselineConfig, check
from stages.datasets.files import look_at
from stages.datasets.manifest import by_task, images_of, read_manifest

MAP_ROWS = 64  # maps of a part: at 256 x 256 some 8 MB before compression


def run(config: BaselineConfig, options: RunOptions) -> Summary:
    """Fit a model per task to its normal training images and score every image of the splits, training images as if
    they had not been fitted to (stages/baselines/fit.py). Scores and maps are raw: anomalib's normalisation and metrics
    are not used. An image that cannot be read, and a task with too few normal training images, gives rows with `error`.

    A task that was interrupted is fitted again, with the same result; its finished rows stay.

    Raises:
        InputError: impossible settings, a missing package, a backbone that cannot be loaded, or no image in the splits.
    """
    check(config)
    from stages.training.torch_setup import pick_device, prepare_torch

    prepare_torch()
    for package in ("timm", "anomalib"):
        if find_spec(package) is None:
            raise InputError(f"--method {config.method} needs the package {package}: pip install 'adcli[baselines]'")
    from stages.baselines.backbone import check_fits, load_backbone, without_backbone

    manifest = read_manifest(config.manifest, config.root)
    images = images_of(manifest, config.splits, config.manifest)
    backbone = (
        load_backbone(config.backbone, config.levels, config.size)
        if MODELS[config.model].layers
        else without_backbone(config)
    )
    device = pick_device(config.device)
    check_fits(config, backbone)
    parameters = config.parameters() | {"weights": backbone.weights, "anomalib": version("anomalib")}
    files = look_at(config.out, options.quiet, images=manifest.images)
    inputs = {"manifest": manifest.fingerprint, "image files": files.images}
    features, said = [], ""
    if config.features:
        from stages.baselines.features import artifacts, require_space

        features = artifacts(config, backbone, manifest.images, files.images, options)
        said = require_space(config, backbone, features)

    def results(todo: list[tuple], scores: Artifact) -> Iterator[Result]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of anomalib about its own parts
            from stages.baselines.task import score_task, units  # takes seconds

        scores.ran_on = f"{device} fp32"
        wanted = {k[0] for k in todo}
        tasks = [(m, [i for i in m if i.image_id in wanted]) for m in by_task(manifest.images).values()]
        tasks = [(members, some) for members, some in tasks if some]
        ahead, kept = sum(units(members, some, config) for members, some in tasks), None
        if features:
            from stages.baselines.features import keep

            if said:
                scores.progress.say(said)
            kept = keep(features, manifest.images, config, backbone, device, scores.progress, ahead)
        else:
            scores.progress.expect(ahead, "images fitted to")
        for members, some in tasks:
            yield from score_task(members, some, config, backbone, device, scores.progress, kept)

    return scores_and_maps(
        config.out,
        config.maps,
        parameters,
        inputs,
        [(i, config.called) for i in images],
        options,
        MAP_ROWS,
        results,
        {"architecture": backbone.architecture},
        MODELS[config.model].map_kind,
        files,
        named_paths(config),
    )
