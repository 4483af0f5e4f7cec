"""Answers to questions -> metrics, SAGE's tables and a report. Torch is needed for sentence embeddings alone."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from stages.artifacts.checks import check_numbers, check_places
from stages.artifacts.reader import fingerprint, read_provenance, read_table
from stages.artifacts.tables import ANSWERS, JUDGEMENTS, METRICS
from stages.artifacts.writer import Artifact, Spec, Summary
from stages.base.config import RunOptions, named_paths, option
from stages.base.errors import InputError
from stages.datasets.manifest import Image, read_manifest
from stages.questions.answering import in_words
from stages.questions.mle import AXES, mle_score
from stages.questions.table import Question, read_questions
from stages.results.metrics.image import Value
from stages.results.metrics.qa import GROWN, MARGINS, level_mean, mean, whole_groups
from stages.sage.entropy import Pair, pairs_of
from stages.text_encoder.config import PACKAGED, encoder_fingerprint

ALL, MEAN = "all", "mean"  # categories of rows over all questions, and of means over categories


@dataclass(frozen=True, kw_only=True)
class EvaluateQaConfig:
    questions: Path = option("the questions, with the right answers")
    answers: Path = option("answers artifact, a folder of them, or a Parquet file")
    judgements: Path | None = option(
        "judgements of these answers, and of the questions' own choices where margins of"
        " Eq. 5's pairs are wanted: artifact, a folder of them, or a Parquet file",
        None,
    )
    manifest: Path | None = option(
        "data set, category and files of the images; without it the image ids name data set"
        " and category, and the report has no pictures",
        None,
    )
    out: Path = option("the metrics table to write")
    report: Path | None = option("HTML page to write", None)
    tables: Path | None = option("folder for the tables as CSV and Markdown", None)
    encoder: str = option("of the sentence similarity: minilm, a directory or a hub id; none = leave it out", PACKAGED)
    root: Path | None = option("where the manifest's paths start (pictures of the report)", None)
    resamples: int = option("bootstrap resamples per interval; 0 = no intervals", 1000)
    seed: int = option("of the bootstrap", 0)


@dataclass(frozen=True)
class Place:
    """Where a question's image belongs; image: its manifest row, where there is a manifest."""

    dataset: str
    category: str
    condition: str | None
    image: Image | None = None
    reference: Image | None = None


@dataclass(frozen=True)
class Answered:
    """A question, what a method answered, and what the judge gave it. row: None where there is no answer yet;
    similarity: cosine of the reply's words and the right answer, None where either is missing; pairs: of Eq. 5, where
    the question's own choices were judged."""

    question: Question
    place: Place
    method: str
    row: dict | None
    marks: dict | None = None
    similarity: float | None = None
    pairs: tuple[Pair, ...] = ()

    @property
    def decidable(self) -> bool:
        """Whether there is a right and a wrong: choices, and one that is known to be right."""
        return bool(self.question.choices) and self.question.answer is not None

    @property
    def right(self) -> bool | None:
        """None where the question was not answered (a failed row, no row). A reply that was read and names no choice
        (refused, unparsable) is not right."""
        if self.row is None or not self.decidable:
            return None
        if self.row["choice"] is not None:
            return self.question.choices[self.row["choice"]] == self.question.answer
        return False if self.row["parsed"] in ("refused", "unparsable") else self.row["correct"]

    @property
    def weighed(self) -> bool:
        """Whether ranked choices were weighed by likelihood, and none of them is 0."""
        found = (self.row or {}).get("likelihoods")
        return bool(found and self.question.ranked and all(found))

    def margins(self) -> dict[str, float]:
        """Metric -> value of a question that is `weighed`, nats. Log-likelihoods of whole texts where words were
        weighed: winner minus loser (Eq. 6's first two terms), mean over the pairs of Eq. 5; first minus last. Per
        token: first minus the mean of the others."""
        tokens = np.log(self.row["likelihoods"])
        whole = tokens * (self.row.get("choice_tokens") or 1)
        pairs = [whole[p.winner] - whole[p.loser] for p in self.pairs]
        found = {MARGINS[0]: float(np.mean(pairs))} if pairs else {}
        return found | {MARGINS[1]: float(whole[0] - whole[-1]), MARGINS[2]: float(tokens[0] - np.mean(tokens[1:]))}

    @property
    def how(self) -> str:
        """How the answer was read."""
        if self.row is None:
            return "missing"
        open_reply = "in words" if not self.question.choices else "likelihood"
        return self.row["parsed"] or ("failed" if self.row["error"] else open_reply)


