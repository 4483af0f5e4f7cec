"""Scores and, where they are wanted, anomaly maps from one pass over the images."""

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from stages.artifacts.digests import Files
from stages.artifacts.maps import Key, to_row
from stages.artifacts.tables import MAPS, SCORES
from stages.artifacts.writer import Artifact, Spec, Summary, open_all
from stages.base.config import RunOptions
from stages.base.errors import ImageError, InputError

Result = tuple[Key, dict | ImageError, np.ndarray | None]  # columns of SCORES or why there are none; the map (H, W)


def check_outputs(out: Path, others: dict[str, Path | None]) -> None:
    """others: option -> folder that is written beside the artifact. Raises InputError for one that is a file, may not
    be written, or is, holds or lies in another output."""
    taken = {"--out": out.resolve()}
    for option, folder in others.items():
        if folder is None:
            continue
        place = folder.resolve()
        for name, other in taken.items():
            if place == other or place in other.parents or other in place.parents:
                raise InputError(f"{option} {folder}: lies in {name}, or {name} in it; give a folder of its own")
        check_folder(option, folder)
        taken[option] = place


def check_folder(option: str, folder: Path) -> None:
    """Raises InputError for a folder that cannot be made or written; nothing is made."""
    place = folder.resolve()
    existing = next(p for p in (place, *place.parents) if p.exists())
    if not existing.is_dir():
        which = "a file" if existing == place else f"{existing} is a file"
        raise InputError(f"{option} {folder}: {which}, not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"{option} {folder}: {existing} may not be written; give another folder")


def scores_and_maps(
    out: Path,
    maps_out: Path | None,
    parameters: dict,
    inputs: dict[str, str],
    keys: list[Key],
    options: RunOptions,
    map_rows: int,
    results: Callable[[list[Key], Artifact], Iterable[Result]],
    notes: dict | None = None,
    map_kind: str = "<f2",
    files: Files | None = None,
    paths: dict[str, str] | None = None,
) -> Summary:
    """Write both artifacts, of one cache key; returns the summary of the scores, complete when both are.

    map_rows: of a part; results: from the keys that one of the two lacks, and the open scores, whose `ran_on` it may
    set, to a result for each; not called when there is nothing to do. notes: of the scores;
    map_kind: the kind of `maps.to_row`; files: those that are read, to be remembered;
    paths: as in Spec.
    """
    of_scores = Spec("score", parameters, inputs, notes=notes or {}, paths=paths or {})
    scores = Artifact(out, SCORES, of_scores, keys, options)
    silent = replace(options, quiet=True, limit=None)  # one progress bar for both; the limit is that of the scores
    maps = None
    if maps_out:
        maps = Artifact(maps_out, MAPS, replace(of_scores, stage="score maps", notes={}), keys, silent, map_rows)
    with ExitStack() as stack:
        open_all([a for a in (scores, maps) if a], stack)
        if files:
            files.keep(out)
        lacking = [set(a.pending) if a else set() for a in (scores, maps)]
        wanted = set(list(dict.fromkeys([*scores.pending, *(maps.pending if maps else ())]))[: options.limit])
        todo = [k for k in keys if k in wanted]
        for key, result, anomaly_map in results(todo, scores) if todo else ():
            columns = dict(zip(SCORES.key, key, strict=True))
            failed = isinstance(result, ImageError)  # before any work
            row = {"error": str(result)} if isinstance(result, ImageError) else result
            if key in lacking[0]:
                scores.write(columns | row, tried=not failed)
            if maps and key in lacking[1]:
                of_map = columns | row if anomaly_map is None else to_row(key, anomaly_map, map_kind)
                maps.write(of_map, tried=not failed)
    whole = scores.summary.complete and (maps is None or maps.summary.complete)
    return replace(scores.summary, complete=whole)
