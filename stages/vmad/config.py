"""What a VMAD model is made of, and the settings of its commands. Imports no torch, so that `--help` is quick."""

from dataclasses import dataclass
from pathlib import Path

from stages.base.config import argument, check_numbers, option, require_at_least_zero, require_positive
from stages.base.errors import InputError
from stages.training.distributed import accumulation_steps
from stages.training.options import GROUP, ImageTrainingOptions
from stages.training.saved_models import ADAPTER_WEIGHTS, check_merged, check_model, read_json, trained_folder
from stages.training.torch_setup import resolved_precision

METHOD = "vmad"
LLAVA, SAM = "llava-hf/llava-1.5-7b-hf", "facebook/sam-vit-huge"
QUERIES = {"description": "description", "impact": "impact analysis", "suggestion": "suggestion analysis"}

PROJECTORS = ("ltc", "ltc-last", "ltc-coarse", "mlp", "average-pooling", "resampler", "ldp-v2")  # Tables I, III, V
TARGETS = ("identity", "trained-heads", "patches")  # what Eq. 11 is of
SEG = "<seg>"
GENERAL, NO_TEXT = "general", "none"  # of --descriptions
WEIGHTS, RECORD, ADAPTER, MERGED = "vmad.safetensors", "vmad.json", "adapter", "llava"  # of a trained model


