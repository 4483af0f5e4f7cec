"""Fine-tuning VMAD on images with masks and, if there are any, questions with answers (section V-A).

What it needs of a GPU is said before it begins (`needs`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from stages.training.prepared import torch

from accelerate.utils import set_seed
from transformers import Trainer, TrainingArguments

from stages.artifacts.writer import Spec, Summary
from stages.base.config import RunOptions, named_paths
from stages.base.errors import InputError
from stages.datasets.files import look_at
from stages.datasets.manifest import Image, read_manifest, splits_of
from stages.datasets.trainable import unreadable, usable
from stages.questions.table import Questions, read_questions
from stages.training import distributed
from stages.training.runs import run_training
from stages.training.saved_models import context_length
from stages.training.torch_setup import resolved_precision
from stages.training.trained import write_copy
from stages.training.trainer import TrainableOnlyCheckpoints, common_arguments, one_gpu, run_trainer, steps_of
from stages.vmad.build import MEMORY_PATCHES, build_memory, check_sam, image_processor, new_model, read_llava, text_of
from stages.vmad.checkpoint import load_vmad, merged, save_vmad, source_fingerprints, sources
from stages.vmad.config import FinetuneVmadConfig
from stages.vmad.data import TrainingSet, VmadSample, check_lengths, collate, prompt_texts, samples_of
from stages.vmad.descriptions import UNTOLD, Descriptions, classes_of, place, read_descriptions
from stages.vmad.loss import PARTS
from stages.vmad.memory import Class, choose_memory, fits_host
from stages.vmad.needs import clip_bytes, needs
from stages.vmad.separation import halves, measure, train_heads

SAME_RESULT = (
    "tasks",
    "memory",
    "epochs",
    "batch_size",
    "learning_rate",
    "weight_decay",
    "clip",
    "max_length",
)


def run(config: FinetuneVmadConfig, options: RunOptions) -> Summary | None:
    """Train on all samples of the split's images. Images that cannot be read are left out and listed. Under torchrun
    every process runs this; only the first opens the artifact and returns a summary.

    Raises:
        InputError: see `config.check`; unusable images or questions, samples that are too long, or no such LLaVA or
            SAM.
    """
    config.check()
    device, precision = resolved_precision(config.device, config.precision)
    with distributed.process_group(device):
        return _run(config, options, device, precision)


def _run(config: FinetuneVmadConfig, options: RunOptions, device: str, precision: str) -> Summary | None:

    manifest = read_manifest(config.manifest, config.root)
    images, failed, maskless = distributed.broadcast_from_main(
        lambda: trainable_images(config, manifest.images, options.quiet)
    )
    questions = read_questions(config.questions) if config.questions else Questions((), {}, "")
    trained_on = {i.image_id for i in images}
    if config.questions and not any(q.image_id in trained_on for q in questions.rows):
        raise InputError(
            f"--questions {config.questions}: none of them is about an image that is trained on; give those of this"
            " manifest, or leave them out"
        )
    descriptions = read_descriptions(config.descriptions, manifest.images, classes_of(images))
    samples = samples_of(images, config.tasks.split(","), questions.rows, descriptions.texts)
    llava_config, tokenizer = read_llava(config.llava, config.llava_revision)
    sam_config = check_sam(config.sam, config.sam_revision)
    for flag, name, revision in (
        ("--llava", config.llava, config.llava_revision),
        ("--sam", config.sam, config.sam_revision),
    ):
        image_processor(flag, name, revision)
    text = text_of(llava_config, tokenizer, config.settings(), config.llava)
    longest = check_lengths(samples, text, context_length(llava_config, config.max_length))
    chosen = {} if config.no_dssl else choose_memory(images, config.memory, config.seed)
    size = clip_bytes(llava_config, config.settings(), 2 if precision == "bf16" else 4)
    if config.dssl_target == "patches":
        size *= MEMORY_PATCHES
    layers = fits_host(sum(map(len, chosen.values())), size, distributed.world_here())
    needed = needs(
        llava_config,
        sam_config,
        config.settings(),
        text.seg,
        longest,
        config.micro_batch,
        precision == "bf16",
        config.checkpoint_activations,
        distributed.world(),
        layers,
    )
    lack = "" if device == "cpu" else needed.check(free_on_gpu(device))
    weights = distributed.broadcast_from_main(
        lambda: source_fingerprints(config.llava, config.sam, (config.llava_revision, config.sam_revision))
    )
    own = (
        {"split": config.splits} | {n: getattr(config, n) for n in (*SAME_RESULT, "method")} | asdict(config.settings())
    )
    files = distributed.broadcast_from_main(lambda: look_at(config.out, options.quiet, images=images, masks=images))
    spec = Spec(
        "finetune-mllm",
        own
        | {
            "precision": precision,
            "loss weights": asdict(config.weights()),
            "weights": weights,
            "prompts": prompt_texts(),
            "descriptions": descriptions.fingerprint,
        },
        {
            "manifest": manifest.fingerprint,
            "questions": questions.fingerprint,
            "image files": files.images,
            "mask files": files.masks,
        },
        config.seed,
        {
            "left out": failed,
            "longest sample": longest,
            "llava": config.llava,
            "sam": config.sam,
            "descriptions": descriptions.record(),
        },
        named_paths(config) | place(config.descriptions),
    )

    def train(saved: Path | None, say: Callable[[str], None]) -> tuple[Trainer, Callable[[Path], None]]:
        if others := len(questions.failed) + sum(q.image_id not in trained_on for q in questions.rows):
            say(f"{others} questions are about other images, or have `error`, and are not trained on")
        say(f"{len(samples)} samples of {len(images)} images, the longest of {longest} tokens")
        say(needed.said("the CPU" if device == "cpu" else "each GPU"))
        if lack:
            say(lack)
        if maskless:
            say(f"{len(maskless)} images have no readable mask to measure DSSL's target on: {maskless[0]}")
        if chosen:
            say(memory_said(chosen, size, layers))
        return fit(config, images, chosen, samples, saved, say, device, precision, layers, descriptions)

    datasets = "+".join(sorted({i.dataset for i in images}))
    summary = run_training(config.out, spec, datasets, len(samples), options, PARTS, train, failed, files)
    if config.merged:
        distributed.broadcast_from_main(lambda: write_merged(config.out, config.merged))
    return summary


def free_on_gpu(device: str) -> int:
    """Bytes that are free on this process's GPU. device: 'cuda' or 'cuda:N'."""
    return torch.cuda.mem_get_info(int(device.partition(":")[2] or distributed.local_rank()))[0]


