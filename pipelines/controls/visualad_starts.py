"""How VisualAD's new weights start, and what any training finds: the demo's training from two starts, and on shuffled
masks.

    python -m pipelines.controls.visualad_starts RUN OUT [SEED ...]

RUN: of pipelines/visualad_demo.sh, for its manifest and backbone; seeds 0, 1 and 2 unless others are given. Arms: as
released (Xavier-uniform, zero bias, tokens N(0, 1) times 0.1 / sqrt(C)); the start here before, torch's own linear maps
and tokens N(0, 0.02); as released, on shuffled masks. Images are decoded once, which is all that differs from the
demo's training. Printed and written to OUT/starts.csv: the loss over the last epoch, image and pixel AUROC and PRO on
the held-out half with 95 % intervals.
"""

import csv
import sys
from pathlib import Path

from stages.training.prepared import torch

from torch import Tensor, nn
from torch.utils.data import Dataset

from pipelines.controls.shuffled_masks import main as shuffle_masks
from stages.artifacts.files import make_folder
from stages.artifacts.reader import read_table
from stages.artifacts.tables import METRICS
from stages.base.config import RunOptions
from stages.datasets.manifest import images_of, read_manifest
from stages.evaluate.images import EvaluateConfig
from stages.evaluate.images import run as evaluate
from stages.training.trainer import run_trainer
from stages.visualad import checkpoint
from stages.visualad.backbone import load_backbone
from stages.visualad.config import ScoreVisualadConfig, TrainVisualadConfig
from stages.visualad.data import ImageTransform, TrainingSet
from stages.visualad.model import VisualAD
from stages.visualad.score import run as score
from stages.visualad.train import trainable, trainer_of

QUIET = RunOptions(quiet=True)
DEMO = {"layers": "2", "size": 320, "splits": "train", "epochs": 16, "learning_rate": 1e-2, "device": "cpu"}
ARMS = ("as released", "before", "as released, shuffled masks")
FIGURES = ("auroc", "pixel_auroc", "pro@0.3")
HEADS = ("start", "seed", "loss", *(f"{n}{part}" for n in FIGURES for part in ("", " low", " high")))


class Decoded(Dataset):
    """A training set whose images are decoded once."""

    def __init__(self, images: TrainingSet) -> None:
        self.items: list[dict[str, Tensor]] = [images[n] for n in range(len(images))]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, n: int) -> dict[str, Tensor]:
        return self.items[n]


@torch.no_grad()
def start_as_before(model: VisualAD) -> None:
    """Linear maps as torch makes them, tokens N(0, 0.02)."""
    for linear in (m for m in [*model.sca.modules(), *model.saf.modules()] if isinstance(m, nn.Linear)):
        linear.reset_parameters()
    model.tokens.normal_(0, 0.02)


def trained(data: Decoded, config: TrainVisualadConfig, before: bool, transform: ImageTransform) -> float:
    """Train and write the checkpoint to config.out; the mean loss of the last epoch."""
    torch.manual_seed(config.seed)
    backbone, _, _ = load_backbone(config.backbone)
    model = VisualAD(backbone, config.settings())
    if before:
        start_as_before(model)
    trainer = trainer_of(model, data, config)
    trainer.args.save_strategy = "no"
    make_folder(config.out)
    run_trainer(trainer, None, lambda line: print(line, file=sys.stderr, flush=True), config.out)
    checkpoint.save(model, config.out, config.backbone, config.revision, transform, {"seed": config.seed})
    logged = [h["loss"] for h in trainer.state.log_history if "loss" in h]
    last = max(len(logged) // config.epochs, 1)
    return sum(logged[-last:]) / last


def figures(manifest: Path, folder: Path) -> list[str]:
    """Of a checkpoint in the folder, as FIGURES with their intervals."""
    score(ScoreVisualadConfig(manifest=manifest, checkpoint=folder, out=folder / "s", maps=folder / "maps"), QUIET)
    evaluate(
        EvaluateConfig(scores=folder / "s", maps=folder / "maps", manifest=manifest, out=folder / "metrics"), QUIET
    )
    found = {r["metric"]: r for r in read_table(folder / "metrics", METRICS).to_pylist() if r["category"] != "mean"}
    return [f"{found[n][part]:.3f}" for n in FIGURES for part in ("value", "ci_low", "ci_high")]


def main(run: Path, out: Path, seeds: tuple[int, ...] = (0, 1, 2)) -> None:
    """Train, score and print every arm of every seed; one that is in OUT/starts.csv is not made again."""
    make_folder(out)
    manifest, table = run / "manifest.parquet", out / "starts.csv"
    root = shuffle_masks(manifest, out / "shuffled.parquet")
    _, mean, std = load_backbone(str(run / "backbone"))
    transform = ImageTransform(DEMO["size"], tuple(mean), tuple(std))

    def decoded(where: Path, below: Path | None) -> Decoded:
        images = images_of(read_manifest(where, below), "train", where)
        return Decoded(TrainingSet(trainable(images.values(), "train", where)[0], transform))

    data = {False: decoded(manifest, None), True: decoded(out / "shuffled.parquet", root)}
    lines = list(csv.reader(table.open())) if table.exists() else [list(HEADS)]
    print(" | ".join(HEADS), *(" | ".join(line) for line in lines[1:]), sep="\n", flush=True)
    for seed in seeds:
        for arm in ARMS:
            if [arm, str(seed)] in [line[:2] for line in lines]:
                continue
            folder = out / f"{arm.replace(', ', '-').replace(' ', '-')}-{seed}"
            config = TrainVisualadConfig(
                manifest=manifest, out=folder, backbone=str(run / "backbone"), seed=seed, **DEMO
            )
            loss = trained(data["shuffled" in arm], config, arm == "before", transform)
            lines.append([arm, str(seed), f"{loss:.3f}", *figures(manifest, folder)])
            print(" | ".join(lines[-1]), flush=True)
            with table.open("w", newline="") as f:
                csv.writer(f).writerows(lines)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), tuple(map(int, sys.argv[3:])) or (0, 1, 2))