def run(config: EvaluateQaConfig, options: RunOptions) -> Summary:
    """Write metrics; print the tables; optionally write them and the report.

    Raises:
        InputError: places or numbers that cannot be; answers or judgements to other questions, or a choice that a
            question has not.
    """
    check_numbers(config, options)
    check_places(config)
    questions = read_questions(config.questions)
    answers = read_table(config.answers, ANSWERS)
    judged = read_table(config.judgements, JUDGEMENTS) if config.judgements else None
    manifest = read_manifest(config.manifest, config.root) if config.manifest else None
    places = places_of(questions.rows, {i.image_id: i for i in manifest.images} if manifest else None)
    joined = join(questions.rows, places, answers.to_pylist(), judged.to_pylist() if judged else [], config.answers)
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
    with Artifact(config.out, METRICS, spec, keys, options, flush_rows=100_000) as artifact:
        artifact.write_all(rows)
        known = {q.question_id for q in questions.rows} | questions.failed.keys()
        if strangers := sum(i not in known for i in answers["question_id"].to_pylist()):
            artifact.progress.say(f"{strangers} answers are to other questions and are left out")
        if questions.failed:
            artifact.progress.say(f"{len(questions.failed)} questions have an `error` and are left out")
    _publish(joined, rows, provenance, models, config, options)
    return artifact.summary


def places_of(questions: Sequence[Question], images: dict[str, Image] | None) -> dict[str, Place]:
    """question_id -> place. Without a manifest an image id `mvtec-ad/bottle/test/...` names data set and category.

    Raises:
        InputError: an image that the manifest lacks.
    """
    places = {}
    for q in questions:
        if images is None:
            dataset, *rest = q.image_id.split("/")
            places[q.question_id] = Place(dataset, rest[0] if len(rest) > 1 else ALL, None)
            continue
        if q.image_id not in images:
            raise InputError(
                f"question {q.question_id}: its image {q.image_id} is not in the manifest; give the"
                " manifest that the questions were made for, or none"
            )
        image = images[q.image_id]
        places[q.question_id] = Place(*image.task, image, images.get(q.reference_id or ""))
    return places


def join(
    questions: Sequence[Question], places: dict[str, Place], answers: list[dict], judgements: list[dict], path: Path
) -> list[Answered]:
    """Every question by every method that answers some of its data set, in order of method and question."""
    asked = {q.question_id: q for q in questions}
    by_key = {(r["question_id"], r["method"]): r for r in answers if r["question_id"] in asked}
    if not by_key:
        raise InputError(f"{path}: answers none of these questions; give the questions that were asked")
    for (i, method), r in by_key.items():
        if r["choice"] is not None and not 0 <= r["choice"] < len(asked[i].choices):
            raise InputError(
                f"{path}: {method} chose choice {r['choice']} of question {i}, which has"
                f" {len(asked[i].choices)} (column `choice`, counted from 0)"
            )
    marks = {(r["question_id"], r["method"]): r for r in judgements}
    if judgements and not marks.keys() & by_key.keys():
        raise InputError(
            f"--judgements: judges none of these answers; give those of `score --method mle --answers {path}`"
        )
    there = dict.fromkeys((method, places[i].dataset) for i, method in sorted(by_key, key=lambda k: (k[1], k[0])))
    pairs = {q.question_id: judged_pairs(q, marks) for q in questions}
    return [
        Answered(
            q,
            places[q.question_id],
            method,
            by_key.get((q.question_id, method)),
            marks.get((q.question_id, method)),
            pairs=pairs[q.question_id],
        )
        for method, dataset in there
        for q in questions
        if places[q.question_id].dataset == dataset
    ]


