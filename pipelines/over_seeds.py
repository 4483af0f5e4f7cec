"""The LVLM paper's tables over several seeds: mean and standard deviation of every cell.

python -m pipelines.over_seeds runs/lvlm-seeds_0_1/seed-0 runs/lvlm-seeds_0_1/seed-1 --tables runs/lvlm-seeds_0_1/tables
"""

import argparse
from pathlib import Path

from stages.artifacts.reader import read_provenance
from stages.base.errors import InputError
from stages.report import grid, lvlm, lvlm_cost, over_seeds
from stages.results.metric_rows import metric_rows
from stages.results.scores import read_tasks


def tables_of(folder: Path) -> list[grid.Grid]:
    """Of one seed's folder, from its scores and the manifest that its metrics were made with. Raises InputError."""
    record = next(iter(read_provenance(folder / "metrics.parquet")), None)
    if record is None:
        raise InputError(f"{folder}: no metrics.parquet of pipelines/lvlm.sh; give the folders of finished seeds")
    scores = folder / "scores.parquet"
    tasks = read_tasks(scores, Path(record["paths"]["manifest"]))
    tables = lvlm.accuracy_tables(tasks, metric_rows(tasks, 0, 0))
    return [*tables, lvlm_cost.table(tasks, read_provenance(scores))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", help="of the seeds")
    parser.add_argument("--tables", type=Path, required=True, help="folder to write")
    given = parser.parse_args()
    try:
        grids = [g for g in over_seeds.merged([tables_of(f) for f in given.folders]) if g.rows]
        grid.require_free(grids, given.tables)
        grid.write(grids, given.tables)
    except InputError as e:
        raise SystemExit(f"error: {e}") from None
    print("\n\n".join(map(grid.as_text, grids)))
    print(f"tables over seeds: {given.tables}")


if __name__ == "__main__":
    main()
