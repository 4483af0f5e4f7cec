"""What a VMAD model is made of. Imports no torch, so that `--help` is quick."""

from dataclasses import dataclass

from stages.base.config import require_positive
from stages.base.errors import InputError

PROJECTORS = ("ltc", "ltc-last", "ltc-coarse", "mlp", "average-pooling", "resampler", "ldp-v2")  # Tables I, III, V
SEG = "<seg>"
WEIGHTS, RECORD, ADAPTER, MERGED = "vmad.safetensors", "vmad.json", "adapter", "llava"  # of a trained model


@dataclass(frozen=True)
class Settings:
    """projector: of PROJECTORS; rho: downsampling per side; levels: n of Eq. 21; depth, heads: of LTC; dssl: with the
    PBSD loss; boxes: N_b; box_size: px of the visual backbone's input; temperature: tau of Eq. 11 and 16; drawn:
    images of each label that Eq. 11 and 16 compare with at a step; rank, alpha, dropout: of LoRA.

    Not in the paper, and so ours: depth, heads, drawn, temperature (MoCo's), alpha and dropout (LISA's).
    """

    projector: str = "ltc"
    rho: int = 2
    levels: int = 4
    depth: int = 2
    heads: int = 8
    dssl: bool = True
    boxes: int = 32
    box_size: int = 32
    temperature: float = 0.07
    drawn: int = 8
    rank: int = 8
    alpha: int = 16
    dropout: float = 0.05

    @property
    def layers(self) -> int:
        """Layers of CLIP that the projector reads: the one that LLaVA takes, and for LTC those before it."""
        return self.levels + 1 if self.projector == "ltc" else 1

    def tokens(self, grid: int) -> int:
        """Tokens that an image of grid x grid patches becomes."""
        return grid**2 if self.projector == "mlp" else (grid // self.rho) ** 2


@dataclass(frozen=True)
class Weights:
    """Of Eq. 6 and 7. The paper gives none: LISA's, whose embedding-as-mask scheme it takes, and 1 for PBSD."""

    text: float = 1.0
    mask: float = 1.0
    pbsd: float = 1.0
    bce: float = 2.0
    dice: float = 0.5


def check_numbers(settings: Settings) -> None:
    """Raises InputError for settings that no model can have."""
    if settings.projector not in PROJECTORS:
        raise InputError(f"--projector {settings.projector}: expected {', '.join(PROJECTORS)}")
    require_positive(
        settings, "rho", "levels", "depth", "heads", "boxes", "box_size", "temperature", "drawn", "rank", "alpha"
    )
    if not 0 <= settings.dropout < 1:
        raise InputError(f"--dropout {settings.dropout}: expected 0 or more, less than 1")


def check(settings: Settings, grid: int, depth: int, width: int) -> None:
    """`check_numbers`, and for one LLaVA. grid: patches per side; depth: layers below the one that LLaVA takes; width:
    of CLIP. Raises InputError for settings that the model cannot have."""
    check_numbers(settings)
    s = settings
    if grid % s.rho:
        raise InputError(f"--rho {s.rho}: does not divide the {grid} x {grid} patches of the vision tower")
    if s.levels > depth:
        raise InputError(f"--levels {s.levels}: expected 1 to {depth}, the layers below the one that LLaVA takes")
    if width % s.heads:
        raise InputError(f"--heads {s.heads}: does not divide the vision tower's width of {width}")
