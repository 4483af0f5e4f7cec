"""SAGE's two stages on a tiny random model, through the pipeline's own stages: do they learn what they are shown?

    python -m benchmarks.sage_check IMAGES runs/sage-check [SEED]

IMAGES: the magnetic-tile data set. 60 questions with four ranked answers about 60 normal tiles, every other one with a
blowhole painted on it, and 60 about others; facts from the scene captioner, judgements by words. Printed: SFE's loss;
for the questions about the other tiles the margin log p(winner) - log p(loser) of the SFE model, over the pairs that
Eq. 5 makes of them, and how much E-DPO adds to it; the control is E-DPO on the same answers with their ranks shuffled.
The model is random and minutes old: the figures say that the training works, nothing of SAGE's quality.
"""

import csv
import random
import statistics
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pipelines.controls.shuffled_ranks import main as shuffle_ranks
from pipelines.demo_models.random_vlm import tiny_internvl
from stages.artifacts.reader import read_table
from stages.artifacts.tables import JUDGEMENTS, MANIFEST, QUESTIONS
from stages.base.config import RunOptions
from stages.captions.caption import CaptionConfig
from stages.captions.caption import run as caption
from stages.datasets.images import load_rgb
from stages.datasets.magnetic_tile import MagneticTileConfig
from stages.datasets.magnetic_tile import run as index
from stages.datasets.manifest import read_manifest
from stages.questions.judge import JudgeConfig
from stages.questions.judge import run as judge
from stages.questions.make import QuestionsConfig
from stages.questions.make import run as make
from stages.questions.table import read_questions
from stages.sage.config import EdpoConfig, SfeConfig
from stages.sage.edpo import preference_pairs
from stages.sage.edpo import run as edpo
from stages.sage.sfe import run as sfe

QUIET = RunOptions(quiet=True, overwrite=True)
RATE = {"learning_rate": 2e-3, "batch_size": 8, "micro_batch": 4, "warmup": 5, "device": "cpu", "precision": "fp32"}


def painted(manifest: Path, out: Path, seed: int) -> dict[str, Path]:
    """Manifests of 60 images to learn from and 60 others: normal tiles, every other one with a dark blowhole painted
    on it, large enough for a random vision tower; and ten normal training images."""
    images = [i for i in read_manifest(manifest).images if i.label == 0]
    random.Random(seed).shuffle(images)
    tests, references = ([i for i in images if i.split == split] for split in ("test", "train"))
    rng, found = np.random.default_rng(seed), {}
    for name, part in (("learned", tests[:60]), ("held-out", tests[60:120])):
        rows = []
        for n, image in enumerate([*part, *references[:10]]):
            pixels, at = load_rgb(image.file)[:, :, 0].copy(), f"{name}-{n:02d}"
            holed = n < len(part) and n % 2
            row = {
                "image_id": at,
                "path": f"{at}.png",
                "dataset": "painted",
                "category": "tile",
                "label": int(holed),
                "split": image.split,
                "width": pixels.shape[1],
                "height": pixels.shape[0],
                "mask_paths": [],
            }
            if holed:
                side = min(pixels.shape) // 3
                y, x = (int(rng.integers(0, size - side)) for size in pixels.shape)
                mask = np.zeros_like(pixels)
                mask[y : y + side, x : x + side] = 255
                pixels[mask > 0] //= 8
                Image.fromarray(mask).save(out / f"{at}-mask.png")
                row |= {"defect": "blowhole", "mask_paths": [f"{at}-mask.png"]}
            Image.fromarray(pixels).save(out / f"{at}.png")
            rows.append(row)
        found[name] = out / f"{name}.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema=MANIFEST.schema), found[name])
    return found


def one_each(questions: Path, out: Path) -> Path:
    """One of the five questions about each image, in turn."""
    rows = read_table(questions, QUESTIONS).to_pylist()
    images = sorted({r["image_id"] for r in rows})
    kept = [[r for r in rows if r["image_id"] == image][n % 5] for n, image in enumerate(images)]
    pq.write_table(pa.Table.from_pylist(kept, schema=QUESTIONS.schema), out)
    return out


