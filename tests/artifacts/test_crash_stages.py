"""Whole stages, killed before some of their file operations (before every one where ADCLI_EVERY_POINT is set: minutes).
The writer itself, at every point, is in test_crash.py."""

from dataclasses import replace

import numpy as np
import pytest

from stages.artifacts.reader import read_table
from stages.artifacts.tables import (
    ANSWERS,
    CAPTIONS,
    ENCODERS,
    JUDGEMENTS,
    MANIFEST,
    MAPS,
    METRICS,
    NEGATIVES,
    SCORES,
    THRESHOLDS,
)
from stages.base.config import RunOptions
from tests.crash_points import killed_at_every_point
from tests.qa import cables, write, write_manifest

pytestmark = pytest.mark.slow

QUIET = RunOptions(quiet=True, max_errors=0)


def rows(path, table):
    """Without what differs from run to run."""
    return read_table(path, table).drop_columns(list(table.volatile)).to_pylist()


@pytest.fixture
def photos(tmp_path, save_image):
    """Manifest of six photographs of a desk and a stick on it; two are training images."""
    from tests.vlm.test_scene import desk, stick

    names = [f"sticks/white_bg/{split}/{n}" for split in ("train", "test") for n in range(2 + (split == "test"))]
    manifest = write_manifest(
        tmp_path,
        save_image,
        [(f"vidad/{name}", "sticks", name.split("/")[2], int(name.endswith("2"))) for name in names],
    )
    for n, name in enumerate(names):
        picture = desk(120)
        stick(picture, 60, 60, 60, (40, 40, 200) if n % 2 else (200, 40, 40), 0.3 * n)
        save_image(tmp_path / f"vidad/{name}.png", picture)
    return manifest


def captioned(photos, out):
    from stages.captions.caption import CaptionConfig, run

    return run(CaptionConfig(manifest=photos, out=out, root=photos.parent, workers=1, prompt="vidad/sticks"), QUIET)


def rewritten(photos, captions, out):
    from stages.captions.negatives import NegativesConfig, run

    return run(NegativesConfig(captions=captions, manifest=photos, out=out), QUIET)


def test_caption(photos, tmp_path):
    captioned(photos, tmp_path / "warm")
    points = killed_at_every_point(
        lambda f: captioned(photos, f / "c"), lambda f: rows(f / "c", CAPTIONS), tmp_path / "k", step=3
    )
    assert points > 3


def test_rewrite_negatives(photos, tmp_path):
    captioned(photos, tmp_path / "c")
    rewritten(photos, tmp_path / "c", tmp_path / "warm")
    points = killed_at_every_point(
        lambda f: rewritten(photos, tmp_path / "c", f / "n"), lambda f: rows(f / "n", NEGATIVES), tmp_path / "k", step=3
    )
    assert points > 3


def test_score_text_knn(photos, bert, tmp_path):
    from stages.text_encoder.config import ScoreTextKnnConfig
    from stages.text_encoder.score import run

    captioned(photos, tmp_path / "c")
    trained = [
        {
            "dataset": "vidad",
            "category": "sticks",
            "condition": None,
            "path": str(bert),
            "n": 2,
            "steps": 1,
            "first_loss": 1.0,
            "last_loss": 1.0,
            "seconds": 0.0,
        }
    ]
    encoders = write(tmp_path / "e.parquet", ENCODERS, trained)

    def scored(folder):
        return run(
            ScoreTextKnnConfig(
                manifest=photos, captions=tmp_path / "c", encoders=encoders, out=folder / "s", device="cpu"
            ),
            QUIET,
        )

    scored(tmp_path)
    points = killed_at_every_point(scored, lambda f: rows(f / "s", SCORES), tmp_path / "k", step=5)
    assert points > 1


def test_evaluate(two_categories, tmp_path):
    """Metrics, thresholds, tables, pictures of maps, and the page."""
    from stages.evaluate.images import run

    config, _ = two_categories

    def evaluated(folder):
        run(
            replace(
                config,
                out=folder / "m",
                tables=folder / "t",
                report=folder / "r.html",
                resamples=10,
                thresholds=folder / "th",
                heatmaps=folder / "h",
            ),
            QUIET,
        )

    def read(folder):
        return rows(folder / "m", METRICS), rows(folder / "th", THRESHOLDS)

    evaluated(tmp_path / "warm")
    points = killed_at_every_point(evaluated, read, tmp_path / "k", step=37)
    assert points > 2


def test_data_index(photos, tmp_path):
    from stages.datasets.folder import FolderConfig, run

    def indexed(folder):
        run(FolderConfig(root=photos.parent / "vidad", out=folder / "m"), QUIET)

    indexed(tmp_path / "warm")
    assert killed_at_every_point(indexed, lambda f: rows(f / "m", MANIFEST), tmp_path / "k", step=3) > 3


def test_data_augment(photos, tmp_path):
    from stages.datasets.augment import AugmentConfig, run

    def augmented(folder):
        run(
            AugmentConfig(
                manifest=photos, kind="rotate90", out=folder / "m", images=folder / "i", root=photos.parent, workers=1
            ),
            QUIET,
        )

    def read(folder):  # paths differ with the folder
        return [
            {k: v for k, v in r.items() if k in ("image_id", "width", "error")} for r in rows(folder / "m", MANIFEST)
        ], [p.name for p in sorted((folder / "i").rglob("*.png"))]

    augmented(tmp_path / "warm")
    assert killed_at_every_point(augmented, read, tmp_path / "k", step=7) > 3


def test_score_mle(tmp_path, save_image):
    from stages.questions.judge import JudgeConfig, run

    paths = cables(tmp_path, save_image)

    def judged(folder):
        run(JudgeConfig(**paths, out=folder / "j", root=tmp_path), QUIET)

    judged(tmp_path / "warm")
    assert killed_at_every_point(judged, lambda f: rows(f / "j", JUDGEMENTS), tmp_path / "k", step=3) > 3


def test_score_vlm_qa(tmp_path, save_image):
    """A server answers, as an engine of its own process would."""
    from stages.questions.vlm_qa import VlmQaConfig, run
    from tests.vlm.test_server_engine import Faulty

    server = Faulty(lambda text: None)
    server.say = lambda body, text: "B. Because of the red end."
    config = VlmQaConfig(
        **cables(tmp_path, save_image),
        out=tmp_path,
        root=tmp_path,
        vlm="tiny",
        engine="server",
        retries=0,
        concurrency=2,
        base_url=server.url,
    )

    def answered(folder):
        run(replace(config, out=folder / "a"), QUIET)

    answered(tmp_path / "warm")
    assert killed_at_every_point(answered, lambda f: rows(f / "a", ANSWERS), tmp_path / "k", step=5) > 1


def test_maps_and_scores(photos, tmp_path):
    """Two artifacts that one pass writes."""
    from stages.artifacts.scores_and_maps import scores_and_maps

    keys = [(f"i{n}", "m") for n in range(5)]

    def both(folder):
        scores_and_maps(
            folder / "s",
            folder / "s-maps",
            {},
            {},
            keys,
            QUIET,
            2,
            lambda todo, scores: ((k, {"score": 1.0}, np.ones((2, 3), np.float16)) for k in todo),
        )

    both(tmp_path / "warm")
    points = killed_at_every_point(
        both, lambda f: (rows(f / "s", SCORES), rows(f / "s-maps", MAPS)), tmp_path / "k", step=5
    )
    assert points > 3
