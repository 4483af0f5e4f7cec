"""Text from outside: files that people wrote, answers of servers, captions of foreign tables."""

import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from pathlib import Path

from stages.base.errors import InputError
from stages.base.regular import regular

CONTROL = re.compile(r"[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # all but tab, line feed and carriage return


def read_text(file: Path) -> str:
    """A file of UTF-8 text, with or without a byte order mark.

    Raises:
        InputError: it cannot be opened, or is in another encoding; names it and the way out.
    """
    try:
        return regular(file).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as e:
        seems, name = ("UTF-16", "utf-16") if e.object[:2] in (BOM_UTF16_LE, BOM_UTF16_BE) else ("Latin-1", "latin1")
        raise InputError(
            f"{file}: not UTF-8 text ({e.reason} at byte {e.start}), perhaps {seems}: save it as UTF-8,"
            f" or convert it with `iconv -f {name} -t utf-8`"
        ) from None
    except OSError as e:
        raise InputError(f"{file}: cannot be read ({e.strerror or e})") from None


def is_sound(text: str) -> bool:
    """False for a text with a lone surrogate, half a character, which no file in UTF-8 can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def escaped(text: str) -> str:
    """The text with every lone surrogate written as \\udXXX."""
    return text.encode(errors="backslashreplace").decode()


def without_controls(text: str) -> str:
    """The text with every control character but tab and line ends written as \\xNN: a NUL byte ends a text for many
    programs, and an escape code steers a terminal."""
    return CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def separator_of(text: str) -> str:
    """Of a CSV: the comma, semicolon or tab that its first line has most of, a comma where it has none."""
    return max(",;\t", key=text.partition("\n")[0].count)
