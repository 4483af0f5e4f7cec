"""The control of SAGE's E-DPO: the same questions and answers, their ranks shuffled.

    python -m pipelines.controls.shuffled_ranks QUESTIONS OUT

Scores stay with the ranks, so that pairs and margins are those of the true ranks; only which answer wins is chance.
"""

import random
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stages.artifacts.reader import read_table
from stages.artifacts.tables import QUESTIONS


def main(questions: Path, out: Path, seed: int = 0) -> None:
    """Write a foreign Parquet file of questions; whichever answer comes first is called right."""
    rows, rng = read_table(questions, QUESTIONS).to_pylist(), random.Random(seed)
    for row in rows:
        rng.shuffle(row["choices"])
        row["answer"] = row["choices"][0] if row["choices"] else None
    pq.write_table(pa.Table.from_pylist(rows, schema=QUESTIONS.schema), out)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
