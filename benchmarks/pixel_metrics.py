"""Exact pixel metrics against what research code does, on the same seeded maps: time, agreement, memory.

    python -m benchmarks.pixel_metrics [--full]

Needs the extra `benchmarks`: scikit-learn's three curves and a PRO loop of 200 thresholds over scikit-image's
regions, as the authors' scripts have it; torchmetrics' AUROC and anomalib's AUPRO where they are installed.
--full adds a category of MVTec's largest size and a whole MVTec-sized evaluation through `adcli evaluate`.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.artifacts.maps import to_row
from stages.artifacts.tables import MANIFEST, MAPS, SCORES
from stages.results.metrics.pixel import metrics, picture
from stages.training.torch_setup import prepare_torch

ROUNDS = 3
LARGEST = [(900, 167)]  # px, images: 135 million pixels
MVTEC = [(518, n) for n in (83, 150, 132, 117, 78, 110, 124, 115, 167, 160, 117, 42, 100, 79, 151)]  # 1,725 images


def made_up(images: int, side: int, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Smooth float16 maps and masks; a third of the images normal, the others with one to three ellipses."""
    import cv2

    rng, maps, masks = np.random.default_rng(seed), [], []
    for n in range(images):
        mask = np.zeros((side, side), np.uint8)
        for _ in range(rng.integers(1, 4) if n % 3 else 0):
            centre, axes = rng.integers(0, side, 2), rng.integers(side // 40 + 1, side // 8 + 2, 2)
            cv2.ellipse(mask, tuple(map(int, centre)), tuple(map(int, axes)), int(rng.integers(180)), 0, 360, 1, -1)
        coarse = rng.normal(size=(side // 8, side // 8)).astype(np.float32)
        smooth = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
        fine = rng.normal(size=(side, side)).astype(np.float32)
        lift = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), side / 60 + 0.5)
        maps.append((smooth + 0.3 * fine + rng.uniform(0.5, 2.5) * lift).astype(np.float16))
        masks.append(mask > 0)
    return maps, masks


def ours(maps, masks) -> dict[str, float]:
    """All four metrics, exact."""
    values, _ = metrics([picture(m, k) for m, k in zip(maps, masks, strict=True)], 0.3, 0, 0, approximate=True)
    return {name: v.value for name, v in values.items()}


def scikit_learn(maps, masks) -> dict[str, float]:
    """AUROC, AP and F1-max of the flattened pixels."""
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    scores, labels = np.concatenate(maps, None).astype(np.float32), np.concatenate(masks, None)
    precision, recall, _ = precision_recall_curve(labels, scores)
    return {
        "pixel_auroc": roc_auc_score(labels, scores),
        "pixel_ap": average_precision_score(labels, scores),
        "pixel_f1_max": np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12)),
    }


def plain_pro(maps, masks) -> dict[str, float]:
    """200 thresholds, every region of every image at each of them."""
    from skimage.measure import label, regionprops

    scores, masks = np.stack(maps).astype(np.float32), np.stack(masks)
    low, high = scores.min(), scores.max()
    rates, overlaps = [], []
    for threshold in np.arange(low, high, (high - low) / 200):
        hit = scores > threshold
        shares = [
            h[tuple(r.coords.T)].sum() / r.area for h, m in zip(hit, masks, strict=True) for r in regionprops(label(m))
        ]
        rates.append((hit & ~masks).sum() / (~masks).sum())
        overlaps.append(np.mean(shares))
    rates, overlaps = np.array(rates), np.array(overlaps)
    overlaps, rates = overlaps[rates < 0.3], rates[rates < 0.3]
    rates = (rates - rates.min()) / (rates.max() - rates.min())
    return {"pro_200": float(np.trapezoid(overlaps[::-1], rates[::-1]))}


def torchmetrics(maps, masks) -> dict[str, float]:
    """BinaryAUROC and BinaryAveragePrecision over all thresholds."""
    import torch
    from torchmetrics.functional.classification import binary_auroc, binary_average_precision

    scores = torch.from_numpy(np.concatenate(maps, None).astype(np.float32)).sigmoid()  # it wants 0..1
    labels = torch.from_numpy(np.concatenate(masks, None)).int()
    return {
        "pixel_auroc": float(binary_auroc(scores, labels)),
        "pixel_ap": float(binary_average_precision(scores, labels)),
    }


