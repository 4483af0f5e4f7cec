"""torch and transformers, prepared. A module that imports torch, transformers, peft or trl at its top takes torch, or
transformers, from here:

    from stages.training.prepared import torch

ruff's import order (pyproject.toml, section "prepared") puts this line above all other libraries, where it has to be:

- PyPI's torchvision is built for CUDA; beside a CPU build of torch its import stops at a missing operator, and
  transformers then cannot import any model. Only its Python part is needed here (image transforms), so the two
  operators are declared without an implementation and the import is repeated.
- Some of the environment is read by torch at its import.

What the command line needs before it runs a stage (`config.py` of each method) imports neither this nor torch: `--help`
and refused settings take no second. Scripts and tests need not prepare anything before they import a stage; those that
import transformers themselves call `torch_setup.prepare_torch` first.

Raises:
    InputError: a package is missing; says what to install.
"""

import logging
import os
import sys

from stages.base.errors import InputError
from stages.training.torchvision_operators import declare_torchvision_operators

__all__ = ["torch", "transformers"]

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
# Huge pages: without them a step's dense embedding gradient (47 MB in MiniLM) costs as much time in page faults as a
# quarter of the arithmetic.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def _import_torchvision() -> None:
    try:
        import torchvision
    except RuntimeError as e:
        if "torchvision::nms" not in str(e):
            raise
        for name in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        declare_torchvision_operators()
        import torchvision  # noqa: F401


try:
    import torch

    _import_torchvision()
    import transformers
except ModuleNotFoundError as e:
    raise InputError(f"this stage needs the package {e.name}: pip install 'adcli[models]'") from None
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
