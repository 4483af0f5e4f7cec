"""A tiny InternVL with random weights, for runs without any download: `python -m benchmarks.random_vlm DIR`."""

import sys
from pathlib import Path

from tests.tiny import tiny_internvl

if __name__ == "__main__":
    tiny_internvl(Path(sys.argv[1]))
