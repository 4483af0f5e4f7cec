"""Question files of other projects -> a table of questions about the images of a manifest."""

import hashlib
from collections import Counter
from pathlib import Path

from stages.artifacts.tables import QUESTIONS
from stages.artifacts.writer import Artifact, Spec, Summary
from stages.base.config import RunOptions, named_paths
from stages.base.errors import InputError
from stages.base.regular import regular
from stages.base.seeds import source_fingerprint, source_of
from stages.datasets.manifest import read_manifest
from stages.questions import ad_pl, conversations, drafts, manta, mmad, places, riad, table
from stages.questions.config import FORMATS, ImportConfig
from stages.questions.drafts import Draft, source_files
from stages.questions.places import places_of, resolve
from stages.questions.table import problem

READERS = dict(zip(FORMATS, (ad_pl, conversations, mmad, manta, riad), strict=True))
READING = (drafts, places, table)  # beside this module and the reader: what the rows depend on


def run(config: ImportConfig, options: RunOptions) -> Summary:
    """Import every question. One that cannot be used (an image that the manifest lacks, a field that is missing, one
    answer only) is a row with `error`.

    Raises:
        InputError: an unknown format, a source that is not of it or no JSON, or two questions with one id.
    """
    if config.format not in FORMATS:
        raise InputError(f"--format {config.format}: expected {', '.join(FORMATS)}")
    reader = READERS[config.format]
    manifest = read_manifest(config.manifest, config.root)
    files = source_files(config.source, reader.PATTERN)
    drafts = [draft for file in files for draft in reader.read(file, config.source)]
    if not drafts:
        raise InputError(f"{config.source}: holds no questions")
    if twice := [i for i, n in Counter(d.question_id for d in drafts).items() if n > 1]:
        raise InputError(f"{config.source}: two questions are called {twice[0]}")
    paths = [p for d in drafts if not d.error for p in (d.image, d.reference) if p is not None]
    image_ids, missing = resolve(paths, places_of(config.manifest, manifest))
    spec = Spec(
        "data import-questions",
        {
            "format": config.format,
            "code": source_fingerprint(*map(source_of, (reader, *READING)), Path(__file__)),
        },
        {"manifest": manifest.fingerprint, "source": _content(files)},
        paths=named_paths(config),
    )
    with Artifact(
        config.out, QUESTIONS, spec, [(d.question_id,) for d in drafts], options, flush_rows=100_000
    ) as artifact:
        artifact.write_all(_row(draft, image_ids, missing) for draft in drafts)
    return artifact.summary


def _row(draft: Draft, image_ids: dict[str, str], missing: dict[str, str]) -> dict:
    reference = draft.reference
    columns: dict[str, object] = {
        "question_id": draft.question_id,
        "image_id": image_ids.get(draft.image, draft.image),
        "group": draft.group,
        "level": draft.level,
        "choices": [],
    }
    error = draft.error or missing.get(draft.image) or (missing.get(reference) if reference else None)
    if error:
        return columns | {"error": error}
    columns |= {
        "reference_id": image_ids.get(reference) if reference else None,
        "question": draft.question,
        "choices": list(draft.choices),
        "answer": draft.answer,
        "ranked": draft.ranked,
    }
    if columns["reference_id"] == columns["image_id"]:
        return columns | {"error": f"{draft.image}: is both the test image and the reference image"}
    return columns | {"error": problem(columns)}


def _content(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(regular(file).read_bytes())
    return digest.hexdigest()[:32]
