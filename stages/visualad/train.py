"""Training VisualAD on one data set, to be tested on others (section 3.4).

The loop is transformers' Trainer: mixed precision, resuming, torch.compile and logging are its. A killed run goes
on from the last saved step, on a CPU to the very same weights.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from stages.artifacts.writer import Spec, Summary
from stages.base.config import RunOptions, argument, named_paths, option, require_at_least_zero, require_positive
from stages.base.errors import InputError, cannot_be_loaded
from stages.datasets.files import look_at
from stages.datasets.manifest import Image, read_manifest
from stages.datasets.trainable import with_masks
from stages.training.distributed import from_first, joined, share
from stages.training.runs import trained
from stages.training.saved_models import check_model
from stages.training.weights import checkpoint_fingerprint
from stages.visualad.config import POSITIONS, Settings, check, check_names

PARTS = ("cls", "seg", "ctr")  # of the loss, as losses.csv has them


@dataclass(frozen=True, kw_only=True)
class TrainVisualadConfig:
    manifest: Path = argument("labelled images with masks: manifest artifact, a folder of them, or a Parquet file")
    out: Path = option("the trained model and its record")
    backbone: str = option(
        "frozen vision transformer: directory or hub id (CLIP, DINOv2, DINOv3, SigLIP, SigLIP2)",
        "openai/clip-vit-large-patch14-336",
    )
    revision: str = option("branch, tag or commit of a hub model", "")
    variant: str = option("code = what the authors' released code computes; paper = the text's equations", "code")
    split: str = option("images to train on; the authors train on the test split of the auxiliary data set", "test")
    epochs: int = option("passes over the images; the released scripts: 1 on VisA, 2 on MVTec AD", 1)
    batch_size: int = option("images per step, all processes together", 8)
    size: int = option("px of the square that images are squashed to", 518)
    layers: str = option("blocks whose patches are scored, from 1; the last is the deepest", "6,12,18,24")
    anchors: int = option("anchor queries per layer", 4)
    position: str = option(f"positions of SCA: {', '.join(POSITIONS)} (Table 5)", "1d")
    learning_rate: float = option("of the two tokens; code: SCA, SAF and norm have 1e-4, paper: the same", 1e-3)
    as_released: bool = option("also what the released code loses: positions not trained, norm not reloaded", False)
    precision: str = option("fp32, bf16, or auto = bf16 where the processor has it", "auto")
    checkpoint_activations: bool = option("recompute the blocks' activations: less memory, more time", False)
    compile: bool = option("torch.compile the model", False)
    save_steps: int = option("steps between saved states, from which a killed run goes on", 200)
    device: str = option("auto, cpu or cuda", "auto")
    workers: int = option("processes that load images; 0 = in this one", 0)
    root: Path | None = option("where the manifest's paths start, if not where it was indexed", None)
    seed: int = option("of initialisation, data order and dropout", 0)

    def settings(self) -> Settings:
        """Raises InputError for layers that are no numbers."""
        try:
            layers = tuple(int(n) for n in self.layers.split(","))
        except ValueError:
            raise InputError(f"--layers {self.layers}: expected numbers, comma-separated") from None
        return Settings(self.variant, layers, self.anchors, self.position, self.size, self.as_released)


def run(config: TrainVisualadConfig, options: RunOptions) -> Summary | None:
    """Train one model on all images of the split. Under torchrun every process runs this; only the first opens the
    artifact and returns a summary.

    Raises:
        InputError: unusable images (see `trainable`) or settings, no such backbone, a batch that the processes cannot
            share.
    """
    from stages.training.torch_setup import device_and_precision, prepare_torch

    require_positive(config, "epochs", "batch_size", "learning_rate", "save_steps")
    require_at_least_zero(config, "workers")
    share(config.batch_size)
    settings = config.settings()
    check_names(settings)
    check_model(config.backbone, "--backbone")
    device, precision = device_and_precision(config.device, config.precision)
    manifest = read_manifest(config.manifest, config.root)
    images, failed = trainable(manifest.images, config.split, config.manifest)
    prepare_torch()
    weights = _checked_backbone(config, settings)
    names = ("split", "epochs", "batch_size", "learning_rate")
    parameters = (
        {n: getattr(config, n) for n in names}
        | asdict(settings)
        | {"precision": precision, "backbone": config.backbone, "weights": weights}
    )

    def train(saved, say):
        from stages.visualad.trainer import fit

        return fit(images, settings, replace(config, device=device, precision=precision), saved)

    with joined(device):
        files = from_first(lambda: look_at(config.out, options.quiet, images=images, masks=images))
        inputs = {"manifest": manifest.fingerprint, "image files": files.images, "mask files": files.masks}
        spec = Spec("train-visualad", parameters, inputs, config.seed, {"left out": failed}, named_paths(config))
        return trained(
            config.out,
            spec,
            "+".join(sorted({i.dataset for i in images})),
            len(images),
            options,
            PARTS,
            train,
            failed,
            files,
        )


def _checked_backbone(config: TrainVisualadConfig, settings: Settings) -> str:
    """Fingerprint of the backbone's weights. Raises InputError before anything is written or loaded."""
    from transformers import AutoConfig, AutoImageProcessor

    from stages.visualad.backbone import require_family

    try:
        whole = AutoConfig.from_pretrained(config.backbone, revision=config.revision or None)
        require_family(config.backbone, whole.model_type)
        AutoImageProcessor.from_pretrained(config.backbone, revision=config.revision or None)
        vision = getattr(whole, "vision_config", whole)
        patch, depth = vision.patch_size, vision.num_hidden_layers
        weights = checkpoint_fingerprint(config.backbone, config.revision)
    except (OSError, ValueError) as e:
        raise cannot_be_loaded(f"--backbone {config.backbone}", e) from e
    except AttributeError:
        raise InputError(f"--backbone {config.backbone}: a {whole.model_type} has no patch tokens") from None
    check(settings, patch, depth)
    return weights


def trainable(images: Iterable[Image], split: str, where: Path) -> tuple[tuple[Image, ...], list[str]]:
    """(images to train on, why others are left out) of one split.

    Raises:
        InputError: an image without a label, or one class only. An anomalous image without a readable mask is left
            out as one that cannot be read is.
    """
    chosen = [i for i in images if i.split == split]
    good, failed = [], []
    for image in chosen:
        if image.error:
            failed.append(f"{image.image_id}: {image.error}")
        elif image.label is None:
            raise InputError(f"{where}: {image.image_id} has no label; training needs them all")
        else:
            good.append(image)
    usable, maskless = with_masks(good)
    if {i.label for i in usable} != {0, 1}:
        why = f" ({maskless[0]})" if maskless else ""
        raise InputError(
            f"{where}: the {split} split has {len(usable)} usable images, not normal and anomalous ones{why}"
        )
    return usable, failed + maskless
