"""How many GPUs share one model (`--tensor-parallel 0`): the fewest of those there that hold it."""

from collections.abc import Sequence
from pathlib import Path

from stages.base.errors import InputError
from stages.vlm.models import GIB, MARGIN, MODELS


def needed_gib(name: str) -> float:
    """GPU memory that a model needs, weights and a fifth more; name: a hub id or a directory.

    Raises:
        InputError: a hub id that `adcli models` does not list.
    """
    known = {m.hub_id: m.least_gpu_gib for m in MODELS}
    if name in known:
        return known[name]
    if Path(name).is_dir():
        return MARGIN * sum(f.stat().st_size for f in Path(name).glob("*.safetensors")) / GIB
    raise InputError(f"--tensor-parallel 0: how much memory {name} needs is not known; give the number of GPUs")


def fewest_gpus(need: float, gpus: Sequence[float]) -> int | None:
    """The smallest power of two (attention heads divide by no other number) of these GPUs whose memory is `need`
    together, counted as that of the smallest; None where they do not reach it. GiB."""
    numbers = [2**n for n in range(len(gpus).bit_length()) if 2**n <= len(gpus)]
    return next((n for n in numbers if n * min(gpus) >= need), None)


def choose(name: str, gpus: Sequence[float]) -> tuple[int, str]:
    """(GPUs that share the model, one line that says so). gpus: memory of each that is there, GiB; none on CPUs.

    Raises:
        InputError: they cannot hold it, or as `needed_gib`.
    """
    if not gpus:
        return 1, f"no GPU here: {name} runs on the CPU"
    need = needed_gib(name)
    number = fewest_gpus(need, gpus)
    there = f"{len(gpus)} GPU{'s' * (len(gpus) != 1)} of {min(gpus):.0f} GiB"
    wants = f"{name} needs about {need:.0f} GiB"
    if number is None:
        raise InputError(
            f"{wants} of GPU memory, and there {'is' if len(gpus) == 1 else 'are'} {there}: take larger or more GPUs, a"
            " smaller --vlm, or --tensor-parallel N, which tries it all the same"
        )
    spare = len(gpus) // number
    more = f"; --shard 0/{spare} to {spare - 1}/{spare} would use all" if spare > 1 else ""
    return number, f"{wants}: on {number} of {there}{more}"


def there() -> list[float]:
    """Memory of each visible GPU, GiB; empty without one. Starts no CUDA context: vLLM's processes make their own."""
    import torch
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        return []
    return [current_platform.get_device_total_memory(n) / GIB for n in range(torch.cuda.device_count())]
