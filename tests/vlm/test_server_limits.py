"""Servers that leak, redirect, drip or never end: what reaches rows and terminals, and what is bounded."""

import base64
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.artifacts.reader import read_table
from stages.artifacts.tables import CAPTIONS, MANIFEST, SCORES
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.captions.caption import CaptionConfig
from stages.captions.caption import run as caption
from stages.lvlm.score import LvlmConfig
from stages.lvlm.score import run as lvlm
from stages.vlm import bounded_http, server_engine
from stages.vlm.engine import Request, Sampling
from stages.vlm.factory import make_engine
from stages.vlm.options import EngineOptions
from stages.vlm.secrets import INSTEAD, address_of, redactor, without_passwords
from tests.vlm.test_server_engine import Faulty, Handler, ask

ROOT = Path(__file__).parents[2]
KEY = "sk-Top/Secret+47=x9"
QUIET = RunOptions(quiet=True)


def forms(key):
    """How a server may repeat a key."""
    header = f"Bearer {key}"
    return [
        key,
        header,
        quote(key),
        quote(key, safe=""),
        key.upper(),
        base64.b64encode(key.encode()).decode(),
        base64.b64encode(header.encode()).decode(),
        base64.b64encode(f"user:{key}".encode()).decode(),
        base64.urlsafe_b64encode(f"{key}\n".encode()).decode(),
        key.encode().hex(),
    ]


def decoded(text):
    """A text, and whatever in it can be decoded."""
    texts = [text, text.replace("%2F", "/").replace("%2B", "+").replace("%3D", "=")]
    for word in re.findall(r"[\w+/-]{3,}=*", text):
        for encoded in (word, word.replace("-", "+").replace("_", "/")):
            try:
                texts.append(base64.b64decode(encoded + "=" * (-len(encoded) % 4)).decode(errors="replace"))
            except ValueError:
                continue
    return " ".join(texts)


def leaks(text):
    """Whether the key can be read from a text."""
    return KEY.lower() in decoded(text).lower() or KEY.encode().hex() in text


@pytest.mark.parametrize("form", range(10))
def test_no_form_of_a_key_gets_through(form):
    said = forms(KEY)[form]
    assert leaks(f"echo {said} end")
    clean = redactor(KEY)(f"echo {said} end")
    assert INSTEAD in clean and not leaks(clean) and clean.startswith("echo ") and clean.endswith(" end")
    assert KEY[-2:] not in decoded(clean), "nor its end, beside what base64 made of it"


def test_words_that_are_no_secrets_stay():
    """A placeholder for servers that want some key must not be cut out of captions."""
    for key in ("", "x", "EMPTY", "none", "sk-no-key-required"):
        assert redactor(key)("left: one bolt. right: empty, none.") == "left: one bolt. right: empty, none."
    assert redactor("none", "geheim")("x geheim none") == f"x {INSTEAD} none"


@pytest.fixture
def images(tmp_path, save_image):
    """A manifest of two training and four test images."""
    rows = []
    for n in range(6):
        save_image(tmp_path / f"{n}.png", n)
        rows.append(
            {
                "image_id": str(n),
                "path": f"{n}.png",
                "dataset": "d",
                "category": "c",
                "label": 0,
                "split": "train" if n < 2 else "test",
                "mask_paths": [],
            }
        )
    pq.write_table(pa.Table.from_pylist(rows, schema=MANIFEST.schema), tmp_path / "m.parquet")
    return tmp_path / "m.parquet"


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


