"""Settings of `score --method anomalib/<model>`. Imports no torch, so that `--help` is quick."""

from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from stages.base.config import argument, option
from stages.base.errors import InputError

PREFIX = "anomalib/"
IMAGE_SCORES = ("max", "top1", "anomalib")
LITE0 = "lite0"
FOLDS = 5  # of training images that a model is fitted again without, where nothing is quicker
PAPER_CHANNELS = {"wide_resnet50_2": 550}  # of PaDiM; ResNet-18's 100 otherwise


@dataclass(frozen=True)
class Model:
    """layers: feature levels of the backbone that it reads by default, from 0, () = it takes no backbone; levels: how
    many it can read, 0 = any; least, most: training images that a fit needs and takes, 0 = all; left_out: how a
    training image gets a score as if it had not been fitted to, as it is recorded; size: the smallest, px; maps:
    whether it draws them; map_kind: of `maps.to_row`; epochs: by default, 0 = it is not trained by gradient steps;
    at_once: images of such a step; backbones: those that anomalib has it for, () = any; alone: its map depends on the
    batch, so that each image is scored by itself; checkpoint: what the directory --checkpoint has to hold, name -> what
    it is."""

    layers: tuple[int, ...]
    least: int = 2
    left_out: str = "five folds"
    levels: int = 0
    most: int = 0
    size: int = 32
    maps: bool = True
    map_kind: str = "<f2"
    epochs: int = 0
    at_once: int = 32
    backbones: tuple[str, ...] = ()
    alone: bool = False
    checkpoint: dict[str, str] = field(default_factory=dict)


RESNETS = ("resnet18", "wide_resnet50_2", "resnet34", "resnet50", "resnet101", "resnet152")
RESNETS += ("resnext50_32x4d", "resnext101_32x8d", "wide_resnet101_2")
TEACHER, OTHER_IMAGES = "pretrained_teacher_small.pth", "imagenette"
FLOAT32 = "<f4"  # of maps that float16 cannot hold: sums of squares, products and differences of small numbers
MODELS = {
    "padim": Model((1, 2, 3), 2, "one left out, exactly"),
    "patchcore": Model((2, 3), 1, "without its own patches in the bank"),
    "dfm": Model((3,), levels=1, most=2000, map_kind=FLOAT32),  # decomposes a matrix with a row for each image
    "dfkde": Model((4,), 16, levels=1, most=2000, maps=False),  # the same; 16 principal components
    # Epochs: chosen here, after the papers; anomalib stops early instead, which needs labelled defects.
    "stfpm": Model((1, 2, 3), map_kind=FLOAT32, epochs=100),
    "cflow": Model((2, 3, 4), map_kind=FLOAT32, epochs=50, alone=True),
    "reverse-distillation": Model((1, 2, 3), levels=3, map_kind=FLOAT32, epochs=200, backbones=RESNETS),
    "fastflow": Model((1, 2, 3), levels=3, map_kind=FLOAT32, epochs=500, backbones=RESNETS[:2]),
    "efficient-ad": Model(
        (),
        size=256,
        map_kind=FLOAT32,
        epochs=200,  # 70,000 steps with 350 images
        at_once=1,
        checkpoint={
            TEACHER: "of anomalib's efficientad_pretrained_weights.zip",
            OTHER_IMAGES: "a folder of folders of other pictures, the paper's are ImageNet's",
        },
    ),
}
# Not offered, with what they need beyond a backbone.
REFUSED = {
    "winclip": "needs open_clip's ViT-B-16-plus-240 (laion400m_e31)",
    "anomaly-dino": "needs DINOv2's vit_small_patch14_dinov2",
    "dinomaly": "needs DINOv2's vit_base_patch14_reg4_dinov2",
    "dsr": "needs vq_model_pretrained_128_4096.pckl, a pickle",
    "draem": "needs the textures of dtd-r1.0.1.tar.gz",
    "cfa": "needs weights that anomalib itself downloads (torchvision's)",
    "u-flow": "needs cait_m48_448 and cait_s24_224",
}


