"""Does VMAD's training find held-out defects, or would any training? Tiny LLaVA and SAM with random weights.

    python -m benchmarks.vmad_tiles TILES RUN [SEED]

TILES: the magnetic tiles; RUN: a folder for everything that is made, which resumes; SEED: of the split and of the
training, 0. Three models score the same
held-out images: trained on masks, trained on the same images with the masks dealt out anew among the defects and the
normal images alike, and untrained. Printed: the mask loss at both ends, pixel and image AUROC with 95 % intervals, and
how many answers end with `<seg>` by themselves. The language model and both encoders know nothing; the figures say
that the training works, and nothing of VMAD.
"""

import csv
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.visualad_check import shuffled
from stages.artifacts.files import make_folder
from stages.artifacts.reader import read_table
from stages.artifacts.tables import MANIFEST, METRICS, SCORES
from stages.datasets.magnetic_tile import MagneticTileConfig
from stages.datasets.magnetic_tile import run as index
from stages.evaluate import EvaluateConfig
from stages.evaluate import run as evaluate
from stages.settings import RunOptions
from stages.vmad.score import ScoreVmadConfig
from stages.vmad.score import run as score
from stages.vmad.train import FinetuneVmadConfig
from stages.vmad.train import run as train
from tests.tiny import tiny_deep_llava, tiny_sam

QUIET = RunOptions(quiet=True)
CANVAS, PATCH, WIDTH = 256, 8, 64
METHODS = ("trained", "shuffled", "untrained")


def config(run: Path, manifest: Path, tiles: Path, name: str, seed: int) -> FinetuneVmadConfig:
    """The same training for every manifest."""
    return FinetuneVmadConfig(
        manifest=manifest, out=run / name, root=tiles, llava=str(run / "llava"), sam=str(run / "sam"),
        tasks="segmentation", heads=4, depth=1, boxes=4, box_size=32, drawn=2, epochs=50, batch_size=8, micro_batch=8,
        learning_rate=2e-3, precision="fp32", device="cpu", save_steps=10_000,
        seed=seed)


def main(tiles: Path, run: Path, seed: int) -> None:
    """Make, train, score, print."""
    make_folder(run)
    if not (run / "sam").exists():
        tiny_deep_llava(run / "llava")
        tiny_sam(run / "sam", CANVAS, PATCH, WIDTH)
    manifest = run / "manifest.parquet"
    index(MagneticTileConfig(root=tiles, out=manifest, train_fraction=0.2, train_defects=0.5, seed=seed), QUIET)
    rows = read_table(manifest, MANIFEST).to_pylist()
    dealt = run / "shuffled-manifest.parquet"
    pq.write_table(pa.Table.from_pylist(shuffled(rows), schema=MANIFEST.schema), dealt)
    for name, on in (("trained", manifest), ("shuffled", dealt)):
        started = time.monotonic()
        done = train(config(run, on, tiles, name, seed), QUIET)
        first, last = ends(run / name)
        took = "" if done.up_to_date else f", {time.monotonic() - started:.0f} s"
        print(f"{name}: mask loss {first:.3f} -> {last:.3f}{took}", flush=True)
    untrained(config(run, manifest, tiles, "untrained", seed))
    for name in METHODS:
        print(f"{name}: {scored(run, manifest, tiles, name)}", flush=True)


def ends(out: Path) -> tuple[float, float]:
    """Eq. 7 with the default weights: mean of the first and of the last tenth of the logged steps."""
    with open(out / "_checkpoint/losses.csv") as f:
        values = [2 * float(r["bce"]) + 0.5 * float(r["dice"]) for r in csv.DictReader(f)]
    n = max(len(values) // 10, 1)
    return sum(values[:n]) / n, sum(values[-n:]) / n


def untrained(settings: FinetuneVmadConfig) -> None:
    """A checkpoint of the model as training starts from it."""
    import torch

    from stages.vmad.build import new_model
    from stages.vmad.checkpoint import save_vmad

    torch.manual_seed(settings.seed)
    model, text = new_model(settings.llava, settings.sam, settings.settings(), settings.weights())
    save_vmad(model, text, settings.out / "_checkpoint", settings.llava, settings.sam)


def scored(run: Path, manifest: Path, tiles: Path, name: str) -> str:
    """Score the held-out images and say how well."""
    c = ScoreVmadConfig(manifest=manifest, root=tiles, checkpoint=run / name, out=run / f"{name}-scores",
                        maps=run / f"{name}-maps", max_tokens=16, precision="fp32", device="cpu")
    score(c, QUIET)
    parsed = [r["parsed"] for r in read_table(c.out, SCORES).to_pylist()]
    e = EvaluateConfig(scores=c.out, manifest=manifest, root=tiles, maps=c.maps, out=run / f"{name}-metrics")
    evaluate(e, QUIET)
    found = {r["metric"]: r for r in read_table(e.out, METRICS).to_pylist() if r["category"] == "tile"}
    said = [f"{m} {found[m]['value']:.3f} [{found[m]['ci_low']:.3f}, {found[m]['ci_high']:.3f}]"
            for m in ("pixel_auroc", "auroc", "pro@0.3")]
    return f"{', '.join(said)}; {parsed.count('strict')} of {len(parsed)} answers end with <seg>"


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    from stages.torch_setup import prepare_torch

    prepare_torch()
    main(Path(sys.argv[1]), Path(sys.argv[2]), int((*sys.argv[3:], 0)[0]))
