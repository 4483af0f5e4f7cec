"""Fine-tuning VMAD on images with masks and, if there are any, questions with answers (section V-A).

Memory, counted and not measured: see `docs/vmad.md`.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from stages.artifacts.writer import Spec, Summary
from stages.base.config import RunOptions, argument, named_paths, option, require_at_least_zero, require_positive
from stages.base.errors import InputError
from stages.datasets.files import look_at
from stages.datasets.manifest import Image, read_manifest
from stages.datasets.trainable import with_masks
from stages.questions.table import Questions, read_questions
from stages.training import distributed
from stages.training.runs import accumulated, context, trained
from stages.training.saved_models import check_merged, check_model
from stages.vmad.config import PROJECTORS, RECORD, Settings, Weights, check_numbers

LLAVA, SAM = "llava-hf/llava-1.5-7b-hf", "facebook/sam-vit-huge"
SAME_RESULT = (
    "split",
    "tasks",
    "memory",
    "epochs",
    "batch_size",
    "learning_rate",
    "weight_decay",
    "clip",
    "max_length",
)


@dataclass(frozen=True, kw_only=True)
class FinetuneVmadConfig:
    """Defaults are the paper's (section V-A.4) where it names a value."""

    manifest: Path = argument("labelled images with masks: manifest artifact, a folder of them, or a Parquet file")
    out: Path = option("the trained model and its record")
    questions: Path | None = option("questions with answers on these images: artifact or Parquet file", None)
    method: str = option("vmad", "vmad")
    llava: str = option("LLaVA 1.x with a CLIP tower: directory or hub id", LLAVA)
    sam: str = option("SAM: directory or hub id", SAM)
    llava_revision: str = option("branch, tag or commit of a hub model", "")
    sam_revision: str = option("branch, tag or commit of a hub model", "")
    split: str = option("images to train on: train, val or test", "train")
    tasks: str = option(
        "comma-separated: segmentation, answering, vqa (the last needs questions)", "segmentation,answering,vqa"
    )
    projector: str = option(f"visual projector, Tables I and V: {', '.join(PROJECTORS)}", "ltc")
    rho: int = option("downsampling of the patch tokens per side", 2)
    levels: int = option("layers of CLIP that LTC integrates beside the last, n", 4)
    depth: int = option("blocks in each part of LTC; the paper names no number", 2)
    heads: int = option("of LTC's and the resampler's attention", 8)
    no_dssl: bool = option("without defect-sensitive structure learning (Table III)", False)
    boxes: int = option("random patches per image, N_b (Table IV)", 32)
    box_size: int = option("of a random patch, px of SAM's input", 32)
    temperature: float = option("tau of the similarity distributions; the paper names no number", 0.07)
    memory: float = option("share of each class's images in the memory", 0.05)
    drawn: int = option("normal and anomalous images of the memory that a step compares with, each", 8)
    rank: int = option("of LoRA", 8)
    alpha: int = option("LoRA's scale is alpha / rank", 16)
    dropout: float = option("of LoRA", 0.05)
    weight_text: float = option("of the text loss (Eq. 6); the paper names no weights: LISA's, and 1 for PBSD", 1.0)
    weight_mask: float = option("of the mask loss (Eq. 6)", 1.0)
    weight_pbsd: float = option("of the PBSD loss (Eq. 6)", 1.0)
    weight_bce: float = option("of the cross-entropy in the mask loss (Eq. 7)", 2.0)
    weight_dice: float = option("of Dice in the mask loss (Eq. 7)", 0.5)
    epochs: float = option("passes over the samples", 10.0)
    batch_size: int = option("samples per optimiser step, over all processes: the paper's 2 on each of 8 GPUs", 16)
    micro_batch: int = option("samples per forward pass and process; the rest of the batch is accumulated", 2)
    learning_rate: float = option("peak of AdamW; falls to 0 along a cosine", 1e-6)
    weight_decay: float = option("of AdamW; the paper names none", 0.0)
    clip: float = option("largest norm of the gradient", 1.0)
    max_length: int = option("longest sample, tokens; 0 = the model's context; a longer one is refused, never cut", 0)
    precision: str = option("fp32, bf16, or auto = bf16 where the processor has it", "auto")
    checkpoint_activations: bool = option("recompute activations: less memory, more time", False)
    save_steps: int = option("steps between saved states, from which a killed run goes on", 100)
    merged: Path | None = option("also write a copy with LoRA merged into the language model here", None)
    device: str = option("auto, cpu or cuda", "auto")
    workers: int = option("processes that load images; 0 = in this one", 0)
    root: Path | None = option("where the manifest's paths start, if not where it was indexed", None)
    seed: int = option("of initialisation, data order, patches and memory", 0)

    def settings(self) -> Settings:
        """What the model is made of."""
        same = {n: getattr(self, n) for n in Settings.__dataclass_fields__ if n != "dssl"}
        return Settings(**same, dssl=not self.no_dssl)

    def weights(self) -> Weights:
        """Of the losses."""
        return Weights(**{n: getattr(self, f"weight_{n}") for n in Weights.__dataclass_fields__})


