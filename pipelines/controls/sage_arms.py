"""SAGE's arms beside each other on a tiny model: which preference training helps on held-out questions?

    python -m pipelines.controls.sage_arms TILES OUT [SEED] [IMAGES]

TILES: the magnetic-tile data set. IMAGES (60) images, half of them with defects, with five questions each to learn
from, as many others to answer about; facts by `scene`; a judge with fixed marks by rank, 5, 3.7, 2.3 and 1, so that no
judge's whims are measured. Arms: SFE; from it DPO (eta 0), E-DPO with -p log p and with surprisals, the latter also on
all adjacent pairs and on shuffled ranks; each with and without the anchor. Printed for the held-out questions: accuracy
by likelihood, pair accuracy, Kendall's tau, log-likelihood of the first over the last answer; what accuracy and margin
gained over SFE's with 95 % intervals (images resampled within their label); and where the patches of Eq. 1 lie. Also
written to OUT/arms.csv. The language model starts at random; the vision tower imitates an ImageNet network
(`distilled_vlm`), with TOWERS=random in the environment it starts at random, too: the control.
"""

import csv
import os
import random
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.controls.shuffled_ranks import main as shuffle_ranks
from pipelines.demo_models.random_vlm import tiny_internvl
from stages.artifacts.reader import read_table
from stages.artifacts.tables import ANSWERS, ENCODERS, JUDGEMENTS, QUESTIONS
from stages.base.config import RunOptions
from stages.captions.caption import CaptionConfig
from stages.captions.caption import run as caption
from stages.datasets.config import SurfacesConfig
from stages.datasets.magnetic_tile import MagneticTileConfig
from stages.datasets.magnetic_tile import run as index
from stages.datasets.manifest import read_manifest
from stages.datasets.synth.surfaces import run as surfaces
from stages.questions.config import QuestionsConfig
from stages.questions.make import run as make
from stages.results.metrics.qa import in_order
from stages.sage.config import EdpoConfig, ScoreSageConfig, SfeConfig

QUIET = RunOptions(quiet=True, overwrite=True)
MARKS = ((5, 5, 5), (4, 4, 3), (2, 2, 3), (1, 1, 1))  # means 5, 3.7, 2.3, 1
SMALL = {"batch_size": 8, "micro_batch": 8, "device": "cpu", "precision": "fp32"}
ANCHOR = 1.0
ARMS = {  # beside SFE; eight pairs a step, as many steps in all
    "DPO, eta 0": {"eta": 0.0},
    "E-DPO, -p log p": {"entropy": "term"},
    "E-DPO, surprisal": {"entropy": "surprisal"},
    "E-DPO, surprisal, adjacent": {"entropy": "surprisal", "pairs": "adjacent", "epochs": 1.0},
    "E-DPO, surprisal, shuffled": {"entropy": "surprisal"},
}
HEADS = (
    *("arm", "accuracy", "pair accuracy", "tau", "first over last, nats"),
    *("accuracy gained", "low", "high", "margin gained", "low", "high"),
)


def fixed_marks(questions: Path, out: Path) -> Path:
    """Judgements that give each choice the marks of its rank."""
    rows = [
        {"question_id": q["question_id"], "method": f"choice/{i}"}
        | dict(zip(("category", "location", "logic"), marks, strict=True))
        for q in read_table(questions, QUESTIONS).to_pylist()
        for i, marks in enumerate(MARKS[: len(q["choices"])])
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=JUDGEMENTS.schema), out)
    return out


def weighed(answers: Path) -> dict[str, tuple[float, float, float, float]]:
    """question_id -> (right, pair accuracy, tau, log-likelihood of the first minus the last answer)."""
    found = {}
    for r in read_table(answers, ANSWERS).to_pylist():
        if r["error"] is None:
            whole = np.log(r["likelihoods"]) * r["choice_tokens"]
            found[r["question_id"]] = (
                float(r["choice"] == 0),
                *in_order(r["likelihoods"]).values(),
                whole[0] - whole[-1],
            )
    return found


def gained(
    after: dict, before: dict, column: int, image: dict[str, str], label: dict[str, int]
) -> tuple[float, float, float]:
    """(mean, low, high) of what a column grew by, question by question. Whole images are resampled, normal and
    anomalous ones each among themselves: half of each were drawn, and an answer that is preferred whatever is shown
    gains on one half what it loses on the other."""
    of: dict[int, dict[str, list[float]]] = {}
    for i in sorted(after.keys() & before.keys()):
        own = of.setdefault(label[image[i]], {}).setdefault(image[i], [])
        own.append(after[i][column] - before[i][column])
    rng, sums, counts = np.random.default_rng(0), 0.0, 0
    for own in of.values():
        drawn = rng.integers(0, len(own), (2000, len(own)))
        sums = sums + np.array([sum(v) for v in own.values()])[drawn].sum(1)
        counts = counts + np.array([len(v) for v in own.values()])[drawn].sum(1)
    every = [v for own in of.values() for values in own.values() for v in values]
    return float(np.mean(every)), *map(float, np.percentile(sums / counts, (2.5, 97.5)))


