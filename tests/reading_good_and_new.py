"""A folder of good pictures and one of new ones, as `data index good-and-new` and `adcli inspect` take them."""

import contextlib
import io
from pathlib import Path

import pytest

from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.datasets import good_and_new
from stages.datasets.config import GoodAndNewConfig
from stages.datasets.manifest import Image, read_manifest
from tests.reading import Kind, checked
from tests.reading_trees import photos


def good_ones(folder: Path, count: int = 3, below: str = "p/good") -> None:
    photos(folder / below, *(f"{n:02d}.png" for n in range(count)))


def compared(folder: Path, good: str = "p/good", test: str = "p/new", **config) -> tuple[dict[str, Image], str]:
    """(rows by path, what was said)."""
    settings = GoodAndNewConfig(good=folder / good, test=folder / test, out=folder / "manifest.parquet", **config)
    with contextlib.redirect_stderr(io.StringIO()) as said:
        good_and_new.run(settings, RunOptions(overwrite=True))
    return {i.image_id.split("/", 1)[1]: i for i in read_manifest(settings.out).images}, said.getvalue()


def labels(rows: dict[str, Image]) -> dict[str, int | None]:
    """Of the new pictures, by their path below the folder."""
    return {path.removeprefix("new/"): i.label for path, i in rows.items() if path.startswith("new/")}


def no_names(folder: Path) -> None:
    good_ones(folder)
    photos(folder / "p/new", "a.png", "2024-11-03/b.png", "camera 1/x/c.png")
    rows, said = compared(folder)
    assert labels(rows) == dict.fromkeys(["a.png", "2024-11-03/b.png", "camera 1/x/c.png"])
    assert {i.split for p, i in rows.items() if p.startswith("good/")} == {"train"}
    assert "says what its pictures are (2024-11-03, camera 1, x: --defects names those that hold defects)" in said


def held_out(folder: Path) -> None:
    good_ones(folder, 25)
    photos(folder / "p/new", "a.png")
    rows, said = compared(folder)
    assert [p for p, i in rows.items() if i.split == "val"] == [f"good/{n:02d}.png" for n in (4, 9, 14, 19, 24)]
    assert "20 good pictures to fit to; 5 held out, to draw the line" in said


def few(folder: Path) -> None:
    good_ones(folder, 24)
    photos(folder / "p/new", "a.png")
    rows, said = compared(folder)
    assert not any(i.split == "val" for i in rows.values()) and "only 24 good pictures: the line is a rough" in said


def defects(folder: Path) -> None:
    good_ones(folder)
    photos(folder / "p/new", "deep_scratch/a.png", "NG/b.png", "monday/c.png")
    assert labels(compared(folder)[0]) == {"deep_scratch/a.png": 1, "NG/b.png": 1, "monday/c.png": None}


def beside_good(folder: Path) -> None:
    good_ones(folder)
    photos(folder / "p/new", "ok/a.png", "blob/b.png", "c.png")
    assert labels(compared(folder)[0]) == {"ok/a.png": 0, "blob/b.png": 1, "c.png": None}


def named(folder: Path) -> None:
    good_ones(folder)
    photos(folder / "p/new", "scratch/a.png", "blob/b.png")
    assert labels(compared(folder, defects="blob")[0]) == {"scratch/a.png": None, "blob/b.png": 1}
    with pytest.raises(InputError, match="--defects hole: no folder of this name below .*new; there are blob, scratch"):
        compared(folder, defects="hole")


def kinds(folder: Path) -> None:
    photos(folder / "p/good", "bolt/0.png", "nut/0.png", "lamp/0.png")
    photos(folder / "p/new", "bolt/a.png", "nut/scratch/b.png")
    rows, said = compared(folder)
    assert {p: i.category for p, i in rows.items()} == {
        **dict.fromkeys(["good/bolt/0.png", "new/bolt/a.png"], "bolt"),
        **dict.fromkeys(["good/nut/0.png", "new/nut/scratch/b.png"], "nut"),
    }
    assert "passed over: 1 of the 3 images below" in said and "lamp/0.png" in said


def kinds_lacking(folder: Path) -> None:
    photos(folder / "p/good", "bolt/0.png", "nut/0.png")
    photos(folder / "p/new", "bolt/a.png", "lamp/b.png")
    rows, said = compared(folder)
    assert {i.category for i in rows.values()} == {"all"} and "no folder lamp below" in said


