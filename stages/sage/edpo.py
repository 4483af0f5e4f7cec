"""Entropy-aware DPO: preference alignment of an SFE model on ranked answers (section 3.3, Eq. 3-7).

TRL's DPOTrainer does the work. The policy goes on from the SFE model; the reference is that SFE model, frozen with its
image adapter. The fusion attention is frozen in both (section 3.4), so that it is one and the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from stages.artifacts.reader import fingerprint as table_fingerprint
from stages.artifacts.reader import read_table
from stages.artifacts.tables import JUDGEMENTS
from stages.artifacts.writer import Spec, Summary
from stages.base.config import RunOptions, argument, named_paths, option, require_at_least_zero, require_positive
from stages.base.errors import InputError
from stages.datasets.files import look_at
from stages.datasets.manifest import read_manifest
from stages.questions.mle import mle_score
from stages.questions.table import Question, read_questions
from stages.sage.checkpoint import check_trained
from stages.sage.entropy import pairs_of
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
from stages.training.saved_models import context_length
from stages.vlm.models import require_known

OBJECTIVES = ("dpo", "printed")
PARTS = ("rewards/margins", "rewards/accuracies")


@dataclass(frozen=True, kw_only=True)
class EdpoConfig(TrainingOptions):
    manifest: Path = argument("the images: manifest artifact, a folder of them, or a Parquet file")
    questions: Path = option("questions about them with ranked answers: artifact or Parquet file")
    checkpoint: Path = option("the SFE model: what finetune-mllm --method sage-sfe wrote")
    judgements: Path = option("MLE scores of each question's own answers, methods choice/0, choice/1, ...")
    out: Path = option("the trained model and its record")
    facts: Path | None = option("captions of the test images, their fact sentences; as for the SFE model", None)
    base: str = option("where the base model lies, if not where the SFE model was trained", "")
    method: str = option("sage-edpo", "sage-edpo")
    eta: float = option("weight of the entropy difference in the margin (Eq. 6); 0 = plain DPO on the same pairs", 1.0)
    beta: float = option("of DPO: how closely the reference is kept; unused with --objective printed", 0.1)
    objective: str = option(
        f"{' or '.join(OBJECTIVES)}: dpo = log-ratios to the SFE model, printed = Eq. 6 to the"
        " letter, without a reference",
        "dpo",
    )


def run(config: EdpoConfig, options: RunOptions) -> Summary | None:
    """Train on two pairs of every ranked question (one where there are two answers); see `sfe.run`.

    Raises:
        InputError: unusable settings, a question that is not ranked, without judgements, image, reference or facts,
            samples that are too long, or no SFE model.
    """
    from stages.training.torch_setup import prepare_torch, resolved_precision

    check(config)
    if config.objective not in OBJECTIVES:
        raise InputError(f"--objective {config.objective}: expected {' or '.join(OBJECTIVES)}")
    require_positive(config, "beta")
    require_at_least_zero(config, "eta")
    if config.base:
        require_known(config.base, "--base")
    check_trained(config.checkpoint, config.base)
    device, precision = resolved_precision(config.device, config.precision)
    check_sharding(config, device)
    prepare_torch()
    with distributed.process_group(device):
        return _run(config, options, device, precision)


def _run(config: EdpoConfig, options: RunOptions, device: str, precision: str) -> Summary | None:
    from stages.sage.checkpoint import fingerprint, load_processor, read_record, stock
    from stages.sage.data import Asked, Encoder, refuse_too_long

    folder, settings, record = read_record(config.checkpoint)
    if record["stage"] != "sfe":
        raise InputError(
            f"--checkpoint {config.checkpoint}: was trained with sage-{record['stage']}; E-DPO starts from"
            " what --method sage-sfe wrote"
        )
    manifest, questions = read_manifest(config.manifest, config.root), read_questions(config.questions)
    asked = Asked(questions, manifest, config.facts, settings)
    judged = read_table(config.judgements, JUDGEMENTS)
    pairs = preference_pairs(questions.rows, judged.to_pylist(), config.eta, config.judgements)
    samples = [asked.sample(q) for q in questions.rows]
    weights = distributed.broadcast_from_main(lambda: fingerprint(config.checkpoint, config.base))
    processor, model_config = load_processor(*stock(folder, settings, record, config.base), settings.tiles)
    encoder = Encoder(processor, settings)
    refuse_too_long(
        encoder, samples, [q.choices for q in questions.rows], context_length(model_config, config.max_length)
    )
    own = {n: getattr(config, n) for n in (*SAME_RESULT, "method", "eta", "beta", "objective")}
    files = distributed.broadcast_from_main(lambda: look_at(config.out, options.quiet, images=asked.watched))
    inputs = asked.inputs | {"image files": files.images, "judgements": table_fingerprint(judged, JUDGEMENTS)}
    spec = Spec(
        "finetune-mllm",
        own | {"precision": precision, "weights": weights, "prompts": prompt_texts()},
        inputs,
        config.seed,
        {"left out": questions.failed, "sfe": asdict(settings)},
        named_paths(config),
    )

    def train(saved, say):
        from stages.sage.checkpoint import load_sage, save
        from stages.sage.trainers import edpo_trainer, fit

        if questions.failed:
            say(f"{len(questions.failed)} questions with `error` are not trained on")
        dtype = frozen_dtype(config, bool(settings.lora_rank), precision)
        model = load_sage(config.checkpoint, config.base, dtype, trainable=True).model
        reference = None if settings.lora_rank else load_sage(config.checkpoint, config.base, dtype).model
        trainer = edpo_trainer(
            model,
            reference,
            encoder,
            samples,
            pairs,
            config.beta,
            config.objective == "printed",
            arguments(config, len(pairs), device, precision),
        )
        state = fit(trainer, saved, say, config)
        return trainer, lambda folder: save(model, state, processor, folder, record | {"stage": "edpo"}, settings)

    return run_training(config.out, spec, asked.datasets, len(pairs), options, PARTS, train, files=files)


def preference_pairs(
    questions: Sequence[Question], judgements: Sequence[Mapping], eta: float, where: Path
) -> list[tuple[int, str, str, float]]:
    """(index of the question, winner, loser, eta times the entropy difference), Eq. 3 to 6.

    judgements: rows of JUDGEMENTS. Raises InputError for a question that is not ranked, or an answer without all three
    scores.
    """
    scores = {(r["question_id"], r["method"]): mle_score(r) for r in judgements}
    pairs, missing = [], []
    for n, q in enumerate(questions):
        if not q.ranked:
            raise InputError(f"question {q.question_id}: its answers are not ranked; E-DPO learns from ranks")
        given = [scores.get((q.question_id, f"choice/{i}")) for i in range(len(q.choices))]
        lacking = [f"question {q.question_id}, choice/{i}" for i, score in enumerate(given) if score is None]
        missing += lacking
        if not lacking:
            pairs += [(n, q.choices[p.winner], q.choices[p.loser], eta * p.gap) for p in pairs_of(given)]
    if missing:
        raise InputError(
            f"{where}: no scores for {len(missing)} answers, the first is {missing[0]}; judge the"
            " questions' own choices first, or leave these questions out"
        )
    return pairs
