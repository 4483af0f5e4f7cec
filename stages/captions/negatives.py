"""Normal captions -> contradictions of them (VID-AD, section 4.2): one negative per caption."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from stages.artifacts.reader import fingerprint, made_key, read_table
from stages.artifacts.record import find_record
from stages.artifacts.tables import CAPTIONS, NEGATIVES
from stages.artifacts.writer import Artifact, Spec, Summary
from stages.base.config import RunOptions, named_paths
from stages.base.errors import InputError
from stages.base.prompts import fill, load_prompt
from stages.base.seeds import row_seed, source_fingerprint
from stages.captions import constraints, facts, rules, vocabulary
from stages.captions.caption import clean_text
from stages.captions.config import NegativesConfig
from stages.captions.constraints import LONGEST, Rejected, check_negative, mended
from stages.datasets.manifest import by_task, read_manifest, reference_images
from stages.vlm.engine import Engine, Request, Sampling
from stages.vlm.factory import check_engine, make_engine
from stages.vlm.options import engine_parameters

RULES = (constraints, facts, rules, vocabulary)  # what the rule-based rewriter's negatives depend on
ATTEMPTS = 5  # rewrites drawn from a model before the row is given up


def run(config: NegativesConfig, options: RunOptions) -> Summary:
    """Rewrite the captions of every task's reference images. A row whose rewrites all break a constraint, or whose
    caption is too long for one, carries `error` and is final (`retry` is false); one whose caption failed carries
    `error`, too.

    Raises:
        InputError: no caption belongs to a reference image of the manifest.
    """
    check_engine(config.rewriter, config, "--rewriter", ("rules",))
    manifest = read_manifest(config.manifest)
    captions = read_table(config.captions, CAPTIONS)
    texts, normals = reference_captions(captions.to_pylist(), manifest.images, config.captions)
    engine = None if config.rewriter == "rules" else make_engine(config.rewriter, config)
    weights = engine.fingerprint if engine else source_fingerprint(*(Path(m.__file__) for m in RULES))
    parameters = {"rewriter": config.rewriter, "weights": weights}
    if engine:
        parameters |= {
            "prompt": load_prompt(config.prompt).fingerprint,
            "temperature": config.temperature,
            "top_p": config.top_p,
            "max_tokens": config.max_tokens,
            **({"keep_unchecked": True} if config.keep_unchecked else {}),
        }
        parameters |= engine_parameters(config.rewriter, config)
    inputs = {"captions": captions_key(config, captions), "manifest": manifest.fingerprint}
    spec = Spec("rewrite-negatives", parameters, inputs, config.seed, paths=named_paths(config))
    again = outdated(config.out, texts, normals)
    with Artifact(config.out, NEGATIVES, spec, list(texts), options, again=again) as artifact:
        rows = {key: texts[key] for key in artifact.pending}
        for key, (text, error) in list(rows.items()):
            if error or not text:
                artifact.write(_row(key, None, [], 0, error=f"no caption: {error or 'it is empty'}"), tried=False)
            elif len(text) > LONGEST:
                error = f"a caption of {len(text):,} characters; more than {LONGEST:,} are not rewritten"
                artifact.write(_row(key, None, [], 0, error=error, retry=False), tried=False)
            else:
                continue
            del rows[key]
        work = {key: (text, normals[key]) for key, (text, _) in rows.items()}
        for row in _by_model(work, engine, config) if engine else _by_rules(work, config.seed):
            artifact.write(row)
            artifact.ran_on = engine.ran_on if engine else "cpu"
    return artifact.summary


def captions_key(config: NegativesConfig, captions: pa.Table) -> str:
    """What the key of the rewrites holds of the captions: how they were made, so that one that failed and is there by
    now leaves the rewrites of the others as they are; what they say, where adcli did not make them, or where the
    rewrites are of an earlier adcli, which had it so."""
    said = fingerprint(captions, CAPTIONS)
    try:
        found = find_record(config.out)
    except InputError:  # `Artifact` says so
        found = None
    earlier = found is not None and found[0]["inputs"].get("captions") == said
    return said if earlier else made_key(config.captions) or said


def outdated(out: Path, texts: dict, normals: dict) -> frozenset:
    """Keys of rewrites that are there and no longer hold: the caption was made again and says something else, or the
    contradiction is what the caption of another image says by now. texts, normals: of `reference_captions`."""
    try:
        rows = read_table(out, NEGATIVES, partial=True).to_pylist()
    except InputError:  # nothing there, or what `Artifact` refuses
        return frozenset()
    by_key = {(r["image_id"], r["sample"]): r for r in rows if not r["error"]}
    return frozenset(
        key
        for key, row in by_key.items()
        if key in texts and (row["text"] != texts[key][0] or (row["edits"] and not _holds(row, normals[key])))
    )


def _holds(row: dict, normals: frozenset) -> bool:
    try:
        return bool(check_negative(row["text"], row["negative"], normals))
    except Rejected:
        return False


def reference_captions(captions: list[dict], images: tuple, path: Path) -> tuple[dict, dict]:
    """Captions of the reference images: {(image_id, sample): (text, error)} and, by the same key, the set
    of all normal captions of the task. Of several prompts per image the first in name order counts.

    Raises:
        InputError: the captions belong to other images than the manifest's.
    """
    by_image: dict[str, dict[int, dict]] = {}
    for row in captions:
        by_image.setdefault(row["image_id"], {}).setdefault(row["sample"], row)
    texts, normals = {}, {}
    for task_images in by_task(images).values():
        reference = [i.image_id for i in reference_images(task_images)]
        keys = [(i, s) for i in reference for s in by_image.get(i, {})]
        task_normals = frozenset(t for i, s in keys if (t := by_image[i][s]["text"]) and len(t) <= LONGEST)
        for i, s in keys:
            texts[i, s] = (by_image[i][s]["text"], by_image[i][s]["error"])
            normals[i, s] = task_normals
    if not texts:
        raise InputError(
            f"{path}: no caption of a normal training image of this manifest; these captions"
            " seem to belong to other images"
        )
    return texts, normals


def _by_rules(work: dict, seed: int) -> Iterator[dict]:
    for key, (text, normals) in work.items():
        try:
            negative, edits, attempts = rules.rewrite(text, normals, row_seed(seed, *key))
            yield _row(key, text, edits, attempts, negative)
        except Rejected as e:
            yield _row(key, text, [], rules.TRIES, error=str(e), retry=False)


def _by_model(work: dict, engine: Engine, config: NegativesConfig) -> Iterator[dict]:
    """Ask for all rows, check, ask again with a new seed for those that were rejected. A row is final when each of its
    ATTEMPTS was rejected for what it said; one that got no answer some time may pass when it is asked again."""
    prompt = load_prompt(config.prompt)
    sampling = Sampling(config.temperature, config.top_p, config.max_tokens)
    open_rows, faults = dict(work), set()
    for attempt in range(1, ATTEMPTS + 1):
        asked = [
            Request(key, fill(prompt, text=text), (), row_seed(config.seed, *key, attempt))
            for key, (text, _) in open_rows.items()
        ]
        for reply in engine.run(asked, sampling) if asked else ():
            text, normals = open_rows[reply.key]
            negative = mended(text, clean_text(reply.text or ""))
            try:
                if reply.error:
                    faults |= {reply.key} if reply.retry is None else set()
                    raise Rejected(reply.error)
                edits = _checked(text, negative, normals, config.keep_unchecked)
                row = _row(reply.key, text, edits, attempt, negative)
            except Rejected as e:
                if attempt < ATTEMPTS:
                    continue
                row = _row(
                    reply.key,
                    text,
                    [],
                    attempt,
                    error=f"{e} (last of {attempt} rewrites)",
                    retry=None if reply.key in faults else False,
                )
            del open_rows[reply.key]
            yield row


def _checked(text: str, negative: str, normals: frozenset, keep: bool) -> list:
    """The edits; with `keep` none where a constraint is broken, and only an empty answer is rejected."""
    try:
        return check_negative(text, negative, normals)
    except Rejected:
        if keep and negative:
            return []
        raise


def _row(
    key: tuple,
    text: str | None,
    edits: list,
    attempts: int,
    negative: str | None = None,
    error: str | None = None,
    retry: bool | None = None,
) -> dict:
    return {
        "image_id": key[0],
        "sample": key[1],
        "text": text,
        "negative": negative,
        "edits": edits,
        "attempts": attempts,
        "error": error,
        "retry": retry,
    }
