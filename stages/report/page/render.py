"""A page from its template: data as JSON that is no markup, style and script within it, pictures in it or beside it."""

import base64
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.artifacts import outputs
from stages.base.texts import without_controls
from stages.report.page.pictures import LIMIT, place

if TYPE_CHECKING:
    import jinja2

SCRIPTS = ("charts", "rows", "line", "grid", "detail", "export", "start")  # parts of one function, in this order
PICTURES = '<script type="application/json" id="pictures">'
MARGIN = 1.02  # of the data for what is known once the pictures are made: names of good images beside the ranked ones


def template(name: str) -> "jinja2.Template":
    """One of the pages, or of the parts that they share, in the folder of the report."""
    import jinja2

    parts = jinja2.FunctionLoader(_part)
    return jinja2.Environment(loader=parts, autoescape=True, trim_blocks=True, lstrip_blocks=True).get_template(name)


def write(
    path: Path,
    name: str,
    context: dict,
    data: Callable[[], dict],
    run: str,
    made: Iterable[tuple[str, bytes]],
    names: Iterable[str],
) -> None:
    """Render and write a page. context: of the template; data: what the script shows, asked for once its pictures are
    `made`; run: names its pictures; names: of all pictures that may be made. Its marks are named by its place."""
    from markupsafe import Markup

    parts = "\n".join(_part(f"page/script/{part}.js") for part in SCRIPTS)
    script = f'(() => {{\n"use strict";\n{parts}}})();\n'
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()

    def page(pictures: dict[str, str]) -> str:
        text = template(name).render(
            **context,
            style=Markup(_part("page/page.css")),
            script=Markup(script),
            digest=digest,
            data=Markup(as_json({"run": run, "page": key_of(os.path.abspath(path)), **data()})),
        )
        start, mark, end = without_controls(text).rpartition(PICTURES)
        return start + mark + as_json(pictures) + end

    room = int(LIMIT - MARGIN * len(page({}).encode(errors="replace")))
    place(path, run, made, names, room, lambda pictures: outputs.write_page(path, page(pictures)))


def as_json(value: Any) -> str:
    """JSON in ASCII that can stand in a <script>: no text in it ends the element or begins another."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def key_of(*values: Any) -> str:
    """16 hexadecimal digits of the values."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def data_url(content: bytes, kind: str) -> str:
    """The picture itself as the address of an <img>."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _part(name: str) -> str:
    return files("stages.report").joinpath(name).read_text(encoding="utf-8")