def test_a_key_that_the_server_repeats_reaches_no_row_no_record_and_no_terminal(images, monkeypatch, capfd):
    """In answers and in errors of single rows; and in the error that ends the stage, with its traceback."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server, echoes = Faulty(lambda text: None), iter(forms(KEY))
    server.say = lambda body, text: f"I see {next(echoes)} and a bolt."
    config = caption_config(images, server, base_url=server.url.replace("//", "//user:sesam%20auf@"))
    caption(config, RunOptions())
    rows = captions(config).values()
    assert all(r["text"].startswith("I see") and INSTEAD in r["text"] for r in rows)
    assert server.keys == {"Basic " + base64.b64encode(b"user:sesam auf").decode()}, "as it was before"
    record = (config.out / "_adcli.json").read_text()

    refuse(server, 400, " ".join(forms(KEY)))
    refused = replace(config, out=config.out.parent / "400")
    caption(refused, RunOptions(max_errors=0))
    errors = [r["error"] for r in captions(refused).values()]
    assert len(errors) == 6 and all("400 [secret]" in e for e in errors)
    said = capfd.readouterr()
    everything = json.dumps(list(rows)) + record + json.dumps(errors) + said.out + said.err
    assert not leaks(everything) and "sesam" not in everything

    refuse(server, 401, " ".join(forms(KEY)))
    arguments = [
        "caption",
        images,
        "--root",
        images.parent,
        "--vlm",
        "tiny",
        "--engine",
        "server",
        "--debug",
        "--base-url",
        config.base_url,
        "--out",
        images.parent / "401",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "adcli", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )
    said = done.stdout + done.stderr
    assert done.returncode and "Traceback" in said and "401 [secret]" in said, "what --debug shows"
    assert not leaks(said) and "sesam" not in said


def refuse(server, status, message):
    """Every completion is refused with these words."""

    class Refusing(Handler):
        def answer(self, body, text, fault):
            self.send(status, {"error": {"message": message}})

    server.RequestHandlerClass = Refusing


def test_an_address_and_a_key_variable_that_are_none(monkeypatch):
    monkeypatch.setenv("BROKEN_KEY", "sk-a\nb")
    for options, said in (
        ({"base_url": "me:geheim@host/v1"}, "--base-url host/v1: expected an address"),
        ({"base_url": "http://me:geheim@host:99999/v1"}, "--base-url host:99999/v1: expected"),
        ({"base_url": "http://h/v1", "api_key_env": KEY}, "not the key"),
        ({"base_url": "http://h/v1", "api_key_env": "NO_SUCH_KEY"}, "no such environment variable"),
        ({"base_url": "http://h/v1", "api_key_env": "BROKEN_KEY"}, "[$]BROKEN_KEY: holds"),
    ):
        with pytest.raises(InputError, match=said) as e:
            make_engine("tiny", EngineOptions(engine="server", **options))
        assert "geheim" not in str(e.value) and KEY not in str(e.value) and "\n" not in str(e.value)
    assert "geheim" not in repr(address_of("https://me:geheim@host/v1?token=t"))
    assert address_of("https://me:geheim@host/v1?token=t").url == "https://host/v1"
    line = "adcli caption m --base-url http://me:geheim@host/v1 --out a@b"
    assert without_passwords(line) == f"adcli caption m --base-url http://{INSTEAD}@host/v1 --out a@b"


def test_a_key_may_end_in_a_line_end(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "file-key-1\n")
    server = Faulty(lambda text: None)
    (reply,) = ask(server, [Request((0,), "q")])
    assert reply.text == "answer to q" and server.keys == {"Bearer file-key-1"}


def test_a_redirect_to_another_host_is_refused_and_nothing_is_sent_there(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    other, server = Faulty(lambda text: None), Faulty(lambda text: None)

    class Redirecting(Handler):
        def answer(self, body, text, fault):
            self.send(307, b"", Location=f"{other.url}/chat/completions?key={quote(KEY)}")

    server.RequestHandlerClass = Redirecting
    with pytest.raises(InputError, match="redirects to http://127.0.0.1:") as e:
        ask(server, [Request((0,), "q")])
    assert server.url in str(e.value) and "\n" not in str(e.value) and not leaks(str(e.value))
    assert server.tries == {"q": 1} and not other.tries and not other.keys

    class Moved(Handler):  # within the same host it is followed
        def do_POST(self):
            if self.path.startswith("/v1/chat"):
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send(307, b"", Location="/v2/chat/completions")
            else:
                super().do_POST()

    server.RequestHandlerClass = Moved
    (reply,) = ask(server, [Request((0,), "q")])
    assert reply.text == "answer to q"


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
