"""Images -> captions: one row per image, prompt and sample (VID-AD, sections 4.2 and 5.1)."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from stages.artifacts.tables import CAPTIONS
from stages.artifacts.writer import Artifact, Spec, Summary
from stages.base.config import RunOptions, named_paths
from stages.base.errors import InputError
from stages.base.prompts import Prompt, load_prompt, prompt_ids
from stages.base.seeds import row_seed
from stages.captions.config import CaptionConfig
from stages.datasets.files import look_at
from stages.datasets.manifest import Image, read_manifest
from stages.questions.table import check_images, read_questions
from stages.vlm.engine import Request, Sampling, ask, final
from stages.vlm.factory import check_engine, make_engine
from stages.vlm.options import engine_parameters


def run(config: CaptionConfig, options: RunOptions) -> Summary:
    """Caption every image, or those that --questions are about; not their reference images, which no stage reads
    captions of. Rows that fail (unreadable image, empty answer) carry `error`; those that the same command
    would give again, `retry` = false, too."""
    check_engine(config.vlm, config)
    if config.samples > 1 and (config.vlm == "scene" or not config.temperature):
        raise InputError(
            f"--samples {config.samples}: "
            + (
                "scene describes an image the same way every time; ask it for one, or give another --vlm"
                if config.vlm == "scene"
                else "greedy texts of one image are all the same; give a --temperature such as 0.9"
            )
        )
    manifest = read_manifest(config.manifest, config.root)
    images = {image.image_id: image for image in manifest.images}
    if config.questions:
        asked = read_questions(config.questions)
        check_images(asked, manifest)
        images = {i: images[i] for i in sorted({q.image_id for q in asked.rows})}
    prompts = {i: prompt_for(image, config.prompt, config.vlm) for i, image in images.items()}
    engine = make_engine(config.vlm, config)
    texts = {p.id: p.fingerprint for p in prompts.values()}
    files = look_at(config.out, options.quiet, images=images.values())
    inputs = {"manifest": manifest.fingerprint, "image files": files.images}
    inputs |= {"questions": asked.fingerprint} if config.questions else {}
    spec = Spec(
        "caption",
        {
            "vlm": config.vlm,
            "weights": engine.fingerprint,
            "prompts": texts,
            "samples": config.samples,
            "temperature": config.temperature,
            "top_p": config.top_p,
            "max_tokens": config.max_tokens,
        }
        | engine_parameters(config.vlm, config),
        inputs,
        config.seed,
        {"caveat": engine.caveat},
        named_paths(config),
    )
    keys = [(i, prompts[i].id, s) for i in images for s in range(config.samples)]
    sampling = Sampling(config.temperature, config.top_p, config.max_tokens)
    with Artifact(config.out, CAPTIONS, spec, keys, options) as artifact:
        files.keep(config.out)
        unread = [k for k in artifact.pending if images[k[0]].error]
        for key in unread:
            artifact.write(_row(key, error=images[key[0]].error), tried=False)
        todo = [k for k in artifact.pending if not images[k[0]].error]
        requests = _requests(todo, images, prompts, config.seed)
        texts_drawn, distinct = 0, set()
        for reply in ask(engine, requests, sampling, artifact.progress.say) if todo else ():
            text = clean_text(reply.text or "")
            error = reply.error or (None if text else "the model gave an empty answer")
            if config.samples > 1 and not error:
                distinct.add((reply.key[0], text))
                texts_drawn += 1
            artifact.write(
                _row(
                    reply.key,
                    text=None if error else text,
                    error=error,
                    retry=reply.retry if reply.error else final(engine, not text),
                    finish_reason=reply.finish_reason,
                    **reply.cost,
                )
            )
            artifact.ran_on = engine.ran_on
        if texts_drawn > len(distinct):
            artifact.progress.say(
                f"{texts_drawn - len(distinct)} of {texts_drawn} texts repeat another one of the same image; a higher"
                " --temperature makes them differ"
            )
    return artifact.summary


def prompt_for(image: Image, prompt: str, vlm: str) -> Prompt:
    """The prompt of one image: the same for training and test images of a task. VID-AD's come in two sets, both ours
    (the paper prints none): for `scene` a closed form with its words, for models a question that is answered in free
    sentences with a total count, as in the paper's printed examples (Table 6)."""
    if prompt != "auto":
        of_folder = prompt not in prompt_ids() and Path(prompt).is_dir()
        return load_prompt(str(_of_category(Path(prompt), image.category)) if of_folder else prompt)
    if image.dataset in ("vidad", "vidad-synthetic"):
        return load_prompt(f"vidad/{image.category}" if vlm == "scene" else f"vidad/models/{image.category}")
    return load_prompt("magnetic-tile" if image.dataset == "magnetic-tile" else "general")


@cache
def _of_category(folder: Path, category: str) -> Path:
    """FOLDER/<category>.txt or, as VID-AD's authors name theirs, FOLDER/<Category>_prompt.txt, in whatever case."""
    names = (f"{category}.txt".lower(), f"{category}_prompt.txt".lower())
    found = sorted(path for path in folder.iterdir() if path.name.lower() in names)
    if len(found) != 1:
        has = f"has {found[0].name} and {found[1].name}" if found else f"has no {names[0]} and no {names[1]}"
        raise InputError(f"--prompt {folder}: {has}; one prompt for {category} is expected")
    return found[0]


def _requests(keys: list[tuple], images: dict[str, Image], prompts: dict[str, Prompt], seed: int) -> Iterator[Request]:
    for key in keys:
        yield Request(key, prompts[key[0]].text, (images[key[0]].file,), row_seed(seed, *key))


def _row(key: tuple, **columns: object) -> dict:
    return dict(zip(CAPTIONS.key, key, strict=True)) | columns


def clean_text(text: str) -> str:
    """The paper's light clean-up (section 4.2): special tokens and code fences off, white space single."""
    text = re.sub(r"<\|[^|>]*\|>|</?s>|```\w*", " ", text)
    text = re.sub(r"^\s*Form:", " ", text)
    return re.sub(r"\s+", " ", text).strip()