def memory_said(chosen: Mapping[Class, Sequence[Image]], size: int, layers: bool) -> str:
    """How many images, and what is kept of them. size: bytes of one's layers of CLIP."""
    count = sum(map(len, chosen.values()))
    much = f"{count * size / 2**30:.2f} GiB of host memory for each process"
    how = f"CLIP's layers kept, {much}" if layers else f"kept as pixels: CLIP's layers would take {much}"
    return f"memory: {count} images of {len(chosen)} classes, {how}"


def trainable_images(
    config: FinetuneVmadConfig, images: Iterable[Image], quiet: bool
) -> tuple[tuple[Image, ...], list[str], list[str]]:
    """(images to train on, why others are left out, why some lost a mask that --tasks vqa does not need) of the splits.
    Raises InputError for an image without a label, which the memory and the answers need, or no usable image."""
    names = splits_of(config.splits)
    masks = bool(set(config.tasks.split(",")) - {"vqa"})
    good, failed = usable((i for i in images if i.split in names), config.manifest, masks, quiet)
    if not good:
        first = f"; the first: {failed[0]}" if failed else ""
        first += "; --tasks vqa trains without masks" if failed and masks else ""
        raise InputError(
            f"{config.manifest}: the split {config.splits!r} has no usable image (--splits train, val, test){first}"
        )
    if masks or config.no_dssl:
        return good, failed, []
    broken = unreadable((i for i in good if i.masks), masks=True, quiet=quiet)
    kept = tuple(replace(i, masks=(), recorded=i.recorded[:1]) if i.image_id in broken else i for i in good)
    return kept, failed, list(broken.values())


