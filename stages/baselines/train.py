"""anomalib's models that are trained by gradient steps: its own modules, training steps, losses and optimisers.

The loop is ours: Lightning's trainer takes Ctrl-C for itself and ends the process. Early stopping, which anomalib's own
configurations have, needs labelled defects and is not used. A model is trained to all normal images of the task; a
training image that is to be scored gets its score by one that was trained without its fifth, made when it is needed.
"""

import io
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import redirect_stderr
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from stages.training.prepared import torch

import numpy as np
import timm
from anomalib.data import InferenceBatch
from anomalib.data.dataclasses.torch import ImageBatch
from anomalib.models.components import AnomalibModule, TimmFeatureExtractor
from anomalib.models.image.cflow.lightning_model import Cflow
from anomalib.models.image.efficient_ad.lightning_model import EfficientAd
from anomalib.models.image.fastflow.lightning_model import Fastflow
from anomalib.models.image.reverse_distillation.lightning_model import ReverseDistillation
from anomalib.models.image.stfpm.lightning_model import Stfpm
from anomalib.pre_processing import PreProcessor
from torch import Tensor
from torchvision.transforms.v2 import Resize

from stages.base.errors import ImageError, first_line
from stages.baselines.backbone import Backbone
from stages.baselines.config import FOLDS, MODELS, OTHER_IMAGES, TEACHER, BaselineConfig
from stages.baselines.fit import Fitted

PARTS: dict[str, Any] = {"post_processor": False, "evaluator": False, "visualizer": False}  # of Lightning's, unused

Epoch = Callable[[Sequence[int], int], Iterator[Tensor]]
"""Training images of these numbers, in this order, in batches of so many (B, 3, S, S)."""


def build_module(config: BaselineConfig, backbone: Backbone, checkpoint: Path | None = None) -> AnomalibModule:
    """anomalib's Lightning module with an untrained model, drawn from torch's and NumPy's generators."""
    name, levels = backbone.timm_name, list(config.levels)
    if config.model == "stfpm":
        return Stfpm(name, levels, pre_processor=False, **PARTS)
    if config.model == "cflow":
        return Cflow(name, levels, pre_processor=False, **PARTS)
    if config.model == "efficient-ad":
        return EfficientAd(pre_processor=False, imagenet_dir=checkpoint / OTHER_IMAGES, **PARTS)
    # These two take the name of an architecture that they know, and the size of the input from a transform.
    sized: dict[str, Any] = {"pre_processor": PreProcessor(Resize((config.size, config.size))), "pre_trained": False}
    if config.model == "fastflow":
        module = Fastflow(backbone.architecture, **sized, **PARTS)
        features = timm.create_model(name, pretrained=True, features_only=True, out_indices=levels)
        module.model.feature_extractor = features.requires_grad_(False)
        return module
    module = ReverseDistillation(backbone.architecture, levels, **sized, **PARTS)
    module.model.encoder = TimmFeatureExtractor(name, levels)
    return module


def fit_trained(
    config: BaselineConfig,
    backbone: Backbone,
    epoch: Epoch,
    count: int,
    seed: int,
    device: str,
    done: Callable[[int], None] = lambda images: None,
) -> Fitted:
    """Train to `count` images. done: gets the number of images of each step.

    Raises:
        ImageError: an image that cannot be read any more, or a loss that is no number.
    """
    fold = torch.randperm(count, generator=torch.Generator().manual_seed(seed)) % FOLDS

    def trained(numbers: Sequence[int], seed: int) -> Callable[[Tensor], InferenceBatch]:
        # Not in inference mode, whose tensors cannot be trained; the seed makes it the same whenever it is called.
        with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng():
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            module = build_module(config, backbone, config.checkpoint).to(device)
            train(module, config, epoch, numbers, seed, done)
        return predictor(module, MODELS[config.model].alone)

    @cache
    def without(part: int) -> Callable[[Tensor], InferenceBatch] | ImageError:
        try:
            return trained([n for n in range(count) if fold[n] != part], seed + 1 + part)
        except ImageError as e:  # kept, so that it is not tried again for each batch
            return e

    def left_out(images: Tensor, numbers: Sequence[int]) -> InferenceBatch:
        found = []
        for image, n in zip(images, numbers, strict=True):
            if isinstance(predict := without(int(fold[n])), ImageError):
                raise predict
            found.append(predict(image[None]))
        return together(found)

    return Fitted(trained(range(count), seed), left_out)


