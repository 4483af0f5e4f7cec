"""Answers to questions -> metrics, SAGE's tables and a report. Torch is needed for sentence embeddings alone."""

from collections.abc import Sequence

import pyarrow.compute as pc

from stages.artifacts.checks import check_places
from stages.artifacts.reader import fingerprint, read_provenance, read_table
from stages.artifacts.tables import ANSWERS, JUDGEMENTS, METRICS
from stages.artifacts.writer import Artifact, Spec, Summary
from stages.base.config import RunOptions, check_numbers, named_paths
from stages.datasets.manifest import read_manifest
from stages.evaluate.config import EvaluateQaConfig
from stages.questions.mle import AXES
from stages.questions.table import read_questions
from stages.report import grid
from stages.report.made import HowMade, how_made
from stages.report.sage import all_tables
from stages.report.sage_figures import by_setting, curves_by_setting, group_accuracy
from stages.report.sage_page import write_page
from stages.results.answer_rows import grown, metric_rows
from stages.results.answers import AnswerRecord, join, sources_of
from stages.results.similarity import with_similarity
from stages.text_encoder.config import encoder_fingerprint


def run(config: EvaluateQaConfig, options: RunOptions) -> Summary:
    """Write metrics; print the tables; optionally write them and the report.

    Raises:
        InputError: places or numbers that cannot be; answers or judgements to other questions, or a choice that a
            question has not.
    """
    check_numbers(config)
    check_places(config)
    questions = read_questions(config.questions)
    answers = read_table(config.answers, ANSWERS)
    judged = read_table(config.judgements, JUDGEMENTS) if config.judgements else None
    manifest = read_manifest(config.manifest, config.root) if config.manifest else None
    sources = sources_of(questions.rows, {i.image_id: i for i in manifest.images} if manifest else None)
    joined = join(questions.rows, sources, answers.to_pylist(), judged.to_pylist() if judged else [], config.answers)
    joined, without = with_similarity(joined, config.encoder)
    rows = metric_rows(joined, config.resamples, config.seed, without, judged is not None)
    provenance = read_provenance(config.answers)
    models = models_of(provenance)
    rows += grown(joined, models, config.resamples, config.seed)
    inputs = {"questions": questions.fingerprint, "answers": fingerprint(answers, ANSWERS)}
    if judged is not None:
        inputs["judgements"] = fingerprint(judged, JUDGEMENTS)
    if manifest:
        inputs["manifest"] = manifest.fingerprint
    weights = "" if without else encoder_fingerprint(config.encoder)
    spec = Spec(
        "evaluate --questions",
        {"resamples": config.resamples, "encoder": weights},
        inputs,
        config.seed,
        paths=named_paths(config),
    )
    keys = [tuple(row[k] for k in METRICS.key) for row in rows]
    judged_by = read_provenance(config.judgements) if config.judgements else []
    judges = list(dict.fromkeys(_judge(r["parameters"]) for r in judged_by))
    if judged is not None and (zeros := sum(pc.sum(pc.equal(judged[a], 0)).as_py() or 0 for a in AXES)):
        judges.append(f"{zeros} of their {len(AXES) * len(judged)} marks are 0, which the reply lacked")
    grids = all_tables(joined, rows, judges, config.resamples, config.seed)
    paths = [config.answers, *([config.judgements] if config.judgements else [])]
    made = how_made(paths, {a.source.dataset for a in joined})
    pictures: dict[str, bytes | None] = {}
    if config.tables:
        pictures = {"figure5": group_accuracy(rows), "figure7": by_setting(curves_by_setting(rows, models))}
        grid.require_free([*grids, *made.tables], config.tables, pictures)
    with Artifact(config.out, METRICS, spec, keys, options, flush_rows=100_000) as artifact:
        artifact.write_all(rows)
        known = {q.question_id for q in questions.rows} | questions.failed.keys()
        if strangers := sum(i not in known for i in answers["question_id"].to_pylist()):
            artifact.progress.say(f"{strangers} answers are to other questions and are left out")
        if questions.failed:
            artifact.progress.say(f"{len(questions.failed)} questions have an `error` and are left out")
    _publish(joined, rows, grids, pictures, made, models, config, options)
    return artifact.summary


def _judge(parameters: dict) -> str:
    name = parameters.get("judge", "unknown")
    return f"{name} in the released form" if parameters.get("form") == "released" else name


def models_of(provenance: Sequence[dict]) -> dict[str, dict]:
    """Method -> what its model is made of, where `score` notes it."""
    return {p["parameters"]["method"]: p["notes"]["model"] for p in provenance if "model" in p.get("notes", {})}


def _publish(
    joined: list[AnswerRecord],
    rows: list[dict],
    grids: list[grid.Grid],
    pictures: dict[str, bytes | None],
    made: HowMade,
    models: dict[str, dict],
    config: EvaluateQaConfig,
    options: RunOptions,
) -> None:
    if not (options.quiet or options.json):
        print("\n\n".join(grid.as_text(g) for g in grids if g.printed))
    if config.tables:
        grid.write([*grids, *made.tables], config.tables, pictures)
    if config.report:
        write_page(config.report, joined, rows, grids, made, models, options.quiet)
