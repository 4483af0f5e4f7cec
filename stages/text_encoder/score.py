"""Distance of a caption to its nearest normal captions (VID-AD, section 4.4, Eq. 6-9)."""

import time
from collections.abc import Iterator
from pathlib import Path, PurePath

import numpy as np
from sklearn.neighbors import NearestNeighbors

from stages.artifacts.reader import fingerprint, read_provenance, read_table
from stages.artifacts.record import MEND
from stages.artifacts.tables import CAPTIONS, ENCODERS, SCORES
from stages.artifacts.writer import Artifact, Spec, Summary
from stages.base.config import RunOptions, named_paths
from stages.base.errors import InputError
from stages.captions.wording import differing_words
from stages.datasets.manifest import Image, Task, by_task, read_manifest, reference_images
from stages.text_encoder.config import ScoreTextKnnConfig, check_encoder
from stages.text_encoder.model import encode, load_encoder
from stages.training.saved_models import check_model
from stages.training.torch_setup import pick_device
from stages.training.trained import require_weights
from stages.training.weights import checkpoint_fingerprint

BLOCK = 1024  # queries that are compared at once
ROUNDING = 1e-6  # what scikit-learn's distances of unit vectors, from their dot products, can be wrong by, and more


def run(config: ScoreTextKnnConfig, options: RunOptions) -> Summary:
    """Score every image of the manifest, training images against the other ones (leave one out), which
    is what thresholds are taken from. An image without caption, or a task without encoder or reference,
    gives rows with `error`.

    Raises:
        InputError: k < 1, no such device, captions of other images than the manifest's, or an encoder that is not
            where the table says, or not the one that train-encoder wrote.
    """
    config.check()
    device = pick_device(config.device)
    manifest = read_manifest(config.manifest)
    captions = read_table(config.captions, CAPTIONS)
    encoders = read_table(config.encoders, ENCODERS)
    texts = first_captions(captions.to_pylist())
    if not any(i.image_id in texts for i in manifest.images):
        raise InputError(
            f"{config.captions}: no caption of any image of {config.manifest}; these belong to other images"
        )
    checkpoints = _checkpoints(encoders.to_pylist(), config.encoders)
    weights = {tuple(r[k] for k in ENCODERS.key): r for r in encoders.to_pylist() if r["path"]}
    inputs = {
        "manifest": manifest.fingerprint,
        "captions": fingerprint(captions, CAPTIONS),
        "encoders": fingerprint(encoders, ENCODERS),
        "training": _training_key(config.encoders, checkpoints),
    }
    spec = Spec("score", {"method": config.name, "k": config.k}, inputs, paths=named_paths(config))
    keys = [(image.image_id, config.name) for image in manifest.images]
    with Artifact(config.out, SCORES, spec, keys, options) as artifact:
        pending = {image_id for image_id, _ in artifact.pending}
        for task in {image.task for image in manifest.images if image.image_id in pending} & weights.keys():
            require_weights(checkpoints[task], weights[task])
        for task, images in by_task(manifest.images).items():
            wanted = [i for i in images if i.image_id in pending]
            if wanted:
                artifact.ran_on = device
                for row in score_task(task, images, wanted, texts, checkpoints, config.k, device):
                    artifact.write(row | {"method": config.name}, tried=False)  # what fails here failed before
    return artifact.summary


def first_captions(rows: list[dict]) -> dict[str, dict]:
    """image_id -> its first caption row (by prompt and sample)."""
    by_image: dict[str, dict] = {}
    for row in rows:
        by_image.setdefault(row["image_id"], row)
    return by_image


def _checkpoints(rows: list[dict], path: Path) -> dict[Task, Path | str]:
    """Task -> checkpoint directory, or why there is none.

    Raises:
        InputError: a directory that holds no encoder, or one outside the artifact, which `train-encoder` never
            writes. Other tools' tables may name any place: it is only read.
    """
    homes = {}
    for record in read_provenance(path):
        for row in read_table(Path(record["artifact"]), ENCODERS).to_pylist():
            homes[tuple(row[k] for k in ENCODERS.key)] = Path(record["artifact"])
    checkpoints: dict[Task, Path | str] = {}
    for row in rows:
        task = tuple(row[k] for k in ENCODERS.key)
        if not row["path"]:
            checkpoints[task] = f"no encoder: {row['error']}"
            continue
        inside = PurePath(row["path"])
        if task in homes and (inside.is_absolute() or ".." in inside.parts):
            raise InputError(
                f"{homes[task]}: column `path` holds {row['path']}, a place outside the artifact, which"
                " train-encoder does not write; run it again, or give an encoders table that you trust"
                " without _adcli.json"
            )
        place = homes.get(task, path if path.is_dir() else path.parent) / inside
        if not place.is_dir():
            mend = f"; {MEND}" if task in homes else ""
            raise InputError(f"--encoders {path}: no such directory: {place}{mend}")
        try:
            check_model(str(place), "--encoders")
        except InputError as e:
            raise (InputError(f"{e}; {MEND}") if task in homes else e) from None
        check_encoder(str(place), "--encoders")
        checkpoints[task] = place
    return checkpoints


