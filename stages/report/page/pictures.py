"""Small pictures of a page: within it while it stays below LIMIT, otherwise as files in a folder beside it."""

import base64
import io
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from urllib.parse import quote

import numpy as np

from stages.artifacts.files import make_folder, write_bytes
from stages.artifacts.outputs import exactly, withdraw
from stages.base.errors import InputError

LIMIT = 30_000_000  # bytes of a page that holds its pictures
SIDE = 480  # px, longer side of a picture
HEAT_SIDE = 160  # px, longer side of a heat map: maps of networks are coarse
QUALITY = 75  # of WebP, 0..100
AT_ONCE = 64  # pictures in memory while they are made

Write = Callable[[dict[str, str]], None]  # name of a picture -> its address; writes the page


def webp(picture: np.ndarray, side: int) -> bytes:
    """(H, W, 3) uint8 -> WebP with a longer side of at most `side` px."""
    from PIL import Image

    image, data = Image.fromarray(picture), io.BytesIO()
    image.thumbnail((side, side))
    image.save(data, "WEBP", quality=QUALITY, method=2)
    return data.getvalue()


def folder_beside(page: Path) -> Path:
    """report.html -> report_files, where the pictures of a large page lie."""
    return page.with_name(f"{page.stem}_files")


def place(
    page: Path, run: str, made: Iterable[tuple[str, bytes]], names: Iterable[str], room: int, write: Write
) -> None:
    """Put pictures into the page or beside it, and write the page.

    run: names what the pictures belong to; made: (name, WebP) of each that could be made, names among `names`;
    room: bytes that the page has for them.

    The page is written while the pictures of the page before it are still there, and those of another run have other
    names: a killed process leaves one page or the other with all of its pictures.

    Raises:
        InputError: a file is where the folder has to be.
    """
    folder, made = folder_beside(page), iter(made)
    kept: dict[str, bytes] = {}
    for name, content in made:
        kept[name] = content
        room -= -(-len(content) // 3) * 4 + 40
        if room < 0:
            break
    else:
        write({name: f"data:image/webp;base64,{base64.b64encode(c).decode()}" for name, c in kept.items()})
        withdraw(folder)
        return
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: a file is there, and the page's pictures need a folder of that name; remove it")
    written = {}
    with exactly(folder, [f"{run}/{name}.webp" for name in names]):
        make_folder(folder / run)
        for name, content in chain(kept.items(), made):
            write_bytes(folder / run / f"{name}.webp", content)
            written[name] = f"{quote(folder.name)}/{run}/{name}.webp"
        kept.clear()
        write(written)


def in_threads(work: Callable, jobs: Iterable) -> Iterator:
    """`map` by threads, a few results ahead of who takes them."""
    from stages.base.threads import threads

    jobs = iter(jobs)
    with threads() as pool:
        while some := list(islice(jobs, AT_ONCE)):
            yield from pool.map(work, some)
