"""`adcli inspect`: a recipe over the stages for own pictures. Every step is a command that is printed first."""

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import typer

from adcli.ending import DONE, FAILED_ROWS
from adcli.options import command
from adcli.score import METHODS as SCORING
from stages.base.config import RunOptions, flag, option
from stages.base.errors import InputError

DOC = """Rank your own pictures: which of the new ones look unlike the good ones, and where.

Example: adcli inspect --good photos/normal --test photos/new --out runs/photos

Neither labels nor masks are needed. Each step is a command, printed before it runs, so that it can be repeated or
changed by hand; the same command goes on where it was stopped. OUT is a folder: report.html is the page to look at,
ranking.csv the list of the new pictures, heatmaps/ shows where they are unusual.

--method: anomalib/padim, the default (needs adcli[baselines]), patchcore, dfm or dfkde, or stfpm or cflow, whose
training takes hours without a GPU; lvlm, which asks the vision-language model --vlm (`adcli models` lists them);
text-knn, which compares descriptions by --vlm in the fine-tuned --encoder; visualad and vmad with a --checkpoint that
was trained on other data.

Example: adcli inspect --good photos/normal --test photos/new --method lvlm --vlm qwen2-vl --out runs/photos-lvlm
"""
NEEDS = {"lvlm": ("vlm",), "text-knn": ("vlm",), "visualad": ("checkpoint",), "vmad": ("checkpoint",)}
MAY = {"text-knn": ("encoder",)}
MORE = ("reverse-distillation", "fastflow", "efficient-ad")  # need what `score` alone can be given
METHODS = (*(n for n in SCORING if n.startswith("anomalib/") and not n.endswith(MORE)), *NEEDS)
NO_SCORES = ("vlm-qa", "sage", "mle")  # methods of `score` that answer questions
FITTED, WITHOUT_MAPS = "anomalib/", ("anomalib/dfkde", "lvlm", "text-knn")


@dataclass(frozen=True, kw_only=True)
class InspectConfig:
    good: Path = option("folder of good pictures, however deep; 25 and more are better")
    test: Path = option("folder of the pictures to look at")
    out: Path = option("folder for all results")
    method: str = option("what scores the pictures; see below", "anomalib/padim")
    vlm: str = option(
        "lvlm, text-knn: the vision-language model, a short name (`adcli models`), a hub id or a directory", ""
    )
    encoder: str = option("text-knn: the text encoder to fine-tune, as in train-encoder; minilm by default", "")
    checkpoint: Path | None = option("visualad, vmad: what train-visualad or finetune-mllm wrote", None)
    defects: str = option("folders below --test that hold defective pictures, as in `data index good-and-new`", "")

    def check(self) -> None:
        """Raises InputError for a method that gives no scores, an option that it needs or does not take, or results
        among the pictures."""
        for folder in (self.good, self.test):
            if Path(os.path.realpath(self.out)).is_relative_to(os.path.realpath(folder)):
                raise InputError(f"--out {self.out}: lies in {folder}, whose pictures are read; give another place")
        if self.method.startswith(FITTED):
            from stages.baselines.config import BaselineConfig, check

            check(BaselineConfig(manifest=self.out, out=self.out, method=self.method))
        elif self.method not in NEEDS:
            why = "answers questions and gives no scores" if self.method in NO_SCORES else "no such method"
            raise InputError(f"--method {self.method}: {why}; expected anomalib/padim, {', '.join(NEEDS)}")
        if self.method == "text-knn":
            from stages.artifacts.checks import require_name_for_weights

            require_name_for_weights("--out", str(self.out))
        needed = NEEDS.get(self.method, ())
        for name in ("vlm", "encoder", "checkpoint"):
            if getattr(self, name) and name not in (*needed, *MAY.get(self.method, ())):
                raise InputError(f"{flag(name)}: means nothing to --method {self.method}; leave it out")
            if name in needed and not getattr(self, name):
                raise InputError(f"--method {self.method}: needs {flag(name)} (`adcli inspect --help` says what it is)")


