"""What published data sets hold: known_counts.csv."""

import csv
from collections.abc import Collection
from importlib.resources import files


def rows() -> list[dict[str, str]]:
    return list(csv.DictReader(files("stages").joinpath("datasets/known_counts.csv").read_text().splitlines()))


def other_categories(dataset: str, found: Collection[str]) -> tuple[list[str], list[str]]:
    """(known ones that are not there, those that are there and not known); of a data set that is not known none."""
    known = [r["category"] for r in rows() if r["dataset"] == dataset]
    return [c for c in known if c not in found], sorted(c for c in set(found) if known and c not in known)
