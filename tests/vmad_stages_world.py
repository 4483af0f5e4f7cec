"""What tests of VMAD's stages share: settings that are quick, commands, what a training left."""

import csv
import os
import subprocess
import sys
from pathlib import Path

from stages.base.config import RunOptions
from stages.vmad.config import FinetuneVmadConfig, ScoreVmadConfig

QUIET = RunOptions(quiet=True)
ROOT = Path(__file__).parents[1]
FAST = {
    "heads": 4,
    "depth": 1,
    "boxes": 2,
    "box_size": 16,
    "drawn": 1,
    "batch_size": 4,
    "micro_batch": 2,
    "epochs": 2,
    "learning_rate": 3e-3,
    "device": "cpu",
    "precision": "fp32",
}


def config(spots, models, out, **more):
    return FinetuneVmadConfig(
        **{"manifest": spots, "root": spots.parent, "out": out, "questions": spots.parent / "q.parquet"}
        | models
        | FAST
        | more
    )


def scoring(spots, checkpoint, out, **more):
    return ScoreVmadConfig(
        **{
            "manifest": spots,
            "root": spots.parent,
            "checkpoint": checkpoint,
            "out": out / "s",
            "maps": out / "maps",
            "splits": "train",
            "max_tokens": 8,
            "device": "cpu",
            "precision": "fp32",
        }
        | more
    )


def weights(out):
    return [
        (out / "_checkpoint" / name).read_bytes() for name in ("vmad.safetensors", "adapter/adapter_model.safetensors")
    ]


def losses(out):
    with (out / "_checkpoint/losses.csv").open() as f:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(f)]


def command(spots, models, out, **more):
    options = {n.replace("_", "-"): v for n, v in (FAST | models | more).items()}
    flat = [w for name, value in options.items() for w in (f"--{name}", value)]
    return list(
        map(
            str,
            [
                "finetune-mllm",
                spots,
                "--method",
                "vmad",
                "--out",
                out,
                "--root",
                spots.parent,
                "--questions",
                spots.parent / "q.parquet",
                *flat,
            ],
        )
    )


def launched(prefix, arguments):
    return subprocess.Popen(
        [sys.executable, *prefix, "-m", "adcli", *arguments],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
