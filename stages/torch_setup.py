"""Everything to settle before torch and transformers are used: called first by every stage that does."""

import logging
import os
import sys
from pathlib import Path

from stages.errors import InputError


def prepare_torch() -> None:
    """Make torch, torchvision and transformers importable and quiet.

    PyPI's torchvision is built for CUDA; beside a CPU build of torch its import stops at a missing
    operator, and transformers then cannot import any model. Only its Python part is needed here (image
    transforms), so the two operators are declared without an implementation and the import is repeated.

    Raises:
        InputError: a package is missing; says what to install.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # Huge pages: without them a step's dense embedding gradient (47 MB in MiniLM) costs as much time in
    # page faults as a quarter of the arithmetic. Read by torch at its import.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    try:
        import torch  # noqa: F401
        _import_torchvision()
        import transformers
    except ModuleNotFoundError as e:
        raise InputError(f"this stage needs the package {e.name}: pip install 'adcli[models]'") from None
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)


def _import_torchvision() -> None:
    try:
        import torchvision  # noqa: F401
    except RuntimeError as e:
        if "torchvision::nms" not in str(e):
            raise
        for name in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        declare_torchvision_operators()
        import torchvision  # noqa: F401


def declare_torchvision_operators() -> None:
    """Declare the two operators that torchvision's import looks for, without an implementation."""
    import torch

    if hasattr(torch.ops.torchvision, "nms"):
        return
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float t) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float t) -> Tensor")
    declare_torchvision_operators.library = library      # the declarations live as long as this object


def pick_device(name: str) -> str:
    """'auto' -> 'cuda' where there is one, else 'cpu'; other names as they are.

    Raises:
        InputError: a CUDA device is asked for that is not there.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"--device {name}: torch sees no CUDA device; use --device cpu")
    return name


def device_and_precision(device: str, precision: str) -> tuple[str, str]:
    """('cpu' or 'cuda', 'fp32' or 'bf16') as --device and --precision stand for on this machine.

    Raises:
        InputError: an unknown precision, or a device that is not there.
    """
    if precision not in ("auto", "fp32", "bf16"):
        raise InputError(f"--precision {precision}: expected auto, fp32 or bf16")
    device = pick_device(device)
    auto = "bf16" if has_bf16(device) else "fp32"
    return device, auto if precision == "auto" else precision


def has_bf16(device: str) -> bool:
    """Whether the processor multiplies bf16 matrices in hardware; emulated it is slower than fp32."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        with open("/proc/cpuinfo") as f:
            flags = next((line for line in f if line.startswith("flags")), "")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def tensorboard(folder: Path) -> list:
    """Callbacks of a transformers Trainer that write its losses to FOLDER, where TensorBoard is installed."""
    from importlib.util import find_spec

    if find_spec("tensorboard") is None:
        return []
    from transformers.integrations import TensorBoardCallback

    callback = TensorBoardCallback()
    callback.logging_dir = str(folder)
    return [callback]