def train(
    module: AnomalibModule,
    config: BaselineConfig,
    epoch: Epoch,
    numbers: Sequence[int],
    seed: int,
    done: Callable[[int], None] = lambda images: None,
) -> list[float]:
    """Train in place; returns the mean loss of each epoch. numbers: of the images to train to."""
    steps, order = math.ceil(len(numbers) / MODELS[config.model].at_once), random.Random(seed)
    at_once = math.ceil(len(numbers) / steps)  # no last step of one image: batch normalisation, and CFlow, need more
    attach(module, config.passes, steps)
    if config.model == "efficient-ad":
        prepare_teacher(module, config, lambda: epoch(numbers, at_once))
    optimizer, schedulers = optimizers(module)
    module.optimizers = lambda: optimizer  # type: ignore[method-assign]
    module.train()
    torch.manual_seed(seed)
    means = []
    for _ in range(config.passes):
        losses = []
        for images in epoch(order.sample(list(numbers), len(numbers)), at_once):
            try:
                loss = module.training_step(ImageBatch(image=images))["loss"]
            except ValueError as e:  # CFlow's, which takes 64 positions at a time
                raise ImageError(
                    f"{config.method}: too few positions in {len(images)} images ({first_line(e)}); give a larger"
                    " --size, finer --layers or more normal images"
                ) from e
            if module.automatic_optimization:  # CFlow's step takes those of the optimiser itself
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            losses.append(loss.item() / len(images) if config.model == "cflow" else loss.item())
            done(len(images))
        for scheduler in schedulers:
            scheduler.step()
        means.append(sum(losses) / len(losses))
        if not math.isfinite(means[-1]):
            raise ImageError(f"training {config.method} diverged in epoch {len(means)}: its loss is no number")
    module.eval()
    if config.model == "efficient-ad":
        with redirect_stderr(io.StringIO()):  # its progress bar
            loader = (
                ImageBatch(image=x, gt_label=torch.zeros(len(x), dtype=torch.bool)) for x in epoch(numbers, at_once)
            )
            module.model.quantiles.update(module.map_norm_quantiles(loader))
    return means


def attach(module: AnomalibModule, epochs: int, steps: int) -> None:
    """What a module asks of Lightning's trainer. steps: of an epoch."""
    data = SimpleNamespace(train_dataloader=lambda: range(steps))
    module._trainer = SimpleNamespace(max_epochs=epochs, max_steps=-1, datamodule=data)
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    module.manual_backward = lambda loss: loss.backward()  # type: ignore[method-assign]


def optimizers(module: AnomalibModule) -> tuple[torch.optim.Optimizer, list[Any]]:
    """The optimiser and the schedules, which step once an epoch, in any of the forms that Lightning takes."""
    found = module.configure_optimizers()
    if isinstance(found, dict):
        return found["optimizer"], [found["lr_scheduler"]]
    return found, []


def prepare_teacher(module: EfficientAd, config: BaselineConfig, batches: Callable[[], Iterable[Tensor]]) -> None:
    """What EfficientAD does before its first step: the teacher's weights, the mean and deviation of its channels on the
    training images, and the other pictures that the student shall not follow it on."""
    state = torch.load(config.checkpoint / TEACHER, map_location=module.device, weights_only=True)
    module.model.teacher.load_state_dict(state)
    module.prepare_imagenette_data((config.size, config.size))
    with redirect_stderr(io.StringIO()):  # its progress bar
        found = module.teacher_channel_mean_std(ImageBatch(image=x) for x in batches())
    module.model.mean_std.update(found)


def predictor(module: AnomalibModule, alone: bool) -> Callable[[Tensor], InferenceBatch]:
    """Images (B, 3, S, S) -> raw scores and maps. alone: one image after the other."""
    model = module.model.eval().requires_grad_(False)
    return (lambda images: together([model(image[None]) for image in images])) if alone else model


def together(found: Sequence[InferenceBatch]) -> InferenceBatch:
    """Batches as one."""
    maps = [f.anomaly_map if f.anomaly_map.ndim == 4 else f.anomaly_map[:, None] for f in found]
    return InferenceBatch(pred_score=torch.cat([f.pred_score.flatten() for f in found]), anomaly_map=torch.cat(maps))
