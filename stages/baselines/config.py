"""Settings of `score --method anomalib/<model>`. Imports no torch, so that `--help` is quick."""

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from stages.base.config import argument, option
from stages.base.errors import InputError

PREFIX = "anomalib/"
IMAGE_SCORES = ("max", "top1", "anomalib")
LITE0 = "lite0"
# How a training image gets a score as if it had not been fitted to: recorded with the scores.
LEFT_OUT = {
    "padim": "one left out, exactly",
    "patchcore": "own patches left out of the bank",
    "dfm": "five folds",
    "dfkde": "five folds",
}
FIT_MOST = {"dfm": 2000, "dfkde": 2000}  # training images; both decompose one matrix with a row for each
PAPER_CHANNELS = {"wide_resnet50_2": 550}  # of PaDiM; ResNet-18's 100 otherwise


@dataclass(frozen=True)
class Model:
    """layers: feature levels of the backbone that it reads by default, from 0; least: training images that a fit needs;
    maps: whether it draws anomaly maps; map_kind: of `maps.to_row`."""

    layers: tuple[int, ...]
    least: int
    maps: bool = True
    map_kind: str = "<f2"


MODELS = {
    "padim": Model((1, 2, 3), 2),
    "patchcore": Model((2, 3), 1),
    "dfm": Model((3,), 2, map_kind="<f4"),  # sums of squares, which float16 cannot always hold
    "dfkde": Model((4,), 16, maps=False),  # 16 principal components
}
# Not offered, with the reason that the error message gives.
REFUSED = {
    **dict.fromkeys(
        ("stfpm", "cflow", "reverse-distillation", "fastflow"),
        "is trained by gradient steps, which this command does not do",
    ),
    **dict.fromkeys(
        ("winclip", "anomaly-dino", "dinomaly", "efficient-ad"), "needs weights of its own, which no package holds"
    ),
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
    splits: str = option("images to score, comma-separated: test, train, val; thresholds need train", "train,val,test")
    batch_size: int = option("images per forward pass", 16)
    device: str = option("auto, cpu or cuda", "auto")
    workers: int = option("threads that load images", 2)
    root: Path | None = option("where the manifest's paths start, if not where it was indexed", None)
    seed: int = option("of the channels and patches that are drawn", 0)

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
    def called(self) -> str:
        """The method in tables."""
        return self.name or self.method + ("" if self.backbone == LITE0 else f"+{Path(self.backbone).name}")

    @property
    def scored_by(self) -> str:
        """One of IMAGE_SCORES."""
        return self.image_score or ("max" if MODELS[self.model].maps else "anomalib")

    def parameters(self) -> dict:
        """What decides the rows, the backbone's weights apart: of the model in question only its own options."""
        own = {"padim": ("channels",), "patchcore": ("patches", "coreset")}.get(self.model, ())
        return {
            "method": self.called,
            "model": self.model,
            "backbone": self.backbone,
            "layers": list(self.levels),
            "size": self.size,
            "image_score": self.scored_by,
            "training_scores": LEFT_OUT[self.model],
            "fit_most": FIT_MOST.get(self.model),
            "splits": self.splits,
            "seed": self.seed,
            **{n: getattr(self, n) for n in own},
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
    if config.size < 32:
        raise InputError(f"--size {config.size}: at least 32 px")
    if config.batch_size < 1 or config.workers < 1 or config.patches < 1 or config.channels < 0:
        raise InputError("--batch-size, --workers and --patches: at least 1; --channels: at least 0")
    if not 0 < config.coreset <= 1:
        raise InputError(f"--coreset {config.coreset}: expected a share above 0, at most 1")
    if len(config.levels) > 1 == len(model.layers):
        raise InputError(f"--layers {config.layers}: anomalib's {config.model} reads one level")


def refusal(method: str) -> str:
    """Why `anomalib/...` is no method, with the nearest name that is one."""
    model = method.removeprefix(PREFIX)
    if reason := REFUSED.get(model.replace("_", "-")):
        return f"--method {method}: {reason}; expected {', '.join(PREFIX + m for m in MODELS)}"
    near = get_close_matches(model, MODELS, 1)
    return f"--method {method}: " + (
        f"did you mean {PREFIX}{near[0]}?" if near else f"expected {', '.join(PREFIX + m for m in MODELS)}"
    )
