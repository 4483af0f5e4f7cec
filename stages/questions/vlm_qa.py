"""Questions to a plain vision-language model: every baseline row of SAGE's Table 1.

One-shot: the reference image, then the test image, and a prompt that has the model look at the reference first
(section 1); the paper does not print its wording, `prompts/sage/` has ours. Zero-shot: the test image alone.

Two ways to choose. `generate` reads the reply. `likelihood` takes the option whose letter is the most probable first
token; a reply that would begin `A crack ...` counts for A there, which is why the prompt asks for the letter first.
"""

from collections import Counter
from pathlib import Path

from stages.artifacts.tables import ANSWERS
from stages.artifacts.writer import Artifact, Spec, Summary
from stages.base.config import RunOptions, named_paths
from stages.base.errors import InputError
from stages.base.prompts import fill, load_prompt
from stages.base.seeds import row_seed, source_fingerprint, source_of
from stages.datasets.files import look_at
from stages.datasets.manifest import Image, Manifest, by_task, read_manifest
from stages.questions import answering
from stages.questions import yes_or_no as answers
from stages.questions.config import VlmQaConfig
from stages.questions.table import Question, check_images, read_questions
from stages.vlm.engine import Request, Sampling, ask, final
from stages.vlm.factory import check_engine, make_engine
from stages.vlm.options import engine_parameters

PROMPTS = {0: "sage/zero-shot", 1: "sage/one-shot"}
WAYS = ("generate", "likelihood", "prefix")
FIRST_TOKEN = Sampling(max_tokens=1)


def run(config: VlmQaConfig, options: RunOptions) -> Summary:
    """Ask every question. A reply that names no option is a row with `error` and the raw text, never a guess; so is
    a question that cannot be asked, or whose image cannot be read. `retry` is false where the same command would give
    the same reply.

    Raises:
        InputError: unknown option values, questions about other images, or a model that answers none.
    """
    _check(config)
    questions, manifest = read_questions(config.questions), read_manifest(config.manifest, config.root)
    images = check_images(questions, manifest)
    method = method_name(config)
    unnamed = config.shots and any(q.reference_id is None for q in questions.rows)
    watched = manifest.images if unnamed else images.values()  # references may be any training image
    engine = make_engine(config.vlm, config)
    files = look_at(config.out, options.quiet, images=watched)
    generated = config.choose != "likelihood"
    sampling = Sampling(config.temperature, config.top_p, config.max_tokens) if generated else FIRST_TOKEN
    spec = Spec(
        "score",
        {
            "method": method,
            "vlm": config.vlm,
            "weights": engine.fingerprint,
            "shots": config.shots,
            "choose": config.choose,
            "prompts": [load_prompt(p).text for p in (PROMPTS[config.shots], answering.OPTIONS)],
            "sampling": [sampling.temperature, sampling.top_p, sampling.max_tokens],
            "parser": [source_fingerprint(source_of(m)) for m in (answers, answering)],
        }
        | engine_parameters(config.vlm, config),
        {"questions": questions.fingerprint, "manifest": manifest.fingerprint, "image files": files.images},
        config.seed,
        {"caveat": engine.caveat},
        named_paths(config),
    )
    asked = {q.question_id: q for q in questions.rows}
    keys = [(i, method) for i in (*asked, *questions.failed)]
    with Artifact(config.out, ANSWERS, spec, keys, options) as artifact:
        files.keep(config.out)
        requests, orders, failed = _requests(artifact.pending, asked, images, manifest, config)
        for key, error in (failed | {k: questions.failed[k[0]] for k in artifact.pending if k[0] not in asked}).items():
            artifact.write({"question_id": key[0], "method": method, "error": error}, tried=False)
        parsed: Counter = Counter()
        for reply in ask(engine, requests, sampling, artifact.progress.say) if requests else ():
            question = asked[reply.key[0]]
            row = answering.row(
                question,
                method,
                orders[reply.key],
                response=reply.text,
                error=reply.error,
                prefix=config.choose == "prefix",
                probabilities=None if generated else reply.probabilities or {},
            )
            row |= reply.cost
            row["retry"] = reply.retry if reply.error else final(engine, "error" in row)
            parsed[row.get("parsed") or ("failed" if row.get("error") else "chosen or in words")] += 1
            artifact.write(row)
            artifact.ran_on = engine.ran_on
        if parsed:
            artifact.progress.say("answers: " + ", ".join(f"{n} {how}" for how, n in parsed.most_common()))
    return artifact.summary


def _check(config: VlmQaConfig) -> None:
    if config.shots not in PROMPTS:
        raise InputError(f"--shots {config.shots}: expected 0 or 1")
    if config.choose not in WAYS:
        raise InputError(f"--choose {config.choose}: expected {', '.join(WAYS)}")
    if config.vlm == "scene":
        raise InputError(
            "--vlm scene describes images and compares two of them, but understands no question: give a"
            " model (`adcli models` lists some)"
        )
    check_engine(config.vlm, config, words=())


def method_name(config: VlmQaConfig) -> str:
    """'vlm-qa/qwen2-vl/1-shot': what tells runs apart in one table."""
    how = "" if config.choose == "generate" else f"+{config.choose}"
    return config.name or f"vlm-qa/{Path(config.vlm).name}/{config.shots}-shot{how}"


def _requests(
    keys: list[tuple], asked: dict[str, Question], images: dict[str, Image], manifest: Manifest, config: VlmQaConfig
) -> tuple[list[Request], dict[tuple, tuple[int, ...]], dict[tuple, str]]:
    """Requests; the order in which each question's choices are shown; why the other keys have none."""
    requests, orders, failed = [], {}, {}
    tasks, prompt = by_task(manifest.images), load_prompt(PROMPTS[config.shots])
    for key in (k for k in keys if k[0] in asked):
        question = asked[key[0]]
        try:
            text, orders[key] = answering.asked(question, config.seed, config.choose)
            files = answering.pictures(question, images, tasks, config.shots)
        except InputError as e:
            failed[key] = str(e)
            continue
        letters = () if config.choose != "likelihood" else tuple(answering.LETTERS[: len(question.choices)])
        if config.choose == "likelihood" and not letters:
            failed[key] = "no choices to weigh: an open question needs --choose generate"
            continue
        requests.append(Request(key, fill(prompt, question=text), files, row_seed(config.seed, *key), letters))
    return requests, orders, failed
