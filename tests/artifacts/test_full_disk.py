"""A file that may not grow while an artifact is written: one line, and nothing is left but what can be used."""

import subprocess
import sys
from pathlib import Path

import pytest

from stages.artifacts.reader import read_table
from stages.artifacts.tables import CAPTIONS
from tests.artifacts.test_artifacts import KEYS
from tests.artifacts.test_damage import write

FULL = """
import resource
from pathlib import Path
from stages.artifacts.tables import CAPTIONS
from stages.artifacts.writer import Artifact
from tests.artifacts.test_artifacts import KEYS, QUIET, SPEC
resource.setrlimit(resource.RLIMIT_FSIZE, ({first}, {first}))
with Artifact(Path({out!r}), CAPTIONS, SPEC, KEYS, QUIET, 2) as artifact:
    for n, key in enumerate(artifact.pending):
        if n == 5:
            resource.setrlimit(resource.RLIMIT_FSIZE, ({then}, {then}))
        artifact.write(dict(zip(CAPTIONS.key, key, strict=True)) | {{"text": "x"}})
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "then", "kept"), [(100_000, 1500, 4), (100_000, 10, 4), (1500, 1500, 0)], ids=["part", "record", "start"]
)
def test_a_file_that_may_not_grow(tmp_path, first, then, kept):
    """A real limit, as a full disk is met: in a part, in the record behind it, and in the first part."""
    out = tmp_path / "c"
    code = FULL.format(out=str(out), first=first, then=then)
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert "InputError: " in done.stderr.splitlines()[-1] and "larger than a file may be here" in done.stderr
    there = {p.name for p in out.iterdir()} if kept else set()
    assert out.exists() == bool(kept) and len({n for n in there if n.startswith("part-")}) == kept // 2
    assert not kept or there - {"_adcli.partial.json"} == {n for n in there if n.startswith("part-")}
    assert len(write(out)[1]) == len(KEYS) - kept and len(read_table(out, CAPTIONS)) == len(KEYS)