def in_the_mask(checkpoint: Path, manifest: Path, k: int = 4, covered: float = 0.05) -> dict[str, tuple]:
    """rule -> (share of the K chosen patches that lie in the mask, which covers at least `covered` of each; share of
    such patches that were chosen; their share of all; K / T), over all anomalous test images, each one tile beside the
    first normal training image. By chance the first is the third, and the second the fourth."""
    import torch

    from stages.datasets.images import load_masks
    from stages.datasets.manifest import by_task
    from stages.datasets.references import references_for
    from stages.sage.checkpoint import load_sage
    from stages.sage.data import PLACE, PromptEncoder, SageSample
    from stages.sage.fusion import differing
    from stages.sage.model import core_of, patches

    loaded = load_sage(checkpoint)
    loaded.processor.image_processor.max_patches = 1
    encoder, core = PromptEncoder(loaded.processor, replace(loaded.settings, tiles=1)), core_of(loaded.model)
    images = read_manifest(manifest).images
    tasks, rng, counts = by_task(images), random.Random(0), {}
    for image in (i for i in images if i.label == 1 and i.split == "test" and i.masks):
        (reference,) = references_for(image, tasks[image.task], 1, "first", 0)
        with torch.no_grad():
            batch = encoder.batch([SageSample("", (image,), reference, ("A tile.",), PLACE)])
            (test,) = patches(core, batch["pixel_values"], batch["image_tokens"])
            (other,) = patches(core, batch["reference_pixel_values"], batch["reference_tokens"])
        side = round(len(test) ** 0.5)
        mask = torch.tensor(load_masks(image.masks)).float()[None, None]
        inside = torch.nn.functional.adaptive_avg_pool2d(mask, side).flatten() >= covered
        rows = {tuple(t.tolist()): n for n, t in enumerate(test)}
        chosen = {r: [rows[tuple(t.tolist())] for t in differing(test, other, k, r)] for r in ("max", "min")}
        chosen["random"] = rng.sample(range(len(test)), k)
        for rule, places in chosen.items():
            more = (int(inside[places].sum()), k, int(inside.sum()), len(test))
            counts[rule] = [a + b for a, b in zip(counts.get(rule, (0, 0, 0, 0)), more, strict=True)]
    return {rule: (h / p, h / max(w, 1), w / t, p / t) for rule, (h, p, w, t) in counts.items()}


def main(tiles: Path, out: Path, seed: int = 0, images: int = 60) -> None:
    """Run everything below `out`, print the tables and write arms.csv."""
    from pipelines.demo_models.distilled_vlm import main as distil
    from stages.sage.edpo import run as edpo
    from stages.sage.score import run as score
    from stages.sage.sfe import run as sfe

    out.mkdir(parents=True, exist_ok=True)
    manifest, facts, made = out / "manifest.parquet", out / "facts", {}
    index(MagneticTileConfig(root=tiles, out=manifest, train_defects=0.5, train_fraction=0.2), QUIET)
    for split in ("train", "test"):
        made[split] = out / f"{split}.parquet"
        make(QuestionsConfig(manifest=manifest, out=made[split], splits=split, max_images=images, seed=seed), QUIET)
        described = {"questions": made[split], "out": facts / split, "prompt": "general"}
        caption(CaptionConfig(manifest=manifest, vlm="scene", **described), QUIET)
    marks, shuffled = fixed_marks(made["train"], out / "marks.parquet"), out / "shuffled.parquet"
    shuffle_ranks(made["train"], shuffled, seed)
    base = out / "base"
    if os.environ.get("TOWERS") == "random":
        tiny_internvl(base, seed=seed)
    else:
        surfaces(SurfacesConfig(out=out / "surfaces", good=80, new=120), QUIET)
        distil(manifest, base, out / "surfaces", seed)
    same = {"manifest": manifest, "facts": facts, "seed": seed, **SMALL}
    rate = {"lora_rank": 0, "learning_rate": 3e-3, "epochs": 3.0}
    sfe(SfeConfig(**same, **rate, questions=made["train"], base=str(base), out=out / "sfe", heads=4, patches=4), QUIET)
    (trained,) = read_table(out / "sfe", ENCODERS).to_pylist()
    print("SFE's loss, nats a token: {first_loss:.2f} to {last_loss:.2f} in {steps} steps".format(**trained))
    image = {q["question_id"]: q["image_id"] for q in read_table(made["test"], QUESTIONS).to_pylist()}
    label = {i.image_id: i.label for i in read_manifest(manifest).images}
    arms = [("SFE", None)] + [
        (f"{name}{', anchor' if anchor else ''}", more | {"sft_weight": anchor})
        for name, more in ARMS.items()
        for anchor in (0.0, ANCHOR)
    ]
    found, lines = {}, []
    for name, more in arms:
        model = out / "".join(c if c.isalnum() else "-" for c in name).lower()
        if more is not None:
            learned = shuffled if "shuffled" in name else made["train"]
            options = {"learning_rate": 5e-4, "epochs": 2.0} | more
            edpo(
                EdpoConfig(**same, **options, questions=learned, judgements=marks, checkpoint=out / "sfe", out=model),
                QUIET,
            )
        answers = out / f"{model.name}-answers.parquet"
        asked = {
            "questions": made["test"],
            "facts": facts,
            "choose": "likelihood",
            "device": "cpu",
            "precision": "fp32",
        }
        score(ScoreSageConfig(manifest=manifest, checkpoint=model, out=answers, name=name, **asked), QUIET)
        found[name] = weighed(answers)
        means = np.mean(list(found[name].values()), axis=0)
        grown = [v for column in (0, 3) for v in gained(found[name], found["SFE"], column, image, label)]
        lines.append((name, *(f"{v:.3f}" for v in (*means, *grown))))
        print(" | ".join(lines[-1]), flush=True)
    with (out / "arms.csv").open("w", newline="") as f:
        csv.writer(f).writerows([HEADS, *lines])
    print("Eq. 1: rule | chosen patches in the mask | the mask's patches chosen | the mask's share | K / T")
    for rule, shares in in_the_mask(out / "sfe", manifest).items():
        print(" | ".join((rule, *(f"{v:.3f}" for v in shares))), flush=True)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4, 5):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
