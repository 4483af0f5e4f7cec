"""From the values of `--vlm` and `--engine` to an engine."""

from difflib import get_close_matches
from pathlib import Path

from stages.base.config import check_numbers, flag
from stages.base.errors import InputError
from stages.vlm.engine import Engine
from stages.vlm.models import SHORT_NAMES, require_known
from stages.vlm.options import DTYPES, ENGINES, EngineOptions


def check_engine(name: str, options: EngineOptions, option: str = "--vlm", words: tuple[str, ...] = ("scene",)) -> None:
    """Everything that can be said of the options without reading a file, for the first line of a stage. Fields that
    stages add under their usual names (temperature, top_p, max_tokens) are looked at, too.

    name: the value of `option`; words: what it takes beside models.

    Raises:
        InputError: a number out of its range, an unknown engine or dtype, a misspelt model, or no address.
    """
    if options.engine not in ENGINES:
        close = get_close_matches(options.engine, ENGINES, 1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise InputError(f"--engine {options.engine}: expected {', '.join(ENGINES)}{hint}")
    if options.dtype not in DTYPES:
        raise InputError(f"--dtype {options.dtype}: expected {', '.join(DTYPES)}")
    check_numbers(options)
    _require_share(options, "gpu_memory")
    if options.max_pixels and options.min_pixels > options.max_pixels:
        raise InputError(f"--min-pixels {options.min_pixels}: more than --max-pixels {options.max_pixels}")
    if hasattr(options, "top_p"):
        _require_share(options, "top_p")
    if name in words:
        return
    if options.engine == "server":
        from stages.vlm.server_engine import credentials

        credentials(options)
    else:
        require_known(name, option, *words)


def _require_share(options: EngineOptions, field: str) -> None:
    if not 0 < (value := getattr(options, field)) <= 1:
        raise InputError(f"{flag(field)} {value}: expected more than 0 and at most 1")


def make_engine(name: str, options: EngineOptions) -> Engine:
    """`scene`, or a model: a short name, a local directory or a hub id; with --engine server the name that
    the server knows.

    Raises:
        InputError: there is no such model or engine, a package is missing, or the server is none.
    """
    check_engine(name, options)
    if name == "scene":
        from stages.vlm.scene.engine import SceneEngine

        return SceneEngine(options.workers)
    if options.engine == "server":
        from stages.vlm.server_engine import open_server

        return open_server(name, options)
    place = str(Path(name)) if Path(name).is_dir() else SHORT_NAMES.get(name, name)
    if options.engine == "vllm":
        from stages.vlm.vllm_engine import open_vllm

        return open_vllm(place, options)
    from stages.vlm.transformers_engine import open_engine

    return open_engine(place, options)