def anomalib(maps, masks) -> dict[str, float]:
    """AUPRO at 0.3, all thresholds."""
    import torch
    from anomalib.metrics.aupro import _AUPRO

    metric = _AUPRO(fpr_limit=0.3)
    metric.update(torch.from_numpy(np.stack(maps).astype(np.float32)), torch.from_numpy(np.stack(masks)).int())
    return {"pro@0.3": float(metric.compute())}


def timed(work, maps, masks, rounds: int) -> tuple[float, dict[str, float]]:
    """(median seconds, values)."""
    seconds = []
    for _ in range(rounds):
        started = time.monotonic()
        values = work(maps, masks)
        seconds.append(time.monotonic() - started)
    return statistics.median(seconds), values


def compare() -> None:
    """100 images of 256 x 256."""
    maps, masks = made_up(100, 256, 0)
    timed(ours, maps[:2], masks[:2], 1)  # imports
    mine, values = timed(ours, maps, masks, ROUNDS)
    print(f"ours, four metrics and pro_200: {mine:.2f} s  " + "  ".join(f"{k} {v:.6f}" for k, v in values.items()))
    total = 0.0
    for work, counts in ((scikit_learn, True), (plain_pro, True), (torchmetrics, False), (anomalib, False)):
        try:
            seconds, theirs = timed(work, maps, masks, 1)
        except ImportError as e:
            print(f"{work.__name__}: not installed ({e})")
            continue
        total += seconds if counts else 0
        away = ", ".join(f"{k} {abs(v - values[k]):.1e}" for k, v in theirs.items())
        print(f"{work.__name__}: {seconds:.1f} s, {seconds / mine:.0f} times ours; differs by {away}")
    print(f"scikit-learn and the PRO loop take {total / mine:.0f} times ours (target >= 20)")


def full(name: str, categories: list[tuple[int, int]], most_seconds: float, most_gb: float) -> None:
    """`adcli evaluate` on Parquet in a process of its own; the time is that of the whole command."""
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        write(at, categories)
        command = [
            sys.executable,
            "-m",
            "adcli",
            "evaluate",
            at / "s.parquet",
            "--manifest",
            at / "m.parquet",
            "--maps",
            at / "maps",
            "--out",
            at / "metrics",
            "--resamples",
            "0",
            "--quiet",
            "--json",
        ]
        started = time.monotonic()
        done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
        seconds = time.monotonic() - started
    gigabytes = json.loads(done.stdout)["peak_rss_mb"] / 1000
    print(f"{name}: {seconds:.0f} s (target {most_seconds:.0f}), peak memory {gigabytes:.1f} GB (target {most_gb:.0f})")


def write(at: Path, categories: list[tuple[int, int]]) -> None:
    """A manifest with masks, scores, and maps in parts of one category each."""
    from PIL import Image

    manifest, scores = [], []
    (at / "maps").mkdir()
    for c, (side, images) in enumerate(categories):
        maps, masks = made_up(images, side, c)
        rows = []
        for n, (anomaly_map, mask) in enumerate(zip(maps, masks, strict=True)):
            key = f"{c:02d}-{n:04d}"
            if mask.any():
                Image.fromarray(mask.astype(np.uint8) * 255).save(at / f"{key}.png")
            manifest.append(
                {
                    "image_id": key,
                    "path": f"{key}.jpg",
                    "dataset": "made-up",
                    "category": f"c{c:02d}",
                    "split": "test",
                    "label": int(mask.any()),
                    "width": side,
                    "height": side,
                    "mask_paths": [str(at / f"{key}.png")] if mask.any() else [],
                }
            )
            scores.append({"image_id": key, "method": "m", "score": float(anomaly_map.max())})
            rows.append(to_row((key, "m"), anomaly_map))
        pq.write_table(
            pa.Table.from_pylist(rows, schema=MAPS.schema),
            at / "maps" / f"{c:02d}.parquet",
            compression="zstd",
            row_group_size=16,
        )
    pq.write_table(pa.Table.from_pylist(manifest, schema=MANIFEST.schema), at / "m.parquet")
    pq.write_table(pa.Table.from_pylist(scores, schema=SCORES.schema), at / "s.parquet")


if __name__ == "__main__":
    prepare_torch()
    compare()
    if "--full" in sys.argv:
        full("largest category, 167 images of 900 x 900", LARGEST, 30, 4)
        full("MVTec-sized, 1,725 images of 518 x 518", MVTEC, 180, 3)
