"""From the value of `--vlm` or `--rewriter` to an engine."""

from dataclasses import dataclass
from pathlib import Path

from stages.settings import option
from stages.vlm.engine import Engine


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How a model is run. Only `dtype` and `revision` can change what it says."""

    device: str = option("auto, cpu, cuda, cuda:1, ...", "auto")
    dtype: str = option("auto (as the checkpoint says), float32, bfloat16 or float16", "auto")
    revision: str = option("branch, tag or commit of a hub model", "")
    batch_size: int = option("prompts per forward pass; halved by itself when memory runs out", 8)
    workers: int = option("processes that decode images; 0 = one per core", 0)


def make_engine(name: str, options: EngineOptions) -> Engine:
    """`scene`, or a model for transformers: a short name, a local directory or a hub id.

    Raises:
        InputError: there is no such model, or a package is missing.
    """
    if name == "scene":
        from stages.vlm.scene.engine import SceneEngine

        return SceneEngine(options.workers)
    from stages.vlm.models import SHORT_NAMES
    from stages.vlm.transformers_engine import open_engine

    return open_engine(str(Path(name)) if Path(name).is_dir() else SHORT_NAMES.get(name, name), options)
