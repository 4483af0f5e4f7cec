"""One question to a large vision-language model: does this image have an anomaly compared to a reference?

The method of the LVLM paper (section 3.2): the first normal training image of the category, the same
question for all categories, for a few of them a sentence on what varies (its Tables 6 and 7). Beside the
paper's yes or no there is a continuous score, p(yes) / (p(yes) + p(no)) of the first answer token, so
that an AUROC exists.
"""

from collections import Counter
from pathlib import Path

from stages.artifacts.tables import SCORES
from stages.artifacts.writer import Artifact, Spec, Summary
from stages.base.config import RunOptions, named_paths
from stages.base.errors import ImageError, InputError
from stages.base.prompts import fill, load_prompt, prompt_ids
from stages.base.seeds import row_seed, source_fingerprint
from stages.datasets.files import look_at
from stages.datasets.manifest import Image, Manifest, by_task, images_of, read_manifest
from stages.datasets.references import references_for
from stages.lvlm.config import LvlmConfig
from stages.questions import yes_or_no as answers
from stages.vlm.engine import Reply, Request, Sampling, ask, final
from stages.vlm.factory import make_engine
from stages.vlm.options import engine_parameters
from stages.vlm.scene.form import number

CHOICES = ("yes", "no")
WITHOUT = "the engine gave no probabilities of the two"


def run(config: LvlmConfig, options: RunOptions) -> Summary:
    """Ask about every image of the chosen splits. An answer that is neither yes nor no leaves the prediction open
    and keeps its score, which the text does not enter; without probabilities it has none and is a row with
    `error` and the raw text. So is an image without a reference.

    Raises:
        InputError: unknown option values, or no image in the chosen splits.
    """
    config.check()
    manifest = read_manifest(config.manifest, config.root)
    method = method_name(config)
    images = images_of(manifest, config.splits, config.manifest)
    engine = make_engine(config.vlm, config)
    prompts = {i.image_id: question(i, config.shots, config.prompt) for i in images.values()}
    parameters = {
        n: getattr(config, n) for n in ("shots", "reference", "prompt", "splits", "temperature", "top_p", "max_tokens")
    }
    files = look_at(config.out, options.quiet, images=manifest.images)
    spec = Spec(
        "score",
        parameters
        | {
            "method": method,
            "vlm": config.vlm,
            "weights": engine.fingerprint,
            "prompts": sorted(set(prompts.values())),
            "parser": source_fingerprint(Path(answers.__file__)),
        }
        | engine_parameters(config.vlm, config),
        {"manifest": manifest.fingerprint, "image files": files.images},
        config.seed,
        {"caveat": engine.caveat},
        named_paths(config),
    )
    sampling = Sampling(config.temperature, config.top_p, config.max_tokens)
    with Artifact(config.out, SCORES, spec, [(i, method) for i in images], options) as artifact:
        files.keep(config.out)
        requests, shown, failed = _requests(artifact.pending, manifest, prompts, config)
        for key, error in failed.items():
            artifact.write({"image_id": key[0], "method": method, "error": error}, tried=False)
        parsed, unscored, undecided = Counter(), 0, 0
        for reply in ask(engine, requests, sampling, artifact.progress.say) if requests else ():
            columns = row(reply, shown[reply.key])
            if columns.get("error"):
                columns["retry"] = reply.retry if reply.error else final(engine, True)
            parsed[columns.get("parsed") or "failed"] += 1
            unscored += "prediction" in columns and columns["score"] is None
            undecided += "prediction" not in columns and columns.get("score") is not None
            artifact.write(columns)
            artifact.ran_on = engine.ran_on
        if parsed:
            artifact.progress.say("answers: " + ", ".join(f"{n} {how}" for how, n in parsed.most_common()))
        if undecided:
            artifact.progress.say(
                f"{undecided} answers are neither yes nor no: they have a score, p(yes) / (p(yes) +"
                " p(no)), and no prediction"
            )
        if unscored:
            artifact.progress.say(
                f"{unscored} answers without probabilities, and so without a score: {engine.name} gave"
                " none for yes and no"
            )
    return artifact.summary


def method_name(config: LvlmConfig) -> str:
    """'lvlm/qwen2-vl/1-shot+specific': what tells runs apart in one table."""
    more = ("" if config.prompt == "generic" else f"+{config.prompt}") + (
        "" if config.reference == "first" or not config.shots else f"+{config.reference}"
    )
    return config.name or f"lvlm/{Path(config.vlm).name}/{config.shots}-shot{more}"


def question(image: Image, shots: int, kind: str) -> str:
    """The prompt of one image: the paper's question, and for `specific` its sentence for the category
    (Tables 6 and 7; those for rotated images where it is one: training images stay as they are), for `description`
    ours."""
    name = {0: "zero-shot", 1: "one-shot"}.get(shots, "few-shot")
    asked = load_prompt(f"lvlm/{name}")
    text = fill(asked, shots=number(shots)) if shots > 1 else asked.text
    if kind == "description":
        described = f"lvlm/description/{image.dataset}/{image.category}"
        if described not in prompt_ids():
            raise InputError(
                f"--prompt description: no description of {image.category} (expected a prompt {described})"
            )
        return f"{load_prompt(described).text} {text}"
    rotated = "rotated/" if image.split == "test" and "rotate" in (image.condition or "") else ""
    added = f"lvlm/{image.dataset}/{rotated}{image.category}"
    return f"{text} {load_prompt(added).text}" if kind == "specific" and added in prompt_ids() else text


def _requests(
    keys: list[tuple], manifest: Manifest, prompts: dict[str, str], config: LvlmConfig
) -> tuple[list[Request], dict[tuple, list[str]], dict[tuple, str]]:
    """Requests, reference images before the test image; the references' ids; why the other keys have none."""
    requests, shown, failed = [], {}, {}
    tasks = by_task(manifest.images)
    images = {i.image_id: i for i in manifest.images}
    for key in keys:
        image = images[key[0]]
        try:
            references = references_for(image, tasks[image.task], config.shots, config.reference, config.seed)
        except ImageError as e:
            failed[key] = str(e)
            continue
        if image.error or len(references) < config.shots:
            where = " / ".join(filter(None, image.task))
            failed[key] = image.error or (
                f"{where} has {len(references)} normal training images to compare with, --shots asks for {config.shots}"
            )
            continue
        shown[key] = [r.image_id for r in references]
        files = (*(r.file for r in references), image.file)
        requests.append(Request(key, prompts[key[0]], files, row_seed(config.seed, *key), CHOICES))
    return requests, shown, failed


def row(reply: Reply, shown: list[str]) -> dict:
    """A row of SCORES from a reply; shown: image_ids of the reference images."""
    columns = {
        "image_id": reply.key[0],
        "method": reply.key[1],
        "response": reply.text,
        "neighbours": [{"image_id": i} for i in shown] or None,
    } | reply.cost
    if reply.error:
        return columns | {"error": reply.error}
    yes, how = answers.yes_or_no(reply.text)
    columns |= {"parsed": how, "score": score_of(reply.probabilities)}
    if yes is not None:
        return columns | {"prediction": int(yes)}
    if columns["score"] is None:
        columns["error"] = f"the answer is neither yes nor no ({how}), and {WITHOUT}"
    return columns


def score_of(probabilities: dict[str, float] | None) -> float | None:
    """p(yes) / (p(yes) + p(no)); None where the engine gives neither."""
    total = sum(probabilities.values()) if probabilities else 0
    return probabilities["yes"] / total if total > 0 else None