def run(config: FinetuneVmadConfig, options: RunOptions) -> Summary | None:
    """Train on all samples of the split's images. Images that cannot be read are left out and said. Under torchrun
    every process runs this; only the first opens the artifact and returns a summary.

    Raises:
        InputError: unusable images, questions or settings, samples that are too long, or no such LLaVA or SAM.
    """
    from stages.training.torch_setup import prepare_torch, resolved_precision

    check(config)
    check_numbers(config.settings())
    check_model(config.llava, "--llava")
    check_model(config.sam, "--sam")
    check_merged(config.merged, config.out, RECORD)
    device, precision = resolved_precision(config.device, config.precision)
    prepare_torch()
    with distributed.process_group(device):
        return _run(config, options, device, precision)


def _run(config: FinetuneVmadConfig, options: RunOptions, device: str, precision: str) -> Summary | None:
    from stages.vmad.build import check_sam, image_processor, read_llava, text_of
    from stages.vmad.checkpoint import source_fingerprints
    from stages.vmad.data import check_lengths, prompt_texts, samples_of

    manifest = read_manifest(config.manifest, config.root)
    images, failed = trainable_images(manifest.images, config.split, config.manifest)
    if set(config.tasks.split(",")) - {"vqa"}:
        images, maskless = with_masks(images)
        failed = failed + maskless
        if not images:
            raise InputError(
                f"{config.manifest}: no image to segment is left ({maskless[0]}); --tasks vqa trains without masks"
            )
    questions = read_questions(config.questions) if config.questions else Questions((), {}, "")
    samples = samples_of(images, config.tasks.split(","), questions.rows)
    llava_config, tokenizer = read_llava(config.llava, config.llava_revision)
    check_sam(config.sam, config.sam_revision)
    for option, name, revision in (
        ("--llava", config.llava, config.llava_revision),
        ("--sam", config.sam, config.sam_revision),
    ):
        image_processor(option, name, revision)
    longest = check_lengths(
        samples,
        text_of(llava_config, tokenizer, config.settings(), config.llava),
        context(llava_config, config.max_length),
    )
    weights = distributed.broadcast_from_main(
        lambda: source_fingerprints(config.llava, config.sam, (config.llava_revision, config.sam_revision))
    )
    own = {n: getattr(config, n) for n in (*SAME_RESULT, "method")} | asdict(config.settings())
    files = distributed.broadcast_from_main(lambda: look_at(config.out, options.quiet, images=images, masks=images))
    spec = Spec(
        "finetune-mllm",
        own
        | {
            "precision": precision,
            "loss weights": asdict(config.weights()),
            "weights": weights,
            "prompts": prompt_texts(),
        },
        {
            "manifest": manifest.fingerprint,
            "questions": questions.fingerprint,
            "image files": files.images,
            "mask files": files.masks,
        },
        config.seed,
        {"left out": failed, "longest sample": longest},
        named_paths(config),
    )

    def train(saved, say):
        from stages.vmad.trainer import fit

        known = {i.image_id for i in images}
        if others := len(questions.failed) + sum(q.image_id not in known for q in questions.rows):
            say(f"{others} questions are about other images, or have `error`, and are not trained on")
        say(f"{len(samples)} samples of {len(images)} images, the longest of {longest} tokens")
        return fit(config, images, samples, saved, say, device, precision)

    datasets = "+".join(sorted({i.dataset for i in images}))
    summary = trained(
        config.out, spec, datasets, len(samples), options, ("text", "bce", "dice", "pbsd"), train, failed, files
    )
    if config.merged:
        distributed.broadcast_from_main(lambda: write_merged(config.out, config.merged))
    return summary


def check(config: FinetuneVmadConfig) -> int:
    """Micro-batches that are accumulated per step and process. Raises InputError for numbers that do not fit."""
    require_positive(config, "epochs", "learning_rate", "batch_size", "micro_batch", "save_steps", "clip")
    require_at_least_zero(
        config,
        "weight_decay",
        "max_length",
        "workers",
        "weight_text",
        "weight_mask",
        "weight_pbsd",
        "weight_bce",
        "weight_dice",
    )
    if not 0 < config.memory <= 1:
        raise InputError(f"--memory {config.memory}: expected more than 0, at most 1")
    return accumulated(config.batch_size, config.micro_batch)


def trainable_images(images: Iterable[Image], split: str, where: Path) -> tuple[tuple[Image, ...], list[str]]:
    """(images to train on, why others are left out) of one split. Raises InputError for an image without a label, which
    the memory and the answers need, or no usable image."""
    chosen = [i for i in images if i.split == split]
    errors = {i.image_id: i.error or ("" if i.file.is_file() else f"{i.file}: no such image") for i in chosen}
    failed = [f"{image_id}: {error}" for image_id, error in errors.items() if error]
    good = tuple(i for i in chosen if not errors[i.image_id])
    if unlabelled := next((i for i in good if i.label is None), None):
        raise InputError(f"{where}: {unlabelled.image_id} has no label; training needs them all")
    if not good:
        raise InputError(f"{where}: the split {split!r} has no usable image (--split train, val or test)")
    return good, failed


def write_merged(out: Path, target: Path) -> None:
    """A copy of the checkpoint with LoRA merged, in float32. Raises InputError when something else is there."""
    from stages.vmad.checkpoint import find, load_vmad, merged, save_vmad, sources

    if (target / RECORD).is_file():
        return
    check_merged(target, out, RECORD)
    _, record, llava, sam = sources(find(out))
    model, text = load_vmad(out)
    save_vmad(merged(model), text, target, llava, sam, record["revisions"])
