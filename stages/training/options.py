"""Options that trainings share, as vlm/options.py has those of the engines. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path

from stages.base.config import option

GROUP = "Training"


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What every training takes. Epochs, batch size and learning rate have a default and a meaning of their own in
    each paper, and stand with the method."""

    precision: str = option("fp32, bf16, or auto = bf16 where the processor has it", "auto", GROUP)
    device: str = option("auto, cpu or cuda", "auto", GROUP)
    seed: int = option("of all that is drawn: initialisation, data order, dropout", 0, GROUP)


@dataclass(frozen=True, kw_only=True)
class ImageTrainingOptions(TrainingOptions):
    """Of a training on images, whose saved states are counted in steps."""

    checkpoint_activations: bool = option("recompute activations: less memory, more time", False, GROUP)
    save_steps: int = option("steps between saved states, from which a killed run goes on", 100, GROUP)
    loader_workers: int | None = option("processes that load images; 0 = in this one", 0, GROUP, was="workers")
    root: Path | None = option("where the manifest's paths start, if not where it was indexed", None, GROUP)
