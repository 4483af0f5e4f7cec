"""A tiny LLaVA and a tiny SAM with random weights, for runs without any download: `python -m benchmarks.random_vmad
DIR` makes DIR/llava and DIR/sam.
"""

import sys
from pathlib import Path

from tests.tiny import tiny_deep_llava, tiny_sam

CANVAS, PATCH, WIDTH = 256, 8, 64        # SAM's input and patches, px; width of its encoder

if __name__ == "__main__":
    tiny_deep_llava(Path(sys.argv[1]) / "llava")
    tiny_sam(Path(sys.argv[1]) / "sam", CANVAS, PATCH, WIDTH)
