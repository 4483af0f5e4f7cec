"""Batches of images through a trained VisualAD."""

from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice

import torch

from stages.base.errors import ImageError
from stages.datasets.images import ahead
from stages.datasets.manifest import Image
from stages.visualad.data import Look
from stages.visualad.explain import PatchClouds, write_attention
from stages.visualad.model import VisualAD, image_scores, smoothed
from stages.visualad.score import ScoreVisualadConfig


def scored(
    model: VisualAD, look: Look, images: list[Image], config: ScoreVisualadConfig, device: str, bf16: bool
) -> Iterator[tuple[Image, torch.Tensor | ImageError, float | None]]:
    """(image, map (S, S) float32 on the CPU, score), or (image, why not, None)."""

    def pixels(image: Image) -> torch.Tensor:
        if image.error:
            raise ImageError(image.error)
        return look.pixels(image.file)

    clouds = PatchClouds(model, look) if config.explain else None
    loaded = ahead(pixels, images, config.workers, 2 * config.batch_size)
    while batch := list(islice(loaded, config.batch_size)):
        yield from _scored_batch(model, batch, config, device, bf16, clouds)
    if clouds:
        clouds.write(config.explain / "patches.png")


def _scored_batch(
    model: VisualAD, batch: list, config: ScoreVisualadConfig, device: str, bf16: bool, clouds: PatchClouds | None
) -> Iterator[tuple]:
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
