"""Servers that drip, never end or answer with nonsense: what is bounded, and which rows fail."""

import gzip
import json
import socket
import threading
import time
import tracemalloc
from pathlib import Path

import pytest

from stages.artifacts.reader import read_table
from stages.artifacts.tables import CAPTIONS, SCORES
from stages.base.config import RunOptions
from stages.captions.caption import CaptionConfig
from stages.captions.caption import run as caption
from stages.lvlm.config import LvlmConfig
from stages.lvlm.score import run as lvlm
from stages.vlm import bounded_http, server_engine
from stages.vlm.engine import Request, Sampling
from stages.vlm.factory import make_engine
from stages.vlm.options import EngineOptions
from tests.vlm.test_server_engine import Faulty, Handler, ask

ROOT = Path(__file__).parents[2]
QUIET = RunOptions(quiet=True)


def caption_config(images, server, **more):
    return CaptionConfig(
        **{
            "manifest": images,
            "root": images.parent,
            "out": images.parent / "c",
            "vlm": "tiny",
            "engine": "server",
            "base_url": server.url,
            "concurrency": 2,
            "retries": 0,
        }
        | more
    )


def captions(config):
    return {r["image_id"]: r for r in read_table(config.out, CAPTIONS).to_pylist()}


def dripping(what):
    """The address of a server that lists its model and then sends one byte of `what` again and again, and a counter of
    the connections that are open."""
    listening, alive = socket.create_server(("127.0.0.1", 0)), [0]
    models = b'{"object": "list", "data": [{"id": "tiny", "object": "model", "owned_by": "x"}]}'

    def serve(connection):
        try:
            if connection.recv(65536).startswith(b"GET"):
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                    % (len(models), models)
                )
                return connection.close()
            alive[0] += 1
            connection.sendall(what)
            while True:
                connection.sendall(b" ")
                time.sleep(0.05)
        except OSError:
            alive[0] -= 1

    def accept():
        while True:
            threading.Thread(target=serve, args=listening.accept()[:1], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return f"http://127.0.0.1:{listening.getsockname()[1]}/v1", alive


@pytest.mark.slow
@pytest.mark.parametrize(
    "what",
    [b"HTTP/1.1 200 OK\r\nX-Slow:", b"HTTP/1.1 200 OK\r\n\r\n{", b"HTTP/1.1 500 No\r\nContent-Length: 999999\r\n\r\n"],
    ids=["header", "body", "error"],
)
def test_a_server_that_drips_for_ever_ends_at_the_timeout(what):
    """Its bytes come faster than any timeout per read: without a time for the whole there is no reply."""
    url, alive = dripping(what)
    engine = make_engine("tiny", EngineOptions(engine="server", base_url=url, timeout=0.4, retries=1))
    replies = []
    asking = threading.Thread(daemon=True, target=lambda: replies.extend(engine.run([Request((0,), "q")], Sampling())))
    asking.start()
    asking.join(60)
    (reply,) = replies
    assert "timed out" in reply.error and "(2 tries)" in reply.error and reply.retry is None
    for _ in range(200):
        if not alive[0]:
            break
        time.sleep(0.05)
    assert alive[0] == 0, "the connections are shut, not left behind"


def test_an_answer_is_refused_at_its_size_and_the_others_stay(images, monkeypatch):
    monkeypatch.setattr(bounded_http, "MOST_BYTES", 20_000)
    monkeypatch.setattr(server_engine, "MOST_TEXT", 1000)
    server, long = Faulty(lambda text: None), iter(["a" * 1001, "b" * 30_000])
    server.say = lambda body, text: next(long, "a bolt")
    config = caption_config(images, server, concurrency=1)
    summary = caption(config, QUIET)
    rows = captions(config).values()
    errors = " | ".join(r["error"] for r in rows if r["error"])
    assert summary.errors == 2 and [r["text"] for r in rows if not r["error"]] == ["a bolt"] * 4
    assert "1,001 characters; more than 1,000 are not read" in errors and "an answer of more than" in errors
    assert server_engine.MOST_TEXT < 2**20 < 8 * 2**20


def test_a_body_without_end_is_not_read_to_its_end(monkeypatch):
    monkeypatch.setattr(bounded_http, "MOST_BYTES", 100_000)
    sent = []

    class Endless(Handler):
        def answer(self, body, text, fault):
            self.send_response(200)
            self.end_headers()
            try:
                while len(sent) < 5000:
                    self.wfile.write(b" " * 10_000)
                    sent.append(1)
            except OSError:
                pass

    server = Faulty(lambda text: None)
    server.RequestHandlerClass = Endless
    (reply,) = ask(server, [Request((0,), "q")], timeout=30.0)
    assert "an answer of more than" in reply.error and len(sent) < 5000 and server.tries == {"q": 1}


def packed(body, times=1):
    for _ in range(times):
        body = gzip.compress(body, 9)
    return body


@pytest.mark.parametrize(
    ("encoding", "times", "said"),
    [
        ("gzip", 1, "an answer of more than"),
        ("gzip, gzip", 2, "packed as 'gzip, gzip'"),
        ("zstd", 0, "packed as 'zstd'"),
    ],
)
def test_a_packed_answer_is_unpacked_to_its_bound_alone(encoding, times, said, monkeypatch):
    """64 kB of gzip can be 64 MB, packed twice 60 GB: one chunk was unpacked whole."""
    monkeypatch.setattr(bounded_http, "MOST_BYTES", 100_000)
    body = packed(b" " * 60_000_000, times)

    class Packed(Handler):
        def answer(self, *_):
            self.send(200, body, Content_Encoding=encoding)

    server = Faulty(lambda text: None)
    server.RequestHandlerClass = Packed
    tracemalloc.start()
    (reply,) = ask(server, [Request((0,), "q")], timeout=60.0)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert said in reply.error and server.tries == {"q": 1} and most < 20_000_000


def test_an_answer_in_gzip_is_read():
    class Packed(Handler):
        def send(self, code, body, **headers):
            super().send(code, packed(json.dumps(body).encode()), Content_Encoding="gzip", **headers)

    server = Faulty(lambda text: None)
    server.RequestHandlerClass = Packed
    assert [r.text for r in ask(server, [Request((0,), "q")])] == ["answer to q"]


BAD = {
    "a lone surrogate": {"content": "half \ud800 a bolt"},
    "no text": {"content": {"a": 1}},
    "tokens": {"tokens": 2**40},
    "finish": {"finish": "st\udc00op"},
    "refusal": {"refusal": "no \ud800"},
    "logprob": {"logprob": 5.0},
    "nested": {"raw": b"[" * 200_000},
    "control": {"raw": b"\x00\x1b[31m"},
}


@pytest.mark.parametrize("bad", BAD)
def test_one_bad_value_is_one_failed_row(images, bad):
    """Or none, where only a count is strange. The other rows of the batch are kept."""
    wrong, taken = BAD[bad], []

    class Odd(Handler):
        def answer(self, body, text, fault):
            taken.append(1)
            if len(taken) != 2:
                return super().answer(body, text, fault)
            top = {"token": "Yes", "logprob": wrong.get("logprob", -1.0), "bytes": None}
            reply = {
                "id": "x",
                "object": "chat.completion",
                "created": 0,
                "model": "tiny",
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": wrong.get("finish", "stop"),
                        "message": {
                            "role": "assistant",
                            "content": None if "refusal" in wrong else wrong.get("content", "Yes"),
                            "refusal": wrong.get("refusal"),
                        },
                        "logprobs": {"content": [top | {"top_logprobs": [top]}]},
                    }
                ],
                "usage": {"prompt_tokens": wrong.get("tokens", 1), "completion_tokens": 3, "total_tokens": 10},
            }
            return self.send(200, wrong.get("raw") or json.dumps(reply).encode())

    server = Faulty(lambda text: None)
    server.RequestHandlerClass, server.say = Odd, lambda body, text: "No."
    config = LvlmConfig(
        manifest=images,
        root=images.parent,
        out=images.parent / "s",
        vlm="tiny",
        engine="server",
        base_url=server.url,
        concurrency=1,
        retries=0,
    )
    summary = lvlm(config, QUIET)
    rows = read_table(config.out, SCORES).to_pylist()
    failed = [r for r in rows if r["error"]]
    assert len(rows) == 4 and summary.errors == len(failed) == (0 if bad in ("tokens", "finish") else 1)
    assert all(r["prediction"] is not None for r in rows if not r["error"])
    if bad == "a lone surrogate":
        assert failed[0]["response"] == "half \\ud800 a bolt" and "lone surrogate" in failed[0]["error"]


@pytest.mark.parametrize(("owner", "retry"), [("vllm", False), ("someone", None)])
def test_an_empty_answer_is_final_where_the_seed_fixes_it(images, owner, retry):
    server = Faulty(lambda text: "500" if server.tries.total() == 1 else None)
    server.owner, server.say = owner, lambda body, text: " "
    config = caption_config(images, server, concurrency=1, workers=1)
    caption(config, RunOptions(quiet=True, max_errors=0))
    rows = captions(config).values()
    assert sorted(str(r["retry"]) for r in rows) == sorted(["None"] + [str(retry)] * 5), "500 may pass"
    assert [r["error"] for r in rows if "500" not in r["error"]] == ["the model gave an empty answer"] * 5
