"""The HTTP client below the OpenAI client, with bounds that it does not have itself: a time for a whole try, a size of
the answer, and no other host than the one that was given."""

import socket
import threading
import zlib
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from typing import Any

from stages.base.errors import InputError

MOST_BYTES = 8 * 2**20  # of an answer; one of 512 tokens with log-probabilities has some 600 kB
MOST_REDIRECTS = 5


class TooLarge(ValueError):
    """An answer that has more than MOST_BYTES, or would be unpacked without a bound."""


def bounded_client(seconds: float, auth: tuple[str, str] | None, shown: str) -> Any:
    """An `openai.DefaultHttpxClient` each of whose requests, from connecting to the last byte, ends after `seconds`
    with the library's own ReadTimeout, which the OpenAI client takes for what it is and tries again.

    auth: user and password for Basic authentication, in place of the key; shown: the address in messages.

    Each request has a connection of its own: only of a new one the socket is known, so that it can be shut when the
    server neither ends its answer nor stops sending.

    Its `send` raises TooLarge, and InputError for a redirect to another host, scheme or port, before anything is sent
    there.
    """
    import openai

    library = import_module(openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0])  # httpx or httpx2

    class Bounded(openai.DefaultHttpxClient):
        def send(self, request: Any, **options: Any) -> Any:
            options |= {"stream": True, "follow_redirects": False}
            with Deadline(seconds) as deadline:
                request.extensions["trace"] = deadline.watch
                try:
                    response = super().send(request, **options)
                    for _ in range(MOST_REDIRECTS):
                        if not response.has_redirect_location:
                            break
                        response.close()
                        _require_same_place(request, response, shown)
                        response = super().send(response.next_request, **options)
                    response = _read(response)
                    if deadline.passed:  # a body of unknown length ends where the connection was shut
                        raise TimeoutError
                    return response
                except (TooLarge, InputError):
                    raise
                except Exception as e:
                    if deadline.passed:
                        raise library.ReadTimeout(f"no whole answer in {seconds:g} s", request=request) from e
                    raise

    return Bounded(auth=auth, headers={"Connection": "close", "Accept-Encoding": "identity"})


class Deadline:
    """Shuts the connections of one request when its time is over. (A timeout per read never comes as long as some byte
    does.)"""

    def __init__(self, seconds: float) -> None:
        self.passed = False
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> "Deadline":
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def watch(self, event: str, info: dict) -> None:
        """The `trace` extension of a request: told of each new connection."""
        if event.rpartition(".")[0].endswith(("connect_tcp", "start_tls")) and event.endswith(".complete"):
            with self._lock:
                self._sockets.append(info["return_value"].get_extra_info("socket"))
            if self.passed:
                self._end()

    def _end(self) -> None:
        with self._lock:
            self.passed = True
            for connection in self._sockets:
                with suppress(OSError):  # closed by now, or wrapped for TLS
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)  # SSLSocket's own would wait


def _require_same_place(request: Any, response: Any, shown: str) -> None:
    following = response.next_request
    if following is None:
        raise InputError(f"{shown}: the server redirects to an address that is none; give the right --base-url")
    old, new = ((u.scheme, u.host, u.port) for u in (request.url, following.url))
    if old != new:
        port = f":{following.url.port}" if following.url.port else ""
        raise InputError(
            f"{shown}: the server redirects to {following.url.scheme}://{following.url.host}{port};"
            " nothing was sent there. If that is the right one, give it as --base-url"
        )


def _read(response: Any) -> Any:
    """The same response, read; at most MOST_BYTES, decompressed, and a chunk more are held. Nothing is asked for but
    the text as it is; gzip, which some servers send all the same, is unpacked no further than that. Raises TooLarge."""
    chunks, size = [], 0
    try:
        for chunk in _unpacked(response):
            size += len(chunk)
            if size > MOST_BYTES:
                raise TooLarge(f"an answer of more than {MOST_BYTES // 2**20} MiB")
            chunks.append(chunk)
    finally:
        response.close()
    headers = [
        (n, v)
        for n, v in response.headers.multi_items()
        if n.lower() not in ("content-encoding", "content-length", "transfer-encoding")
    ]
    return type(response)(response.status_code, headers=headers, content=b"".join(chunks), request=response.request)


def _unpacked(response: Any) -> Iterator[bytes]:
    """The body; of a chunk of gzip at most a byte more than MOST_BYTES. The library's own decoders have no bound, and
    10 kB packed twice can be 10 GB."""
    packed = response.headers.get("content-encoding", "").strip().lower()
    if packed in ("", "identity"):
        yield from response.iter_raw()
    elif packed in ("gzip", "x-gzip", "deflate"):
        unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)  # a header of gzip or of zlib
        for chunk in response.iter_raw():
            yield unpack.decompress(chunk, MOST_BYTES + 1)
    else:
        raise TooLarge(f"an answer packed as {packed[:40]!r}, which was not asked for and is not read")
