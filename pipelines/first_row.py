"""Stop a pipeline before its long stages when what it asked for on trial failed.

    python -m pipelines.first_row ARTIFACT WHAT

ARTIFACT: rows that were made with `--limit 1`; WHAT: what made them, for the message.
"""

import sys
from pathlib import Path

from stages.artifacts.reader import read_table
from stages.artifacts.tables import JUDGEMENTS


def main(artifact: Path, what: str) -> str | None:
    """Why the trial failed; None when a row has no error."""
    rows = read_table(artifact, JUDGEMENTS, partial=True).to_pylist()
    failed = [r["error"] for r in rows if r["error"]]
    if rows and len(failed) < len(rows):
        return None
    return f"{what}: {failed[0] if failed else 'no answer'}; nothing was trained yet"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