def masks_among(folder: Path) -> None:
    good_ones(folder)
    photos(folder / "p/new", "a.png", "masks/a.png")
    rows, said = compared(folder)
    assert len(labels(rows)) == 2 and not any(i.masks for i in rows.values())
    assert "1 image in folders called masks, taken as pictures: masks/a.png (move them out, if they are masks)" in said


def elsewhere(folder: Path) -> None:
    good_ones(folder, below="p/a/good")
    photos(folder / "p", "b/c/new/x.png", "other/y.png", "z.png")
    rows, said = compared(folder, "p/a/good", "p/b/c/new")
    assert [p for p in rows if "good" not in p] == ["b/c/new/x.png"] and "y.png" not in said and "passed" not in said


def other_files(folder: Path) -> None:
    good_ones(folder)
    photos(folder / "p/new", "a.png", ".thumbnails/b.png")
    for name in ("good/x.heic", "new/y.heic", "new/z.txt", "new/Thumbs.db"):
        (folder / "p" / name).write_bytes(b"x")
    rows, said = compared(folder)
    assert list(labels(rows)) == ["a.png"] and "Thumbs" not in said
    assert "not images: 1 file (1 .heic): x.heic" in said and "not images: 2 files (1 .heic, 1 .txt): y.heic" in said


def none_there(folder: Path) -> None:
    good_ones(folder)
    (folder / "p/new").mkdir()
    (folder / "p/new/a.heic").write_bytes(b"x")
    with pytest.raises(InputError, match="new: no images here .*; the files here are 1 .heic"):
        compared(folder)


def one_in_the_other(folder: Path) -> None:
    photos(folder / "p", "new/good/0.png", "new/1.png")
    same = "the same folder; new pictures cannot be compared with themselves"
    apart = "one lies in the other; keep them apart"
    for good, test, said in (("p/new/good", "p/new", apart), ("p/new", "p/new/good", apart), ("p/new", "p/new", same)):
        with pytest.raises(InputError, match=said):
            compared(folder, good, test)


def broken(folder: Path) -> None:
    good_ones(folder)
    photos(folder / "p/new", "a.png")
    (folder / "p/new/b.jpg").write_bytes(b"")
    rows, _ = compared(folder)
    assert rows["new/b.jpg"].error and not rows["new/a.png"].error


def in_both(folder: Path) -> None:
    good_ones(folder)
    (folder / "p/new").mkdir()
    (folder / "p/new/a.png").write_bytes((folder / "p/good/00.png").read_bytes())
    compared(folder)
    assert "pictures in train that are also in test or val 1:" in checked(folder / "manifest.parquet")


KINDS = [
    Kind(
        "names of folders and files that say nothing (dates, cameras)",
        "good ones normal, new ones unlabelled",
        no_names,
    ),
    Kind("25 good pictures or more of a kind", "a fifth is held out (`val`), in runs of neighbours", held_out),
    Kind("fewer than 25 good pictures of a kind", "none is held out, and that is said", few),
    Kind("folders of new pictures called `deep_scratch`, `NG`", "anomalous, the others unlabelled", defects),
    Kind(
        "a folder of new pictures called `ok`, `good`, `normal`",
        "normal; every folder beside it anomalous",
        beside_good,
    ),
    Kind("`--defects blob`", "these folders alone anomalous; a name that none has is refused", named),
    Kind(
        "the same folders directly below both",
        "a category each; good ones of other kinds passed over, and named",
        kinds,
    ),
    Kind("a kind without good pictures", "said; all are compared as of one kind", kinds_lacking),
    Kind("a folder of masks among the pictures", "said; masks are not read", masks_among),
    Kind("pictures beside the two folders", "not looked at", elsewhere),
    Kind("other files, hidden folders below them", "counted by ending, the first named; not even named", other_files),
    Kind("nothing but other files", "refused, with their endings", none_there),
    Kind("one folder in the other, or twice the same", "refused", one_in_the_other),
    Kind("an empty or broken file", "failed row; the others are compared", broken),
    Kind("one picture among the good and the new", "`data check` names it", in_both),
]
