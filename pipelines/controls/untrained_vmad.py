"""A control for VMAD: the model as training would begin with it.

    python -m pipelines.controls.untrained_vmad CHECKPOINT OUT

CHECKPOINT: what finetune-mllm --method vmad wrote; OUT: a folder for the same parts, none of them trained.
"""

import sys
from pathlib import Path

from stages.training.torch_setup import prepare_torch


def main(trained: Path, out: Path) -> None:
    """Build the model of the checkpoint's settings anew and save it."""
    prepare_torch()
    import torch

    from stages.vmad.build import new_model
    from stages.vmad.checkpoint import save_vmad, sources

    _, record, llava, sam = sources(trained)
    torch.manual_seed(0)
    model, text = new_model(llava, sam, record["settings"], record["weights"])
    save_vmad(model, text, out, llava, sam, descriptions=record["descriptions"])


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