@dataclass(frozen=True, kw_only=True)
class BaselineConfig:
    manifest: Path = argument("the images, and which of them are normal training images of which task")
    out: Path = option("where the scores go")
    maps: Path | None = option("where the anomaly maps go; without it only scores are kept", None)
    method: str = option(f"anomalib/ and one of {', '.join(MODELS)}")
    name: str = option("what tables call this run; by default the method, and the backbone where it is not lite0", "")
    backbone: str = option(
        "lite0 (EfficientNet-Lite0 with ImageNet weights, packaged), a timm name (wide_resnet50_2 is"
        " the papers'), or a directory with timm's config.json and model.safetensors",
        LITE0,
    )
    layers: str = option("feature levels of the backbone, comma-separated, 0 = the finest; by default the model's", "")
    size: int = option("side of the square that images are resized to, px (bilinear, anti-aliased)", 256)
    image_score: str = option(
        "of an image: max of the map, top1 (mean of its highest 1 %), or anomalib (the model's"
        " own); by default max, for dfkde, which has no map, anomalib",
        "",
    )
    channels: int = option("padim: channels kept, drawn at random; 0 = 550 for wide_resnet50_2, else 100", 0)
    patches: int = option("patchcore: patches drawn at random from the training images, before the coreset", 10_000)
    coreset: float = option("patchcore: share of the drawn patches that the greedy coreset keeps; 1 = all", 0.1)
    epochs: int | None = option("trained models: passes over the training images; by default the model's", None)
    checkpoint: Path | None = option(
        f"efficient-ad: a directory with {TEACHER} and {OTHER_IMAGES}/, folders of other pictures", None
    )
    features: Path | None = option(
        "padim, patchcore, dfm, dfkde: a folder in which the backbone's features of every image are kept and, by the"
        " next model, read",
        None,
    )
    splits: str = option("images to score, comma-separated: test, train, val; thresholds need train", "train,val,test")
    batch_size: int = option("images per forward pass", 16)
    device: str = option("auto, cpu or cuda", "auto")
    workers: int = option("threads that load images", 2)
    root: Path | None = option("where the manifest's paths start, if not where it was indexed", None)
    seed: int = option("of what is drawn at random: channels, patches, first weights, the order of training", 0)

    @property
    def model(self) -> str:
        """Without the prefix."""
        return self.method.removeprefix(PREFIX)

    @property
    def levels(self) -> tuple[int, ...]:
        """--layers as numbers. Raises InputError for anything else."""
        if not self.layers:
            return MODELS[self.model].layers
        try:
            levels = tuple(int(x) for x in self.layers.split(","))
        except ValueError:
            levels = ()
        if not levels or list(levels) != sorted(set(levels)) or levels[0] < 0:
            raise InputError(f"--layers {self.layers}: expected ascending numbers from 0, comma-separated")
        return levels

    @property
    def passes(self) -> int:
        """Epochs of a model that is trained by gradient steps; 0 for others."""
        return self.epochs or MODELS[self.model].epochs

    @property
    def called(self) -> str:
        """The method in tables."""
        return self.name or self.method + ("" if self.backbone == LITE0 else f"+{Path(self.backbone).name}")

    @property
    def scored_by(self) -> str:
        """One of IMAGE_SCORES."""
        return self.image_score or ("max" if MODELS[self.model].maps else "anomalib")

    def parameters(self) -> dict:
        """What decides the rows, the backbone's weights apart: of the model in question only its own options."""
        model = MODELS[self.model]
        own = {"padim": ("channels",), "patchcore": ("patches", "coreset")}.get(self.model, ())
        if model.layers:
            own = ("backbone", *own)
        return {
            "method": self.called,
            "model": self.model,
            "layers": list(self.levels),
            "size": self.size,
            "image_score": self.scored_by,
            "training_scores": model.left_out,
            "fit_most": model.most or None,
            "splits": self.splits,
            "seed": self.seed,
            **{n: getattr(self, n) for n in own},
            **({"epochs": self.passes} if model.epochs else {}),
        }


