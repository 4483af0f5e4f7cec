"""One task: its normal training images, the model fitted to them, and the scores of its images."""

import random
import time
from collections.abc import Iterator, Sequence
from math import ceil

from stages.training.prepared import torch

import numpy as np
from torch import Tensor

from stages.artifacts.scores_and_maps import Result
from stages.base.errors import ImageError, first_line
from stages.base.progress import Progress
from stages.base.seeds import row_seed
from stages.baselines.backbone import Backbone
from stages.baselines.config import FOLDS, MODELS, BaselineConfig
from stages.baselines.features import Kept, Reader
from stages.baselines.fit import Fitted, build, fit
from stages.baselines.reading import Batch, batches, pixels
from stages.datasets.manifest import Image, reference_images

FEW = 20  # normal images below which the user is told what to expect
TOP = 0.01  # of --image-score top1


def score_task(
    members: Sequence[Image],
    wanted: Sequence[Image],
    config: BaselineConfig,
    backbone: Backbone,
    device: str,
    progress: Progress,
    kept: Kept | None = None,
) -> Iterator[Result]:
    """Results of the `wanted` ones among the task's images. progress: gets lines for the user, and counts the images
    that were fitted to. kept: features to take in place of the images."""
    where = " / ".join(filter(None, members[0].task))
    seed = row_seed(config.seed, *map(str, members[0].task)) % 2**32
    torch.manual_seed(seed)
    np.random.seed(seed)  # anomalib's random projection draws from NumPy's generator, too
    readable, normal = images_to_fit(members, config, seed)
    load = kept.load if kept else pixels(config, backbone)
    number: dict[str, int] = {}  # image_id -> position among the images that the model was fitted to

    def to_fit() -> Iterator[Tensor]:
        for batch in batches(normal, load, config):
            good = [(i, x) for i, x in batch if not isinstance(x, ImageError)]
            for i, _ in good:
                number[i.image_id] = len(number)
            if good:
                yield torch.stack([x for _, x in good]).to(device)
            progress.prepare(len(batch))
        if len(number) < MODELS[config.model].least:
            raise ImageError(
                f"{where} has {len(number)} readable normal training images, {config.method} needs at"
                f" least {MODELS[config.model].least}"
            )

    if normal:
        for line in plan(where, readable, len(normal), fits_to(normal, wanted), config, backbone):
            progress.say(line)

    def epoch(numbers: Sequence[int], at_once: int) -> Iterator[Tensor]:
        readable = [i for i in normal if i.image_id in number]
        for batch in batches([readable[n] for n in numbers], load, config, at_once):
            for _, x in batch:
                if isinstance(x, ImageError):  # it could be read before
                    raise x
            yield torch.stack([x for _, x in batch]).to(device)

    try:
        with torch.inference_mode():
            if config.passes:
                from stages.baselines.train import fit_trained

                for _ in to_fit():  # finds those that can be read
                    pass
                fitted = fit_trained(config, backbone, epoch, len(number), seed, device, progress.prepare)
            else:
                model = build(config, backbone)
                if kept:
                    model.feature_extractor = Reader(kept, config.levels)
                fitted = fit(model.to(device), to_fit(), len(normal), config)
    except torch.linalg.LinAlgError as e:
        why = ImageError(f"{config.method} cannot be fitted: the normal images vary too little ({first_line(e)})")
        yield from ((key(i, config), why, None) for i in wanted)
        return
    except ImageError as e:
        yield from ((key(i, config), e, None) for i in wanted)
        return
    progress.prepare()  # what a fit does when it has seen the last image
    for some in ([i for i in wanted if i.image_id not in number], [i for i in wanted if i.image_id in number]):
        for batch in batches(some, load, config):
            yield from scored(fitted, batch, number, config, device)


def images_to_fit(members: Sequence[Image], config: BaselineConfig, seed: int) -> tuple[int, list[Image]]:
    """How many normal images there are to the manifest's knowledge, and those of them to fit to: as many as the model
    can take, drawn at random, in the manifest's order."""
    normal = [i for i in reference_images(members) if not i.error]
    most = MODELS[config.model].most or len(normal)
    drawn = normal if len(normal) <= most else random.Random(seed).sample(normal, most)
    return len(normal), sorted(drawn, key=lambda i: i.image_id)


