"""What a VisualAD is made of, and the settings of its commands. Imports no torch, so that `--help` is quick."""

from dataclasses import dataclass
from pathlib import Path

from stages.base.config import argument, check_numbers, option, require_positive
from stages.base.errors import InputError
from stages.training.distributed import per_process_batch
from stages.training.options import GROUP, ImageTrainingOptions
from stages.training.saved_models import check_model, read_json, trained_folder
from stages.training.torch_setup import resolved_precision

METHOD = "visualad"

POSITIONS = ("1d", "none", "1d-sin", "2d", "2d-sin")  # Table 5
PARTS = ("sca", "saf", "focal", "dice", "contrast")  # what Table 2 leaves out: modules, and parts of the loss
WEIGHTS, RECORD = "visualad.safetensors", "visualad.json"  # of a trained model
SIGMA = 4.0  # px, of the released code's test-time Gaussian


@dataclass(frozen=True)
class VisualAdSettings:
    """What a checkpoint is made of. layers: from 1; anchors: m; position: POSITIONS; size: px; as_released: the
    tokens' positions stay copies of the class token's, and the trained final norm is not loaded for scoring; without:
    some of PARTS."""

    variant: str = "code"
    layers: tuple[int, ...] = (6, 12, 18, 24)
    anchors: int = 4
    position: str = "1d"
    size: int = 518
    as_released: bool = False
    without: tuple[str, ...] = ()

    @classmethod
    def of(cls, record: dict) -> "VisualAdSettings":
        """Of a checkpoint's record, whose tuples are lists. Raises TypeError for settings that are not known."""
        return cls(**{n: tuple(v) if isinstance(v, list) else v for n, v in record.items()})

    def check(self) -> None:
        """Raises InputError for what no backbone can have: unknown names, numbers out of range."""
        if self.variant not in ("code", "paper"):
            raise InputError(f"--variant {self.variant}: expected code or paper")
        if self.position not in POSITIONS:
            raise InputError(f"--position {self.position}: expected {', '.join(POSITIONS)}")
        if strange := [n for n in self.without if n not in PARTS]:
            raise InputError(f"--without {strange[0]}: expected some of {', '.join(PARTS)}")
        require_positive(self, "anchors", "size")
        if list(self.layers) != sorted(set(self.layers)) or min(self.layers, default=0) < 1:
            raise InputError(f"--layers {','.join(map(str, self.layers))}: expected rising numbers from 1")

    def check_backbone(self, patch: int, depth: int) -> None:
        """`check`, and for one backbone. Raises InputError for a size that is no multiple of the patch (px), or layers
        beyond the depth."""
        self.check()
        if self.size % patch or self.size < patch:
            near = max(round(self.size / patch), 1) * patch
            raise InputError(
                f"--size {self.size}: no multiple of the backbone's patch of {patch} px; the nearest is {near}"
            )
        if self.layers[-1] > depth:
            raise InputError(f"--layers {','.join(map(str, self.layers))}: expected rising numbers from 1 to {depth}")


