"""Scores and, where they are wanted, anomaly maps from one pass over the images."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from stages.artifacts.tables import MAPS, SCORES
from stages.artifacts.writer import Artifact, Spec, Summary
from stages.errors import ImageError
from stages.maps import Key, to_row
from stages.settings import RunOptions

Result = tuple[Key, dict | ImageError, np.ndarray | None]     # columns of SCORES or why there are none; the map (H, W)


def scores_and_maps(out: Path, maps_out: Path | None, parameters: dict, inputs: dict[str, str], keys: list[Key],
                    options: RunOptions, map_rows: int, scored: Callable[[list[Key], Artifact], Iterable[Result]],
                    notes: dict | None = None, map_kind: str = "<f2") -> Summary:
    """Write both artifacts, of one cache key; returns the summary of the scores.

    map_rows: of a part; scored: from the keys that one of the two lacks, and the open scores, whose `ran_on` it may
    set, to a result for each; not called when there is nothing to do. notes: of the scores;
    map_kind: the kind of `maps.to_row`.
    """
    with ExitStack() as stack:
        scores = stack.enter_context(Artifact(out, SCORES, Spec("score", parameters, inputs, notes=notes or {}), keys,
                                              options))
        silent = replace(options, quiet=True)        # one progress bar for both
        maps = stack.enter_context(Artifact(maps_out, MAPS, Spec("score maps", parameters, inputs), keys, silent,
                                            map_rows)) if maps_out else None
        lacking = [set(a.pending) if a else set() for a in (scores, maps)]
        todo = [k for k in keys if any(k in some for some in lacking)]
        for key, found, anomaly_map in scored(todo, scores) if todo else ():
            columns = dict(zip(SCORES.key, key, strict=True))
            error = {"error": str(found)} if isinstance(found, ImageError) else {}
            if key in lacking[0]:
                scores.write(columns | (error or found), tried=not error)     # failed before any work
            if maps and key in lacking[1]:
                maps.write(columns | error if error else to_row(key, anomaly_map, map_kind), tried=not error)
    return scores.summary
