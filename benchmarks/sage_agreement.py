"""Do a trained SAGE's answers survive saving, loading, merging and another engine? On a tiny random model.

    python -m benchmarks.sage_agreement TILES RUN [ADCLI]

TILES: the magnetic-tile data set; RUN: a new folder for everything that is made; ADCLI: the command of an environment
with vLLM, which then answers too. A base that was random minutes ago and has learned a little of the questions, whole;
LoRA on it, with and without fusion; 64 questions about other images, greedy. Printed per route: how many replies are
those of the model as it came out of training, in memory; and how many of the 64 replies differ from one another,
without which agreement would say nothing.
"""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from pipelines.demo_models.random_vlm import tiny_internvl
from stages.artifacts.reader import read_table
from stages.artifacts.tables import ANSWERS, QUESTIONS
from stages.base.config import RunOptions
from stages.captions.caption import CaptionConfig
from stages.captions.caption import run as caption
from stages.datasets.magnetic_tile import MagneticTileConfig
from stages.datasets.magnetic_tile import run as index
from stages.datasets.manifest import read_manifest
from stages.questions.make import QuestionsConfig
from stages.questions.make import run as make
from stages.questions.table import read_questions
from stages.sage import checkpoint
from stages.sage import sfe as training
from stages.sage.config import ScoreSageConfig, SfeConfig
from stages.sage.score import answered
from stages.sage.sfe import run as sfe

QUIET = RunOptions(quiet=True, overwrite=True)
MANY, TOKENS = 64, 32


def trained(config: SfeConfig, facts: Path, asked: Path) -> dict[str, str]:
    """Train; the replies of the model in memory, taken just after it was saved."""
    from stages.sage.data import QuestionSet
    from stages.sage.score import Answering

    replies, save = {}, training.save

    def save_and_ask(model, state, processor, folder, record, settings):
        save(model, state, processor, folder, record, settings)
        questions = read_questions(asked)
        about = QuestionSet(questions, read_manifest(config.manifest), facts, settings)
        loaded = checkpoint.Loaded(model.eval(), processor, settings, record)
        how = ScoreSageConfig(manifest=config.manifest, questions=asked, checkpoint=folder, out=folder)
        rows = answered(Answering(loaded, "cpu", TOKENS), about, questions.rows, "memory", how)
        replies.update({r["question_id"]: r["response"] for r in rows})

    training.save = save_and_ask  # the model in memory is nobody else's business
    try:
        sfe(config, QUIET)
    finally:
        training.save = save
    return replies


def told(command: str, out: Path, *arguments: object) -> dict[str, str]:
    """Replies of `adcli score`, a process of its own."""
    words = [command, "score", *map(str, arguments), "--out", str(out), "--quiet", "--max-errors", "0"]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode not in (0, 3):  # 3: a reply that names no option is a row with its error
        sys.exit(f"{' '.join(words)}\n{done.stdout[-2000:]}")
    return {r["question_id"]: r["response"].strip() for r in read_table(out, ANSWERS).to_pylist()}


def main(tiles: Path, run: Path, vllm: str = "") -> None:
    """Train both models, ask through every route, print the table."""
    run.mkdir(parents=True)  # new: what is trained already has no model in memory
    adcli, random = str(Path(sys.executable).with_name("adcli")), tiny_internvl(run / "random")
    manifest, facts = run / "manifest.parquet", run / "facts.parquet"
    index(MagneticTileConfig(root=tiles, out=manifest), QUIET)
    caption(CaptionConfig(manifest=manifest, out=facts), QUIET)
    for part, images, seed in (("learn", 20, 0), ("ask", 16, 1)):
        make(QuestionsConfig(manifest=manifest, out=run / f"{part}.parquet", max_images=images, seed=seed), QUIET)
    asked = run / "asked.parquet"
    pq.write_table(read_table(run / "ask.parquet", QUESTIONS).slice(0, MANY), asked)

    common = {
        "manifest": manifest,
        "questions": run / "learn.parquet",
        "batch_size": 8,
        "micro_batch": 4,
        "warmup": 5,
        "device": "cpu",
        "precision": "fp32",
    }
    base = run / "base"
    sfe(
        SfeConfig(
            **common,
            base=str(random),
            out=run / "grounding",
            fusion="none",
            lora_rank=0,
            epochs=8.0,
            learning_rate=3e-3,
            merged=base,
        ),
        QUIET,
    )
    table = Table("fusion", "route", f"same replies of {MANY}", "different from one another")
    for fusion in ("attention", "none"):
        out, merged = run / fusion, run / f"{fusion}-merged"
        plain = fusion == "none"
        memory = trained(
            SfeConfig(
                **common,
                base=str(base),
                out=out,
                facts=None if plain else facts,
                fusion=fusion,
                epochs=4.0,
                learning_rate=3e-3,
                merged=merged if plain else None,
            ),
            facts,
            asked,
        )
        same = (manifest, "--questions", asked, "--max-tokens", TOKENS)
        routes = {
            "in memory": memory,
            "saved, loaded in a new process": told(
                adcli,
                run / f"{fusion}-loaded",
                *same,
                "--method",
                "sage",
                "--checkpoint",
                out,
                "--precision",
                "fp32",
                "--device",
                "cpu",
                *(() if plain else ("--facts", facts)),
            ),
        }
        if plain:
            ask = (*same, "--method", "vlm-qa", "--vlm", merged, "--dtype", "float32")
            routes["merged, transformers"] = told(adcli, run / "merged-answers", *ask, "--device", "cpu")
            if vllm:
                routes["merged, vLLM"] = told(
                    vllm,
                    run / "vllm-answers",
                    *ask,
                    "--engine",
                    "vllm",
                    "--max-model-len",
                    1024,
                    "--max-num-seqs",
                    8,
                    "--gpu-memory",
                    0.1,
                )
        for route, replies in routes.items():
            agreeing = sum(replies.get(q) == text for q, text in memory.items())
            table.add_row(fusion, route, str(agreeing), str(len(set(replies.values()))))
    Console(width=100).print(table)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
