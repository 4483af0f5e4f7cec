"""What is left in a folder, by name: what kills are judged by, in benchmarks.kills and in the tests."""

import re
from pathlib import Path


def listing(folder: Path, ignore: str = "$.") -> set[str]:
    """Relative names of everything below a folder; parts of an artifact count as one name per artifact."""
    names = {re.sub(r"part-\d+-of-\d+-\d+\.parquet$", "part", str(p.relative_to(folder))) for p in folder.rglob("*")}
    return {name for name in names if not re.search(ignore, name)}
