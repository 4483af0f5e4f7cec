"""What must not be told: the server's key and the password in its address, in any form in which a server may repeat
them."""

import base64
import re
from dataclasses import dataclass, field
from urllib.parse import quote, quote_plus, unquote, urlsplit

from stages.base.errors import InputError

INSTEAD = "[secret]"
# White space, also escaped or of no width, that may stand between two characters: lines are broken, headers folded.
BREAKS = r"(?:[\s\u00ad\u200b-\u200d\u2060\ufeff]|\\+[nrt])*"
SHORTEST = 4  # of a secret, characters: a shorter one cannot be told from other words
# What people give to servers that want some key and look at none.
PLACEHOLDERS = {
    "none",
    "null",
    "empty",
    "dummy",
    "test",
    "token",
    "local",
    "anything",
    "no-key",
    "sk-no-key-required",
    "not-needed",
    "unused",
    "placeholder",
}


@dataclass(frozen=True)
class Address:
    """url: without user, password, query and fragment, as it may be shown; user, password: None where there are
    none."""

    url: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)


def address_of(base_url: str) -> Address:
    """Raises InputError for what is no http address, without repeating a password in it."""
    try:
        parts = urlsplit(base_url.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not host:
        said = base_url.rpartition("@")[2].partition("?")[0]
        raise InputError(f"--base-url {said}: expected an address such as http://localhost:8000/v1")
    host = f"[{host}]" if ":" in host else host
    url = f"{parts.scheme}://{host}" + (f":{port}" if port else "") + parts.path
    return Address(
        url, unquote(parts.username) if parts.username else None, unquote(parts.password) if parts.password else None
    )


def without_passwords(text: str) -> str:
    """A command line or a message with `user:password@` of every address in it masked, for records."""
    return re.sub(r"(?<=://)[^/\s@]+(?=@)", INSTEAD, text)


@dataclass(frozen=True)
class Redactor:
    """Takes secrets out of texts that come from a server."""

    pattern: re.Pattern | None = field(repr=False)

    def __call__(self, text: str) -> str:
        """The text with INSTEAD for every form of a secret."""
        return self.pattern.sub(INSTEAD, text) if self.pattern else text


def redactor(key: str, password: str | None = None) -> Redactor:
    """For a key and the password of an address: as they are, quoted for addresses and JSON, in hexadecimal, and in
    base64 with whatever stands beside them, such as the whole header `Authorization`; also where white space breaks
    them."""
    plain = {s for s in (key, password) if s and len(s) >= SHORTEST and s.lower() not in PLACEHOLDERS}
    forms = {f for s in plain for f in (s, quote(s), quote(s, safe=""), quote_plus(s), _in_json(s), s.encode().hex())}
    if not forms:
        return Redactor(None)
    patterns = [_broken(f) for f in sorted(forms, key=len, reverse=True)]
    patterns += [_broken(f) + r"[\w+/-]{0,3}=*" for s in plain for f in sorted(_in_base64(s), key=len, reverse=True)]
    return Redactor(re.compile("|".join(patterns), re.IGNORECASE))


def _broken(form: str) -> str:
    return BREAKS.join(re.escape(c) for c in "".join(form.split()))


def _in_base64(text: str) -> set[str]:
    """What is in the base64 of any text that holds this one, wherever it begins there (`Bearer KEY`, `user:password`):
    without the characters at both ends, three at most, that depend on what stands beside it."""
    raw, forms = text.encode(), set()
    for before, cut in ((0, 0), (1, 2), (2, 3)):
        whole = (before + len(raw)) // 3 * 4
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            forms.add(encode(b"\0" * before + raw).decode()[cut:whole])
    return {f for f in forms if len(f) >= SHORTEST}


def _in_json(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("/", "\\/")


def require_sendable(key: str, variable: str) -> str:
    """The key without white space around it (a file's last line end). Raises InputError for one that no header can
    hold."""
    key = key.strip()
    if not key.isascii() or not key.isprintable():
        raise InputError(
            f"${variable}: holds characters that no key has (a line end, or letters beyond ASCII); set it again"
        )
    return key
