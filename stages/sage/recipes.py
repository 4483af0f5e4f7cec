"""Recipes of SAGE's trainings: what an option that is not given means. Plain numbers, no torch."""

from dataclasses import replace
from math import ceil, floor
from typing import Any

from stages.base.errors import InputError

RECIPES = ("default", "paper", "released")
OUTLAST = 0.0  # --epochs: as many whole passes as the warm-up needs

SHARED = {
    # The paper's rates are for a whole model over thousands of questions and more: on a few hundred, with LoRA, its
    # warm-up is never over and its peak moves nothing. These lower the loss of a small set, too.
    "default": {"batch_size": 16, "warmup": 0.03, "schedule": "cosine", "weight_decay": 0.0},
    # Section 5.1; epochs, schedule after the warm-up and weight decay are not named there.
    "paper": {
        "epochs": OUTLAST,
        "batch_size": 32,
        "learning_rate": 2e-6,
        "warmup": 1000.0,
        "schedule": "linear",
        "weight_decay": 0.0,
    },
    # The authors' scripts at e0aa0a73.
    "released": {"epochs": 1.0, "warmup": 0.03, "schedule": "cosine", "weight_decay": 0.05},
}
OWN: dict[str, dict[str, dict[str, Any]]] = {
    "sage-sfe": {
        "default": {"epochs": 3.0, "lora_rank": 16, "lora_dropout": 0.0, "adapter": "trained", "tiles": 0},
        "paper": {"lora_rank": 0, "lora_dropout": 0.0, "adapter": "trained", "tiles": 0},
        "released": {
            "batch_size": 16,
            "learning_rate": 4e-5,
            "lora_rank": 16,
            "lora_dropout": 0.05,
            "adapter": "frozen",
            "tiles": 6,
        },
    },
    "sage-edpo": {
        "default": {"epochs": 1.0, "lora_rank": 16, "vision": "frozen"},
        "paper": {"lora_rank": 0, "vision": "frozen"},
        "released": {"batch_size": 4, "learning_rate": 5e-6, "lora_rank": 0, "vision": "trained"},
    },
}
RATES = {"sage-sfe": {True: 2e-4, False: 1e-5}, "sage-edpo": {True: 5e-5, False: 2e-6}}  # default: with LoRA, without


def check_recipe(name: str) -> None:
    """Raises InputError for a recipe that is none."""
    if name not in RECIPES:
        raise InputError(f"--recipe {name}: expected {', '.join(RECIPES)}")


def filled(config: Any, lora_rank: int | None = None) -> Any:
    """The options with those of its recipe where none is given. lora_rank: of the checkpoint that is trained further.

    Raises:
        InputError: no such recipe.
    """
    check_recipe(config.recipe)
    wanted = SHARED[config.recipe] | OWN[config.method][config.recipe]
    own = {n: v for n, v in wanted.items() if getattr(config, n, 0) is None}
    found = replace(config, **own)
    if found.learning_rate is None:
        rank = getattr(found, "lora_rank", 0) if lora_rank is None else lora_rank
        found = replace(found, learning_rate=RATES[config.method][bool(rank)])
    return found


def counted(config: Any, samples: int) -> Any:
    """Options of `filled` with --epochs and --warmup in numbers: as many whole passes as the warm-up needs, where the
    recipe says so; the warm-up in steps (a share is rounded up, but leaves one: its first step has a rate of 0).

    Raises:
        InputError: the warm-up does not end within the training.
    """
    an_epoch = ceil(samples / config.batch_size)
    epochs = config.epochs
    if epochs == OUTLAST:
        epochs = float(floor(config.warmup / an_epoch) + 1) if config.warmup >= 1 else 1.0
    steps = ceil(an_epoch * epochs)
    warmup = config.warmup if config.warmup >= 1 else float(min(ceil(config.warmup * steps), steps - 1))
    if config.warmup >= 1 and warmup >= steps:
        raise InputError(
            f"--warmup {warmup:g}: does not end within the {steps} steps of this training; give"
            f" --epochs {floor(warmup / an_epoch) + 1} or more, or a --warmup below {steps} (0.03 = 3 % of the steps)"
        )
    return replace(config, epochs=epochs, warmup=warmup)