def judged_pairs(question: Question, marks: dict[tuple[str, str], dict]) -> tuple[Pair, ...]:
    """Eq. 5 of a ranked question; none where one of its choices was not judged."""
    rows = [marks.get((question.question_id, f"choice/{i}")) for i in range(len(question.choices))]
    scores = [mle_score(r) if r else None for r in rows]
    judged = question.ranked and len(scores) > 1 and None not in scores
    return tuple(pairs_of(scores)) if judged else ()


def with_similarity(joined: list[Answered], encoder: str) -> tuple[list[Answered], str | None]:
    """(the same with cosines of sentence embeddings, why there are none). A reply that is a letter alone has no
    words to compare, and none is chosen by likelihood."""
    if encoder == "none":
        return joined, "left out (--encoder none)"
    pairs = {
        i: (words, a.question.answer)
        for i, a in enumerate(joined)
        if a.row and a.question.answer and (words := in_words(a.row["response"], a.question))
    }
    if not pairs:
        return joined, "no replies in words"
    try:
        from stages.text_encoder.model import encode, load_encoder  # torch, which nothing else here needs

        model, tokenizer = load_encoder(encoder)
    except InputError as e:
        if encoder != PACKAGED:
            raise
        return joined, str(e)
    texts = sorted({t for pair in pairs.values() for t in pair})
    place = {t: n for n, t in enumerate(texts)}
    z = encode(model, tokenizer, texts)
    found = {i: float(z[place[a]] @ z[place[b]]) for i, (a, b) in pairs.items()}
    return [replace(a, similarity=found.get(i)) for i, a in enumerate(joined)], None


def metric_rows(joined: list[Answered], resamples: int, seed: int, without: str | None, judged: bool) -> list[dict]:
    """Rows of METRICS, level `qa`: per category, over `all` questions of a data set, and `mean` over categories."""
    of: dict[tuple, list[Answered]] = defaultdict(list)
    for a in joined:
        for category in {a.place.category: 0, ALL: 0}:
            of[a.place.dataset, category, a.place.condition, a.method].append(a)
    rows = []
    for (dataset, category, condition, method), group in of.items():
        rows += [
            metric_row(dataset, category, condition, method, name, v)
            for name, v in values(group, resamples, seed, without, judged)
        ]
    return rows + list(_means(rows))


def metric_row(dataset: str, category: str, condition: str | None, method: str, metric: str, v: Value) -> dict:
    """A row of METRICS, level `qa`."""
    return {
        "dataset": dataset,
        "category": category,
        "condition": condition,
        "method": method,
        "level": "qa",
        "metric": metric,
        "value": v.value,
        "ci_low": v.ci_low,
        "ci_high": v.ci_high,
        "n": v.n,
        "n_positive": v.n_positive,
        "reason": v.reason,
    }


def values(
    group: list[Answered], resamples: int, seed: int, without: str | None, judged: bool
) -> Iterator[tuple[str, Value]]:
    """(metric, value) of one method's answers to some questions."""

    def over(members: list[Answered], number: Callable[[Answered], float], reason: str) -> Value:
        return mean(
            [number(a) for a in members],
            [a.question.image_id for a in members],
            resamples,
            seed,
            _positive(members),
            reason,
        )

    decided = [a for a in group if a.right is not None]
    none = "no question with choices was answered" if any(a.decidable for a in group) else "no questions with choices"
    yield "accuracy", over(decided, lambda a: a.right, none)
    for level in dict.fromkeys(a.question.level for a in group if a.decidable):
        of_level = [a for a in decided if a.question.level == level]
        yield f"accuracy/{level}", over(of_level, lambda a: a.right, none)
    yield (
        "accuracy_level_mean",
        level_mean(
            [a.right for a in decided],
            [a.question.level for a in decided],
            [a.question.image_id for a in decided],
            resamples,
            seed,
            _positive(decided),
            none,
        ),
    )
    closed = [a for a in group if a.decidable]
    right, images = whole_groups(
        [a.right for a in closed], [a.question.group for a in closed], [a.question.image_id for a in closed]
    )
    ungrouped = "no group was answered as a whole" if any(a.question.group for a in closed) else "no groups"
    yield "acc_g", mean(right, images, resamples, seed, 0, ungrouped)
    weighed = [(a, a.margins()) for a in group if a.weighed]
    for name in MARGINS:
        if of := [(a, found[name]) for a, found in weighed if name in found]:
            yield (
                name,
                mean(
                    [v for _, v in of],
                    [a.question.image_id for a, _ in of],
                    resamples,
                    seed,
                    _positive([a for a, _ in of]),
                ),
            )
    yield (
        "sbert",
        over([a for a in group if a.similarity is not None], lambda a: a.similarity, without or "no replies in words"),
    )
    marked = [a for a in group if a.marks and mle_score(a.marks) is not None]
    for axis in AXES if judged else ():
        yield f"mle_{axis}", over(marked, lambda a, axis=axis: a.marks[axis], "no judgements")
    if judged:
        yield "mle", over(marked, lambda a: mle_score(a.marks), "no judgements")