def units(members: Sequence[Image], wanted: Sequence[Image], config: BaselineConfig) -> int:
    """Images that are read to fit a task's model, each as often as it is; `Progress.expect` takes them."""
    _, normal = images_to_fit(members, config, 0)
    models = 1 + (FOLDS - 1 if fits_to(normal, wanted) else 0)  # each image is in all folds' models but one
    return len(normal) * (1 + config.passes * models)


def fits_to(normal: Sequence[Image], wanted: Sequence[Image]) -> bool:
    """Whether images that a model is fitted to are to be scored."""
    return not {i.image_id for i in normal}.isdisjoint(i.image_id for i in wanted)


def plan(where: str, normal: int, fitted: int, left_out: bool, config: BaselineConfig, backbone: Backbone) -> list[str]:
    """Lines that say, before the work starts, what it takes. normal: images that there are; fitted: those used;
    left_out: whether some of the latter are to be scored."""
    line = f"{where}: fitting {config.method} to " + (
        f"{normal} normal images" if fitted == normal else f"{fitted} of {normal} normal images, drawn at random"
    )
    if config.model == "padim":
        channels = backbone.padim_channels(config.channels)
        line += (
            f"; {backbone.positions} positions with {channels} of {sum(backbone.channels)} channels,"
            f" {backbone.padim_bytes(channels) / 1e9:.1f} GB for the covariances"
        )
    if config.model == "patchcore":
        each = min(ceil(config.patches / fitted), backbone.positions)
        kept = max(int(each * fitted * config.coreset), 1)
        line += f"; {each} of {backbone.positions} patches of each image, {kept} of these in the coreset"
    if config.passes:
        line += f"; {config.passes} epochs"
        if left_out:
            line += (
                f", and as many for each of {FOLDS} models without a fifth of these images, which score that fifth"
                " (without train in --splits they are not needed)"
            )
    few = (
        [
            f"{where}: with so few normal images scores depend on which ones they are, and thresholds are rough"
            f" guesses; {FEW} and more are better"
        ]
        if fitted < FEW
        else []
    )
    return [line, *few]


@torch.inference_mode()
def scored(fitted: Fitted, batch: Batch, number: dict[str, int], config: BaselineConfig, device: str) -> list[Result]:
    """number: of the images that were fitted to; a batch holds only these or none of them."""
    results: list[Result] = [(key(i, config), x, None) for i, x in batch if isinstance(x, ImageError)]
    good = [(i, x) for i, x in batch if not isinstance(x, ImageError)]
    if not good:
        return results
    started = time.monotonic()
    pixels = torch.stack([x for _, x in good]).to(device)
    numbers = [number[i.image_id] for i, _ in good if i.image_id in number]
    try:
        out = fitted.left_out(pixels, numbers) if numbers else fitted.predict(pixels)
    except ImageError as e:
        return results + [(key(i, config), e, None) for i, _ in good]
    values = image_scores(out.pred_score, out.anomaly_map, config.scored_by).tolist()
    maps = [None] * len(good) if out.anomaly_map is None else out.anomaly_map[:, 0].cpu().numpy()
    seconds = (time.monotonic() - started) / len(good)
    return results + [
        (key(i, config), {"score": value, "seconds": seconds}, anomaly_map)
        for (i, _), value, anomaly_map in zip(good, values, maps, strict=True)
    ]


def image_scores(own: Tensor, maps: Tensor | None, rule: str) -> Tensor:
    """(B,) by a rule of IMAGE_SCORES. own: (B,) or (B, 1), anomalib's; maps: (B, 1, S, S), not rounded."""
    if maps is None or rule == "anomalib":
        return own.flatten()
    flat = maps.flatten(1)
    return flat.amax(1) if rule == "max" else flat.topk(max(ceil(TOP * flat.shape[1]), 1)).values.mean(1)


def key(image: Image, config: BaselineConfig) -> tuple[str, str]:
    """Of SCORES and MAPS."""
    return image.image_id, config.called
