"""Tiny data for benchmarks.kills: ten drawn photographs of two tasks, and every table that a stage reads.

Made in a process of its own (`python -m benchmarks.kills_world DIR [trained]`): one that has trained a network has
threads that the processes forked from it lack, and there the next training would wait for ever.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.artifacts.tables import MANIFEST, QUESTIONS
from stages.base.config import RunOptions

QUIET = RunOptions(quiet=True, max_errors=0)


@dataclass(frozen=True)
class World:
    """root: of the images; keys: of a table of captions; the others are tables, and a tiny BERT."""

    root: Path
    keys: list[tuple]
    manifest: Path
    questions: Path
    captions: Path
    negatives: Path
    bert: Path
    encoders: Path
    scores: Path


def build(at: Path, trained: bool) -> World:
    """Make what is missing of it. trained: the BERT and the encoders, too."""
    subprocess.run([sys.executable, "-m", "benchmarks.kills_world", at, *(["trained"] if trained else [])], check=True)
    return world(at)


def world(at: Path) -> World:
    return World(
        at / "images",
        [(f"d/{i}", "p", 0) for i in range(40)],
        at / "manifest.parquet",
        at / "questions.parquet",
        at / "captions",
        at / "negatives",
        at / "bert",
        at / "encoders",
        at / "scores",
    )


def make(w: World, trained: bool) -> None:
    from stages.captions import caption, negatives
    from stages.lvlm import score as lvlm

    if not w.manifest.exists():
        _draw(w)
    caption.run(caption.CaptionConfig(manifest=w.manifest, out=w.captions, root=w.root, workers=1), QUIET)
    negatives.run(negatives.NegativesConfig(captions=w.captions, manifest=w.manifest, out=w.negatives), QUIET)
    lvlm.run(lvlm.LvlmConfig(manifest=w.manifest, out=w.scores, root=w.root, workers=1), QUIET)
    if not trained:
        return
    from benchmarks.tiny import tiny_bert
    from stages.text_encoder import train

    if not (w.bert / "model.safetensors").exists():
        w.bert.mkdir(exist_ok=True)
        tiny_bert(w.bert)
    train.run(
        train.TrainEncoderConfig(
            negatives=w.negatives, manifest=w.manifest, out=w.encoders, encoder=str(w.bert), epochs=1, device="cpu"
        ),
        QUIET,
    )


def _draw(w: World) -> None:
    """Sticks on a desk, two conditions; the last two of each are anomalous."""
    import cv2

    rows, questions = [], []
    for condition in ("white_bg", "blurry"):
        for n in range(5):
            name = f"sticks/{condition}/{n}.png"
            picture = np.clip(np.random.default_rng(n).normal(225, 4, (96, 96, 3)), 0, 255).astype(np.uint8)
            cv2.line(picture, (30, 30 + 5 * n), (70, 60), (40, 40, 200) if n > 2 else (200, 40, 40), 9, cv2.LINE_AA)
            (w.root / name).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(w.root / name), picture)
            rows.append(
                {
                    "image_id": f"vidad/{name}",
                    "path": name,
                    "dataset": "vidad",
                    "category": "sticks",
                    "condition": condition,
                    "split": "train" if n < 2 else "test",
                    "label": int(n > 2),
                    "mask_paths": [],
                }
            )
            questions.append(
                {
                    "question_id": name,
                    "image_id": f"vidad/{name}",
                    "level": "standard",
                    "question": "What?",
                    "choices": ["a red stick", "two sticks", "no stick"],
                    "answer": "a red stick",
                    "ranked": True,
                }
            )
    pq.write_table(pa.Table.from_pylist(questions, schema=QUESTIONS.schema), w.questions)
    pq.write_table(pa.Table.from_pylist(rows, schema=MANIFEST.schema), w.manifest)


if __name__ == "__main__":
    make(world(Path(sys.argv[1])), sys.argv[2:] == ["trained"])