def margins(checkpoint: Path, questions: Path, judgements: Path, manifest: Path, facts: Path) -> list[float]:
    """log p(winner) - log p(loser) of every pair that E-DPO would make of the questions, nats."""
    from stages.sage.checkpoint import load_sage
    from stages.sage.data import QuestionSet
    from stages.sage.score import Answering

    asked = read_questions(questions)
    loaded = load_sage(checkpoint)
    model = Answering(loaded, "cpu", 1)
    about = QuestionSet(asked, read_manifest(manifest, manifest.parent), facts, loaded.settings)
    found = []
    judged = read_table(judgements, JUDGEMENTS).to_pylist()
    for n, winner, loser, _ in preference_pairs(asked.rows, judged, 1, judgements):
        sums, _ = model.log_probabilities([about.sample(asked.rows[n])], [[winner], [loser]])
        found.append(float(sums[0] - sums[1]))
    return found


def main(root: Path, out: Path, seed: int) -> None:
    """Run everything below `out` and print the figures."""
    out.mkdir(parents=True, exist_ok=True)
    index(MagneticTileConfig(root=root, out=out / "manifest.parquet"), QUIET)
    images, made = painted(out / "manifest.parquet", out, seed), {}
    for name, manifest in images.items():
        made[name] = {n: out / f"{name}-{n}.parquet" for n in ("questions", "facts", "judgements")}
        make(QuestionsConfig(manifest=manifest, out=out / f"{name}-all.parquet", root=out), QUIET)
        one_each(out / f"{name}-all.parquet", made[name]["questions"])
        caption(CaptionConfig(manifest=manifest, out=made[name]["facts"], root=out), QUIET)
        judge(
            JudgeConfig(manifest=manifest, questions=made[name]["questions"], out=made[name]["judgements"], root=out),
            QUIET,
        )
    learned, other = made["learned"], made["held-out"]
    base = tiny_internvl(out / "internvl", width=128)
    given = {"manifest": images["learned"], "facts": learned["facts"], "root": out}
    sfe(
        SfeConfig(
            **given,
            questions=learned["questions"],
            base=str(base),
            out=out / "sfe",
            epochs=24.0,
            heads=4,
            lora_rank=0,
            **RATE,
        ),
        QUIET,
    )
    curve = [float(r["loss"]) for r in csv.DictReader((out / "sfe" / "_checkpoint" / "losses.csv").open())]
    print(
        f"SFE: {len(read_questions(learned['questions']).rows)} questions, {len(curve)} steps, loss {curve[0]:.2f} ->"
        f" {statistics.mean(curve[-5:]):.2f} nats a token"
    )
    runs = {"SFE": out / "sfe"}
    shuffle_ranks(learned["questions"], out / "shuffled.parquet")
    for name, questions in (("E-DPO", learned["questions"]), ("E-DPO, ranks shuffled", out / "shuffled.parquet")):
        runs[name] = out / name.lower().replace(", ", "-").replace(" ", "-")
        edpo(
            EdpoConfig(
                **given,
                questions=questions,
                judgements=learned["judgements"],
                checkpoint=out / "sfe",
                out=runs[name],
                epochs=2.0,
                **RATE | {"learning_rate": 5e-4},
            ),
            QUIET,
        )
    found = {
        n: margins(c, other["questions"], other["judgements"], images["held-out"], other["facts"])
        for n, c in runs.items()
    }
    print(f"{len(found['SFE'])} pairs of {len(read_questions(other['questions']).rows)} questions about other images:")
    for name, values in found.items():
        grown = [v - before for v, before in zip(values, found["SFE"], strict=True)]
        error = statistics.stdev(grown) / len(grown) ** 0.5
        print(
            f"  {name}: mean margin {statistics.mean(values):.2f} nats, {statistics.mean(grown):+.2f} on the SFE"
            f" model's (standard error {error:.2f}), larger in {sum(g > 0 for g in grown)} of {len(grown)}"
        )


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
