"""Kill every writing stage at random instants and look at what is left.

    python -m benchmarks.kills DIR --kills 1000 --seed 0

Each kill is a stage at work on tiny data in a process of its own, forked from this one; SIGKILL or SIGTERM, half and
half, at a moment between its start and its end. Then a reader must refuse the table or get all of it; the same command
again must end with the undisturbed table, and with the same files. Kill number i depends on the seed and on i alone,
and what is done is kept in DIR/kills.jsonl: the same command goes on where it was stopped.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.listing import listing
from stages.artifacts.reader import read_table
from stages.artifacts.record import source_commit
from stages.artifacts.tables import (
    CAPTIONS,
    ENCODERS,
    JUDGEMENTS,
    MANIFEST,
    METRICS,
    NEGATIVES,
    SCORES,
    THRESHOLDS,
    TRUTH,
    Table,
)
from stages.artifacts.writer import Artifact, Spec
from stages.base.config import RunOptions
from stages.base.errors import InputError

QUIET = RunOptions(quiet=True, max_errors=0)


@dataclass(frozen=True)
class Stage:
    """work: does it all below a folder; tables: what it leaves there; before: what is there when it starts."""

    work: Callable[[Path], Any]
    tables: dict[str, Table]
    before: Callable[[Path], Any] = lambda folder: None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", default="", help="comma-separated; default: all")
    parser.add_argument("--untrained", action="store_true", help="without the stages that need torch")
    arguments = parser.parse_args()
    chosen = arguments.stages.split(",") if arguments.stages else None
    stages = stages_of(arguments.folder, trained=not arguments.untrained)
    stages = {n: s for n, s in stages.items() if chosen is None or n in chosen}
    bad = run(stages, arguments.folder, arguments.kills, arguments.seed)
    sys.exit(bool(bad))


def run(stages: dict[str, Stage], folder: Path, kills: int, seed: int) -> int:
    """Do what is left of `kills`, print the counts by stage and signal; returns how many ended badly."""
    source_commit()
    log = folder / "kills.jsonl"
    done = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = [d for d in done if d["seed"] == seed]
    expected = {}
    with log.open("a") as f:
        for i in range(len(done), kills):
            rng = random.Random(f"{seed}/{i}")
            name = rng.choice(sorted(stages))
            if name not in expected:
                expected[name] = undisturbed(stages[name], folder / "undisturbed" / name)
            done.append(
                {"seed": seed, "kill": i, "stage": name}
                | one_kill(stages[name], folder / "killed", rng, *expected[name])
            )
            f.write(json.dumps(done[-1]) + "\n")
            f.flush()
    counts = Counter((d["stage"], d["signal"], d["outcome"]) for d in done)
    for (name, sent, outcome), n in sorted(counts.items()):
        print(f"{name:22} {sent:8} {outcome:40} {n}")
    bad = [d for d in done if d["bad"]]
    print(f"{len(done)} kills, {sum(d['outcome'] != 'had ended' for d in done)} of processes at work, {len(bad)} bad")
    for d in bad:
        print(f"bad: seed {seed}, kill {d['kill']}, {d['stage']}, {d['signal']}: {d['bad']}")
    return len(bad)


def undisturbed(stage: Stage, folder: Path) -> tuple[Any, Any, set[str], float]:
    """(what a reader sees before, and after the work, the files it leaves, seconds it takes)."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    stage.before(folder)
    before = read(stage, folder)
    started = time.monotonic()
    if wait(start(stage, folder)):
        raise SystemExit(f"the undisturbed work in {folder} failed")
    return before, read(stage, folder), listing(folder), time.monotonic() - started


def one_kill(
    stage: Stage, folder: Path, rng: random.Random, before: Any, after: Any, names: set[str], seconds: float
) -> dict:
    """Kill the stage once. Returns the signal, what the reader said then, and what was bad ('' = nothing)."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    stage.before(folder)
    sent = rng.choice((signal.SIGKILL, signal.SIGTERM))
    child = start(stage, folder)
    time.sleep(rng.uniform(0, seconds))
    os.kill(child, sent)  # not waited for yet, so that its number is still its own
    code = wait(child)
    said = {"signal": sent.name, "outcome": "had ended", "bad": ""}
    if code == 0:
        return said
    if code not in (-sent, 130):
        return said | {"outcome": f"ended with {code}", "bad": f"ended with {code}"}
    seen = read(stage, folder)
    wrong = []
    for name in stage.tables:
        table = seen[name]
        said["outcome"] = "refused" if table is None else "whole"
        if table is not None and table not in (before[name], after[name]) and not name.startswith("retried"):
            wrong.append(f"{name} reads as a table that it is not")
    if wait(start(stage, folder)):
        wrong.append("the same command failed")
    elif read(stage, folder) != after:
        wrong.append("another table than undisturbed")
    elif left := listing(folder) ^ names:
        wrong.append(f"other files: {sorted(left)}")
    return said | {"bad": "; ".join(wrong)}


def start(stage: Stage, folder: Path) -> int:
    """The stage in a process of its own, which ends with 130 on SIGTERM, as `adcli` does; returns its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        stage.work(folder)
        code = 0
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def read(stage: Stage, folder: Path) -> dict[str, Any]:
    """What a reader sees of each table: None where it refuses; with the weights that lie below it."""
    seen: dict[str, Any] = {}
    for name, table in stage.tables.items():
        try:
            rows = read_table(folder / name, table).drop_columns(list(table.volatile)).to_pylist()
        except InputError:
            seen[name] = None
            continue
        weights = [hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted((folder / name).rglob("*.safetensors"))]
        if "path" in table.schema.names and table is MANIFEST:  # relative to the folder
            rows = [{k: v for k, v in row.items() if k not in ("path", "mask_paths")} for row in rows]
        seen[name] = [rows, weights]
    return seen


