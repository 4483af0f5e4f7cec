"""Self-guided fact enhancement: fine-tuning on the best answers (section 3.2, Eq. 8).

The loop is transformers' Trainer. The loss is the mean over the answers' tokens of a whole batch, however it is cut
into micro-batches and processes; questions, images and facts are read, not learned.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from stages.artifacts.writer import Spec, Summary
from stages.base.config import RunOptions, argument, named_paths, option
from stages.base.errors import InputError
from stages.datasets.files import look_at
from stages.datasets.manifest import read_manifest
from stages.questions.table import read_questions
from stages.sage.checkpoint import resolved
from stages.sage.config import FUSIONS, SIMILARITIES, Settings
from stages.sage.config import check as check_settings
from stages.sage.training import (
    SAME_RESULT,
    TrainingOptions,
    arguments,
    check,
    check_sharding,
    frozen_dtype,
    prompt_texts,
)
from stages.training import distributed
from stages.training.runs import run_training
from stages.training.saved_models import check_chat_template, check_merged, check_model, context_length
from stages.vlm.models import require_known


@dataclass(frozen=True, kw_only=True)
class SfeConfig(TrainingOptions):
    manifest: Path = argument("the images: manifest artifact, a folder of them, or a Parquet file")
    questions: Path = option("questions about them with answers: artifact or Parquet file")
    out: Path = option("the trained model and its record")
    facts: Path | None = option("captions of the test images, their fact sentences; needless with --fusion none", None)
    base: str = option("InternVL or LLaVA: short name, hub id or directory, in transformers' own format", "internvl3")
    revision: str = option("branch, tag or commit of a hub model", "")
    method: str = option("sage-sfe", "sage-sfe")
    fusion: str = option(
        f"{', '.join(FUSIONS)}: attention = SFE; text = facts in the prompt (Table 3, Fact[Hard]);"
        " none = plain fine-tuning (Table 1, sft)",
        "attention",
    )
    shots: int = option("1 = compared with the question's reference image, 0 = test image alone", 1)
    patches: int = option("K of Eq. 1, patches that differ most; Figure 7 sees little difference from 20 to 50", 20)
    similarity: str = option(
        f"of a patch to the reference image, {' or '.join(SIMILARITIES)}: max = to the patch most"
        " like it, min = Eq. 1 as printed",
        "max",
    )
    heads: int = option("of the fusion attention", 8)
    sentences: int = option("most fact sentences per image; 0 = all", 0)
    tiles: int = option("most tiles an image is cut into; 0 = the model's own number", 0)
    lora_rank: int = option("rank of LoRA on the language model; 0 = train all of it", 16)
    lora_alpha: int = option("LoRA's scale is alpha / rank", 32)
    merged: Path | None = option("also write a plain checkpoint for vLLM here (--fusion none or text)", None)

    def settings(self) -> Settings:
        """What the model is made of."""
        return Settings(**{n: getattr(self, n) for n in Settings.__dataclass_fields__})


def run(config: SfeConfig, options: RunOptions) -> Summary | None:
    """Train on every question. A question whose row has `error` is left out and counted. Under torchrun every process
    runs this; only the first opens the artifact and returns a summary.

    Raises:
        InputError: unusable settings, a question without answer, image, reference or facts, samples that are too long,
            or no such base model.
    """
    from stages.training.torch_setup import prepare_torch, resolved_precision

    settings = config.settings()
    check_settings(settings)
    check(config)
    require_known(config.base, "--base")
    if config.merged and settings.fusion == "attention":
        raise InputError("--merged: a fusion layer cannot be merged; only --fusion none and text can")
    check_merged(config.merged, config.out, "config.json")
    check_model(resolved(config.base), "--base")
    check_chat_template(resolved(config.base), "--base")
    device, precision = resolved_precision(config.device, config.precision)
    check_sharding(config, device)
    prepare_torch()
    with distributed.process_group(device):
        return _run(config, settings, options, device, precision)


def _run(config: SfeConfig, settings: Settings, options: RunOptions, device: str, precision: str) -> Summary | None:
    from stages.sage.checkpoint import base_fingerprint, load_processor, merge
    from stages.sage.data import Asked, Encoder, best_answer, refuse_too_long
    from stages.sage.model import check_heads

    manifest, questions = read_manifest(config.manifest, config.root), read_questions(config.questions)
    asked = Asked(questions, manifest, config.facts, settings)
    samples = [asked.sample(q) for q in questions.rows]
    answers = [best_answer(q) for q in questions.rows]
    base = resolved(config.base)
    weights = distributed.broadcast_from_main(lambda: base_fingerprint(base, config.revision))
    processor, model_config = load_processor(base, config.revision, settings.tiles)
    check_heads(settings, model_config.get_text_config().hidden_size)
    encoder = Encoder(processor, settings)
    refuse_too_long(encoder, samples, [(a,) for a in answers], context_length(model_config, config.max_length))
    own = asdict(settings) | {n: getattr(config, n) for n in (*SAME_RESULT, "method")}
    files = distributed.broadcast_from_main(lambda: look_at(config.out, options.quiet, images=asked.watched))
    spec = Spec(
        "finetune-mllm",
        own | {"precision": precision, "base": base, "weights": weights, "prompts": prompt_texts()},
        asked.inputs | {"image files": files.images},
        config.seed,
        {"left out": questions.failed},
        named_paths(config),
    )
    record = {"stage": "sfe", "base": base, "revision": config.revision, "weights": weights}

    def train(saved, say):
        from stages.sage.checkpoint import prepare, save
        from stages.sage.trainers import fit, sfe_trainer

        if questions.failed:
            say(f"{len(questions.failed)} questions with `error` are not trained on")
        model = prepare(
            base, config.revision, settings, config.seed, frozen_dtype(config, bool(settings.lora_rank), precision)
        )
        trainer = sfe_trainer(model, encoder, samples, answers, arguments(config, len(samples), device, precision))
        state = fit(trainer, saved, say, config)
        return trainer, lambda folder: save(model, state, processor, folder, record, settings)

    summary = run_training(config.out, spec, asked.datasets, len(samples), options, (), train, files=files)
    if config.merged and not (config.merged / "config.json").exists():
        distributed.broadcast_from_main(lambda: merge(config.out, config.merged, base))
    return summary
