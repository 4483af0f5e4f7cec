"""A control for any training on masks: `python -m benchmarks.dealt_masks MANIFEST OUT` writes the manifest with labels
and masks of the training images dealt out anew among them.
"""

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.visualad_check import shuffled
from stages.artifacts.reader import read_table
from stages.artifacts.tables import MANIFEST

if __name__ == "__main__":
    rows = shuffled(read_table(Path(sys.argv[1]), MANIFEST).to_pylist())
    pq.write_table(pa.Table.from_pylist(rows, schema=MANIFEST.schema), sys.argv[2])
