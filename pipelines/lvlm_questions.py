"""How many questions a run of pipelines/lvlm.sh asks, before it asks any.

python -m pipelines.lvlm_questions MANIFESTS --kinds "rotate90 pad20" --variants zero-shot --train
"""

import argparse
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from stages.artifacts.reader import read_table
from stages.artifacts.tables import MANIFEST
from stages.base.errors import InputError
from stages.report.lvlm_cost import PAPER_SECONDS


def lines(images: Iterable[tuple[str, str]], kinds: int, variants: int, train: bool) -> list[str]:
    """images: (data set, split) of each, as they were taken; kinds: augmentations; variants: further ways to ask, of
    mvtec-ad alone; train: whether training images are asked about."""
    counts = Counter(images)
    found, total = [], 0
    for dataset in dict.fromkeys(d for d, _ in counts):
        ways = 1 + kinds + (variants if dataset == "mvtec-ad" else 0)
        test, once = counts[dataset, "test"], counts[dataset, "train"] if train else 0
        total += ways * test + once
        more = f", {once:,} training images once" if train else ""
        found.append(f"{dataset}: {test:,} test images, each asked about {ways} times{more}")
    hours = total * PAPER_SECONDS / 3600
    return [
        *found,
        f"{total:,} questions in all, {hours:,.1f} hours at the paper's {PAPER_SECONDS} s; answers that are there are"
        " kept",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifests", type=Path, help="folder with a manifest of each data set in <name>/original")
    parser.add_argument("--kinds", type=str.split, default=[], help="augmentations")
    parser.add_argument("--variants", type=str.split, default=[], help="of Table 5")
    parser.add_argument("--train", action="store_true")
    given = parser.parse_args()
    images: list[tuple[str, str]] = []
    try:
        for path in sorted(given.manifests.glob("*/original")):
            rows = read_table(path, MANIFEST).select(["dataset", "split"]).to_pylist()
            images += [(r["dataset"], r["split"]) for r in rows]
    except InputError as e:
        raise SystemExit(f"error: {e}") from None
    print("\n".join(lines(images, len(given.kinds), len(given.variants), given.train)))


if __name__ == "__main__":
    main()
