"""Boxes and polygons of annotation tools, drawn as masks: Pascal VOC's XML and labelme's JSON."""

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.artifacts.files import make_folder, write_atomically
from stages.base.errors import InputError
from stages.base.regular import regular

ENDINGS = {".xml", ".json"}
FARTHEST = 1e6  # pixels from the corner of an image; beyond it a coordinate is a mistake
Point = tuple[float, float]


@dataclass(frozen=True)
class Shape:
    """kind: polygon, rectangle (two corners, or all four: their bounding box) or circle (centre and a point of its
    rim). Points in pixels, x first."""

    name: str
    kind: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Annotation:
    """What one file says. image: the name it gives; size: (width, height), None where it does not say."""

    image: str
    size: tuple[int, int] | None
    shapes: tuple[Shape, ...]


def read_annotation(path: Path) -> Annotation | None:
    """One file; None for XML and JSON that is neither VOC's nor labelme's.

    Raises:
        InputError: broken, or a shape without an area (points, lines), with the name of the file.
    """
    try:
        return _voc(path) if path.suffix.lower() == ".xml" else _labelme(path)
    except OSError as e:
        raise InputError(f"{path}: cannot be read ({e.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: its text is not UTF-8; save it as UTF-8") from None
    except (ElementTree.ParseError, json.JSONDecodeError) as e:
        kind = "JSON" if isinstance(e, json.JSONDecodeError) else "XML"
        raise InputError(f"{path}: broken {kind} ({e}); save it again") from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise InputError(
            f"{path}: a value is missing or not of the kind that VOC or labelme writes (size, name, coordinates);"
            " save it again"
        ) from None


def _voc(path: Path) -> Annotation | None:
    """Corners of boxes count from 1 and belong to the box, as VOC's development kit has it."""
    tree = ElementTree.parse(regular(path)).getroot()
    if tree.tag != "annotation":
        return None
    width, height = (int(float(tree.findtext(f"size/{side}") or 0)) for side in ("width", "height"))
    shapes = []
    for thing in tree.iter("object"):
        name = (thing.findtext("name") or "object").strip()
        polygon = thing.find("polygon")
        if polygon is not None:
            shapes.append(Shape(name, "polygon", _points_of(polygon)))
            continue
        x0, y0, x1, y1 = (_number(thing.findtext(f"bndbox/{c}")) for c in ("xmin", "ymin", "xmax", "ymax"))
        shapes.append(Shape(name, "rectangle", ((x0 - 1, y0 - 1), (x1 - 1, y1 - 1))))
    return Annotation((tree.findtext("filename") or "").strip(), _size(width, height), tuple(shapes))


def _points_of(polygon: ElementTree.Element) -> tuple[Point, ...]:
    """<pt><x>, <y> (LabelMe on the web) or <x1>, <y1>, <x2>, ... (Roboflow)."""
    if points := polygon.findall("pt"):
        return tuple((_number(p.findtext("x")), _number(p.findtext("y"))) for p in points)
    values = {child.tag: _number(child.text) for child in polygon}
    return tuple((values[f"x{n}"], values[f"y{n}"]) for n in range(1, len(values) // 2 + 1))


def _labelme(path: Path) -> Annotation | None:
    content = json.loads(regular(path).read_text(encoding="utf-8-sig"))
    if isinstance(content, dict) and {"images", "annotations"} <= set(content):
        raise InputError(
            f"{path}: COCO's JSON is not read; convert it to one file per image of labelme (.json) or Pascal VOC (.xml)"
        )
    if not (isinstance(content, dict) and "shapes" in content):
        return None
    shapes = []
    for shape in content["shapes"]:
        kind, points = shape.get("shape_type") or "polygon", tuple((float(x), float(y)) for x, y in shape["points"])
        if kind not in ("polygon", "rectangle", "circle"):
            raise InputError(
                f"{path}: a shape of the type {kind}, of which no mask can be drawn; use polygons,"
                " rectangles or circles"
            )
        shapes.append(Shape(str(shape["label"]), kind, points))
    image = str(content.get("imagePath") or "").replace("\\", "/").rpartition("/")[2]
    return Annotation(image, _size(content.get("imageWidth"), content.get("imageHeight")), tuple(shapes))


def _number(text: str | None) -> float:
    """Raises ValueError where a file has none."""
    if text is None:
        raise ValueError("a coordinate is missing")
    return float(text)


def _size(width: int | None, height: int | None) -> tuple[int, int] | None:
    """None where a file does not say it, or says 0."""
    return (width, height) if width and height else None


def require_drawable(annotation: Annotation, size: tuple[int, int], path: Path) -> None:
    """Raises InputError when the image, (width, height) of `size`, is of another size than the annotation says, or a
    shape has too few points or lies outside."""
    if annotation.size and annotation.size != tuple(size):
        raise InputError(
            f"{path}: is about an image of {annotation.size[0]} x {annotation.size[1]} px, and that is of"
            f" {size[0]} x {size[1]}"
        )
    for shape in annotation.shapes:
        least = 3 if shape.kind == "polygon" else 2
        if len(shape.points) < least:
            raise InputError(f"{path}: a {shape.kind} of {len(shape.points)} points; at least {least} are needed")
        xs, ys = zip(*shape.points, strict=True)
        if not all(abs(v) <= FARTHEST for v in (*xs, *ys)):  # NaN, too
            raise InputError(f"{path}: a {shape.kind} with a coordinate that is no number of pixels; correct the file")
        if max(xs) < 0 or max(ys) < 0 or min(xs) >= size[0] or min(ys) >= size[1]:
            raise InputError(f"{path}: a {shape.kind} outside its image")


def draw_mask(shapes: Sequence[Shape], size: tuple[int, int], target: Path) -> None:
    """Write the union of the shapes as a PNG of 0 and 255, outlines included, as labelme draws them."""
    from PIL import Image, ImageDraw

    mask = Image.new("L", size)
    draw = ImageDraw.Draw(mask)
    for shape in shapes:
        points = list(shape.points)
        if shape.kind == "polygon":
            draw.polygon(points, fill=255, outline=255)
        elif shape.kind == "rectangle":
            xs, ys = zip(*points, strict=True)
            draw.rectangle((min(xs), min(ys), max(xs), max(ys)), fill=255)
        else:
            (x, y), (rim_x, rim_y) = points[:2]
            r = ((rim_x - x) ** 2 + (rim_y - y) ** 2) ** 0.5
            draw.ellipse((x - r, y - r, x + r, y + r), fill=255)
    make_folder(target.parent)
    write_atomically(target, lambda f: mask.save(f, "png"))