class VmadTrainer(TrainableOnlyCheckpoints, Trainer):
    """Logs the parts of Eq. 6, Eq. 7 beside the loss, each averaged over the batches, of all processes, that have
    it."""

    def __init__(self, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.parts = torch.zeros(len(PARTS), 2, device=self.args.device)  # sum, and how many batches

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        losses = model(**inputs)
        for n, name in enumerate(PARTS):
            if name in losses:
                self.parts[n] += torch.stack([losses[name].float(), torch.ones_like(losses[name]).float()])
        return (losses["loss"], None) if return_outputs else losses["loss"]

    def log(self, logs, *more):
        if "loss" in logs:
            sums = self.accelerator.reduce(self.parts, "sum").tolist()
            logs |= {name: total / count for name, (total, count) in zip(PARTS, sums, strict=True) if count}
            self.parts.zero_()
        super().log(logs, *more)


def fit(
    config: FinetuneVmadConfig,
    images: Sequence[Image],
    chosen: dict[Class, tuple[Image, ...]],
    samples: Sequence[VmadSample],
    saved: Path | None,
    say: Callable[[str], None],
    device: str,
    precision: str,
    layers: bool,
    descriptions: Descriptions = UNTOLD,
) -> tuple[VmadTrainer, Callable[[Path], None]]:
    """Train from a saved state, or from the start; (the trainer at its end, what writes the checkpoint). chosen: the
    memory's images; layers: see `build_memory`."""
    revisions = (config.llava_revision, config.sam_revision)
    torch.manual_seed(config.seed)
    model, text = new_model(
        config.llava,
        config.sam,
        config.settings(),
        config.weights(),
        revisions,
        torch.bfloat16 if precision == "bf16" else torch.float32,
    )
    keywords = arguments(config, len(samples), device, precision)
    model.to(keywords.device)
    if config.checkpoint_activations:
        model.recompute_activations()
    if model.dssl:
        model.memory = build_memory(chosen, model, text, config.drawn, layers, descriptions.texts)
        fitted, measured = halves(images, (i for own in chosen.values() for i in own), config.seed)
        if config.dssl_target == "trained-heads":
            train_heads(model, fitted, list(chosen), config.seed)
    classes = chosen or classes_of(s.image for s in samples)
    data = TrainingSet(samples, text, model.transform, {name: n for n, name in enumerate(classes)})
    trainer = VmadTrainer(model=model, args=keywords, train_dataset=data, data_collator=partial(collate, pad=text.pad))
    set_seed(config.seed, device_specific=True)  # of each process its own dropout, patches and memory
    notes: dict[str, Any] = {}

    def separation(when: str) -> None:
        """Say and note how well the target separates, on the first process alone."""
        if model.dssl and distributed.rank() == 0:
            with torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16"):
                found = measure(model, measured, list(chosen), config.seed)
            say(f"{when}: {found.said(config.dssl_target)}" if found else f"{when}: no defect patch to compare")
            notes[f"separation {when}"] = asdict(found) if found else None

    separation("before training")
    run_trainer(trainer, saved, say, config.out)
    separation("after training")
    return trainer, lambda folder: save_vmad(
        model, text, folder, config.llava, config.sam, revisions, notes, descriptions
    )


def arguments(config: FinetuneVmadConfig, n: int, device: str, precision: str) -> TrainingArguments:
    """n: samples."""
    steps = steps_of(n, config.batch_size, config.epochs)
    return one_gpu(
        TrainingArguments(
            **common_arguments(
                config.out, device, precision, config.seed, config.loader_workers, config.save_steps, steps
            ),
            per_device_train_batch_size=config.micro_batch,
            gradient_accumulation_steps=distributed.accumulation_steps(config.batch_size, config.micro_batch),
            num_train_epochs=config.epochs,
            learning_rate=config.learning_rate,
            lr_scheduler_type="cosine",
            weight_decay=config.weight_decay,
            max_grad_norm=config.clip,
            optim="adamw_torch",
            logging_first_step=True,
            ddp_find_unused_parameters=True,  # a batch of questions alone has no mask and trains no decoder
        )
    )


def write_merged(out: Path, target: Path) -> None:
    """A copy of the checkpoint with LoRA merged, in float32. Raises InputError when something else is there."""
    folder, record, llava, sam = sources(out)

    def write(made: Path) -> None:
        model, text = load_vmad(out)
        known = record.get("notes"), record["descriptions"]
        save_vmad(merged(model), text, made, llava, sam, record["revisions"], *known)

    write_copy(folder, out, target, write)
