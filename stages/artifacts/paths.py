"""Paths below an output, made from values of a table."""

import hashlib
import unicodedata
from pathlib import Path

LONGEST = 200  # bytes of one name; file systems take 255, and writers put a prefix or an ending to it
LONGEST_ID = 800  # bytes of an image_id that is made into folders; a whole path may have 4096, and escapes are long


def below(base: Path, *values: str | None, suffix: str = "") -> Path:
    """`base` / one name per value, for values from anybody's table.

    Different values give different paths (also None and "", "a/b" and "a_b", and texts that differ in their Unicode
    form alone), each exactly `len(values)` levels below `base`, so that none is a folder above another. Letters and
    digits of any script, blank, `-`, `_` and `.` stay as they are, but not in front; everything else is written as
    %XX, and what gets too long ends in a hash. Upper and lower case are told apart only where the file system does.
    suffix: put behind the last name (".png").

    Raises:
        ValueError: no value, which would be `base` itself.
    """
    if not values:
        raise ValueError("a path below needs a value")
    names = [_name(value) for value in values]
    return base.joinpath(*names[:-1], names[-1] + suffix)


def for_image(base: Path, image_id: str, suffix: str) -> Path:
    """`base` / a folder for each part of an image_id / a file, as `below` names them, for image ids of anybody's table.

    Different ids give different paths, none of which is a folder above another: a folder's name never ends as a file's
    does. An id too long for a path is one name. suffix: of the file, with its dot, and always put to its name: a.png
    and a.jpg may lie side by side.
    """
    parts = image_id.split("/") if len(image_id.encode(errors="surrogatepass")) <= LONGEST_ID else [image_id]
    *folders, name = below(Path(), *parts, suffix=suffix).parts
    apart = [f[: -len(suffix)] + "%2E" + suffix[1:] if f.lower().endswith(suffix.lower()) else f for f in folders]
    return base.joinpath(*apart, name)


def _name(value: str | None) -> str:
    if value is None:
        return "%none"  # no escaped text: a byte's hexadecimal is in upper case
    if not value:
        return "%empty"
    composed = unicodedata.is_normalized("NFC", value)  # some file systems do not tell the forms apart
    escaped = "".join(c if _plain(c, i == 0, composed) else _hexadecimal(c) for i, c in enumerate(value))
    if escaped.endswith((" ", ".")):  # some file systems drop these at the end
        escaped = escaped[:-1] + _hexadecimal(escaped[-1])
    if len(escaped.encode()) <= LONGEST:
        return escaped
    digest = hashlib.sha256(value.encode(errors="surrogatepass")).hexdigest()[:32]
    return escaped.encode()[: LONGEST - 34].decode(errors="ignore") + "%~" + digest


def _plain(c: str, first: bool, composed: bool) -> bool:
    if c in " -_.":
        return not first
    return c.isalnum() and (composed or c.isascii())


def _hexadecimal(c: str) -> str:
    return "".join(f"%{byte:02X}" for byte in c.encode(errors="surrogatepass"))
