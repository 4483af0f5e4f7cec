"""What tests of VMAD's stages share: settings that are quick, commands, what a training left."""

import csv
import subprocess

from stages.base.config import RunOptions
from stages.vmad.config import FinetuneVmadConfig, ScoreVmadConfig
from tests.processes import Started

QUIET = RunOptions(quiet=True)
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


def launched(arguments):
    return Started(*arguments, models=True, stderr=subprocess.PIPE, text=True)
