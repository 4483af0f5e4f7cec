"""Everything to settle before torch and transformers are used: called first by every stage that does."""

import logging
import os
import re
import sys
from ctypes import CDLL
from importlib.util import find_spec
from pathlib import Path

from stages.base.errors import InputError


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
        import torchvision
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
    declare_torchvision_operators.library = library  # the declarations live as long as this object


def require_packages(*names: str) -> None:
    """Whether they are installed, without importing them.

    Raises:
        InputError: one is missing; says what to install.
    """
    for name in names:
        if find_spec(name) is None:
            raise InputError(f"this stage needs the package {name}: pip install 'adcli[models]'")


def pick_device(name: str) -> str:
    """'auto' -> 'cuda' where there is one, else 'cpu'; other names as they are. torch is imported only where there is
    a GPU's driver.

    Raises:
        InputError: no name of a device, or a CUDA device that is not there.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise InputError(f"--device {name}: expected auto, cpu or cuda")
    if name == "auto":
        return "cuda" if _gpus() else "cpu"
    if name != "cpu" and int(name.partition(":")[2] or 0) >= (gpus := _gpus()):
        seen = f"{gpus} CUDA devices, counted from 0" if gpus else "no CUDA device"
        raise InputError(f"--device {name}: torch sees {seen}; use --device {'cuda' if gpus else 'cpu'}")
    return name


def _gpus() -> int:
    """CUDA devices that torch sees. Where there is no driver of NVIDIA's (the library that torch, too, would ask) and
    none of AMD's there is none, and torch's import, a second or two, is saved."""
    if sys.platform == "linux" and not os.path.exists("/dev/kfd"):
        try:
            CDLL("libcuda.so.1")
        except OSError:
            return 0
    try:
        import torch
    except ModuleNotFoundError:
        require_packages("torch")
        raise
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def resolved_precision(device: str, precision: str) -> tuple[str, str]:
    """('cpu' or 'cuda', 'fp32' or 'bf16') as --device and --precision stand for on this machine: what belongs into a
    cache key in place of `auto`, whose meaning is another one on another machine.

    On a CPU `auto` is answered from /proc/cpuinfo, without torch; for a GPU torch is imported and asked.

    Raises:
        InputError: an unknown precision, or a device that is not there.
    """
    if precision not in ("auto", "fp32", "bf16"):
        raise InputError(f"--precision {precision}: expected auto, fp32 or bf16")
    device = pick_device(device)
    if precision == "auto":
        precision = "bf16" if has_bf16(device) else "fp32"
    return device, precision


device_and_precision = resolved_precision  # its former name


def has_bf16(device: str) -> bool:
    """Whether the processor multiplies bf16 matrices in hardware; emulated it is slower than fp32."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        with open("/proc/cpuinfo") as f:
            flags = next((line for line in f if line.startswith("flags")), "")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def tensorboard(folder: Path) -> list:
    """Callbacks of a transformers Trainer that write its losses to FOLDER, where TensorBoard is installed."""
    if find_spec("tensorboard") is None:
        return []
    from transformers.integrations import TensorBoardCallback

    callback = TensorBoardCallback()
    callback.logging_dir = str(folder)
    return [callback]