@dataclass(frozen=True, kw_only=True)
class TrainVisualadConfig(ImageTrainingOptions):
    manifest: Path = argument("labelled images with masks: manifest artifact, a folder of them, or a Parquet file")
    out: Path = option("the trained model and its record")
    backbone: str = option(
        "frozen vision transformer: directory or hub id (CLIP, DINOv2, DINOv3, SigLIP, SigLIP2)",
        "openai/clip-vit-large-patch14-336",
    )
    revision: str = option("branch, tag or commit of a hub model", "")
    variant: str = option("code = what the authors' released code computes; paper = the text's equations", "code")
    splits: str = option(
        "images to train on, comma-separated: test, train, val; the authors take the auxiliary data set's test split",
        "test",
        was="split",
    )
    epochs: int = option("passes over the images; the released scripts: 1 on VisA, 2 on MVTec AD", 1, GROUP)
    batch_size: int = option("images per step, all processes together", 8, GROUP)
    size: int = option("px of the square that images are squashed to", 518)
    layers: str = option("blocks whose patches are scored, from 1; the last is the deepest", "6,12,18,24")
    anchors: int = option("anchor queries per layer", 4)
    position: str = option(f"positions of SCA: {', '.join(POSITIONS)} (Table 5)", "1d")
    without: str = option(f"what is left out, comma-separated: {', '.join(PARTS)} (Table 2)", "")
    learning_rate: float = option(
        "of the two tokens; code: SCA, SAF and norm have a tenth of it, where its cosine ends, too; paper: the same",
        1e-3,
        GROUP,
    )
    as_released: bool = option("also what the released code loses: positions not trained, norm not reloaded", False)
    compile: bool = option("torch.compile the model", False, GROUP)
    loader_workers: int | None = option(
        "processes that load images; 0 = in this one; by default 4 where it trains on a GPU, else 0",
        None,
        GROUP,
        was="workers",
    )
    save_steps: int = option("steps between saved states, from which a killed run goes on", 200, GROUP)

    def settings(self) -> VisualAdSettings:
        """Raises InputError for layers that are no numbers."""
        try:
            layers = tuple(int(n) for n in self.layers.split(","))
        except ValueError:
            raise InputError(f"--layers {self.layers}: expected numbers, comma-separated") from None
        without = tuple(sorted({n.strip() for n in self.without.split(",")} - {""}))
        return VisualAdSettings(self.variant, layers, self.anchors, self.position, self.size, self.as_released, without)

    def check(self) -> None:
        """Raises InputError for what can be refused before torch is loaded: numbers, names, a batch that the processes
        cannot share, a directory that holds no backbone, a device that is not there."""
        check_numbers(self)
        per_process_batch(self.batch_size)
        self.settings().check()
        check_model(self.backbone, "--backbone")
        resolved_precision(self.device, self.precision)


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
    sigma: float | None = option(
        f"of the Gaussian over the map, px; by default {SIGMA:g} as in the released code, and 0 for a model of"
        " --variant paper, whose text has none",
        None,
    )
    batch_size: int = option("images per forward pass", 8)
    precision: str = option("fp32, bf16, or auto = bf16 where the processor has it", "auto")
    device: str = option("auto, cpu or cuda", "auto")
    workers: int = option("threads that load images", 4)
    root: Path | None = option("where the manifest's paths start, if not where it was indexed", None)

    def check(self) -> None:
        """Raises InputError for what can be refused before torch is loaded: numbers, no checkpoint, no backbone, a
        device that is not there."""
        check_numbers(self)
        check_model(self.backbone or recorded_backbone(checkpoint_folder(self.checkpoint)), "--backbone")
        resolved_precision(self.device, self.precision)


def sigma_of(config: ScoreVisualadConfig) -> float:
    """The Gaussian that is used, px: what was asked for, or the checkpoint's variant's own."""
    if config.sigma is not None:
        return config.sigma
    return 0.0 if recorded_settings(checkpoint_folder(config.checkpoint))[0].variant == "paper" else SIGMA


def checkpoint_folder(place: Path) -> Path:
    """The folder with the checkpoint: `place` itself, or the one of a train-visualad artifact. Raises InputError: none
    there."""
    return trained_folder(place, (WEIGHTS, RECORD), "train-visualad")


def recorded_backbone(folder: Path) -> str:
    """The backbone that a checkpoint names. Raises InputError as `recorded_settings`."""
    return recorded_settings(folder)[1]


def recorded_settings(folder: Path) -> tuple[VisualAdSettings, str]:
    """(settings, backbone) of a checkpoint. Raises InputError for a record that lacks one, or of other settings."""
    record = read_json(folder / RECORD, "--checkpoint")
    try:
        return VisualAdSettings.of(record["settings"]), record["backbone"]
    except (KeyError, TypeError) as e:
        raise InputError(f"{folder / RECORD}: not of this version of adcli ({e})") from e
