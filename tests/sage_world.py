"""A small world for SAGE: grey tiles, some with a dark hole, questions with ranked answers, facts, judgements; and
what its tests have in common."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.artifacts.tables import CAPTIONS, JUDGEMENTS, MANIFEST, QUESTIONS, Table
from stages.base.config import RunOptions
from stages.datasets.manifest import read_manifest
from stages.questions.table import read_questions
from stages.sage.config import EdpoConfig, SfeConfig

HOLED = ("Yes, a dark hole is in the tile.", "Yes, the tile is not whole.", "Perhaps it is dirty.", "No, it is fine.")
WHOLE = ("No, the tile is whole.", "No, it looks fine.", "Perhaps it is dirty.", "Yes, a dark hole is in the tile.")
QUIET = RunOptions(quiet=True)
FAST = {
    "batch_size": 4,
    "micro_batch": 2,
    "learning_rate": 1e-3,
    "warmup": 2.0,
    "schedule": "linear",
    "weight_decay": 0.0,
    "device": "cpu",
    "precision": "fp32",
}
SCORES = ((5, 5, 5), (4, 4, 3), (2, 2, 3), (1, 1, 1))


@dataclass(frozen=True)
class World:
    manifest: Path
    questions: Path
    facts: Path
    judgements: Path


def write(path: Path, rows: list[dict], table: Table) -> Path:
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    return path


def build(folder: Path, n: int, seed: int = 0, side: int = 56) -> World:
    """n questions about n images, every other one with a hole, and one whole reference image."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    images, questions, facts, judgements = [], [], [], []
    for i in range(-1, n):
        holed = i >= 0 and i % 2 == 1
        pixels = rng.normal(160, 12, (side, side))
        if holed:
            y, x = rng.integers(0, side - side // 2, 2)
            pixels[y : y + side // 2, x : x + side // 2] -= 130
        name = f"t{i:03d}" if i >= 0 else "whole"
        Image.fromarray(np.repeat(pixels.clip(0, 255).astype(np.uint8)[:, :, None], 3, 2)).save(folder / f"{name}.png")
        images.append(
            {
                "image_id": name,
                "path": f"{name}.png",
                "dataset": "tiles",
                "category": "tile",
                "split": "test",
                "label": int(holed),
                "mask_paths": [],
                "width": side,
                "height": side,
            }
        )
        if i < 0:
            continue
        choices = HOLED if holed else WHOLE
        questions.append(
            {
                "question_id": f"q{i:03d}",
                "image_id": name,
                "reference_id": "whole",
                "level": "standard",
                "group": name,
                "question": "Is there a defect in the tile?",
                "choices": choices,
                "answer": choices[0],
                "ranked": True,
            }
        )
        facts += [
            {"image_id": name, "prompt_id": "sage/facts", "sample": s, "text": text}
            for s, text in enumerate(("Tiles may have holes. They may be cracked.", "The tile is grey."))
        ]
        judgements += [
            dict(
                zip(
                    ("question_id", "method", "category", "location", "logic"),
                    (f"q{i:03d}", f"choice/{c}", *SCORES[c]),
                    strict=True,
                )
            )
            for c in range(4)
        ]
    return World(
        write(folder / "manifest.parquet", images, MANIFEST),
        write(folder / "questions.parquet", questions, QUESTIONS),
        write(folder / "facts.parquet", facts, CAPTIONS),
        write(folder / "judgements.parquet", judgements, JUDGEMENTS),
    )


def sfe_config(world, base, out, **more):
    return SfeConfig(
        **{
            "manifest": world.manifest,
            "questions": world.questions,
            "facts": world.facts,
            "out": out,
            "root": world.manifest.parent,
            "base": str(base),
            "heads": 4,
            "patches": 4,
            "lora_rank": 4,
            "epochs": 3,
        }
        | FAST
        | more
    )


def edpo_config(world, checkpoint, out, **more):
    return EdpoConfig(
        **{
            "manifest": world.manifest,
            "questions": world.questions,
            "facts": world.facts,
            "out": out,
            "root": world.manifest.parent,
            "judgements": world.judgements,
            "checkpoint": checkpoint,
            "epochs": 1,
        }
        | FAST
        | more
    )


def losses(out):
    return list(csv.DictReader((out / "_checkpoint" / "losses.csv").open()))


def tensors(out):
    from safetensors.torch import load_file

    found = {}
    for f in sorted((out / "_checkpoint").glob("*.safetensors")):
        found |= {f"{f.stem}/{n}": t for n, t in load_file(f).items()}
    return found


def asked(world, settings):
    from stages.sage.data import QuestionSet

    questions = read_questions(world.questions)
    return questions.rows, QuestionSet(
        questions, read_manifest(world.manifest, world.manifest.parent), world.facts, settings
    )


def trainer_for(tiles, checkpoint, out, form="dpo", eta=1.0, beta=0.1, sft_weight=0.0):
    from stages.artifacts.reader import read_table
    from stages.sage.checkpoint import load_sage
    from stages.sage.data import PromptEncoder
    from stages.sage.edpo import preference_pairs
    from stages.sage.preference import Objective, edpo_trainer
    from stages.sage.train import training_arguments

    loaded = load_sage(checkpoint, trainable=True)
    reference = None if loaded.settings.lora_rank else load_sage(checkpoint).model
    rows, questions = asked(tiles, loaded.settings)
    judged = read_table(tiles.judgements, JUDGEMENTS).to_pylist()
    pairs = preference_pairs(rows[:2], judged, eta, tiles.judgements)
    return edpo_trainer(
        loaded.model,
        reference,
        PromptEncoder(loaded.processor, loaded.settings),
        [questions.sample(q) for q in rows],
        pairs,
        Objective(form, beta, sft_weight),
        training_arguments(edpo_config(tiles, checkpoint, out, epochs=4), 4, "cpu", "fp32"),
    )


def shaken(trainer):
    """The policy away from its reference; and a batch of the trainer's pairs."""
    import torch

    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in trainer.model.parameters():
            if p.requires_grad:
                p.add_(torch.randn(p.shape, generator=generator) * 0.02)
    return trainer.data_collator(list(trainer.train_dataset))


def log_probabilities(model, batch):
    """(winners, losers) by plain logits. batch: of the trainer's collator."""
    import torch

    inputs = {n: t for n, t in batch.items() if n not in ("completion_mask", "margin")}
    with torch.no_grad():
        logs = model(**inputs, use_cache=False).logits[:, :-1].log_softmax(-1)
    found = logs.gather(-1, batch["input_ids"][:, 1:, None])[..., 0] * batch["completion_mask"][:, 1:]
    return [half.tolist() for half in found.sum(1).chunk(2)]
