"""The image and mask files of a manifest, as cache keys see them."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from stages.artifacts.digests import Files, FileState, read_kept, states_of
from stages.datasets.manifest import Image


def look_at(out: Path, quiet: bool, images: Iterable[Image] = (), masks: Iterable[Image] = ()) -> Files:
    """Look at the files of `images` and at the mask files of `masks`. Missing ones count as missing.

    What the manifest or an earlier run of this command (in `out`) says of a file is believed while its size and
    modification time stay; other files are read. Nothing is written: `Files.keep` does that.
    """
    images, masks = tuple(images), tuple(masks)
    recorded = dict(_recorded(images, masks))
    places = {file: os.path.abspath(file) for file in recorded}
    kept = read_kept(out)
    known = {file: tuple(filter(None, (said, kept.get(places[file])))) for file, said in recorded.items()}
    states = states_of(known, quiet)
    unrecorded = {places[file]: state for file, state in states.items() if state and state != recorded[file]}
    return Files(
        _fingerprint((i.image_id, states[i.file]) for i in images),
        _fingerprint((i.image_id, *(states[m] for m in i.masks)) for i in masks),
        unrecorded,
    )


def _recorded(images: tuple[Image, ...], masks: tuple[Image, ...]) -> Iterator[tuple[Path, FileState | None]]:
    for image in images:
        yield image.file, image.recorded[0] if image.recorded else None
    for image in masks:
        yield from zip(image.masks, image.recorded[1:] or (None,) * len(image.masks), strict=True)


def _fingerprint(contents: Iterable[tuple[str, *tuple[FileState | None, ...]]]) -> str:
    digest = hashlib.sha256()
    for image_id, *states in contents:
        said = "\0".join(state.digest if state else "missing" for state in states)
        digest.update(f"{image_id}\0{said}\n".encode(errors="surrogatepass"))
    return digest.hexdigest()[:32]
