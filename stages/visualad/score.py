"""Scoring with a trained VisualAD: an anomaly map and an image score for every image, no training image needed."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path

from stages.training.prepared import torch

from stages.artifacts.maps import Key
from stages.artifacts.outputs import claim
from stages.artifacts.scores_and_maps import Result, check_outputs, scores_and_maps
from stages.artifacts.writer import Artifact, Summary
from stages.base.config import RunOptions, named_paths
from stages.base.errors import ImageError, InputError
from stages.base.prefetch import Prefetch
from stages.datasets.files import look_at
from stages.datasets.manifest import Image, images_of, read_manifest
from stages.training.torch_setup import resolved_precision
from stages.visualad.checkpoint import described, fingerprint, load
from stages.visualad.config import ScoreVisualadConfig, sigma_of
from stages.visualad.data import ImageTransform
from stages.visualad.explain import PATCHES, PatchClouds, attention_path, write_attention
from stages.visualad.model import VisualAD, image_scores, smoothed

MAP_ROWS = 32  # maps of a part: at 518 x 518 some 17 MB before compression


def run(config: ScoreVisualadConfig, options: RunOptions) -> Summary:
    """Score every image of the splits. An image that cannot be read is a row with `error`.

    Raises:
        InputError: see `config.check`; or no image in the splits.
    """
    config.check()
    config = replace(config, sigma=sigma_of(config))
    device, precision = resolved_precision(config.device, config.precision)
    manifest = read_manifest(config.manifest, config.root)
    images = images_of(manifest, config.splits, config.manifest)
    if config.explain and "sca" in described(config.checkpoint).get("without", ()):
        raise InputError(f"--explain: {config.checkpoint} was trained without SCA, whose attention the pictures show")
    check_outputs(config.out, {"--maps": config.maps, "--explain": config.explain})
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

    def results(todo: list[Key], scores: Artifact) -> Iterator[Result]:
        if config.explain:
            pictures = (attention_path(Path(), i).as_posix() for i, _ in todo)
            claim(config.explain, (PATCHES, *pictures))
        model, transform = load(config.checkpoint, config.backbone)
        model = model.to(device)
        if precision == "bf16":
            model.backbone.in_bf16()
        scores.ran_on = f"{device} {precision}"
        some = [images[k[0]] for k in todo]
        for image, anomaly_map, score in maps_and_scores(model, transform, some, config, device, precision == "bf16"):
            key = (image.image_id, config.name)
            if isinstance(anomaly_map, ImageError):
                yield key, anomaly_map, None
            else:
                yield key, {"score": score}, anomaly_map.numpy()

    made = described(config.checkpoint, config.backbone) | {"scored": precision, "sigma": config.sigma}
    made["datasets"] = sorted({i.dataset for i in images.values()})
    notes = {"training": str(config.checkpoint.resolve()), "visualad": made}  # its loss curves go into the report
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


def maps_and_scores(
    model: VisualAD,
    transform: ImageTransform,
    images: list[Image],
    config: ScoreVisualadConfig,
    device: str,
    bf16: bool,
) -> Iterator[tuple[Image, torch.Tensor | ImageError, float | None]]:
    """(image, map (S, S) float32 on the CPU, score), or (image, why not, None)."""

    def pixels(image: Image) -> torch.Tensor:
        if image.error:
            raise ImageError(image.error)
        return transform.pixels(image.file)

    clouds = PatchClouds(model, transform) if config.explain else None
    with Prefetch(pixels, images, config.workers, 2 * config.batch_size) as loaded:
        while batch := list(islice(loaded, config.batch_size)):
            yield from _of_batch(model, batch, config, device, bf16, clouds)
    if clouds:
        clouds.write(config.explain / PATCHES)


def _of_batch(
    model: VisualAD,
    batch: list[tuple[Image, torch.Tensor | ImageError]],
    config: ScoreVisualadConfig,
    device: str,
    bf16: bool,
    clouds: PatchClouds | None,
) -> Iterator[tuple[Image, torch.Tensor | ImageError, float | None]]:
    good = [(i, x) for i, x in batch if not isinstance(x, ImageError)]
    yield from ((i, x, None) for i, x in batch if isinstance(x, ImageError))
    if not good:
        return
    autocast = torch.autocast(device.partition(":")[0], torch.bfloat16) if bf16 else nullcontext()
    pixels = torch.stack([x for _, x in good]).to(device)
    with torch.inference_mode(), autocast:
        output = model(pixels, explain=clouds is not None)
        if clouds:
            clouds.add([i for i, _ in good], pixels)
    if clouds:
        for n, (image, _) in enumerate(good):
            write_attention(config.explain, image, output.attention[:, n])
    with torch.inference_mode():
        fused = smoothed(output.fused.float(), config.sigma)
        values = image_scores(fused, model.settings.variant).tolist()
        fused = fused.cpu()
    for (image, _), anomaly_map, value in zip(good, fused, values, strict=True):
        yield image, anomaly_map, value