def add_to(app: typer.Typer, arguments: list[str]) -> None:
    """Add the subcommand."""
    command(app, "inspect", InspectConfig, run, DOC, ("method",), ("shard", "json"))


def run(config: InspectConfig, options: RunOptions) -> None:
    """Run the steps and print what came out. Leaves with the first code of a step that could not go on, with that of
    failed rows where there were any."""
    codes = []
    for step in steps(config):
        if not options.quiet:
            print(f"\n$ {shlex.join(['adcli', *step])}", file=sys.stderr, flush=True)
        codes.append(one(step + common(options, step[0])))
        if codes[-1] not in (DONE, FAILED_ROWS):
            raise typer.Exit(codes[-1])
    if not options.quiet:
        say(config)
    raise typer.Exit(max(codes))


def steps(config: InspectConfig) -> Iterator[list[str]]:
    """The commands, without `adcli`, each as a list of words; each one has run when the next is asked for."""
    at = {
        n: str(config.out / f"{n}.parquet") for n in ("manifest", "captions", "negatives", "encoders", "scores", "maps")
    }
    index = ["data", "index", "good-and-new", "--good", str(config.good), "--test", str(config.test)]
    index += ["--defects", config.defects] if config.defects else []
    yield [*index, "--out", at["manifest"]]
    manifest = at["manifest"]
    score = ["score", manifest, "--method", config.method]
    if config.method == "text-knn":
        encoder = ["--encoder", config.encoder] if config.encoder else []
        yield ["caption", manifest, "--vlm", config.vlm, "--out", at["captions"]]
        yield ["rewrite-negatives", at["captions"], "--manifest", manifest, "--out", at["negatives"]]
        yield ["train-encoder", at["negatives"], "--manifest", manifest, *encoder, "--out", at["encoders"]]
        score += ["--captions", at["captions"], "--encoders", at["encoders"]]
    else:
        score += ["--vlm", config.vlm] if config.vlm else []
        score += ["--checkpoint", str(config.checkpoint)] if config.checkpoint else []
        score += ["--splits", splits(Path(manifest))]
    maps = [] if config.method in WITHOUT_MAPS else ["--maps", at["maps"]]
    yield [*score, "--out", at["scores"], *maps]
    yield ["evaluate", at["scores"], "--manifest", manifest, *maps, "--out", str(config.out)]


def splits(manifest: Path) -> str:
    """Those whose scores are used: of training images only where too few good ones are there to hold some out."""
    from stages.datasets.manifest import by_task, read_manifest

    tasks = by_task(read_manifest(manifest).images).values()
    return "val,test" if all(any(i.split == "val" for i in images) for images in tasks) else "train,val,test"


def common(options: RunOptions, stage: str) -> list[str]:
    """What was given of the options that all steps take, `evaluate` some of them."""
    given = [(f.name, getattr(options, f.name)) for f in fields(options) if getattr(options, f.name) != f.default]
    given = [(n, v) for n, v in given if stage != "evaluate" or n not in ("max_errors", "retry")]
    return [word for name, value in given for word in ([flag(name)] if value is True else [flag(name), str(value)])]


def one(words: list[str]) -> int:
    """Run one command in this process; returns its exit code. The records of what it writes name it, not `inspect`."""
    from adcli.main import run

    with called_as(["adcli", *words]):
        return run(words)


@contextmanager
def called_as(arguments: list[str]) -> Iterator[None]:
    """Within it `arguments` are those of the process."""
    before, sys.argv = sys.argv, arguments
    try:
        yield
    finally:
        sys.argv = before


def say(config: InspectConfig) -> None:
    """The outcome on stdout: what to look at, and where it is."""
    from stages.report.ranking import COLUMNS, outcome
    from stages.results.scores import read_tasks

    found = outcome(read_tasks(config.out / "scores.parquet", config.out / "manifest.parquet"))
    print()
    for line in found.lines:
        print(line)
    ranking, page = config.out / "ranking.csv", config.out / "report.html"
    print(f"{found.summary}; ranking: {ranking} ({', '.join(COLUMNS)}); page: {page}")
