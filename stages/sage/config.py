"""What a SAGE model is, apart from its weights: kept beside them."""

from dataclasses import dataclass

from stages.base.errors import InputError

FUSIONS = ("attention", "text", "none")
SIMILARITIES = ("max", "min")


@dataclass(frozen=True)
class Settings:
    """fusion: attention = SFE; text = facts as text in the prompt (Table 3, Fact[Hard]); none = no facts, the plain
    fine-tuning of Table 1's `InternVL2 (sft)`. shots: 1 = compared with a reference image, 0 = without one. tiles: most
    tiles an image is cut into, 0 = the processor's own number. lora_rank: 0 = all weights were trained."""

    fusion: str = "attention"
    shots: int = 1
    patches: int = 20
    similarity: str = "max"
    heads: int = 8
    sentences: int = 0
    tiles: int = 0
    lora_rank: int = 16
    lora_alpha: int = 32


def check(settings: Settings) -> None:
    """Raises InputError for a value that means nothing."""
    if settings.fusion not in FUSIONS:
        raise InputError(f"--fusion {settings.fusion}: expected {', '.join(FUSIONS)}")
    if settings.similarity not in SIMILARITIES:
        raise InputError(f"--similarity {settings.similarity}: expected {', '.join(SIMILARITIES)}")
    if settings.shots not in (0, 1):
        raise InputError(f"--shots {settings.shots}: expected 1 (with the question's reference image) or 0")
    for name, least in (
        ("patches", 1),
        ("heads", 1),
        ("sentences", 0),
        ("tiles", 0),
        ("lora_rank", 0),
        ("lora_alpha", 1),
    ):
        if getattr(settings, name) < least:
            raise InputError(f"--{name.replace('_', '-')} {getattr(settings, name)}: at least {least}")
