"""Device, precision and packages, settled without torch wherever that is possible. See `prepared` for torch itself."""

import re
import sys
from ctypes import CDLL
from importlib.util import find_spec
from pathlib import Path

from stages.base.errors import InputError


def prepare_torch() -> None:
    """What importing `stages.training.prepared` does, for code that imports torch or transformers within functions.

    Raises:
        InputError: a package is missing; says what to install.
    """
    import stages.training.prepared  # noqa: F401


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
        raise InputError(f"--device {name}: expected auto, cpu, cuda or cuda:NUMBER")
    if name == "auto":
        return "cuda" if _gpus() else "cpu"
    if name != "cpu" and int(name.partition(":")[2] or 0) >= (gpus := _gpus()):
        seen = f"{gpus} CUDA devices, counted from 0" if gpus else "no CUDA device"
        raise InputError(f"--device {name}: torch sees {seen}; use --device {'cuda' if gpus else 'cpu'}")
    return name


def _gpus() -> int:
    """CUDA devices that torch sees. Where there is no driver of NVIDIA's (the library that torch, too, would ask) and
    none of AMD's there is none, and torch's import, a second or two, is saved."""
    if sys.platform == "linux" and not Path("/dev/kfd").exists():
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


def has_bf16(device: str) -> bool:
    """Whether the processor multiplies bf16 matrices in hardware; emulated it is slower than fp32."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        with Path("/proc/cpuinfo").open() as f:
            flags = next((line for line in f if line.startswith("flags")), "")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