def stages_of(folder: Path, trained: bool = True) -> dict[str, Stage]:
    """All stages that write, on data that is made below `folder`/world the first time. trained: also those that need
    torch."""
    import sklearn.metrics  # noqa: F401

    from benchmarks.kills_world import build
    from stages.captions import caption, negatives
    from stages.datasets import augment
    from stages.datasets import folder as plain_folder
    from stages.datasets.synth import camera, layout, render, vidad  # noqa: F401
    from stages.evaluate import images as evaluate
    from stages.lvlm import score as lvlm
    from stages.questions import judge
    from stages.report import figures, grid, heatmaps  # noqa: F401
    from stages.vlm.scene import engine  # noqa: F401

    w = build(folder / "world", trained)

    def caption_(f: Path):
        caption.run(caption.CaptionConfig(manifest=w.manifest, out=f / "c", root=w.root, workers=1), QUIET)

    def shards(f: Path):
        for shard in ("0/2", "1/2"):
            plain(f, w.keys, shard=shard)

    return (torch_stages(w) if trained else {}) | {
        "data synth vidad": Stage(
            lambda f: vidad.run(
                vidad.SynthConfig(out=f / "s", size=64, scenarios="fruits", conditions="white_bg", workers=1), QUIET
            ),
            {"s/truth.parquet": TRUTH},
        ),
        "data index": Stage(
            lambda f: plain_folder.run(plain_folder.FolderConfig(root=w.root, out=f / "m"), QUIET), {"m": MANIFEST}
        ),
        "data augment": Stage(
            lambda f: augment.run(
                augment.AugmentConfig(
                    manifest=w.manifest, kind="rotate90", out=f / "m", images=f / "i", root=w.root, workers=1
                ),
                QUIET,
            ),
            {"m": MANIFEST},
        ),
        "caption": Stage(caption_, {"c": CAPTIONS}),
        "rewrite-negatives": Stage(
            lambda f: negatives.run(
                negatives.NegativesConfig(captions=w.captions, manifest=w.manifest, out=f / "n"), QUIET
            ),
            {"n": NEGATIVES},
        ),
        "score lvlm": Stage(
            lambda f: lvlm.run(lvlm.LvlmConfig(manifest=w.manifest, out=f / "s", root=w.root, workers=1), QUIET),
            {"s": SCORES},
        ),
        "score mle": Stage(
            lambda f: judge.run(
                judge.JudgeConfig(manifest=w.manifest, questions=w.questions, out=f / "j", root=w.root), QUIET
            ),
            {"j": JUDGEMENTS},
        ),
        "evaluate": Stage(
            lambda f: evaluate.run(
                evaluate.EvaluateConfig(
                    scores=w.scores, manifest=w.manifest, out=f / "m", thresholds=f / "t", resamples=20
                ),
                QUIET,
            ),
            {"m": METRICS, "t": THRESHOLDS},
        ),
        "plain": Stage(lambda f: plain(f, w.keys), {"p": CAPTIONS}),
        "plain --shard": Stage(shards, {"p": CAPTIONS}),
        "plain --overwrite": Stage(
            lambda f: plain(f, w.keys, "new", overwrite=True), {"p": CAPTIONS}, lambda f: plain(f, w.keys)
        ),
        "plain, tried again": Stage(
            lambda f: plain(f / "retried", w.keys),
            {"retried/p": CAPTIONS},
            lambda f: plain(f / "retried", w.keys, failing=3),
        ),
    }


def torch_stages(w: Any) -> dict[str, Stage]:

    from stages.text_encoder import score, train

    return {
        "train-encoder": Stage(
            lambda f: train.run(
                train.TrainEncoderConfig(
                    negatives=w.negatives, manifest=w.manifest, out=f / "e", encoder=str(w.bert), epochs=2, device="cpu"
                ),
                QUIET,
            ),
            {"e": ENCODERS},
        ),
        "score text-knn": Stage(
            lambda f: score.run(
                score.ScoreTextKnnConfig(
                    manifest=w.manifest, captions=w.captions, encoders=w.encoders, out=f / "s", device="cpu"
                ),
                QUIET,
            ),
            {"s": SCORES},
        ),
    }


def plain(folder: Path, keys: list[tuple], said: str = "text", failing: int = 0, **options: Any) -> None:
    """A stage without any work of its own. failing: every so-manieth row fails."""
    with Artifact(
        folder / "p", CAPTIONS, Spec("plain", {"said": said}, {}), keys, RunOptions(quiet=True, **options), flush_rows=4
    ) as artifact:
        for n, key in enumerate(list(artifact.pending)):
            time.sleep(0.001)
            failed = failing and n % failing == 0
            artifact.write(
                dict(zip(CAPTIONS.key, key, strict=True))
                | {"text": None if failed else f"{said} {key[0]}", "error": "bad" if failed else None}
            )


if __name__ == "__main__":
    main()
