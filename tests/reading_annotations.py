"""Annotations in XML and JSON as tools write them."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from stages.base.errors import InputError
from stages.datasets.images import load_mask
from tests.reading import Kind, checked, indexed
from tests.reading_trees import photos

VOC = (
    "<annotation><filename>{name}</filename><size><width>32</width><height>24</height></size><object>"
    "<name>hole</name><bndbox><xmin>{0}</xmin><ymin>{1}</ymin>"
    "<xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object></annotation>"
)


def labelme(shapes: Sequence[dict], width: int = 32) -> str:
    return json.dumps({"imagePath": "b.png", "imageWidth": width, "imageHeight": 24, "shapes": shapes})


def drawn(text: str, ending: str, expected: np.ndarray):
    """b.png is anomalous by its annotation alone, a.png has none; the mask lies in --out."""

    def try_it(folder: Path) -> None:
        photos(folder / "p", "img/a.png", "img/b.png")
        (folder / "p/ann").mkdir()
        (folder / f"p/ann/b.{ending}").write_text(text)
        rows, said = indexed(folder / "p", annotations=folder / "p/ann")
        image = rows["img/b.png"]
        assert (image.label, image.defect, rows["img/a.png"].label) == (1, "hole", None)
        assert image.masks[0].is_relative_to(folder / "manifest.parquet")
        assert (load_mask(image.masks[0]) == expected).all()
        assert "1 image without an annotation, unlabelled: img/a.png" in said and "not images" not in said
        assert not checked(folder / "manifest.parquet")

    return try_it


def not_drawn(text: str, ending: str, why: str):
    """It is said, and the image stays; another annotation is drawn."""

    def try_it(folder: Path) -> None:
        photos(folder / "p", "ng/b.png", "ng/c.png")
        (folder / f"p/ng/b.{ending}").write_text(text)
        (folder / "p/ng/c.xml").write_text(VOC.format(1, 1, 4, 4, name="c.png"))
        rows, said = indexed(folder / "p", test_anomalous="ng", annotations=folder / "p/ng")
        assert "1 annotation not drawn, so that pixel metrics are impossible" in said and why in said, said
        assert rows["ng/b.png"].masks == () and rows["ng/b.png"].error is None and rows["ng/c.png"].masks

    return try_it


def named_inside(folder: Path) -> None:
    photos(folder / "p", "ng/b.png", "ng/c.png")
    (folder / "p/1.json").write_text(labelme([{"label": "hole", "points": [[2, 4], [8, 4], [8, 9]]}]))
    (folder / "p/2.xml").write_text(VOC.format(1, 1, 4, 4, name="c.png"))
    rows, said = indexed(folder / "p", test_anomalous="ng", annotations=folder / "p")
    assert all(i.masks for i in rows.values()) and "stem of no image" not in said


def two_endings(folder: Path) -> None:
    photos(folder / "p", "b.png", "b.jpg")
    (folder / "p/b.json").write_text(labelme([{"label": "hole", "points": [[2, 4], [8, 4], [8, 9]]}]))
    rows, _ = indexed(folder / "p", annotations=folder / "p")
    assert {k: bool(i.masks) for k, i in rows.items()} == {"b.png": True, "b.jpg": False}


def coco(folder: Path) -> None:
    photos(folder / "p", "b.png")
    (folder / "p/instances.json").write_text('{"images": [], "annotations": [], "categories": []}')
    with pytest.raises(InputError, match=r"instances.json: COCO's JSON is not read; convert it to .* labelme"):
        indexed(folder / "p", annotations=folder / "p")


BOX = np.zeros((24, 32), bool)
BOX[4:10, 2:9] = True


KINDS = [
    Kind("boxes of Pascal VOC", "drawn as masks", drawn(VOC.format(3, 5, 9, 10, name="b.png"), "xml", BOX)),
    Kind(
        "rectangles of labelme",
        "drawn as masks",
        drawn(labelme([{"label": "hole", "shape_type": "rectangle", "points": [[8, 9], [2, 4]]}]), "json", BOX),
    ),
    Kind(
        "polygons of labelme",
        "drawn as masks",
        drawn(labelme([{"label": "hole", "points": [[2, 4], [8, 4], [8, 9], [2, 9]]}]), "json", BOX),
    ),
    Kind(
        "labelme, a line or a point",
        "said; no mask",
        not_drawn(
            labelme([{"label": "crack", "shape_type": "line", "points": [[2, 4], [8, 9]]}]),
            "json",
            "a shape of the type line",
        ),
    ),
    Kind(
        "annotation of an image of another size",
        "said; no mask",
        not_drawn(
            labelme([{"label": "hole", "points": [[2, 4], [8, 4], [8, 9]]}], width=64), "json", "an image of 64 x 24 px"
        ),
    ),
    Kind(
        "XML that is broken",
        "said; no mask",
        not_drawn("<annotation><object>", "xml", "b.xml: broken XML (no element"),
    ),
    Kind(
        "rectangles of labelme by four corners",
        "drawn as masks",
        drawn(
            labelme([{"label": "hole", "shape_type": "rectangle", "points": [[2, 4], [8, 4], [8, 9], [2, 9]]}]),
            "json",
            BOX,
        ),
    ),
    *(
        Kind(
            f"annotation with a coordinate of {value}",
            "said; no mask",
            not_drawn(
                f'{{"shapes": [{{"label": "h", "shape_type": "{kind}", "points": [[2, 4], [{value}, 9], [3, 3]]}}]}}',
                "json",
                f"b.json: a {kind} with a coordinate that is no number of pixels",
            ),
        )
        for value, kind in (("NaN", "polygon"), ("Infinity", "rectangle"), ("1e308", "circle"))
    ),
    Kind("JSON of labelme that is broken", "said; no mask", not_drawn('{"shapes": [', "json", "b.json: broken JSON")),
    Kind(
        "JSON of labelme without points",
        "said; no mask",
        not_drawn('{"shapes": [{"label": "hole"}]}', "json", "b.json: a value is missing or not of the kind"),
    ),
    Kind("annotation that names its image inside", "paired by that name", named_inside),
    Kind("annotation of `x`, images `x.png` and `x.jpg`", "paired by the name inside", two_endings),
    Kind("JSON of COCO", "refused, with what is read", coco),
]