@dataclass(frozen=True)
class VmadSettings:
    """projector: of PROJECTORS; rho: downsampling per side; levels: n of Eq. 21; depth, heads: of LTC; dssl: with the
    PBSD loss; boxes: N_b; box_size: px of the visual backbone's input; temperature: tau of Eq. 11, Eq. 16; drawn:
    images of each label that Eq. 11, Eq. 16 compare with at a step; target: of TARGETS; rank, alpha, dropout: of LoRA.

    The target stays `identity` by default, though it hardly separates defects (a training says how well), because it
    alone is what Eq. 8 to Eq. 11 say without an objective that the paper does not have.

    Not in the paper, and so ours: depth, heads, drawn, temperature (MoCo's), alpha and dropout (LISA's).
    """

    projector: str = "ltc"
    rho: int = 2
    levels: int = 4
    depth: int = 2
    heads: int = 8
    dssl: bool = True
    boxes: int = 32
    box_size: int = 32
    temperature: float = 0.07
    drawn: int = 8
    target: str = "identity"
    rank: int = 8
    alpha: int = 16
    dropout: float = 0.05

    @property
    def layers(self) -> int:
        """Layers of CLIP that the projector reads: the one that LLaVA takes, and for LTC those before it."""
        return self.levels + 1 if self.projector == "ltc" else 1

    def tokens(self, grid: int) -> int:
        """Tokens that an image of grid x grid patches becomes."""
        return grid**2 if self.projector == "mlp" else (grid // self.rho) ** 2

    def check(self) -> None:
        """Raises InputError for settings that no model can have."""
        if self.projector not in PROJECTORS:
            raise InputError(f"--projector {self.projector}: expected {', '.join(PROJECTORS)}")
        if self.target not in TARGETS:
            raise InputError(f"--dssl-target {self.target}: expected {', '.join(TARGETS)}")
        require_positive(
            self, "rho", "levels", "depth", "heads", "boxes", "box_size", "temperature", "drawn", "rank", "alpha"
        )
        if not 0 <= self.dropout < 1:
            raise InputError(f"--dropout {self.dropout}: expected 0 or more, less than 1")

    def check_llava(self, grid: int, depth: int, width: int) -> None:
        """`check`, and for one LLaVA. grid: patches per side; depth: layers below the one that LLaVA takes; width: of
        CLIP. Raises InputError for settings that the model cannot have."""
        self.check()
        if grid % self.rho:
            raise InputError(f"--rho {self.rho}: does not divide the {grid} x {grid} patches of the vision tower")
        if self.levels > depth:
            raise InputError(
                f"--levels {self.levels}: expected 1 to {depth}, the layers below the one that LLaVA takes"
            )
        if width % self.heads:
            raise InputError(f"--heads {self.heads}: does not divide the vision tower's width of {width}")


@dataclass(frozen=True)
class LossWeights:
    """Of Eq. 6, Eq. 7. The paper gives none: LISA's, whose embedding-as-mask scheme it takes, and 1 for PBSD."""

    text: float = 1.0
    mask: float = 1.0
    pbsd: float = 1.0
    bce: float = 2.0
    dice: float = 0.5


@dataclass(frozen=True, kw_only=True)
class FinetuneVmadConfig(ImageTrainingOptions):
    """Defaults are the paper's (section V-A.4) where it names a value."""

    manifest: Path = argument("labelled images with masks: manifest artifact, a folder of them, or a Parquet file")
    out: Path = option("the trained model and its record")
    questions: Path | None = option("questions with answers on these images: artifact or Parquet file", None)
    method: str = option("vmad", METHOD)
    llava: str = option("LLaVA 1.x with a CLIP tower: directory or hub id", LLAVA)
    sam: str = option("SAM: directory or hub id", SAM)
    llava_revision: str = option("branch, tag or commit of a hub model", "")
    sam_revision: str = option("branch, tag or commit of a hub model", "")
    splits: str = option("images to train on, comma-separated: train, val, test", "train", was="split")
    tasks: str = option(
        "comma-separated: segmentation, answering, vqa (the last needs questions)", "segmentation,answering,vqa"
    )
    descriptions: str = option(
        "what normal objects look like, said before the question (section III-A) and to the Meta-Net: general = a"
        " sentence with the object's name; none; vmad/normal = ours for each class of MVTec AD and VisA; a folder of"
        " <category>.txt; captions of normal training images",
        GENERAL,
    )
    projector: str = option(f"visual projector, Tables I and V: {', '.join(PROJECTORS)}", "ltc")
    rho: int = option("downsampling of the patch tokens per side", 2)
    levels: int = option("layers of CLIP that LTC integrates beside the last, n", 4)
    depth: int = option("blocks in each part of LTC; the paper names no number", 2)
    heads: int = option("of LTC's and the resampler's attention", 8)
    no_dssl: bool = option("without defect-sensitive structure learning (Table III)", False)
    boxes: int = option("random patches per image, N_b (Table IV)", 32)
    box_size: int = option("of a random patch, px of SAM's input", 32)
    loss_temperature: float = option(
        "tau of the similarity distributions; the paper names no number", 0.07, was="temperature"
    )
    memory: float = option("share of each class's images in the memory", 0.05)
    drawn: int = option("normal and anomalous images of the memory that a step compares with, each", 8)
    dssl_target: str = option(
        "what Eq. 11 compares patches with: identity (the paper's global averages), trained-heads (the same through"
        " heads trained to tell defect patches), patches (of normal images and of defects)",
        "identity",
    )
    rank: int = option("of LoRA", 8)
    alpha: int = option("LoRA's scale is alpha / rank", 16)
    dropout: float = option("of LoRA", 0.05)
    weight_text: float = option("of the text loss (Eq. 6); the paper names no weights: LISA's, and 1 for PBSD", 1.0)
    weight_mask: float = option("of the mask loss (Eq. 6)", 1.0)
    weight_pbsd: float = option("of the PBSD loss (Eq. 6)", 1.0)
    weight_bce: float = option("of the cross-entropy in the mask loss (Eq. 7)", 2.0)
    weight_dice: float = option("of Dice in the mask loss (Eq. 7)", 0.5)
    epochs: float = option("passes over the samples", 10.0, GROUP)
    batch_size: int = option(
        "samples per optimiser step, over all processes: the paper's 2 on each of 8 GPUs", 16, GROUP
    )
    micro_batch: int = option("samples per forward pass and process; the rest of the batch is accumulated", 2, GROUP)
    learning_rate: float = option("peak of AdamW; falls to 0 along a cosine", 1e-6, GROUP)
    weight_decay: float = option("of AdamW; the paper names none", 0.0, GROUP)
    clip: float = option("largest norm of the gradient", 1.0, GROUP)
    max_length: int = option(
        "longest sample, tokens; 0 = the model's context; a longer one is refused, never cut", 0, GROUP
    )
    merged: Path | None = option("also write a copy with LoRA merged into the language model here", None)

    def settings(self) -> VmadSettings:
        """What the model is made of."""
        own = {"dssl": not self.no_dssl, "temperature": self.loss_temperature, "target": self.dssl_target}
        return VmadSettings(**own, **{n: getattr(self, n) for n in VmadSettings.__dataclass_fields__ if n not in own})

    def weights(self) -> LossWeights:
        """Of the losses."""
        return LossWeights(**{n: getattr(self, f"weight_{n}") for n in LossWeights.__dataclass_fields__})

    def check(self) -> None:
        """Raises InputError for what can be refused before torch is loaded: numbers that do not fit, directories that
        hold no LLaVA or SAM, a place for the merged copy that is taken, a device that is not there."""
        check_numbers(self)
        require_at_least_zero(self, *(f"weight_{n}" for n in LossWeights.__dataclass_fields__))
        if not 0 < self.memory <= 1:
            raise InputError(f"--memory {self.memory}: expected more than 0, at most 1")
        accumulation_steps(self.batch_size, self.micro_batch)
        self.settings().check()
        if self.dssl_target != "identity" and set(self.tasks.split(",")) == {"vqa"}:
            raise InputError(f"--dssl-target {self.dssl_target}: needs masks, and --tasks vqa trains without them")
        check_model(self.llava, "--llava")
        check_model(self.sam, "--sam")
        check_merged(self.merged, self.out)
        resolved_precision(self.device, self.precision)


@dataclass(frozen=True, kw_only=True)
class ScoreVmadConfig:
    manifest: Path = argument("the images: manifest artifact, a folder of them, or a Parquet file")
    checkpoint: Path = option("what finetune-mllm --method vmad wrote")
    out: Path = option("where the scores and answers go")
    maps: Path | None = option("where the masks' probabilities go; without it only scores are kept", None)
    method: str = option("vmad", METHOD)
    name: str = option("what tables call this run", METHOD)
    query: str = option("what to ask for beside the mask: description, impact, suggestion or nothing", "")
    descriptions: str = option(
        "what normal objects look like, as in finetune-mllm; by default what training was told, and for other classes"
        " the same kind",
        "",
    )
    top_share: float = option("share of the mask's pixels, the most anomalous, whose mean is the score", 0.01)
    llava: str = option("where LLaVA lies, if not where it was trained", "")
    sam: str = option("where SAM lies, if not where it was trained", "")
    splits: str = option("images to score, comma-separated: test, train, val", "test")
    max_tokens: int = option("longest answer, tokens", 256)
    batch_size: int = option("images per forward pass", 8)
    precision: str = option("fp32, bf16, or auto = bf16 where the processor has it", "auto")
    device: str = option("auto, cpu or cuda", "auto")
    workers: int = option("threads that load images", 4)
    root: Path | None = option("where the manifest's paths start, if not where it was indexed", None)

    def check(self) -> None:
        """Raises InputError for what can be refused before torch is loaded: numbers, no checkpoint, directories that
        hold no LLaVA or SAM, a device that is not there."""
        if self.query and self.query not in QUERIES:
            raise InputError(f"--query {self.query}: expected {', '.join(QUERIES)}")
        check_numbers(self)
        if not 0 < self.top_share <= 1:
            raise InputError(f"--top-share {self.top_share}: expected more than 0, at most 1")
        check_sources(self.checkpoint, self.llava, self.sam)
        resolved_precision(self.device, self.precision)


@dataclass(frozen=True, kw_only=True)
class AskConfig:
    checkpoint: Path = option("what finetune-mllm --method vmad wrote")
    image: Path = option("the image to talk about")
    object: str = option("what it shows", "object")
    normal: str = option("what a normal one looks like, in a sentence; by default what training was told", "")
    question: str = option("the first question; by default that of training, for a mask and a description", "")
    mask: Path | None = option(
        "where the mask goes: PNG of the image's size, 255 = surely anomalous; by default beside"
        " the image as <name>.vmad.png",
        None,
    )
    llava: str = option("where LLaVA lies, if not where it was trained", "")
    sam: str = option("where SAM lies, if not where it was trained", "")
    max_tokens: int = option("longest answer, tokens", 256)
    precision: str = option("fp32, bf16, or auto = bf16 where the processor has it", "auto")
    device: str = option("auto, cpu or cuda", "auto")

    def check(self) -> None:
        """Raises InputError for what can be refused before torch is loaded."""
        if self.max_tokens < 1:
            raise InputError(f"--max-tokens {self.max_tokens}: at least 1")
        resolved_precision(self.device, self.precision)


def checkpoint_folder(place: Path) -> Path:
    """The folder with the checkpoint: `place` itself, or the one of a finetune-mllm artifact. Raises InputError: none
    there."""
    return trained_folder(place, (WEIGHTS, RECORD), "finetune-mllm --method vmad")


def check_sources(checkpoint: Path, llava: str, sam: str) -> None:
    """llava, sam: where they lie now, if elsewhere than in training. Raises InputError: no checkpoint, or not the
    directories of a LLaVA and a SAM."""
    folder = checkpoint_folder(checkpoint)
    record = read_json(folder / RECORD, "--checkpoint")
    if not record.get("merged") and not (folder / ADAPTER / ADAPTER_WEIGHTS).is_file():
        raise InputError(f"--checkpoint {folder}: no {ADAPTER}/{ADAPTER_WEIGHTS} here")
    recorded_llava = str(folder / MERGED) if record.get("merged") else record.get("llava")
    for flag, name in (("--llava", llava or recorded_llava), ("--sam", sam or record.get("sam"))):
        if not name:
            raise InputError(f"{folder / RECORD}: not of this version of adcli")
        check_model(name, flag)