def _training_key(path: Path, checkpoints: dict[Task, Path | str]) -> str:
    """Cache keys of the training runs, since two encoders with equal losses may still differ; of encoders
    made by other tools the weights themselves."""
    return ",".join(record["key"] for record in read_provenance(path)) or ",".join(
        checkpoint_fingerprint(str(c)) for c in checkpoints.values() if isinstance(c, Path)
    )


def score_task(
    task: Task,
    images: list[Image],
    wanted: list[Image],
    texts: dict[str, dict],
    checkpoints: dict[Task, Path | str],
    k: int,
    device: str,
) -> Iterator[dict]:
    """Rows of one task, in order, without the method's name."""
    reference = [i.image_id for i in reference_images(images) if _text(texts, i)]
    place = checkpoints.get(task, "no encoder for this task: run train-encoder on this manifest")
    reason = place if isinstance(place, str) else None if reference else "no normal caption to compare with"
    scored = [i for i in wanted if _text(texts, i)] if not reason else []
    started = time.monotonic()
    result = {}
    if scored:
        model, tokenizer = load_encoder(str(place))
        ids = sorted({*reference, *(i.image_id for i in scored)})
        embedded = encode(model.to(device), tokenizer, [texts[i]["text"] for i in ids])
        z = dict(zip(ids, embedded, strict=True))
        result = knn(z, [i.image_id for i in scored], reference, k)
    seconds = (time.monotonic() - started) / max(len(scored), 1)
    for image in wanted:
        row = {"image_id": image.image_id, "seconds": seconds}
        caption = texts.get(image.image_id)
        failed = reason or (caption or {}).get("error") or (None if caption else "no caption")
        near = result.get(image.image_id)
        if failed or not near:
            yield row | {"error": failed or "no other normal caption to compare with", "retry": False}
            continue
        yield row | {
            "score": anomaly_score([d for _, d in near]),
            "response": caption["text"],
            "neighbours": [_neighbour(caption["text"], i, d, texts[i]["text"]) for i, d in near],
        }


def _text(texts: dict[str, dict], image: Image) -> str | None:
    return texts[image.image_id]["text"] if image.image_id in texts else None


def _neighbour(text: str, image_id: str, distance: float, other: str) -> dict:
    missing, extra = differing_words(text, other)
    return {"image_id": image_id, "distance": distance, "text": other, "missing": missing, "extra": extra}


def anomaly_score(distances: list[float]) -> float:
    """Eq. 8: the mean distance d to the k nearest normal captions, higher = more anomalous. The paper's S = 1 / (1 + d)
    (Eq. 9) is the same order reversed, a normality score."""
    return float(np.mean(distances))  # Eq. 8


def knn(
    z: dict[str, np.ndarray], queries: list[str], reference: list[str], k: int
) -> dict[str, list[tuple[str, float]]]:
    """For each query the k nearest reference images (id, Euclidean distance), nearest first.

    z: id -> (C,) L2-normalised. A query never counts as its own neighbour, but another image with the same caption
    does. Equal distances are ordered by id; fewer than k references give fewer neighbours.

    Equal vectors are searched once. scikit-learn finds the candidates; their distances are computed again from the
    differences, since those from dot products are wrong by 1e-8 for equal texts and depend on the block.
    """
    reference = sorted(reference)
    vectors, kinds = np.unique(np.stack([z[i] for i in reference]).astype(np.float64), axis=0, return_inverse=True)
    images: list[list[str]] = [[] for _ in vectors]  # those of each vector, as many as can count beside the query
    for image_id, kind in zip(reference, kinds.ravel(), strict=True):
        if len(images[kind]) <= k:
            images[kind].append(image_id)
    search = NearestNeighbors(algorithm="brute").fit(vectors)
    nearest = {}
    for start in range(0, len(queries), BLOCK):
        block = np.stack([z[i] for i in queries[start : start + BLOCK]]).astype(np.float64)
        for query, point, near in zip(queries[start : start + BLOCK], block, _near(search, block, k + 1), strict=True):
            distances = np.linalg.norm(vectors[near] - point, axis=1)  # Eq. 6
            ranked = sorted(
                (float(d), i) for d, kind in zip(distances, near, strict=True) for i in images[kind] if i != query
            )
            nearest[query] = [(i, d) for d, i in ranked[:k]]  # Eq. 7
    return nearest


def _near(search: NearestNeighbors, points: np.ndarray, n: int) -> list[np.ndarray]:
    """For each point the indices of the n nearest vectors and of all others that rounding may have put behind them."""
    total = search.n_samples_fit_
    n = min(n, total)
    near: list[np.ndarray] = [np.empty(0, int)] * len(points)
    left, asked = np.arange(len(points)), min(n + 1, total)
    while len(left):
        distances, indices = search.kneighbors(points[left], asked)
        sure = (distances[:, -1] > distances[:, n - 1] + ROUNDING) | (asked == total)
        for place, row in zip(left[sure], indices[sure], strict=True):
            near[place] = row
        left, asked = left[~sure], min(2 * asked, total)
    return near
