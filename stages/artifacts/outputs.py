"""Folders of files for people (`--tables`, `--heatmaps`) that hold exactly what the last run wrote, beside what others
put there."""

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path, PurePosixPath

from stages.artifacts.files import make_folder, short, write_alone, write_atomically, write_json
from stages.base.errors import InputError
from stages.base.regular import regular

TEMPORARY_NAME = re.compile(r"\.tmp-\d+-(.+)", re.DOTALL)
INDEX = "_adcli_files.json"  # in such a folder: what adcli wrote there
MARK = "_adcli_pictures.txt"  # in a folder of pictures that a stage makes one after the other, and makes again
MARKED = "adcli writes pictures into this folder, and replaces them when it makes them again."


@contextmanager
def exactly(folder: Path, names: list[str]) -> Iterator[None]:
    """Within it the files `names` of FOLDER are written; at its end those that an earlier run wrote, and this one does
    not, are taken away.

    names: relative to the folder, with `/`. They are noted before the first is written, so that the next run knows a
    killed one's files, temporary ones too. What is not noted was put there by others and stays.

    Raises:
        InputError: as `require_free`.
    """
    require_free(folder, names)
    make_folder(folder)
    before = [n for n in _noted(folder) if n not in set(names)]
    _note(folder, [*before, *names])
    by_folder: dict[Path, set[str]] = {}
    for path in (folder / name for name in (*before, *names, INDEX)):
        by_folder.setdefault(path.parent, set()).add(path.name)
    for place, own in by_folder.items():
        _remove_unfinished(place, own)
    yield
    for name in before:
        _remove(folder, name)
    _note(folder, names)


def require_free(folder: Path, names: Iterable[str]) -> None:
    """Raises InputError where a file `names` of FOLDER would take the place of what adcli has not noted there, or
    where the folder that it belongs into is a file."""
    known, apart = set(_noted(folder)), {folder}
    for name in names:
        path = folder / name
        if name not in known and os.path.lexists(path):
            raise _of_others(path, folder)
        for above in path.parents:
            if above in apart:
                break
            apart.add(above)
            if os.path.lexists(above) and not above.is_dir():
                raise InputError(
                    f"{above}: a file, where a folder is to be; give another folder than {folder}, or remove it"
                )


def _of_others(path: Path, folder: Path) -> InputError:
    return InputError(
        f"{path}: a file that adcli did not write is there; give another folder than {folder}, or remove it"
    )


def claim(folder: Path, names: Iterable[str], mark: str = MARK, text: str = "") -> None:
    """Mark FOLDER as one whose pictures adcli writes and replaces, before the first of `names` is written there.

    mark: name of the file that says so, text: what it says.

    Raises:
        InputError: one of them is there already and the folder not marked; it may not be written.
    """
    if not os.path.lexists(folder / mark):
        for path in (folder / name for name in names):
            if os.path.lexists(path):
                raise _of_others(path, folder)
    make_folder(folder)
    write_alone(folder / mark, lambda f: f.write((text or f"{MARKED}\n").encode()))


def withdraw(folder: Path) -> None:
    """Take away what `exactly` wrote in FOLDER, its index, and FOLDER where nothing else lies in it."""
    if (folder / INDEX).is_file():
        with exactly(folder, []):
            pass
        (folder / INDEX).unlink()
        with suppress(OSError):  # holds other files
            folder.rmdir()


def write_page(path: Path, content: str) -> None:
    """A page that is wholly there or not at all; what a killed run began is taken away."""
    make_folder(path.parent)
    remove_unfinished(path)
    write_atomically(path, lambda f: f.write(content.encode(errors="replace")))


def overwritten(targets: Iterable[Path], inputs: Iterable[Path]) -> Path | None:
    """The first target that is one of the inputs, also behind links; None where they lie apart."""
    real = lru_cache(maxsize=None)(os.path.realpath)  # folders are few, files are many
    there = {(real(f.parent), f.name) for f in inputs}
    return next((t for t in targets if (real(t.parent), t.name) in there), None)


def remove_unfinished(path: Path) -> None:
    """Take away what `write_atomically` left of this path when its process was killed."""
    _remove_unfinished(path.parent, {path.name})


def _remove_unfinished(folder: Path, names: set[str]) -> None:
    """The same of several files of one folder, which is read once."""
    names = set(map(short, names))
    if folder.is_dir():
        for entry in list(folder.iterdir()):
            if (found := TEMPORARY_NAME.fullmatch(entry.name)) and found[1] in names:
                entry.unlink(missing_ok=True)


def _noted(folder: Path) -> list[str]:
    """Empty where nothing is noted, or what is there is no index of ours: then nothing is taken away."""
    try:
        names = json.loads(regular(folder / INDEX).read_text())["files"]
        return [n for n in names if isinstance(n, str)]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return []


def _note(folder: Path, names: list[str]) -> None:
    write_json(
        folder / INDEX,
        {"written by": "adcli, which takes these files away when it writes others", "files": sorted(names)},
    )


def _remove(folder: Path, name: str) -> None:
    """One noted file, and the folders that it leaves empty; nothing outside FOLDER, whatever the note says."""
    place = PurePosixPath(name)
    path = folder / place
    real = Path(os.path.realpath(path.parent))
    if place.is_absolute() or ".." in place.parts or not real.is_relative_to(os.path.realpath(folder)):
        return
    if path.is_symlink() or path.is_file():
        path.unlink()
    for above in path.parents:
        if above == folder:
            return
        try:
            above.rmdir()
        except OSError:  # holds other files, or is not there
            return
