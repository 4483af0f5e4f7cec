"""Several processes of one training run, as torchrun starts them: the first keeps the record, the others help."""

import os

from stages.errors import InputError


def rank() -> int:
    """This process's number, from 0."""
    return int(os.environ.get("RANK", "0"))


def world() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def share(batch_size: int) -> int:
    """Images of each process per step.

    Raises:
        InputError: they cannot all have as many.
    """
    if batch_size % world():
        raise InputError(f"--batch-size {batch_size}: no multiple of the {world()} processes")
    return batch_size // world()


def agreed(pending: bool | None, device: str) -> bool:
    """What the first process found, in all of them: it alone has opened the artifact; the others pass None."""
    if world() == 1:
        return bool(pending)
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    PartialState(cpu=device == "cpu")
    return bool(broadcast_object_list([pending])[0])
