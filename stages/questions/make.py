"""A manifest with masks -> questions with four ranked answers each, after AD-PL (SAGE, section 4).

The paper's three steps: captions of the images, scenarios and question templates, answers by a large model. Without a
model the answers come from templates, too, filled from label, name of the defect and mask; what they say of an image is
then true by construction, and no wiser than that.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from random import Random

import pyarrow as pa

from stages.artifacts.digests import Files
from stages.artifacts.reader import fingerprint, read_table
from stages.artifacts.tables import CAPTIONS, QUESTIONS
from stages.artifacts.writer import Artifact, Spec, Summary
from stages.base.config import RunOptions, check_numbers, named_paths
from stages.base.errors import ImageError, InputError
from stages.base.prompts import fill, load_prompt, prompt_ids
from stages.base.seeds import row_seed, source_fingerprint, source_of
from stages.datasets.config import RULES
from stages.datasets.files import look_at
from stages.datasets.images import load_masks
from stages.datasets.manifest import Image, Manifest, Task, by_task, images_of, read_manifest
from stages.datasets.references import references_for
from stages.questions import geometry, ranking, templates, writing
from stages.questions.config import TEMPLATES, QuestionsConfig
from stages.questions.geometry import geometry_of
from stages.questions.ranking import KINDS, Facts, NothingWrong, question_of, ranked_answers
from stages.questions.table import problem
from stages.questions.templates import FOLDER, defect_in_words, object_in_words
from stages.vlm.engine import Engine, Sampling
from stages.vlm.factory import check_engine, make_engine
from stages.vlm.options import engine_parameters

MAKERS = (geometry, ranking, templates, writing)  # beside this module: what the answers depend on


@dataclass(frozen=True)
class Case:
    """What the questions about one image are made from. facts: None for a normal image; error: why there are none."""

    image_id: str
    thing: str
    names: tuple[str, ...]
    facts: Facts | None = None
    reference_id: str | None = None
    error: str | None = None


def run(config: QuestionsConfig, options: RunOptions) -> Summary:
    """Five questions about every image of the chosen splits, a group each. An image without a label, an anomalous one
    without a mask, or one without a reference gives rows with `error`.

    Raises:
        InputError: unknown option values, no image in the chosen splits, anomalous images there but not one mask, or
            a model without captions.
    """
    _check(config)
    manifest = read_manifest(config.manifest, config.root)
    images = images_of(manifest, config.splits, config.manifest)
    anomalous = [i for i in images.values() if i.label == 1]
    if anomalous and not any(i.masks for i in anomalous):
        raise InputError(
            f"{config.manifest}: none of the {len(anomalous)} anomalous images has a mask; the questions"
            " say where a defect lies, so index the data set with its masks"
        )
    images = some_of(images, config.max_images, config.seed)
    captions = read_table(config.captions, CAPTIONS) if config.captions else None
    engine = None if config.vlm == TEMPLATES else make_engine(config.vlm, config)
    compared = manifest.images if config.reference == "nearest" else ()
    files = look_at(config.out, options.quiet, images=compared, masks=images.values())
    spec = _spec(config, manifest, files, engine, captions)
    tasks = by_task(manifest.images)
    with Artifact(config.out, QUESTIONS, spec, [(f"{i}/{k}",) for i in images for k in KINDS], options) as artifact:
        files.keep(config.out)
        wanted: dict[str, list[str]] = {}
        for (key,) in artifact.pending:
            image_id, _, kind = key.rpartition("/")
            wanted.setdefault(image_id, []).append(kind)
        cases = (case_of(images[i], tasks[images[i].task], config) for i in wanted)
        rows = (
            _by_templates(cases, wanted, config)
            if engine is None
            else _by_model(cases, wanted, config, engine, _texts(captions.to_pylist() if captions else []))
        )
        for row in rows:
            artifact.write(row, tried=engine is not None and row["question"] is not None)
            artifact.ran_on = engine.ran_on if engine else "cpu"
    return artifact.summary


def some_of(images: dict[str, Image], limit: int, seed: int) -> dict[str, Image]:
    """At most `limit` of the images, in their order; all where it is 0. As many anomalous as normal ones while both
    last: a test split is often mostly normal, and a model that always finds no defect would be right on most of it."""
    turns: dict[int | None, Iterator[int]] = defaultdict(count)
    drawn = sorted(images, key=lambda i: row_seed(seed, "images", i))
    in_turn = sorted(drawn, key=lambda i: next(turns[images[i].label]))
    chosen = set(in_turn[: limit or None])
    return {i: image for i, image in images.items() if i in chosen}


def _check(config: QuestionsConfig) -> None:
    check_numbers(config)
    if config.reference not in RULES:
        raise InputError(f"--reference {config.reference}: expected {', '.join(RULES)}")
    if config.vlm == "scene":
        raise InputError("--vlm scene: it describes images and cannot write answers; --vlm templates needs no model")
    check_engine(config.vlm, config, words=(TEMPLATES,))
    if config.vlm != TEMPLATES and config.captions is None:
        raise InputError(f"--vlm {config.vlm}: also give the --captions of these images (`adcli caption` makes them)")
    if config.vlm != TEMPLATES:
        fill(load_prompt(config.prompt), **dict.fromkeys(writing.FIELDS, ""))
    if config.vlm == TEMPLATES and config.captions is not None:
        raise InputError("--captions: templates do not read them; give the --vlm that shall write the answers")


def _spec(
    config: QuestionsConfig, manifest: Manifest, files: Files, engine: Engine | None, captions: pa.Table | None
) -> Spec:
    parameters = {
        "vlm": config.vlm,
        "splits": config.splits,
        "images": config.max_images,
        "reference": config.reference,
        "templates": {p: load_prompt(p).fingerprint for p in prompt_ids() if p.startswith(f"{FOLDER}/")},
        "code": source_fingerprint(Path(__file__), *map(source_of, MAKERS)),
    }
    inputs = {"manifest": manifest.fingerprint, "mask files": files.masks}
    notes = {}
    if config.reference == "nearest":
        inputs["image files"] = files.images
    if engine:
        parameters |= {
            "weights": engine.fingerprint,
            "prompt": load_prompt(config.prompt).fingerprint,
            "temperature": config.temperature,
            "top_p": config.top_p,
            "max_tokens": config.max_tokens,
        }
        parameters |= engine_parameters(config.vlm, config)
        inputs["captions"] = fingerprint(captions, CAPTIONS)
        notes = {"caveat": engine.caveat}
    return Spec("data questions", parameters, inputs, config.seed, notes, named_paths(config))


def case_of(image: Image, task_images: list[Image], config: QuestionsConfig) -> Case:
    """Look at the mask and choose the reference image; the case carries `error` when either fails."""
    names = tuple(i.defect or "" for i in task_images if i.label == 1)
    case = Case(image.image_id, object_in_words(image.category), names)
    if image.error or image.label is None:
        return replace(case, error=image.error or "it is not known whether this image is normal")
    try:
        facts = _facts(image) if image.label == 1 else None
        # a seed of the image's own, since `random` draws once per task otherwise
        references = references_for(image, task_images, 1, config.reference, row_seed(config.seed, image.image_id))
    except ImageError as e:
        return replace(case, error=str(e))
    if not references:
        return replace(case, error=f"{_name(image.task)} has no normal training image to compare with")
    return replace(case, facts=facts, reference_id=references[0].image_id)


def _facts(image: Image) -> Facts:
    if not image.masks:
        raise ImageError(f"{image.image_id}: an anomalous image without a mask")
    mask = load_masks(image.masks)
    if not mask.any():
        raise ImageError(f"{image.masks[0]}: an empty mask of an anomalous image")
    return Facts(defect_in_words(image.defect), geometry_of(mask))


def _name(task: Task) -> str:
    return " / ".join(filter(None, task))


def _rng(config: QuestionsConfig, question_id: str) -> Random:
    return Random(row_seed(config.seed, question_id))


def _by_templates(cases: Iterator[Case], wanted: dict[str, list[str]], config: QuestionsConfig) -> Iterator[dict]:
    for case in cases:
        for kind in wanted[case.image_id]:
            if case.error:
                yield _row(case, kind, error=case.error)
                continue
            rng = _rng(config, f"{case.image_id}/{kind}")
            question = question_of(kind, case.thing, rng)
            try:
                yield _row(case, kind, question, ranked_answers(kind, case.thing, case.facts, case.names, rng))
            except NothingWrong as e:
                yield _row(case, kind, question, error=str(e), retry=False)


def _by_model(
    cases: Iterator[Case], wanted: dict[str, list[str]], config: QuestionsConfig, engine: Engine, texts: dict[str, str]
) -> Iterator[dict]:
    todo, about = {}, {}
    for case in cases:
        caption = texts.get(case.image_id)
        error = case.error or (None if caption else f"{config.captions} has no caption of this image")
        for kind in wanted[case.image_id]:
            if error or caption is None:
                yield _row(case, kind, error=error)
                continue
            key = f"{case.image_id}/{kind}"
            question = question_of(kind, case.thing, _rng(config, key))
            todo[key], about[key] = writing.Task(case.thing, case.facts, caption, question), (case, kind)
    sampling = Sampling(config.temperature, config.top_p, config.max_tokens)
    for result in writing.written(todo, engine, load_prompt(config.prompt), sampling, config.seed):
        question = todo[result.question_id].question
        yield _row(*about[result.question_id], question, list(result.answers), result.error, result.retry)


def _texts(captions: list[dict]) -> dict[str, str]:
    """image_id -> its first caption that is one, in order of prompt and sample."""
    texts: dict[str, str] = {}
    for row in captions:
        if row["text"]:
            texts.setdefault(row["image_id"], row["text"])
    return texts


def _row(
    case: Case,
    kind: str,
    question: str | None = None,
    answers: list[str] | None = None,
    error: str | None = None,
    retry: bool | None = None,
) -> dict:
    row = {
        "question_id": f"{case.image_id}/{kind}",
        "image_id": case.image_id,
        "reference_id": case.reference_id,
        "group": case.image_id,
        "level": KINDS[kind],
        "question": question,
        "choices": answers or [],
        "answer": answers[0] if answers else None,
        "ranked": True,
        "retry": retry,
    }
    return row | {"error": error or problem(row)}
