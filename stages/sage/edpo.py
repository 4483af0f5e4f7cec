"""Entropy-aware DPO: preference alignment of an SFE model on ranked answers (section 3.3, Eq. 3 to Eq. 7).

TRL's DPOTrainer does the work (`preference.py`). The policy goes on from the SFE model; the reference is that SFE
model, frozen with its image adapter. The fusion attention is frozen in both (section 3.4), so that it is one and the
same.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from stages.artifacts.reader import fingerprint as table_fingerprint
from stages.artifacts.reader import read_table
from stages.artifacts.tables import JUDGEMENTS
from stages.artifacts.writer import Spec, Summary
from stages.base.config import RunOptions, named_paths
from stages.base.errors import InputError
from stages.datasets.files import look_at
from stages.datasets.manifest import read_manifest
from stages.questions.mle import AXES, mle_score
from stages.questions.table import Question, read_questions
from stages.sage.checkpoint import fingerprint, load_plain, load_processor, load_sage, prepare, save
from stages.sage.config import SAME_RESULT, EdpoConfig, stock
from stages.sage.data import PromptEncoder, QuestionSet, refuse_too_long
from stages.sage.entropy import EQ5, SURPRISAL, pairs_of
from stages.sage.learnable import learnable, left_out_said
from stages.sage.model import core_of
from stages.sage.preference import EdpoTrainer, Objective, edpo_trainer
from stages.sage.recipes import counted, filled
from stages.sage.train import fit, frozen_dtype, planned, prompt_texts, read_weights_once, training_arguments
from stages.training import distributed
from stages.training.runs import run_training
from stages.training.saved_models import context_length
from stages.training.torch_setup import resolved_precision

PARTS = ("rewards/margins", "rewards/accuracies")
PREFERENCE = ("vision", "eta", "entropy", "pairs", "beta", "objective", "sft_weight")


def run(config: EdpoConfig, options: RunOptions) -> Summary | None:
    """Train on two pairs of every ranked question (one where there are two answers) but those of which a row has
    `error`, a judgement among them; see `sfe.run`.

    Raises:
        InputError: unusable settings, a question that is not ranked, without judgements, image, reference or facts,
            samples that are too long, or no SFE model.
    """
    config.check()
    device, precision = resolved_precision(config.device, config.precision)
    with distributed.process_group(device):
        return _run(config, options, device, precision)


def _run(config: EdpoConfig, options: RunOptions, device: str, precision: str) -> Summary | None:
    folder, settings, record = config.start()
    if record["stage"] not in ("sfe", "base"):
        raise InputError(
            f"--checkpoint {config.checkpoint}: was trained with sage-{record['stage']}; E-DPO starts from"
            " what --method sage-sfe wrote"
        )
    config = filled(config, settings.lora_rank)
    manifest, questions = read_manifest(config.manifest, config.root), read_questions(config.questions)
    question_set = QuestionSet(questions, manifest, config.facts, settings)
    judged = read_table(config.judgements, JUDGEMENTS) if config.judgements else None
    marks = judged.to_pylist() if judged is not None else []
    rows, samples, left_out = learnable(question_set, questions, options.quiet, unjudged(marks, questions.rows))
    scores = unweighed(rows, config.eta, config.pairs) if judged is None else marks
    pairs = preference_pairs(
        rows, scores, config.eta, config.judgements or config.questions, config.entropy, config.pairs
    )
    config = counted(config, len(pairs))
    weights = distributed.broadcast_from_main(lambda: fingerprint(config.checkpoint, config.base))
    processor, model_config = load_processor(*stock(folder, settings, record, config.base), settings.tiles)
    encoder = PromptEncoder(processor, settings)
    refuse_too_long(encoder, samples, [q.choices for q in rows], context_length(model_config, config.max_length))
    own = {n: getattr(config, n) for n in (*SAME_RESULT, *PREFERENCE, "method")}
    kept = record | {"stage": "edpo" if config.checkpoint else "edpo-base"}
    kept |= {} if config.checkpoint else {"weights": weights}
    files = distributed.broadcast_from_main(lambda: look_at(config.out, options.quiet, images=question_set.watched))
    inputs = question_set.inputs | {"image files": files.images}
    inputs |= {"judgements": table_fingerprint(judged, JUDGEMENTS)} if judged is not None else {}
    spec = Spec(
        "finetune-mllm",
        own
        | ({} if config.checkpoint else {"settings": asdict(settings)})
        | {"precision": precision, "weights": weights, "prompts": prompt_texts()},
        inputs,
        config.seed,
        {"left out": left_out, "sfe": asdict(settings), "margins": spread_of(pairs), "recipe": config.recipe},
        named_paths(config),
    )

    def train(saved: Path | None, say: Callable[[str], None]) -> tuple[EdpoTrainer, Callable[[Path], None]]:
        if left_out:
            say(left_out_said(left_out))
        say(planned(config, len(pairs)))
        say(f"{len(pairs)} pairs, margins (nats): {spread_of(pairs)}")
        read_weights_once(config)
        dtype = frozen_dtype(config, bool(settings.lora_rank), precision)
        if config.checkpoint:
            model = load_sage(config.checkpoint, config.base, dtype, trainable=True).model
        else:
            model = prepare(record["base"], "", settings, config.seed, dtype)
        core_of(model).vision_tower.requires_grad_(config.vision == "trained")
        reference = None
        if not settings.lora_rank:
            reference = (
                load_sage(config.checkpoint, config.base, dtype)
                if config.checkpoint
                else load_plain(record["base"], dtype, settings)
            ).model
        trainer = edpo_trainer(
            model,
            reference,
            encoder,
            samples,
            pairs,
            Objective(config.objective, config.beta, config.sft_weight),
            training_arguments(config, len(pairs), device, precision),
        )
        state = fit(trainer, saved, say, config)
        return trainer, lambda folder: save(model, state, processor, folder, kept, settings)

    return run_training(config.out, spec, question_set.datasets, len(pairs), options, PARTS, train, files=files)


def unjudged(judgements: Sequence[Mapping], questions: Sequence[Question]) -> dict[str, str]:
    """question_id -> why one of its answers has no marks: a judgement with `error`. An answer without any judgement is
    none of these; see `preference_pairs`."""
    own = {(q.question_id, f"choice/{i}") for q in questions for i in range(len(q.choices))}
    return {
        r["question_id"]: f"{r['method']} was not judged: {r['error']}"
        for r in judgements
        if r.get("error") is not None and (r["question_id"], r["method"]) in own
    }


def unweighed(questions: Sequence[Question], eta: float, which: str) -> list[dict]:
    """Rows of JUDGEMENTS with equal scores, for pairs that no score chooses or weighs. Raises InputError where one
    would."""
    if eta or (which == EQ5 and any(len(q.choices) > 2 for q in questions)):
        raise InputError(
            "--judgements is missing: scores of the questions' own choices (`adcli score --method mle`); only --eta 0"
            " with --pairs adjacent, or with two answers a question, needs none"
        )
    equal = dict.fromkeys(AXES, 1)
    return [
        {"question_id": q.question_id, "method": f"choice/{i}"} | equal
        for q in questions
        for i in range(len(q.choices))
    ]


def preference_pairs(
    questions: Sequence[Question],
    judgements: Sequence[Mapping],
    eta: float,
    where: Path,
    reading: str = SURPRISAL,
    which: str = EQ5,
) -> list[tuple[int, str, str, float]]:
    """(index of the question, winner, loser, eta times the entropy difference: the margin of Eq. 6).

    judgements: rows of JUDGEMENTS; reading: of Eq. 4; which: see `pairs_of`. Raises InputError for a question that is
    not ranked, or an answer without all three scores.
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
            found = pairs_of(given, reading, which)
            pairs += [(n, q.choices[p.winner], q.choices[p.loser], eta * p.gap) for p in found]  # Eq. 6
    if missing:
        raise InputError(
            f"{where}: no scores for {len(missing)} answers, the first is {missing[0]}; judge the"
            " questions' own choices first, or leave these questions out"
        )
    return pairs


def spread_of(pairs: Sequence[tuple[int, str, str, float]]) -> str:
    """'0.4 to 4, mean 1.9': of the pairs' margins."""
    margins = [margin for *_, margin in pairs]
    return f"{min(margins):.3g} to {max(margins):.3g}, mean {sum(margins) / len(margins):.3g}"
