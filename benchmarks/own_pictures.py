"""`adcli inspect` on tiles, cookies and thousands of made-up pictures: seconds, peak memory, and the ranking against a
truth that is kept aside.

    python -m benchmarks.own_pictures tiles ../shared/data/magnetic-tile OUT [--neighbours] [--seed 0]
    python -m benchmarks.own_pictures cookies ../shared/data/cookies OUT [--seed 0]
    python -m benchmarks.own_pictures many OUT [--pictures 10000]

Further words after `--` go to `adcli inspect` (`-- --method anomalib/patchcore`). OUT must not exist; the pictures are
copied or rendered into it. Nothing else should run at the same time.
"""

import argparse
import csv
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from stages.datasets.magnetic_tile import tiles_of
from stages.results.metrics.image import curve_metrics

ROOT = Path(__file__).parents[1]
GOOD_TILES, NEW_TILES, GOOD_COOKIES = 300, 200, 16
SIDE, FIRST, EVERY = 256, 100, 10  # px; of the ranking; of the new made-up pictures one has a blot
SAMPLES = 0.2  # s between two looks at the memory

Pictures = list[tuple[Path, bool]]  # (new picture, whether it is defective)


def tiles(data: Path, neighbours: bool, seed: int = 0) -> tuple[list[Path], Pictures]:
    """Good pictures, and the new ones: 300 good ones, 200 good ones of other tiles, every defective one. neighbours:
    pictures of a tile follow each other; they are shuffled otherwise."""
    rng, photos = random.Random(seed), sorted(data.glob("MT_*/Imgs/*.jpg"))
    groups = tiles_of([p for p in photos if "MT_Free" in p.parts])
    rng.shuffle(groups)
    good: list[Path] = []
    while len(good) < GOOD_TILES:
        good += groups.pop()
    others = [p for group in groups for p in group][:NEW_TILES]
    new = [(p, False) for p in others] + [(p, True) for p in photos if "MT_Free" not in p.parts]
    rng.shuffle(new)
    good = good[:GOOD_TILES]
    if not neighbours:
        rng.shuffle(good)
    return good, new


def cookies(data: Path, seed: int = 0) -> tuple[list[Path], Pictures]:
    """Sixteen whole ones, and all others as new."""
    whole = sorted((data / "images").glob("normal-*.jpg"))
    random.Random(seed).shuffle(whole)
    cracked = sorted((data / "images").glob("anomaly-*.jpg"))
    return whole[:GOOD_COOKIES], [(p, False) for p in whole[GOOD_COOKIES:]] + [(p, True) for p in cracked]


def copied(good: list[Path], new: Pictures, out: Path) -> set[str]:
    """Copy them under running numbers, which say nothing; returns the names of the defective ones."""
    for kind, files in (("normal", good), ("new", [p for p, _ in new])):
        (out / kind).mkdir(parents=True)
        for number, file in enumerate(files):
            shutil.copyfile(file, out / kind / f"{number:05d}{file.suffix}")
    return {f"{number:05d}{file.suffix}" for number, (file, defective) in enumerate(new) if defective}


def rendered(pictures: int, out: Path) -> set[str]:
    """Half of them good, half of them new, one in ten of these with a dark blot; returns the names of those."""
    defective = set()
    for kind, first in (("normal", 0), ("new", pictures // 2)):
        (out / kind).mkdir(parents=True)
        for number in range(pictures // 2):
            rng, name = np.random.default_rng(first + number), f"{number:05d}.png"
            picture = rng.normal(128, 12, (SIDE, SIDE)) + np.linspace(0, 40, SIDE)
            if kind == "new" and number % EVERY == 0:
                y, x = rng.integers(30, SIDE - 30, 2)
                cv2.circle(picture, (int(x), int(y)), 10, 20.0, -1)
                defective.add(name)
            cv2.imwrite(str(out / kind / name), picture.clip(0, 255).astype(np.uint8))
    return defective


def resident(root: int) -> int:
    """Bytes that a process and all that descend from it hold, pages that they share counted each time."""
    parents, pages = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            parents[int(entry.name)], pages[int(entry.name)] = int(words[1]), int(words[21])

    def below(process: int | None) -> bool:
        return process == root or (process in parents and below(parents[process]))

    return sum(p for process, p in pages.items() if below(process)) * os.sysconf("SC_PAGE_SIZE")


def measured(words: list[str], cwd: Path, memory: Callable[[int], int] = resident) -> dict[str, float]:
    """Run a command; its seconds, processor seconds and the largest memory of its whole tree, GB."""
    before, began, peak = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic(), 0
    process, over = subprocess.Popen(words, cwd=cwd, env=os.environ | {"PYTHONPATH": str(ROOT)}), threading.Event()

    def watch() -> None:
        nonlocal peak
        while not over.wait(SAMPLES):
            peak = max(peak, memory(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        code = process.wait()
    finally:
        over.set()
        watcher.join()
    if code not in (0, 3):  # 3: some pictures failed
        sys.exit(f"own_pictures: the command ended with {code}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": time.monotonic() - began, "processor_seconds": busy, "peak_gb": peak / 1e9}


def judged(ranking: Path, defective: set[str]) -> dict[str, float | None]:
    """AUROC of a ranking with its 95 % interval, and how many of the first ones are defective. A tie counts one half:
    the scores are compared, not the places."""
    with ranking.open() as f:
        rows = [r for r in csv.DictReader(f) if r["score"]]
    labels = [int(Path(r["file"]).name in defective) for r in rows]
    # Of several kinds the ranking goes by height above each kind's line; here there is one.
    found = curve_metrics(np.array([float(r["score"]) for r in rows]), np.array(labels), 1000, 0)["auroc"]
    first = labels[:FIRST]
    return {
        "pictures": len(rows),
        "defective": sum(labels),
        "auroc": found.value,
        "auroc_low": found.ci_low,
        "auroc_high": found.ci_high,
        "first": len(first),
        "defective_among_first": sum(first),
        "defective_among_as_many": sum(labels[: sum(labels)]),
        "above_line_good": sum(r["above the line"] == "yes" for r, x in zip(rows, labels, strict=True) if not x),
        "above_line_defective": sum(r["above the line"] == "yes" for r, x in zip(rows, labels, strict=True) if x),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind in ("tiles", "cookies", "many"):
        one = kinds.add_parser(kind)
        if kind != "many":
            one.add_argument("data", type=Path)
            one.add_argument("--seed", type=int, default=0, help="of the draw: which pictures are the good ones")
        one.add_argument("out", type=Path)
        if kind == "tiles":
            one.add_argument("--neighbours", action="store_true", help="pictures of a tile follow each other")
        if kind == "many":
            one.add_argument("--pictures", type=int, default=10_000)
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    given, more = parser.parse_args(words[:end]), words[end + 1 :]
    if given.out.exists():
        sys.exit(f"own_pictures: {given.out} exists; give another OUT")
    photos = given.out / "photos"
    if given.kind == "many":
        defective = rendered(given.pictures, photos)
    else:
        if given.kind == "tiles":
            found = tiles(given.data, given.neighbours, given.seed)
        else:
            found = cookies(given.data, given.seed)
        defective = copied(*found, photos)
    (given.out / "truth.json").write_text(json.dumps(sorted(defective)))
    inspect = ["inspect", "--good", "photos/normal", "--test", "photos/new", "--out", "run", *more]
    figures = measured([sys.executable, "-P", "-m", "adcli", *inspect], given.out)
    figures |= judged(given.out / "run" / "ranking.csv", defective)
    (given.out / "figures.json").write_text(json.dumps(figures, indent=1))
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
