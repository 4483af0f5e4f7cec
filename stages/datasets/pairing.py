"""Which mask, or which annotation, belongs to which image: by the names that annotation tools and data sets give."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from stages.datasets.entries import SUFFIXES, first, many

WORDS = "mask|masks|gt|groundtruth|ground_truth|label|labels|seg|segmentation|annotation|anno|bw"
AFTER = re.compile(rf"^(.+?)[ _.-]*[ _.-]({WORDS})([ _.-]?\d+)?$")  # x_mask, x-mask, x_mask_2
FOLDER = re.compile(WORDS)  # a folder's name as plain_stem gives it
BEFORE = re.compile(rf"^({WORDS})[ _.-]+(.+)$")  # mask_x


@dataclass(frozen=True)
class Pairing:
    """files: of each image, in order. left: files that fit no image; unclear: files that fit several equally well."""

    files: dict[Path, tuple[Path, ...]]
    left: tuple[Path, ...]
    unclear: tuple[Path, ...]


def plain_stem(name: str) -> str:
    """A file's name without its ending, one way of writing it: Unicode's composed form, lower case."""
    return unicodedata.normalize("NFC", Path(name).stem).casefold()


def stems_of(name: str) -> list[str]:
    """The stems of images that a mask of this name may belong to, the likeliest first: its own; without the ending that
    it kept of the image (x.jpg.png); without what says `mask` behind or before it, and a number behind that."""
    own = plain_stem(name)
    stems = [own]
    for stem in (own, plain_stem(own) if Path(own).suffix in SUFFIXES else own):
        stems.append(stem)
        for match, group in ((AFTER.match(stem), 1), (BEFORE.match(stem), 2)):
            if match:
                rest = match[group].strip(" _.-")
                stems += [rest, plain_stem(rest) if Path(rest).suffix in SUFFIXES else rest]
    return list(dict.fromkeys(stems))


def pair(images: Iterable[Path], files: Iterable[Path], categories: Collection[str] = ()) -> Pairing:
    """Every file to the image of its stem. Of several images with that stem (folders that reuse numbers) to the one
    whose folders' names it shares most; never to one of another category, where `categories` are the names of folders
    that divide both trees. An image may have several files."""
    by_stem: dict[str, list[Path]] = defaultdict(list)
    names = set(categories)
    for image in images:
        by_stem[plain_stem(image.name)].append(image)
    found: dict[Path, list[Path]] = defaultdict(list)
    left: list[Path] = []
    unclear: list[Path] = []
    for file in files:
        fitting = next((f for s in stems_of(file.name) if (f := _of_category(by_stem.get(s, []), file, names))), [])
        best = _nearest(fitting, file)
        if len(best) == 1:
            found[best[0]].append(file)
        else:
            (unclear if best else left).append(file)
    return Pairing({image: tuple(f) for image, f in found.items()}, tuple(left), tuple(unclear))


def _of_category(images: list[Path], file: Path, names: set[str]) -> list[Path]:
    own = names & set(file.parts[:-1])
    return [i for i in images if not own or own & set(i.parts[:-1])]


def _nearest(images: list[Path], file: Path) -> list[Path]:
    """Those of `images` that share most with the file's folders; among equals the one whose name is spelled alike."""
    folders = Counter(_names(file))
    shared = {i: (folders & Counter(_names(i))).total() for i in images}
    best = [i for i in images if shared[i] == max(shared.values())]
    alike = [i for i in best if file.stem.startswith(i.stem) or file.stem.endswith(i.stem)]
    return alike if len(best) > 1 and len(alike) == 1 else best


def _names(path: Path) -> list[str]:
    return [unicodedata.normalize("NFC", p).casefold() for p in path.parts[:-1]]


def like_masks(paths: Iterable[Path], remedy: str) -> list[str]:
    """That some images lie in folders whose names say mask, as an annotation tool writes them beside the pictures."""
    of = {path: n for path in paths for n in path.parts[:-1] if FOLDER.fullmatch(plain_stem(n))}
    if not of:
        return []
    name = next(iter(of.values()))
    return [f"{many(of, 'image')} in folders called {name}, taken as pictures: {first(of)} ({remedy})"]
