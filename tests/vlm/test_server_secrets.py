"""Servers that repeat a key or redirect: nothing secret reaches rows, records, terminals or other hosts."""

import base64
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.captions.caption import run as caption
from stages.vlm.engine import Request
from stages.vlm.factory import make_engine
from stages.vlm.options import EngineOptions
from stages.vlm.secrets import INSTEAD, address_of, redactor, without_passwords
from tests.vlm.test_server_engine import Faulty, Handler, ask
from tests.vlm.test_server_limits import caption_config, captions

ROOT = Path(__file__).parents[2]
QUIET = RunOptions(quiet=True)
KEY = "sk-Top/Secret+47=x9"


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


@pytest.mark.parametrize("form", range(10))
@pytest.mark.parametrize("between", ["\n", " ", "\r\n   ", "\\n", "\u200b", "\xa0\t"])
def test_a_key_that_white_space_breaks_does_not_get_through(form, between):
    said = forms(KEY)[form]
    for step in (1, 7, len(said) // 2):
        broken = between.join(said[i : i + step] for i in range(0, len(said), step))
        clean = redactor(KEY)(f"echo {broken} end")
        whole = re.sub(r"\\n|[\s\u200b]", "", clean)
        assert INSTEAD in clean and not leaks(whole) and clean.startswith("echo ") and clean.endswith(" end"), clean


def test_a_long_text_is_looked_through_at_once():
    """Also one of blanks, or of the first letter of the key."""
    for text in (" ", KEY[0], f"{KEY[0]} ", f"{KEY[:3]}\n", "\\", f"{KEY[0]}\\n"):
        assert redactor(KEY)(text * 50_000) == text * 50_000


def test_words_that_are_no_secrets_stay():
    """A placeholder for servers that want some key must not be cut out of captions."""
    for key in ("", "x", "EMPTY", "none", "sk-no-key-required"):
        assert redactor(key)("left: one bolt. right: empty, none.") == "left: one bolt. right: empty, none."
    assert redactor("none", "geheim")("x geheim none") == f"x {INSTEAD} none"


@pytest.mark.slow
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
