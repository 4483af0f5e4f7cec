"""The server engine against a real HTTP server on loopback that misbehaves as servers do."""

import json
import random
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stages.base.errors import InputError
from stages.vlm.engine import Request, Sampling
from stages.vlm.factory import make_engine
from stages.vlm.options import EngineOptions
from stages.vlm.server_engine import probabilities_by_text

FAULTS = ("429", "500", "503 in the middle", "truncated", "hang", "closed")


class Faulty(ThreadingHTTPServer):
    """Answers chat completions; `plan(text)` names the fault of the next try for a prompt, or None."""

    daemon_threads = True

    def __init__(self, plan, retry_after=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan, self.retry_after, self.owner, self.tokenizer = plan, retry_after, "someone", None
        self.say, self.top = (lambda body, text: f"answer to {text}"), (("Yes", -1.0), ("no", -2.0))
        self.tries, self.bodies, self.times, self.keys = Counter(), [], [], set()
        self.most = self.now = 0
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def send(self, code, body, **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        for name, value in {"Content-Type": "application/json", "Content-Length": len(data), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self.send(200, {"object": "list", "data": [{"id": "tiny", "object": "model", "owned_by": self.server.owner}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.path.endswith("/chat/completions"):
            self.send(*(self.server.tokenizer or (lambda _: (404, {"message": "no such route"})))(body))
            return
        text = body["messages"][0]["content"][-1]["text"]
        with self.server.lock:
            self.server.tries[text] += 1
            self.server.bodies.append(body)
            self.server.times.append(time.monotonic())
            self.server.keys.add(self.headers["Authorization"])
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        try:
            self.answer(body, text, self.server.plan(text))
        finally:
            with self.server.lock:
                self.server.now -= 1

    def answer(self, body, text, fault):
        top = [{"token": t, "logprob": p, "bytes": None, "top_logprobs": []} for t, p in self.server.top]
        if getattr(self.server, "by_id", False):
            for entry, name in zip(top, ("token_id:1", "token_id:2"), strict=True):
                entry["token"] = name
        logprobs = {"content": [{"token": "Yes", "logprob": -1.0, "bytes": None, "top_logprobs": top}]}
        reply = {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": "tiny",
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "stop",
                    "message": {"role": "assistant", "content": self.server.say(body, text)},
                    "logprobs": logprobs if body.get("logprobs") else None,
                }
            ],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
        }
        if fault == "429":
            more = {"Retry_After": self.server.retry_after} if self.server.retry_after else {}
            self.send(429, {"error": {"message": "slow down"}}, **more)
        elif fault in ("500", "503 in the middle"):
            self.send(int(fault[:3]), {"error": {"message": "internal"}})
        elif fault in ("400", "401", "403", "404"):
            said = {"400": "prompt too long", "401": "wrong key", "403": "no access", "404": "no such model"}
            self.send(int(fault), {"error": {"message": said[fault]}})
        elif fault == "truncated":
            self.send(200, json.dumps(reply)[:40].encode())
        elif fault == "hang":
            time.sleep(1.5)
        elif fault == "closed":
            self.connection.close()
        else:
            self.send(200, reply)


def ask(server, requests, **options):
    options = {"concurrency": 16, "retries": 6, "timeout": 1.0} | options
    engine = make_engine("tiny", EngineOptions(engine="server", base_url=server.url, **options))
    return list(engine.run(requests, Sampling(max_tokens=5)))


@pytest.mark.slow
def test_500_requests_with_a_fifth_of_faults_end_with_500_rows():
    rng = random.Random(0)
    server = Faulty(lambda text: rng.choice(FAULTS) if rng.random() < 0.2 else None)
    replies = ask(server, [Request((n,), f"q{n}") for n in range(500)])
    assert Counter(r.key for r in replies) == Counter({(n,): 1 for n in range(500)})
    assert all(r.text == f"answer to q{r.key[0]}" and r.error is None for r in replies)
    assert max(server.tries.values()) <= 7 and 500 < sum(server.tries.values()) < 750
    assert server.most <= 16


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("429", "429 slow down"),
        ("500", "500 internal"),
        ("hang", "timed out"),
        ("truncated", "unusable reply"),
        ("closed", "Connection error"),
    ],
)
def test_what_never_recovers_is_an_error_row_after_the_bounded_tries(fault, said):
    server = Faulty(lambda text: fault if text == "bad" else None)
    replies = {r.key[0]: r for r in ask(server, [Request((t,), t) for t in ("good", "bad")], retries=2, timeout=0.4)}
    assert said in replies["bad"].error and replies["bad"].text is None
    assert server.tries == {"good": 1, "bad": 3} and replies["good"].text == "answer to good"


def test_a_refused_prompt_is_not_tried_again():
    server = Faulty(lambda text: "400")
    (reply,) = ask(server, [Request((0,), "long")])
    assert reply.error == "server: 400 prompt too long" and server.tries == {"long": 1}


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["401", "403", "404"])
def test_one_refused_request_among_others_is_its_own_failure(fault):
    """It ended the stage, and the answers to what was in flight, paid for, were lost."""
    server = Faulty(lambda text: fault if text == "q3" else None)
    server.say = lambda body, text: time.sleep(0.3) or f"answer to {text}"  # q3 is refused while others are in flight
    replies = {r.key[0]: r for r in ask(server, [Request((n,), f"q{n}") for n in range(12)], concurrency=4, timeout=9)}
    assert len(replies) == 12 and server.tries["q3"] == 1
    assert f": {fault} " in replies[3].error and replies[3].retry is None
    assert all(replies[n].text == f"answer to q{n}" for n in range(12) if n != 3)


@pytest.mark.parametrize("fault", ["401", "403", "404"])
def test_a_server_that_refuses_from_the_start_ends_it(fault):
    server = Faulty(lambda text: fault)
    with pytest.raises(InputError, match=f": {fault} .*the key is read from .OPENAI_API_KEY"):
        ask(server, [Request((n,), f"q{n}") for n in range(40)], concurrency=4)
    assert sum(server.tries.values()) <= 8, "nothing is asked that cannot be answered"


def test_a_server_that_refuses_later_on_fails_rows_and_goes_on():
    answered = iter(range(5))
    server = Faulty(lambda text: None if next(answered, None) is not None else "401")
    replies = ask(server, [Request((n,), f"q{n}") for n in range(9)], concurrency=1)
    assert [r.error is None for r in replies] == [True] * 5 + [False] * 4


@pytest.mark.slow
def test_retry_after_is_respected():
    faults = iter(["429"])
    server = Faulty(lambda text: next(faults, None), retry_after=2)
    (reply,) = ask(server, [Request((0,), "q")])
    assert reply.text == "answer to q" and server.times[1] - server.times[0] > 1.9


def test_what_is_sent(tmp_path, save_image, monkeypatch):
    import base64
    import io

    import numpy as np
    from PIL import Image

    monkeypatch.setenv("MY_KEY", "secret")
    image = save_image(tmp_path / "a.jpg", 3)
    server = Faulty(lambda text: None)
    (reply,) = ask(server, [Request((0,), "q", (image, image), seed=5, choices=("yes", "no"))], api_key_env="MY_KEY")
    (body,) = server.bodies
    first, _, text = body["messages"][0]["content"]
    pixels = Image.open(io.BytesIO(base64.b64decode(first["image_url"]["url"].partition(",")[2])))
    assert (np.asarray(pixels) == np.asarray(Image.open(image))).all() and text == {"type": "text", "text": "q"}
    assert (body["seed"], body["max_tokens"], body["temperature"], body["top_logprobs"]) == (5, 5, 0.0, 20)
    assert server.keys == {"Bearer secret"}
    assert reply.probabilities == pytest.approx({"yes": 0.367879, "no": 0.135335}, abs=1e-5)
    assert (reply.prompt_tokens, reply.completion_tokens, reply.finish_reason) == (7, 3, "stop")


def ids(body):
    """What a tokenizer gives for `yes`, `Yes`, ` no` and so on: 1 for a yes, 2 for a no."""
    return 200, {"tokens": [1 if "yes" in body["prompt"].lower() else 2]}


def others(body):
    """Token ids that the reply will not hold."""
    return 200, {"tokens": [ids(body)[1]["tokens"][0] + 7]}


@pytest.mark.parametrize(
    ("owner", "tokenizer", "by_id"),
    [
        ("vllm", ids, True),
        ("vllm", lambda _: (401, {"message": "no"}), False),
        ("vllm", lambda _: (200, {"tokens": []}), False),
        ("llamacpp", lambda _: (200, {"tokens": []}), False),
    ],
)
def test_probabilities_from_servers_of_every_kind(owner, tokenizer, by_id):
    """By token id where the server is a vLLM that tokenizes, otherwise from the most probable tokens' texts."""
    server = Faulty(lambda text: None)
    server.owner, server.tokenizer, server.by_id = owner, tokenizer, by_id
    (reply,) = ask(server, [Request((0,), "q", choices=("yes", "no"))])
    assert reply.probabilities == pytest.approx({"yes": 0.367879, "no": 0.135335}, abs=1e-5)
    (body,) = server.bodies
    assert body["top_logprobs"] == 20 and body.get("logprob_token_ids") == ([1, 2] if by_id else None)
    plain = {"repetition_penalty": 1.0, "top_k": 0, "min_p": 0.0}
    said = {k: body.get(k) for k in plain}
    assert said == (plain if owner == "vllm" else dict.fromkeys(plain)), "not the checkpoint's defaults"


def test_listed_tokens_that_do_not_come_back_are_no_probability():
    server = Faulty(lambda text: None)
    server.owner, server.tokenizer, server.by_id = "vllm", others, True
    (reply,) = ask(server, [Request((0,), "q", choices=("yes", "no"))])
    assert reply.text and reply.probabilities is None


def test_whoever_stops_listening_does_not_wait_for_a_server_that_hangs():
    server = Faulty(lambda text: "hang" if text == "slow" else None)
    engine = make_engine("tiny", EngineOptions(engine="server", base_url=server.url, retries=6, timeout=1.4))
    replies = engine.run([Request((t,), t) for t in ("quick", "slow")], Sampling())
    assert next(replies).text == "answer to quick"
    while not server.tries["slow"]:
        time.sleep(0.01)
    replies.close()
    until = time.monotonic() + 1  # the quick one's thread may still be counted
    while server.now > 1 and time.monotonic() < until:
        time.sleep(0.01)
    assert server.now == 1 and engine.stopped.is_set(), "the slow request is still in flight"


def test_a_short_name_is_the_model_of_that_name():
    server = Faulty(lambda text: None)
    with pytest.raises(InputError, match="no model 'Qwen/Qwen2-VL-7B-Instruct'; it serves tiny"):
        make_engine("qwen2-vl", EngineOptions(engine="server", base_url=server.url))


def test_probabilities_by_the_tokens_text():
    p = probabilities_by_text({"Yes": -1.0, " yes": -2.0, "The": -0.5}, ("yes", "no"))
    assert p == pytest.approx({"yes": 0.367879 + 0.135335, "no": 0.0}, abs=1e-5)
    assert probabilities_by_text({"The": -0.1}, ("yes", "no")) is None


def test_an_address_that_answers_html_or_nothing_or_another_model():
    class Page(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<html>welcome</html>")

    page = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=page.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{page.server_address[1]}"
    for url, said in (
        (address, "not as an OpenAI-compatible server does"),
        ("http://127.0.0.1:9", "no server answers"),
    ):
        with pytest.raises(InputError, match=said) as e:
            make_engine("tiny", EngineOptions(engine="server", base_url=url, retries=0))
        assert url in str(e.value) and "\n" not in str(e.value)
    with pytest.raises(InputError, match="has no model 'other'; it serves tiny"):
        make_engine("other", EngineOptions(engine="server", base_url=Faulty(lambda text: None).url))


@pytest.mark.slow
def test_memory_and_requests_in_flight_are_bounded(tmp_path, save_image):
    image, taken, done = save_image(tmp_path / "a.png"), [], 0
    server = Faulty(lambda text: None)

    def requests():
        for n in range(100):
            taken.append(n)
            yield Request((n,), f"q{n}", (image,))

    engine = make_engine("tiny", EngineOptions(engine="server", base_url=server.url, concurrency=4))
    for _ in engine.run(requests(), Sampling()):
        done += 1
        assert len(taken) - done <= 2 * 4
    assert done == 100 and server.most <= 4
