"""VMAD's modules beside each other on the demo's tiny models, over seeds: do they find defects, and which helps?

    python -m pipelines.controls.vmad_arms OUT [SEED ...]

Each seed has a folder OUT/seed-N with the demo, its controls and the other rows of Table III (ROWS=yes
pipelines/vmad_demo.sh, whose other settings can be given, too); seeds 0, 1 and 2 unless others are given. Printed and
written to OUT/arms.csv, a line for each row: pooled pixel AUROC of every seed with its 95 % interval, and the means
over seeds of it, of the AUROC within images, of PRO and of image AUROC.
"""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from stages.artifacts.maps import read_maps
from stages.artifacts.reader import read_table
from stages.artifacts.tables import METRICS
from stages.datasets.manifest import Image, read_manifest
from stages.results.metrics.pixel import auroc, curve, picture, sorted_pixels
from stages.results.pixels import fitted, masks_of

HEADS = ("row", "seeds", "pixel AUROC, each", "pixel AUROC", "within images", "PRO", "image AUROC")


def within(images: dict[str, Image], maps: Path, method: str) -> float:
    """Mean over the anomalous test images of the AUROC of their own pixels, 0..1."""
    values = []
    for (image_id, _), anomaly_map in read_maps(maps, {(i, method) for i in images}):
        mask, _ = masks_of(images[image_id], anomaly_map.shape, 0)
        if mask.any() and not mask.all():
            one = [picture(fitted(anomaly_map, mask.shape), mask)]
            values.append(float(auroc(curve(one, *sorted_pixels(one)))))
    return float(np.mean(values))


def made(out: Path, seed: int) -> dict[str, tuple[float, ...]]:
    """Run a seed's demo and rows. method -> (pixel AUROC, its low and high, AUROC within images, PRO, image AUROC)."""
    told = os.environ | {"VM": str(out), "SEED": str(seed), "ROWS": "yes"}
    subprocess.run(["pipelines/vmad_demo.sh"], env=told, check=True)
    images = {i.image_id: i for i in read_manifest(out / "manifest.parquet").images if i.split == "test" and i.label}
    by, found = {}, {}
    for r in read_table(out / "metrics.parquet", METRICS).to_pylist():
        if r["category"] != "mean":
            by[r["method"], r["metric"]] = r
    for method in {m for m, _ in by}:
        area = by[method, "pixel_auroc"]
        more = (by[method, name]["value"] for name in ("pro@0.3", "auroc"))
        own = within(images, out / "maps.parquet" / method, method)
        found[method] = area["value"], area["ci_low"], area["ci_high"], own, *more
    return found


def main(out: Path, seeds: tuple[int, ...]) -> None:
    """Run every seed, then print the table and write it."""
    found = [made(out / f"seed-{seed}", seed) for seed in seeds]
    lines = []
    for method in sorted(found[0]):
        each = "; ".join("{:.3f} [{:.3f}, {:.3f}]".format(*f[method][:3]) for f in found)
        means = np.mean([(f[method][0], *f[method][3:]) for f in found], axis=0)
        lines.append((method, ",".join(map(str, seeds)), each, *(f"{m:.3f}" for m in means)))
    with (out / "arms.csv").open("w", newline="") as f:
        csv.writer(f).writerows([HEADS, *lines])
    for line in (HEADS, *lines):
        print(" | ".join(line))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), tuple(map(int, sys.argv[2:])) or (0, 1, 2))
