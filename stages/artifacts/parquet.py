"""Opening Parquet files, the same for writers and readers, wherever they lie."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stages.base.regular import regular


def opened(part: Path) -> pq.ParquetFile:
    """A Parquet file to read from. pyarrow itself takes names in UTF-8 alone; a name on disk may be any bytes.

    Raises:
        pa.ArrowException, OSError, ValueError (`parts.UNREADABLE`): it is no Parquet, or no file.
    """
    return pq.ParquetFile(pa.OSFile(os.fsencode(regular(part))))
