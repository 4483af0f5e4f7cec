"""Folders, file names and label files as people have them."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest

from stages.base.errors import InputError
from tests.reading import Kind, checked, indexed, photo, save, truth

T = truth() * np.uint8(255)


def photos(root: Path, *names: str) -> None:
    """A picture of its own under each name."""
    for n, name in enumerate(names):
        save(root / name, photo(n + len(name)))


def masks(images: dict) -> dict[str, list[str]]:
    """Names of the masks by name of the image, where it has some."""
    return {i.file.name: [m.name for m in i.masks] for i in images.values() if i.masks}


# -- masks by name --------------------------------------------------------------------------------------------


def paired(image: str, *names: str):
    """These masks belong to the anomalous image, and a mask of nobody is named."""

    def try_it(folder: Path) -> None:
        photos(folder / "p", "ok/0.png", f"ng/{image}", "ng/other.png")
        for name in (*names, "stray.png"):
            save(folder / "p/gt" / name, T)
        rows, said = indexed(folder / "p", train_normal="ok", test_anomalous="ng", masks="gt")
        assert masks(rows) == {image: sorted(names)}
        assert "1 mask with the stem of no image: gt/stray.png" in said
        assert "1 anomalous image without a mask, so that pixel metrics are impossible for it: ng/other.png" in said
        assert all(i.error is None for i in rows.values())

    return try_it


def unicode_forms(folder: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "Schäden/größe.png") for form in ("NFC", "NFD"))
    assert composed != apart
    photos(folder / "p", composed)
    save(folder / "p/gt" / Path(apart).name, T)
    rows, _ = indexed(folder / "p", test_anomalous=str(Path(apart).parent), masks="gt")
    assert len(rows) == 1 and len(masks(rows)) == 1


def same_numbers(folder: Path) -> None:
    photos(folder / "p", "ok/0.png", "ng/hole/0.png", "ng/dent/0.png")
    for kind in ("hole", "dent"):
        save(folder / f"p/gt/{kind}/0_mask.png", T)
    rows, _ = indexed(folder / "p", train_normal="ok", test_anomalous="ng", masks="gt")
    assert all(i.masks[0].parent.name == i.defect for i in rows.values() if i.label)


def unclear(folder: Path) -> None:
    photos(folder / "p", "ng/hole/0.png", "ng/dent/0.png", "ng/dent/1.png")
    for n in (0, 1):
        save(folder / f"p/gt/{n}.png", T)
    rows, said = indexed(folder / "p", test_anomalous="ng", masks="gt")
    assert masks(rows) == {"1.png": ["1.png"]} and "1 mask with the stem of several images, left out: gt/0.png" in said


def unclear_unlabelled(folder: Path) -> None:
    photos(folder / "p", "u/0.png", "u/0.jpg", "ng/1.png")
    for n in (0, 1):
        save(folder / f"p/x/gt/{n}.png", T)
    _, said = indexed(folder / "p", test="u", test_anomalous="ng", masks="*/gt")
    assert "1 mask with the stem of several images, left out: x/gt/0.png" in said


def nothing_but_unclear(folder: Path) -> None:
    photos(folder / "p", "ng/a/0.png", "ng/b/0.png")
    save(folder / "p/gt/0.png", T)
    with pytest.raises(InputError, match="gt: 1 mask, none that fits just one anomalous image .gt/0.png: several"):
        indexed(folder / "p", test_anomalous="ng", masks="gt")


def not_there(folder: Path) -> None:
    photos(folder / "p", "a/0.png")
    (folder / "l.csv").write_text("image,label,mask\na/0.png,1,gt/0.png\n")
    rows, said = indexed(folder / "p", labels=folder / "l.csv")
    assert rows["a/0.png"].error is None and rows["a/0.png"].width == 32
    assert "1 mask not there, so that pixel metrics are impossible for these images: gt/0.png" in said
    assert "all: masks that are not there 1" in checked(folder / "manifest.parquet")


# -- trees ----------------------------------------------------------------------------------------------------


def three_products(folder: Path) -> None:
    for product in ("nut", "bolt", "pin"):
        photos(folder / "p", f"{product}/train/0.png", f"{product}/bad/0.png", f"{product}/bad/1.png")
        save(folder / f"p/{product}/gt/0_mask.png", T)
    rows, said = indexed(folder / "p", train_normal="*/train", test_anomalous="*/bad", masks="*/gt", category="{1}")
    assert {i.category for i in rows.values()} == {"nut", "bolt", "pin"} and len(rows) == 9
    assert all(i.masks[0].parts[-3] == i.category for i in rows.values() if i.masks) and "3 tasks" in said
    for product in ("nut", "bolt"):
        (folder / f"p/{product}/gt/0_mask.png").unlink()
    rows, _ = indexed(folder / "p", train_normal="*/train", test_anomalous="*/bad", masks="*/gt", category="{1}")
    assert [k for k, i in rows.items() if i.masks] == ["pin/bad/0.png"], "not the mask of another product"
    with pytest.raises(InputError, match=r"--category \{3\}: nut/train/0.png lies below 2 folders, there is no \{3\}"):
        indexed(folder / "p", train_normal="nut/train", category="{3}")


def unlabelled_beside_normal(folder: Path) -> None:
    photos(folder / "p", "good/0.png", "good/sub/1.png", "today/2.png", "today/3.png", "else/4.png")
    rows, said = indexed(folder / "p", train_normal="good", test="today")
    assert {k: (i.split, i.label) for k, i in rows.items()} == {
        "good/0.png": ("train", 0),
        "good/sub/1.png": ("train", 0),
        "today/2.png": ("test", None),
        "today/3.png": ("test", None),
    }
    assert "2 train normal, 2 test unlabelled" in said and "passed over: 1 of the 5 images below" in said
    assert "else/4.png" in said


def pattern_of_nothing(folder: Path) -> None:
    photos(folder / "p", "line/good/0.png")
    with pytest.raises(InputError, match="--test good: matches no image below .*p; folders of this name are line/good"):
        indexed(folder / "p", test="good")


def with_brackets(folder: Path) -> None:
    photos(folder / "p", "ok [new]/0.png", "ng/1.png")
    assert indexed(folder / "p", train_normal="ok [new]", test="ng")[0]["ok [new]/0.png"].split == "train"


def underscores(folder: Path) -> None:
    photos(folder / "p", "_MG_0001.JPG", "_raw/0.png", "plain.png")
    assert set(indexed(folder / "p")[0]) == {"_MG_0001.JPG", "_raw/0.png", "plain.png"}


def leftovers(folder: Path) -> None:
    photos(folder / "p", "0.png", ".hidden/1.png", "__MACOSX/2.png", "@eaDir/3.png")
    for name in (".DS_Store", "Thumbs.db", "._0.png", "desktop.ini"):
        (folder / "p" / name).write_bytes(b"x")
    rows, said = indexed(folder / "p")
    assert set(rows) == {"0.png"} and len(said.splitlines()) == 1, said


def other_files(folder: Path) -> None:
    photos(folder / "p", "0.png")
    for name in ("a.heic", "b.heic", "c.raw", "d.txt", "README"):
        (folder / "p" / name).write_bytes(b"x")
    _, said = indexed(folder / "p")
    assert "not images: 5 files (2 .heic, 1 without ending, 1 .raw, 1 .txt): README, a.heic, b.heic, ..." in said


def nothing_but_others(folder: Path) -> None:
    (folder / "p").mkdir()
    (folder / "p/a.heic").write_bytes(b"x")
    with pytest.raises(InputError, match="p: no images here .*; the files here are 1 .heic"):
        indexed(folder / "p")


def out_inside(folder: Path) -> None:
    photos(folder / "p", "0.png")
    for _ in range(2):
        rows, said = indexed(folder / "p", out=folder / "p/runs/m.parquet")
        assert set(rows) == {"0.png"} and len(said.splitlines()) == 1, said


def twice(folder: Path) -> None:
    save(folder / "p/train/a.png", photo(1))
    save(folder / "p/test/b.bmp", photo(1))
    save(folder / "p/test/c.png", photo(2))
    indexed(folder / "p", train_normal="train", test_normal="test")
    said = checked(folder / "manifest.parquet")
    assert said.startswith("pictures in train that are also in test or val 1:") and "test/b.bmp is" in said


def shared_mask(folder: Path) -> None:
    photos(folder / "p", "a.png", "b.png")
    save(folder / "p/gt/m.png", T)
    (folder / "l.csv").write_text("image,label,mask\na.png,1,gt/m.png\nb.png,1,gt/m.png\n")
    indexed(folder / "p", labels=folder / "l.csv")
    assert "masks that belong to several images 1" in checked(folder / "manifest.parquet")


# -- label files ----------------------------------------------------------------------------------------------


def labels(content: bytes | str, *said: str, name: str = "größe"):
    """Three images: trained on, normal, anomalous; that is what the file says."""

    def try_it(folder: Path) -> None:
        photos(folder / "p", "t/0.png", "t/1.png", f"x/{name}.png")
        raw = content if isinstance(content, bytes) else content.encode()
        (folder / "l.csv").write_bytes(raw)
        rows, printed = indexed(folder / "p", labels=folder / "l.csv")
        assert [(i.split, i.label) for i in rows.values()] == [("train", 0), ("test", 0), ("test", 1)]
        assert all(s in printed for s in said) and not any(i.error for i in rows.values()), printed

    return try_it


def wrong(content: str, why: str, *files: str):
    def try_it(folder: Path) -> None:
        photos(folder / "p", *(files or ("0.png",)))
        (folder / "l.csv").write_text(content)
        with pytest.raises(InputError, match=f"l.csv: {why}"):
            indexed(folder / "p", labels=folder / "l.csv")

    return try_it


def listed_but_gone(folder: Path) -> None:
    photos(folder / "p", "0.png", "1.png")
    (folder / "l.csv").write_text("image,label\n0.png,ok\ngone.png,ng\n")
    rows, said = indexed(folder / "p", labels=folder / "l.csv")
    assert "No such file" in rows["gone.png"].error and rows["0.png"].label == 0
    assert "1 of its 2 images not below" in said and "passed over: 1 of the 2 images" in said and "1.png" in said


def every_word(folder: Path) -> None:
    words = {"normal": 0, "GOOD": 0, "ok": 0, "0": 0, "anomalous": 1, "Defect": 1, "bad": 1, "NG": 1, "1": 1, "": None}
    photos(folder / "p", *(f"{n}.png" for n in range(len(words))))
    lines = [f"{n}.png,{word},screw" for n, word in enumerate(words)]
    (folder / "l.csv").write_text("\n".join(["image,label,category", *lines, ""]))
    rows, said = indexed(folder / "p", labels=folder / "l.csv")
    assert [rows[f"{n}.png"].label for n in range(len(words))] == list(words.values())
    assert {i.category for i in rows.values()} == {"screw"} and "no column `split`, so that every" in said


def excel(folder: Path) -> None:
    photos(folder / "p", "0.png", "1.png", "2.png", "3.png")
    rows = "0.png;0.0;a{1}\n1.png;1.0;a\n2.png;True;a\n3.png;False;a\n"
    (folder / "l.csv").write_text(f"sep=;\nimage;label;category\n{rows}")
    rows, _ = indexed(folder / "p", labels=folder / "l.csv")
    assert [rows[f"{n}.png"].label for n in range(4)] == [0, 1, 1, 0] and rows["0.png"].category == "a{1}"


def absolute(folder: Path) -> None:
    photos(folder / "p", "i/0.png", "i/1.png")
    (folder / "l.csv").write_text(f"image,label\n{folder}/p/i/0.png,1\ni/../i/1.png,0\n")
    rows, said = indexed(folder / "p", labels=folder / "l.csv")
    assert {k: r.label for k, r in rows.items()} == {"i/0.png": 1, "i/1.png": 0} and "passed over" not in said
    assert not any(r.error for r in rows.values())


def mask_of_normal(folder: Path) -> None:
    photos(folder / "p", "0.png", "1.png")
    for n in (0, 1):
        save(folder / f"p/gt/{n}.png", T)
    (folder / "l.csv").write_text("image,label,mask\n0.png,0,gt/0.png\n1.png,1,gt/1.png\n")
    rows, said = indexed(folder / "p", labels=folder / "l.csv")
    assert rows["0.png"].masks == () and "passed over" not in said
    assert "1 mask of images that are not anomalous, left out: gt/0.png" in said


def utf16_without_mark(folder: Path) -> None:
    photos(folder / "p", "0.png")
    (folder / "l.csv").write_bytes("image,label\n0.png,1\n".encode("utf-16-le"))
    with pytest.raises(InputError, match="l.csv: holds NUL bytes .UTF-16 without a byte order mark"):
        indexed(folder / "p", labels=folder / "l.csv")


def no_category(folder: Path) -> None:
    photos(folder / "p", "0.png")
    with pytest.raises(InputError, match="--category: expected a name, not nothing"):
        indexed(folder / "p", category="")


def glob_with_brackets(folder: Path) -> None:
    photos(folder / "p", "ok [new]/0.png", "ok [new]/1.png")
    with pytest.raises(InputError, match=r"a bracket of a name is written \[\[\] in a glob"):
        indexed(folder / "p", train_normal="ok [new]/*.png")
    assert len(indexed(folder / "p", train_normal="ok [[]new]/*.png")[0]) == 2


TABLE = "image{0}label{0}split\nt/0.png{0}ok{0}train\nt/1.png{0}0{0}test\nx/größe.png{0}NG{0}\n"


KINDS = [
    *(
        Kind(f"mask `{name}` of `{image}`", "paired", paired(image, name))
        for image, name in (
            ("x.png", "x.png"),
            ("x.jpg", "x_mask.png"),
            ("x.png", "mask_x.png"),
            ("x.png", "x-mask.bmp"),
            ("x.png", "x_gt.png"),
            ("x.png", "X_MASK.PNG"),
            ("x.png", "x_label.png"),
            ("x.png", "x_segmentation.png"),
            ("x.jpg", "x.jpg.png"),
            ("IMG 7.JPG", "img 7 mask.png"),
        )
    ),
    Kind(
        "masks `x_mask_1`, `x_mask_2` of `x`",
        "paired, their union counts",
        paired("x.png", "x_mask_1.png", "x_mask_2.png"),
    ),
    Kind("names in composed and decomposed Unicode", "paired, and matched by patterns", unicode_forms),
    Kind("folders of defects that reuse numbers", "paired by the folders' names", same_numbers),
    Kind("one mask for several images of its stem", "left out and named", unclear),
    Kind("masks below `--masks` that fit several unlabelled images", "left out and named", unclear_unlabelled),
    Kind("only masks that fit several images", "refused, with the names", nothing_but_unclear),
    Kind("mask that is listed and not there", "said; the row has no `error`", not_there),
    Kind("several products in one tree", "`--category {1}`: a category each, masks paired within", three_products),
    Kind("pictures without labels beside normal ones", "`--test`", unlabelled_beside_normal),
    Kind("pattern that matches nothing", "refused, with the folders of that name", pattern_of_nothing),
    Kind("folder with brackets in its name", "matched as it is written", with_brackets),
    Kind("`_MG_0001.JPG`, folders that begin with `_`", "images", underscores),
    Kind("`.DS_Store`, `Thumbs.db`, `._x`, hidden folders", "not even named", leftovers),
    Kind("other files (.heic, .raw, .txt)", "counted by ending, the first named", other_files),
    Kind("folder of nothing but other files", "refused, with their endings", nothing_but_others),
    Kind("`--out` below ROOT", "not indexed", out_inside),
    Kind("one picture in train and in test, in two formats", "`data check` names it", twice),
    Kind("one mask of two images", "`data check` names it", shared_mask),
    Kind("labels in CSV", "read", labels(TABLE.format(","))),
    Kind(
        "CSV with BOM and semicolons (Excel)",
        "read, and said",
        labels(b"\xef\xbb\xbf" + TABLE.format(";").encode(), "columns are separated by semicolons"),
    ),
    Kind("CSV in Latin-1", "read, and said", labels(TABLE.format(",").encode("latin-1"), "read as Latin-1")),
    Kind(
        "CSV in UTF-16 with tabs (Excel)",
        "read, and said",
        labels(TABLE.format("\t").encode("utf-16"), "read as UTF-16", "separated by tabs"),
    ),
    Kind(
        "CSV with names alone, `\\` or quotes",
        "read",
        labels('image,label,split\nt\\0.png,ok,train\n"1.png","0",\ngröße.png,bad,test\n'),
    ),
    Kind("label words in any case, empty labels", "normal, anomalous, unknown", every_word),
    Kind(
        "label 2, or a word for a kind of defect",
        "refused, with the words",
        wrong(
            "image,label\n0.png,2\n", r"line 2: the label '2' is neither normal \(normal, good, ok, 0\) nor anomalous"
        ),
    ),
    Kind(
        "split that is none",
        "refused, with the words",
        wrong("image,label,split\n0.png,1,dev\n", "line 2: the split 'dev' is none of train, val, test"),
    ),
    Kind("CSV without a header", "refused", wrong("0.png,1\n", "no column `image`; its first line is '0.png,1'")),
    Kind(
        "CSV that lists an image twice",
        "refused",
        wrong("image,label\n0.png,1\n0.png,0\n", "lines 2 and 3 are about one image, 0.png"),
    ),
    Kind(
        "name in a CSV that several folders have",
        "refused",
        wrong("image,label\n0.png,1\n", "line 2: 0.png may be a/0.png or b/0.png", "a/0.png", "b/0.png"),
    ),
    Kind("CSV with `sep=;` (Excel), labels 0.0, 1.0, True, False, braces in a category", "read", excel),
    Kind("paths in a CSV that are absolute or hold `..`", "read", absolute),
    Kind(
        "one image in a CSV by two paths",
        "refused",
        wrong("image,label\ni/0.png,1\ni/../i/0.png,0\n", "lines 2 and 3 are about one image, i/0.png", "i/0.png"),
    ),
    Kind(
        "image in a CSV outside of ROOT",
        "refused",
        wrong("image,label\n../0.png,1\n", r"line 2: \.\./0.png lies outside of .*p; give"),
    ),
    Kind(
        "CSV with a line of too few cells",
        "refused",
        wrong("image,label\n0.png\n", "line 2: 1 cell, the first line has 2 columns"),
    ),
    Kind(
        "CSV with a line of too many cells",
        "refused",
        wrong("image,label\n0.png,1,hole\n", "line 2: 3 cells, the first line has 2 columns"),
    ),
    Kind(
        "CSV with a column twice",
        "refused",
        wrong("image,label,Label\n0.png,1,0\n", "the column `label` is there twice"),
    ),
    Kind("mask of a normal image in a CSV", "left out and named", mask_of_normal),
    Kind("CSV in UTF-16 without a byte order mark", "refused", utf16_without_mark),
    Kind("a category of no letters", "refused", no_category),
    Kind("glob with brackets of a name", "refused, with the way to write them", glob_with_brackets),
    Kind("image in a CSV that is not there", "failed row, and said", listed_but_gone),
]
