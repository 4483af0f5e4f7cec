"""How a stage declares its settings: a frozen dataclass whose fields are the command's flags.

`adcli` turns the fields into arguments and options, so that a default and its help text exist once:

    @dataclass(frozen=True, kw_only=True)
    class CaptionConfig:
        manifest: Path = argument("the images to describe: manifest artifact or Parquet file")
        out: Path = option("where the captions go")                    # required option
        temperature: float = option("sampling temperature; 0 is greedy", 0.001)
"""

import os
from dataclasses import MISSING, dataclass, field, fields
from math import isfinite
from pathlib import Path
from typing import Any

from stages.base.errors import InputError


def argument(help: str) -> Any:
    """A required positional argument."""
    return field(metadata={"help": help, "positional": True})


def option(help: str, default: Any = MISSING, group: str = "", was: str = "") -> Any:
    """`--name`; required when it has no default. State units and special values in `help`.

    group: the heading in --help below which it stands, if not among the stage's own settings; was: a former name of the
    field, whose use is answered with the name of today.
    """
    return field(default=default, metadata={"help": help, "group": group, "was": was})


# Numbers that mean the same wherever a field has the name, and so have one bound. `check_numbers` knows them.
POSITIVE = frozenset(
    {
        "batch_size",
        "beta",
        "clip",
        "concurrency",
        "epochs",
        "k",
        "learning_rate",
        "limit",
        "loss_temperature",
        "max_num_seqs",
        "max_tokens",
        "micro_batch",
        "samples",
        "save_steps",
        "timeout",
        "tries",
    }
)
NOT_NEGATIVE = frozenset(
    {
        "eta",
        "loader_workers",
        "max_errors",
        "max_grad_norm",
        "max_images",
        "max_length",
        "max_model_len",
        "max_pixels",
        "min_pixels",
        "pixel_size",
        "resamples",
        "retries",
        "seed",
        "sft_weight",
        "shots",
        "sigma",
        "temperature",
        "tensor_parallel",
        "warmup",
        "weight_decay",
    }
)
RETRY = ("possible", "all")


def check_numbers(config: Any) -> None:
    """Raises InputError for a number that no stage can use. config: any dataclass of options."""
    for f in fields(config):
        value = getattr(config, f.name)
        if value is None:  # not given
            continue
        positive = f.name in POSITIVE or (f.name == "workers" and f.default != 0)  # where it is 0: one per core
        if positive and isinstance(value, int) and value < 1:
            raise InputError(f"{flag(f.name)} {value}: expected 1 or more")
        if positive:
            require_positive(config, f.name)
        elif f.name in NOT_NEGATIVE or f.name == "workers":
            require_at_least_zero(config, f.name)
    if (retry := getattr(config, "retry", RETRY[0])) not in RETRY:
        raise InputError(f"--retry {retry}: expected {' or '.join(RETRY)}")


def require_positive(config: Any, *names: str) -> None:
    """names: fields of `config` that are numbers. Raises InputError for one that is 0, negative or not finite."""
    for name in names:
        if not (isfinite(value := getattr(config, name)) and value > 0):
            expected = "at least 1" if isinstance(value, int) else "expected a number above 0"
            raise InputError(f"{flag(name)} {value}: {expected}")


def require_at_least_zero(config: Any, *names: str) -> None:
    """names: fields of `config` that are numbers. Raises InputError for one that is negative or not finite."""
    for name in names:
        if not (isfinite(value := getattr(config, name)) and value >= 0):
            raise InputError(f"{flag(name)} {value}: expected 0 or more")


def flag(name: str) -> str:
    """'batch_size' -> '--batch-size'."""
    return "--" + name.replace("_", "-")


def named_paths(config: Any) -> dict[str, str]:
    """Every path that a stage's settings name, --out apart, absolute: for the record of what it was given."""
    named = {f.name: getattr(config, f.name) for f in fields(config) if f.name != "out"}
    return {name: os.path.abspath(value) for name, value in named.items() if isinstance(value, Path)}


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options that every row-wise stage takes, `limit` only those that offer it. None of them changes a row's
    content."""

    shard: str = option(
        "do share I of N (I counts from 0); run all shares, in any order; slurm = that of this task of an array", "0/1"
    )
    overwrite: bool = option("replace an artifact that was made with other settings", False)
    max_errors: int = option("stop after this many failed rows in succession; 0 = never", 20)
    retry: str = option("failed rows to try again: those that may come out differently, or all", "possible")
    max_megapixels: float = option(
        "largest image that is opened, 10^6 pixels; each takes up to 8 bytes a pixel, for a"
        " moment, and those above 50 are decoded one at a time",
        179.0,
    )
    limit: int | None = option(
        "for a quick try: do the first N rows that are missing and stop; the same command without it goes on", None
    )
    quiet: bool = option("no progress, no summary; errors only", False)
    json: bool = option("print one JSON line with the summary on stdout", False)
    debug: bool = option("show the traceback of an error", False)
