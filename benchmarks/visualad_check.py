"""Does VisualAD's training find held-out defects, or would any training? The control learns from shuffled masks.

    python -m benchmarks.visualad_check runs/visualad-demo

For the control the labels and masks of the training images are shuffled among them, and the same training is
run; both are scored on the same held-out images. Printed: image and pixel AUROC with 95 % intervals.
"""

import sys
from dataclasses import fields, replace
from pathlib import Path

from pipelines.controls.shuffled_masks import main as shuffle_masks
from stages.artifacts.files import make_folder
from stages.artifacts.reader import read_provenance, read_table
from stages.artifacts.tables import METRICS
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.evaluate.images import EvaluateConfig
from stages.evaluate.images import run as evaluate
from stages.training.weights import checkpoint_fingerprint
from stages.visualad.config import ScoreVisualadConfig, TrainVisualadConfig
from stages.visualad.score import run as score
from stages.visualad.train import run as train

QUIET = RunOptions(quiet=True)


def training_of(run: Path) -> TrainVisualadConfig:
    """The configuration that made RUN/trained.parquet. Raises InputError where another backbone lies in that place now,
    as when this is run from another folder: the control would be no control."""
    (record,) = read_provenance(run / "trained.parquet")
    backbone, weights = (record["parameters"][n] for n in ("backbone", "weights"))
    if checkpoint_fingerprint(backbone) != weights:
        raise InputError(f"{backbone} is not the backbone of {run / 'trained.parquet'}; run this from the same folder")
    known = {f.name for f in fields(TrainVisualadConfig)}
    values = {k: v for k, v in record["parameters"].items() if k in known}
    values["layers"] = ",".join(map(str, values["layers"]))
    return TrainVisualadConfig(
        manifest=run / "manifest.parquet", out=run / "trained.parquet", seed=record["seed"], **values
    )


def control(run: Path) -> Path:
    """Train and score on shuffled masks; returns the folder of the metrics."""
    folder = run / "control"
    make_folder(folder)
    root = shuffle_masks(run / "manifest.parquet", folder / "shuffled.parquet")
    train(replace(training_of(run), manifest=folder / "shuffled.parquet", root=root, out=folder / "trained"), QUIET)
    return scored(folder / "shuffled.parquet", root, folder / "trained", folder)


def scored(manifest: Path, root: Path | None, checkpoint: Path, folder: Path) -> Path:
    """Score the test images and evaluate them; returns the folder of the metrics."""
    score(
        ScoreVisualadConfig(
            manifest=manifest, root=root, checkpoint=checkpoint, out=folder / "s", maps=folder / "maps"
        ),
        QUIET,
    )
    evaluate(
        EvaluateConfig(scores=folder / "s", maps=folder / "maps", manifest=manifest, root=root, out=folder / "metrics"),
        QUIET,
    )
    return folder / "metrics"


def main(run: Path) -> None:
    """Print one line per metric."""
    found = {}
    for name, at in (("trained", run / "metrics.parquet"), ("control", control(run))):
        found[name] = {r["metric"]: r for r in read_table(at, METRICS).to_pylist() if r["category"] != "mean"}
    for metric in ("auroc", "pixel_auroc", "pro@0.3"):
        a, b = found["trained"][metric], found["control"][metric]
        said = "above, beyond the intervals" if a["ci_low"] > b["ci_high"] else "NOT above beyond the intervals"
        print(f"{metric:12s} trained {_number(a)}   control, masks shuffled {_number(b)}   {said}")


def _number(row: dict) -> str:
    return f"{row['value']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
