"""Training VisualAD on one data set, to be tested on others (section 3.4).

The loop is transformers' Trainer: mixed precision, resuming, torch.compile and logging are its. A killed run goes
on from the last saved step, on a CPU to the very same weights.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from math import ceil, cos, pi
from pathlib import Path
from typing import Any

from stages.training.prepared import torch

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import AutoConfig, AutoImageProcessor, Trainer, TrainingArguments

from stages.artifacts.writer import Spec, Summary
from stages.base.config import RunOptions, named_paths
from stages.base.errors import InputError, cannot_be_loaded
from stages.datasets.files import look_at
from stages.datasets.manifest import Image, images_of, read_manifest
from stages.datasets.trainable import usable
from stages.training.distributed import broadcast_from_main, per_process_batch, process_group
from stages.training.runs import run_training
from stages.training.torch_setup import resolved_precision
from stages.training.trainer import TrainableOnlyCheckpoints, common_arguments, one_gpu, run_trainer
from stages.training.weights import checkpoint_fingerprint
from stages.visualad import checkpoint
from stages.visualad.backbone import load_backbone, require_family
from stages.visualad.config import TrainVisualadConfig, VisualAdSettings
from stages.visualad.data import ImageTransform, TrainingSet
from stages.visualad.loss import losses
from stages.visualad.model import VisualAD

PARTS = ("cls", "seg", "ctr")  # of the loss, as losses.csv has them
SHARE = 0.1  # released code: of the tokens' rate, where the cosine ends, and the rate of SCA, SAF and norm


def run(config: TrainVisualadConfig, options: RunOptions) -> Summary | None:
    """Train one model on all images of the split. Under torchrun every process runs this; only the first opens the
    artifact and returns a summary.

    Raises:
        InputError: see `config.check`; unusable images (see `trainable`), or no such backbone.
    """
    config.check()
    settings = config.settings()
    device, precision = resolved_precision(config.device, config.precision)
    manifest = read_manifest(config.manifest, config.root)
    chosen = images_of(manifest, config.splits, config.manifest)
    weights = _checked_backbone(config, settings)
    names = ("epochs", "batch_size", "learning_rate")
    parameters = (
        {"split": config.splits}
        | {n: getattr(config, n) for n in names}
        | asdict(settings)
        | {"precision": precision, "backbone": config.backbone, "weights": weights, "start": "xavier"}
        | {"least rate": least_rate(config)}
    )

    with process_group(device):
        images, failed = broadcast_from_main(
            lambda: trainable(chosen.values(), config.splits, config.manifest, options.quiet)
        )

        def train(saved: Path | None, say: Callable[[str], None]) -> tuple[Trainer, Callable[[Path], None]]:
            return fit(images, settings, replace(config, device=device, precision=precision), saved, say)

        files = broadcast_from_main(lambda: look_at(config.out, options.quiet, images=images, masks=images))
        inputs = {"manifest": manifest.fingerprint, "image files": files.images, "mask files": files.masks}
        spec = Spec("train-visualad", parameters, inputs, config.seed, {"left out": failed}, named_paths(config))
        datasets = "+".join(sorted({i.dataset for i in images}))
        return run_training(config.out, spec, datasets, len(images), options, PARTS, train, failed, files)


def _checked_backbone(config: TrainVisualadConfig, settings: VisualAdSettings) -> str:
    """Fingerprint of the backbone's weights. Raises InputError before anything is written or loaded."""
    try:
        model_config = AutoConfig.from_pretrained(config.backbone, revision=config.revision or None)
        require_family(config.backbone, model_config.model_type)
        AutoImageProcessor.from_pretrained(config.backbone, revision=config.revision or None)
        vision = getattr(model_config, "vision_config", model_config)
        patch, depth = vision.patch_size, vision.num_hidden_layers
        weights = checkpoint_fingerprint(config.backbone, config.revision)
    except (OSError, ValueError) as e:
        raise cannot_be_loaded(f"--backbone {config.backbone}", e) from e
    except AttributeError:
        raise InputError(f"--backbone {config.backbone}: a {model_config.model_type} has no patch tokens") from None
    settings.check_backbone(patch, depth)
    return weights


def trainable(
    images: Iterable[Image], splits: str, where: Path, quiet: bool = True
) -> tuple[tuple[Image, ...], list[str]]:
    """(images to train on, why others are left out). splits: theirs, for the message.

    Raises:
        InputError: an image without a label, or one class only.
    """
    good, failed = usable(images, where, masks=True, quiet=quiet)
    if {i.label for i in good} != {0, 1}:
        why = f" ({failed[0]})" if failed else ""
        raise InputError(
            f"{where}: the {splits} split has {len(good)} usable images, not normal and anomalous ones{why}"
        )
    return good, failed


