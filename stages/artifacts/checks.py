"""What can be said of a command's settings before any work: outputs in places of their own. Numbers: base/config.py."""

import os
import re
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, get_type_hints

from stages.artifacts.files import TEMPORARY
from stages.artifacts.reader import COMPLETE, PARTIAL
from stages.base.config import flag
from stages.base.errors import InputError
from stages.base.texts import escaped, is_sound

ARTIFACTS = ("out", "maps", "thresholds", "features")  # outputs that a stage may empty (--overwrite)
FOLDERS = ("tables", "heatmaps", "images", "masks", "explain", "merged")
FILES = ("report", "ranking", "mask")
TABLES = (
    "scores",
    "manifest",
    "maps",
    "captions",
    "negatives",
    "encoders",
    "questions",
    "answers",
    "judgements",
    "facts",
)  # inputs that may be a folder of artifacts
WEIGHTS = ("encoder", "backbone", "llava", "sam", "base", "vlm", "judge", "rewriter")  # inputs by name or by path
HOLD_WEIGHTS = ("encoders", "checkpoint", "merged", *WEIGHTS)
MARKS = {  # output -> endings of its name, and what a file that adcli wrote has near its beginning
    "report": ((".html", ".htm"), re.compile(rb"<title>adcli report")),
    "ranking": ((".csv",), re.compile(rb"\Afile,.*score,")),
    "mask": ((".png",), re.compile(rb"adcli ask")),
}


def check_places(config: Any) -> None:
    """Look at every path of a configuration before anything is touched.

    Raises:
        InputError: an output that is an input, that holds one, or lies within one as its part; two outputs in one
            place; a file where a folder is to be or the reverse; a place that may not be written; weights in a place
            whose name is not UTF-8.
    """
    _require_names_for_weights(config)
    paths = {n: Path(v) for n, v in places_of(config).items()}
    outputs = {n: p for n, p in paths.items() if is_output(config, n)}
    real = {n: Path(os.path.realpath(p)) for n, p in paths.items()}
    for name, path in outputs.items():
        for other in outputs:
            _require_own(name, path, real[name], other, paths[other], real[other])
        for other in paths.keys() - outputs.keys():
            _require_apart(name, path, real[name], other, paths[other], real[other])
        _require_fit(name, path)


def places_of(config: Any) -> dict[str, Path | str]:
    """Field -> path, of those that are given."""
    hints = get_type_hints(type(config))
    given = {f.name: getattr(config, f.name) for f in fields(config)}
    return {
        n: v for n, v in given.items() if v and (hints[n] in (Path, Path | None) or (n in WEIGHTS and os.sep in str(v)))
    }


def _require_names_for_weights(config: Any) -> None:
    """Tables may lie anywhere; the libraries that read and write weights and tokenizers take names in UTF-8 alone, and
    say so only when the training is over."""
    trains = hasattr(config, "epochs")
    for name in (f.name for f in fields(config)):
        if name in HOLD_WEIGHTS or (trains and name == "out"):
            require_name_for_weights(flag(name), str(getattr(config, name)))


def require_name_for_weights(option: str, place: str) -> None:
    """Raises InputError for a path that is not UTF-8."""
    if not is_sound(place):
        raise InputError(
            f"{option} {escaped(place)}: this path is not UTF-8, and what reads and writes weights takes no other;"
            " rename the folder or give another place"
        )


def is_output(config: Any, name: str) -> bool:
    """--maps is what `score` writes and `evaluate` reads."""
    return name in (*ARTIFACTS, *FOLDERS, *FILES) and not (name == "maps" and hasattr(config, "scores"))


def _require_own(name: str, path: Path, real: Path, other: str, other_path: Path, other_real: Path) -> None:
    """Two outputs; of two in one place the one that could go elsewhere speaks."""
    if name == other or not real.is_relative_to(other_real):
        return
    if real == other_real and (name in ARTIFACTS, name) > (other in ARTIFACTS, other):
        return
    if real == other_real or other in ARTIFACTS:
        what = f"is {flag(other)}, too" if real == other_real else f"lies in {flag(other)} {other_path}"
        raise InputError(f"{flag(name)} {path}: {what}; give each a place of its own")


def _require_apart(name: str, path: Path, real: Path, other: str, input_path: Path, input_real: Path) -> None:
    """One output and one input."""
    said = f"{flag(name)} {path}"
    holder = f"{other.upper() if other in ('root', 'source') else other} {input_path}"
    if (name not in FOLDERS and real == input_real) or (real == input_real and not input_real.is_dir()):
        raise InputError(f"{said}: that is an input ({holder}), and inputs are never written to; give another place")
    if name in ARTIFACTS and input_real.is_relative_to(real):
        raise InputError(f"{said}: holds an input ({holder}), which would go when it is replaced; give another place")
    if not real.is_relative_to(input_real):
        return
    if any((input_real / mark).exists() for mark in (COMPLETE, PARTIAL, "config.json")):
        raise InputError(f"{said}: lies in an input ({holder}), and inputs are never written to; give another place")
    if name in ARTIFACTS and other in TABLES:
        raise InputError(
            f"{said}: lies in a folder that is read as a whole ({holder}) and would be taken for a part"
            " of it; give another place"
        )


def _require_fit(name: str, path: Path) -> None:
    """One output: a file or a folder as it should be, in a place that may be written."""
    if name in FILES and path.is_dir():
        raise InputError(f"{flag(name)} {path}: a folder; give the name of a file in it")
    if name in FOLDERS and path.exists() and not path.is_dir():
        raise InputError(f"{flag(name)} {path}: a file, not a folder; give another name")
    if name in MARKS:
        require_ours(name, path)
    if name in ARTIFACTS and path.is_file():
        raise InputError(f"{path}: a file is there already; give another {flag(name)}")
    if name in ARTIFACTS and (path / COMPLETE).exists():
        return  # may be up to date, also where nothing can be written
    above = path
    while not above.exists() and above != above.parent:
        above = above.parent
    if not above.is_dir() and above != path:
        raise InputError(f"{flag(name)} {path}: a part of this path is a file, not a folder ({above})")
    folder = above if above.is_dir() else above.parent
    try:  # permissions say nothing of read-only file systems, nor of /proc and /sys
        with TemporaryFile(dir=folder, prefix=TEMPORARY):
            pass
    except OSError:
        raise InputError(
            f"{flag(name)} {path}: may not be written ({folder}); give another place or change its permissions"
        ) from None


def require_ours(name: str, path: Path) -> None:
    """A page is only put in the place of a page, a ranking in that of a ranking. Raises InputError for another file,
    or for a name with another ending."""
    endings, mark = MARKS[name]
    if path.suffix.lower() not in endings:
        raise InputError(f"{flag(name)} {path}: expected a name that ends in {endings[0]}")
    if path.is_file() and (start := path.read_bytes()[:2000]) and not mark.search(start):
        raise InputError(
            f"{flag(name)} {path}: a file that adcli did not write is there; give another name or remove it"
        )
