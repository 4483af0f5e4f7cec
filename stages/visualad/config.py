"""What a VisualAD is made of. Imports no torch, so that `--help` is quick."""

from dataclasses import dataclass

from stages.base.config import require_positive
from stages.base.errors import InputError

POSITIONS = ("1d", "none", "1d-sin", "2d", "2d-sin")  # Table 5
WEIGHTS, RECORD = "visualad.safetensors", "visualad.json"  # of a trained model
SIGMA = 4.0  # px, of the released code's test-time Gaussian


@dataclass(frozen=True)
class Settings:
    """What a checkpoint is made of. layers: from 1; anchors: m; position: POSITIONS; size: px; as_released: the
    tokens' positions stay copies of the class token's, and the trained final norm is not loaded for scoring."""

    variant: str = "code"
    layers: tuple[int, ...] = (6, 12, 18, 24)
    anchors: int = 4
    position: str = "1d"
    size: int = 518
    as_released: bool = False


def check_names(settings: Settings) -> None:
    """Raises InputError for what no backbone can have: unknown names, numbers out of range."""
    if settings.variant not in ("code", "paper"):
        raise InputError(f"--variant {settings.variant}: expected code or paper")
    if settings.position not in POSITIONS:
        raise InputError(f"--position {settings.position}: expected {', '.join(POSITIONS)}")
    require_positive(settings, "anchors", "size")
    if list(settings.layers) != sorted(set(settings.layers)) or min(settings.layers, default=0) < 1:
        raise InputError(f"--layers {','.join(map(str, settings.layers))}: expected rising numbers from 1")


def check(settings: Settings, patch: int, depth: int) -> None:
    """`check_names`, and for one backbone. Raises InputError for a size that is no multiple of the patch (px), or
    layers beyond the depth."""
    check_names(settings)
    if settings.size % patch or settings.size < patch:
        near = max(round(settings.size / patch), 1) * patch
        raise InputError(
            f"--size {settings.size}: no multiple of the backbone's patch of {patch} px; the nearest is {near}"
        )
    if settings.layers[-1] > depth:
        raise InputError(f"--layers {','.join(map(str, settings.layers))}: expected rising numbers from 1 to {depth}")
