"""What a VMAD model is made of. Imports no torch, so that `--help` is quick."""

from dataclasses import dataclass

from stages.errors import InputError

PROJECTORS = ("ltc", "ltc-last", "ltc-coarse", "mlp", "average-pooling", "resampler", "ldp-v2")    # Tables I, III, V
SEG = "<seg>"


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
        return grid ** 2 if self.projector == "mlp" else (grid // self.rho) ** 2


@dataclass(frozen=True)
class Weights:
    """Of Eq. 6 and 7. The paper gives none: LISA's, whose embedding-as-mask scheme it takes, and 1 for PBSD."""

    text: float = 1.0
    mask: float = 1.0
    pbsd: float = 1.0
    bce: float = 2.0
    dice: float = 0.5


def check(settings: Settings, grid: int, depth: int, width: int) -> None:
    """grid: patches per side; depth: layers below the one that LLaVA takes; width: of CLIP. Raises InputError for
    settings that a model cannot have."""
    s = settings
    if s.projector not in PROJECTORS:
        raise InputError(f"--projector {s.projector}: expected {', '.join(PROJECTORS)}")
    if s.rho < 1 or grid % s.rho:
        raise InputError(f"--rho {s.rho}: does not divide the {grid} x {grid} patches of the vision tower")
    if not 1 <= s.levels <= depth:
        raise InputError(f"--levels {s.levels}: expected 1 to {depth}, the layers below the one that LLaVA takes")
    if s.heads < 1 or width % s.heads:
        raise InputError(f"--heads {s.heads}: does not divide the vision tower's width of {width}")
    if s.depth < 1 or s.rank < 1:
        raise InputError("--depth and --rank: at least 1")
    if min(s.boxes, s.box_size, s.drawn) < 1 or s.temperature <= 0:
        raise InputError("--boxes, --box-size and --drawn: at least 1; --temperature: above 0")