def check(config: BaselineConfig) -> None:
    """Raises InputError for settings that cannot be."""
    if config.model not in MODELS:
        raise InputError(refusal(config.method))
    model = MODELS[config.model]
    if config.scored_by not in IMAGE_SCORES:
        raise InputError(f"--image-score {config.image_score}: expected {', '.join(IMAGE_SCORES)}")
    if not model.maps and (config.maps or config.scored_by != "anomalib"):
        raise InputError(f"--method {config.method}: draws no map; leave out --maps and --image-score")
    if config.size < model.size:
        raise InputError(f"--size {config.size}: at least {model.size} px for {config.method}")
    if config.batch_size < 1 or config.workers < 1 or config.patches < 1 or config.channels < 0:
        raise InputError("--batch-size, --workers and --patches: at least 1; --channels: at least 0")
    if not 0 < config.coreset <= 1:
        raise InputError(f"--coreset {config.coreset}: expected a share above 0, at most 1")
    if config.epochs is not None and not model.epochs:
        raise InputError(f"--epochs {config.epochs}: means nothing to {config.method}, which takes no gradient steps")
    if config.epochs is not None and config.epochs < 1:
        raise InputError(f"--epochs {config.epochs}: at least 1")
    if config.features and model.epochs:
        frozen = ", ".join(name for name, m in MODELS.items() if not m.epochs)
        raise InputError(
            f"--features {config.features}: {config.method} is trained on the images themselves; leave it out"
            f" (it is for {frozen})"
        )
    check_levels(config, model)
    check_weights(config, model)


def check_levels(config: BaselineConfig, model: Model) -> None:
    """Raises InputError for levels that anomalib's model cannot read."""
    levels = config.levels
    if not model.layers and (config.layers or config.backbone != LITE0):
        raise InputError(f"--method {config.method}: takes no backbone; leave out --backbone and --layers")
    if model.levels == 1 < len(levels):
        raise InputError(f"--layers {config.layers}: anomalib's {config.model} reads one level")
    if model.levels > 1 and levels != model.layers:
        raise InputError(f"--layers {config.layers}: anomalib's {config.model} reads 1,2,3 alone; leave it out")


def check_weights(config: BaselineConfig, model: Model) -> None:
    """Raises InputError for a backbone that anomalib's model is not made for, and a --checkpoint that is incomplete or
    not needed."""
    if model.backbones and config.backbone == LITE0:
        raise InputError(needs_another(config))
    if config.checkpoint and not model.checkpoint:
        raise InputError(f"--checkpoint {config.checkpoint}: means nothing to {config.method}; leave it out")
    missing = [n for n in model.checkpoint if config.checkpoint is None or not (config.checkpoint / n).exists()]
    if missing:
        given = f"--checkpoint {config.checkpoint}: no {' and no '.join(missing)}" if config.checkpoint else ""
        needed = " and ".join(f"{n} ({what})" for n, what in model.checkpoint.items())
        raise InputError(f"{given or f'--method {config.method}'}: needs --checkpoint, a directory with {needed}")


def needs_another(config: BaselineConfig) -> str:
    """Which backbones anomalib's model is made for."""
    names = MODELS[config.model].backbones
    return (
        f"--method {config.method}: anomalib has it for no other backbones than {', '.join(names)}; `adcli score"
        f" --backbone` takes one of these names or a directory with its weights (not {config.backbone})"
    )


def refusal(method: str) -> str:
    """Why `anomalib/...` is no method, with the nearest name that is one."""
    model = method.removeprefix(PREFIX)
    if reason := REFUSED.get(model.replace("_", "-")):
        return f"--method {method}: {reason}; expected {', '.join(PREFIX + m for m in MODELS)}"
    near = get_close_matches(model, MODELS, 1)
    return f"--method {method}: " + (
        f"did you mean {PREFIX}{near[0]}?" if near else f"expected {', '.join(PREFIX + m for m in MODELS)}"
    )