def models_of(provenance: Sequence[dict]) -> dict[str, dict]:
    """Method -> what its model is made of, where `score` notes it."""
    return {p["parameters"]["method"]: p["notes"]["model"] for p in provenance if "model" in p.get("notes", {})}


def grown(joined: Sequence[Answered], models: dict[str, dict], resamples: int, seed: int) -> Iterator[dict]:
    """What E-DPO adds to the margin over Eq. 5's pairs: that of an E-DPO model minus that of the SFE model of the same
    settings, question by question. Rows of METRICS; none where no SFE model, or more than one, could be meant."""
    of: dict[tuple, dict[str, Answered]] = defaultdict(dict)
    for a in joined:
        if a.weighed and a.pairs:
            of[a.place.dataset, a.place.condition, a.method][a.question.question_id] = a
    for (dataset, condition, method), after in of.items():
        model = models.get(method, {})
        sfe = model | {"stage": "sfe"}
        starts = [m for m, other in models.items() if other == sfe and (dataset, condition, m) in of]
        if model.get("stage") != "edpo" or len(starts) != 1:
            continue
        before = of[dataset, condition, starts[0]]
        both = [(a, before[i]) for i, a in after.items() if i in before]
        v = mean(
            [a.margins()[MARGINS[0]] - b.margins()[MARGINS[0]] for a, b in both],
            [a.question.image_id for a, _ in both],
            resamples,
            seed,
            _positive([a for a, _ in both]),
        )
        yield metric_row(dataset, ALL, condition, method, GROWN, v)


def _positive(members: list[Answered]) -> int:
    return sum(a.place.image is not None and a.place.image.label == 1 for a in members)


def _means(rows: list[dict]) -> Iterator[dict]:
    """Means over categories, where there are several."""
    found: dict[tuple, list[dict]] = defaultdict(list)
    for r in rows:
        if r["category"] != ALL and r["value"] is not None:
            found[r["dataset"], r["condition"], r["method"], r["metric"]].append(r)
    for group in found.values():
        if len(group) > 1:
            yield group[0] | {
                "category": MEAN,
                "value": float(np.mean([r["value"] for r in group])),
                "ci_low": None,
                "ci_high": None,
                "n": sum(r["n"] for r in group),
                "n_positive": sum(r["n_positive"] for r in group),
            }


def _publish(
    joined: list[Answered],
    rows: list[dict],
    provenance: list[dict],
    models: dict[str, dict],
    config: EvaluateQaConfig,
    options: RunOptions,
) -> None:
    from stages.report import grid
    from stages.report import sage as qa

    judged = read_provenance(config.judgements) if config.judgements else []
    judges = list(dict.fromkeys(r["parameters"].get("judge", "unknown") for r in judged))
    grids = qa.all_tables(joined, rows, judges, config.resamples, config.seed)
    if not (options.quiet or options.json):
        print("\n\n".join(grid.as_text(g) for g in grids if g.printed))
    if config.tables:
        grid.write(grids, config.tables)
    if config.report:
        from stages.report.sage_page import write_page

        write_page(config.report, joined, rows, grids, [*provenance, *judged], models)