def fit(
    images: tuple[Image, ...],
    settings: VisualAdSettings,
    config: TrainVisualadConfig,
    saved: Path | None,
    say: Callable[[str], None],
) -> tuple[Trainer, Callable[[Path], None]]:
    """Train from a saved state, or from the start; (the trainer at its end, what writes the checkpoint)."""
    torch.manual_seed(config.seed)
    backbone, mean, std = load_backbone(config.backbone, config.revision, config.checkpoint_activations)
    transform = ImageTransform(settings.size, tuple(mean), tuple(std))
    model = VisualAD(backbone, settings)
    trainer = trainer_of(model, TrainingSet(images, transform), config)
    run_trainer(trainer, saved, say, config.out)
    notes = {
        "trained_on": sorted({i.dataset for i in images}),
        "epochs": config.epochs,
        "seed": config.seed,
        "precision": config.precision,
    }
    return trainer, lambda folder: checkpoint.save(model, folder, config.backbone, config.revision, transform, notes)


class VisualAdTrainer(TrainableOnlyCheckpoints, Trainer):
    """Trains with Eq. 13, and logs its parts beside it, averaged over the steps and processes."""

    def __init__(self, settings: VisualAdSettings, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.settings = settings
        self.parts: dict[str, list[torch.Tensor]] = {n: [] for n in PARTS}

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        settings = self.settings
        parts = losses(model(inputs["pixels"]), inputs["masks"], inputs["labels"], settings.variant, settings.without)
        for name in PARTS:
            if name in parts:
                self.parts[name].append(parts[name].detach())
        return (parts["loss"], None) if return_outputs else parts["loss"]

    def log(self, logs, *more):
        if "loss" in logs:
            means = {n: torch.stack(v).mean() for n, v in self.parts.items() if v}
            logs |= {n: float(v) for n, v in self.accelerator.reduce(means, "mean").items()}
            self.parts = {n: [] for n in PARTS}
        super().log(logs, *more)


def trainer_of(model: VisualAD, data: TrainingSet, config: TrainVisualadConfig) -> VisualAdTrainer:
    """transformers' Trainer with Eq. 13 as its loss, and the variant's optimiser and schedule."""
    device, precision = resolved_precision(config.device, config.precision)
    if precision == "bf16":
        model.backbone.in_bf16()
    steps = ceil(len(data) / config.batch_size)
    common = common_arguments(
        config.out, device, precision, config.seed, config.loader_workers, config.save_steps, steps * config.epochs
    )
    arguments = TrainingArguments(
        **common,
        per_device_train_batch_size=per_process_batch(config.batch_size),
        num_train_epochs=config.epochs,
        max_grad_norm=0,
        torch_compile=config.compile,
        logging_nan_inf_filter=False,  # would look at every step's loss on the host, which waits for the GPU
        accelerator_config={"non_blocking": device != "cpu"},  # from pinned memory
        ddp_find_unused_parameters=False,
    )
    return VisualAdTrainer(
        model.settings,
        model=model,
        args=one_gpu(arguments),
        train_dataset=data,
        optimizers=optimiser_of(model, config, steps),
    )


def optimiser_of(model: VisualAD, config: TrainVisualadConfig, steps: int) -> tuple[Optimizer, LambdaLR]:
    """code: AdamW, the tokens at `learning_rate`, the rest at a tenth of it, each token's gradient clipped to norm 1,
    cosine per epoch down to that tenth. paper: Adam at one constant rate. steps: per epoch."""
    code = config.variant == "code"
    own = [p for p in (model.tokens, model.positions) if p.requires_grad]
    ours = {id(p) for p in own}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in ours]
    least = least_rate(config)
    groups = [{"params": own, "lr": config.learning_rate}, {"params": rest, "lr": least}]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.01) if code else torch.optim.Adam(groups)
    if code:
        optimiser.register_step_pre_hook(lambda *_: clip_each(model.tokens))

    def factor(rate: float) -> Callable[[int], float]:
        def at(step: int) -> float:  # where both rates are one, as in paper: 1
            return (least + (rate - least) * (1 + cos(pi * (step // steps) / config.epochs)) / 2) / rate

        return at

    schedule = LambdaLR(optimiser, [factor(g["lr"]) for g in groups])
    return optimiser, schedule


def least_rate(config: TrainVisualadConfig) -> float:
    """The rate of all but the tokens, which is also where the tokens' cosine ends; paper: the one rate."""
    return config.learning_rate * SHARE if config.variant == "code" else config.learning_rate


def clip_each(tokens: torch.nn.Parameter) -> None:
    """Scale each row's gradient to norm 1 at most."""
    if tokens.grad is not None:
        tokens.grad *= (1 / (tokens.grad.norm(dim=1, keepdim=True) + 1e-6)).clamp(max=1)
