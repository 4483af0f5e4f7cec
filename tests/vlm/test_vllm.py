"""The real vLLM (CPU build) with a tiny random checkpoint: `make test-vllm` installs it beside and runs this."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("vllm", reason="make test-vllm")

from stages.artifacts.reader import read_table
from stages.artifacts.tables import CAPTIONS, MANIFEST, SCORES
from stages.vlm.engine import Request, Sampling
from stages.vlm.factory import make_engine
from stages.vlm.options import EngineOptions
from stages.vlm.orphans import descendants

ROOT = Path(__file__).parents[2]
SMALL = {"dtype": "float32", "max_model_len": 1024, "max_num_seqs": 8, "gpu_memory": 0.1}
FLAGS = (
    "--engine",
    "vllm",
    "--dtype",
    "float32",
    "--max-model-len",
    1024,
    "--max-num-seqs",
    8,
    "--gpu-memory",
    0.1,
    "--max-pixels",
    9000,
)  # below the checkpoint's own 12544


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures")
    for n in range(65):
        size = (56 + 7 * (n % 9), 120 - 5 * (n % 7), 3)
        Image.fromarray(np.random.default_rng(n).integers(0, 255, size, np.uint8)).save(folder / f"{n:02d}.png")
    return folder


@pytest.fixture(scope="module")
def requests(pictures):
    """64 questions about two images each, the first of them the same in all: a reference image."""
    return [
        Request(
            (n,),
            "Is there any anomaly? " + "please " * (n % 5),
            (pictures / "00.png", pictures / f"{n + 1:02d}.png"),
            n,
            ("yes", "no"),
        )
        for n in range(64)
    ]


@pytest.fixture(scope="module")
def served(qwen):
    """Address of a vLLM API server that serves the tiny checkpoint as `tiny`."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        str(qwen),
        "--port",
        str(port),
        "--served-model-name",
        "tiny",
        "--dtype",
        "float32",
        "--max-model-len",
        "1024",
        "--enforce-eager",
        "--limit-mm-per-prompt",
        '{"image": 2}',
        "--gpu-memory-utilization",
        "0.1",
    ]
    server = subprocess.Popen(command, env=os.environ | {"VLLM_LOGGING_LEVEL": "ERROR"}, start_new_session=True)
    for _ in range(240):
        time.sleep(1)
        assert server.poll() is None, "the server ended"
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health")
            break
        except OSError:
            continue
    yield f"http://127.0.0.1:{port}/v1"
    os.killpg(server.pid, signal.SIGTERM)
    server.wait(60)


@pytest.fixture(scope="module")
def vllm_engine(qwen):
    return make_engine(str(qwen), EngineOptions(engine="vllm", **SMALL))


def test_three_engines_say_the_same(qwen, served, vllm_engine, requests):
    engines = {
        "transformers": make_engine(str(qwen), EngineOptions(device="cpu", dtype="float32")),
        "server": make_engine("tiny", EngineOptions(engine="server", base_url=served)),
        "vllm": vllm_engine,
    }
    said = {name: {r.key: r for r in e.run(requests, Sampling(max_tokens=12))} for name, e in engines.items()}
    one = said.pop("transformers")
    assert len(one) == 64 and len({r.text for r in one.values()}) > 1
    for name, other in said.items():
        for key, reply in other.items():
            assert reply.error is None, (name, reply)
            expected = one[key]
            assert (reply.text, reply.finish_reason, reply.prompt_tokens, reply.completion_tokens) == (
                expected.text,
                expected.finish_reason,
                expected.prompt_tokens,
                expected.completion_tokens,
            ), name
            assert reply.probabilities == pytest.approx(expected.probabilities, abs=1e-4)
            p, q = (r.probabilities["yes"] / sum(r.probabilities.values()) for r in (reply, expected))
            assert abs(p - q) < 1e-3


def test_a_rows_seed_decides_its_text(vllm_engine, requests):
    warm = Sampling(1.0, 0.95, 8)
    one = {r.key: r.text for r in vllm_engine.run(requests[:12], warm)}
    assert one == {r.key: r.text for r in vllm_engine.run(requests[11::-1], warm)}
    other = [Request(r.key, r.text, r.images, r.seed + 1000) for r in requests[:12]]
    assert one != {r.key: r.text for r in vllm_engine.run(other, warm)}


def test_what_does_not_fit_is_a_row(vllm_engine, requests, tmp_path):
    (tmp_path / "bad.png").write_text("no image")
    bad = [
        Request(("long",), "image " * 2000, requests[0].images),
        Request(("unreadable",), "x", (tmp_path / "bad.png",)),
        Request(("many",), "x", requests[0].images * 20),
    ]
    replies = {r.key[0]: r for r in vllm_engine.run([bad[0], requests[0], *bad[1:]], Sampling(max_tokens=4))}
    assert "maximum context length" in replies["long"].error and replies[0].error is None
    assert "cannot be decoded" in replies["unreadable"].error
    assert "image" in replies["many"].error and "\n" not in replies["many"].error


def test_finished_rows_leave_while_others_wait(vllm_engine, requests):
    taken = []

    def more():
        for request in requests * 2:
            taken.append(request)
            yield Request((len(taken),), request.text, request.images, len(taken))

    done = 0
    for _ in vllm_engine.run(more(), Sampling(max_tokens=4)):
        done += 1
        assert len(taken) - done <= 8 + 32 + 32  # in the engine, waiting for it, decoded
    assert done == 128


def adcli(*arguments, wait=True):
    command = [sys.executable, "-m", "adcli", *map(str, arguments), "--quiet"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    if wait:
        _, said = process.communicate()
        assert process.returncode == 0, said
    return process


def manifest_of(pictures, at):
    adcli("data", "index", "folder", pictures, "--out", at)
    assert len(read_table(at, MANIFEST)) == 65
    return at


def kill_when_parts_appear(out, *arguments):
    process = adcli(*arguments, "--out", out, wait=False)
    while not list(Path(out).glob("part-*.parquet")) and process.poll() is None:
        time.sleep(0.02)
    kill(process)
    return len(read_table(out, CAPTIONS, partial=True))


def kill(process):
    """SIGKILL; nothing that the process started may be left, since it would keep the GPU's memory."""
    assert process.poll() is None, process.communicate()
    helpers = descendants(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for _ in range(100):
        if not any(Path(f"/proc/{p}").exists() for p in helpers):
            break
        time.sleep(0.1)
    assert not [p for p in helpers if Path(f"/proc/{p}").exists()]


@pytest.mark.parametrize("engine", ["vllm", "server"])
def test_kill_and_go_on(engine, request, pictures, tmp_path):
    m = manifest_of(pictures, tmp_path / "m")
    flags = (request.getfixturevalue("qwen"), *FLAGS)
    if engine == "server":
        flags = ("tiny", "--engine", "server", "--base-url", request.getfixturevalue("served"), "--concurrency", 2)
    arguments = ("caption", m, "--temperature", 0, "--max-tokens", 200, "--vlm", *flags)
    adcli(*arguments, "--out", tmp_path / "whole")
    before = kill_when_parts_appear(tmp_path / "c", *arguments)
    assert 0 < before < 65
    adcli(*arguments, "--out", tmp_path / "c")
    stopped, whole = (
        read_table(tmp_path / name, CAPTIONS).drop_columns(list(CAPTIONS.volatile)) for name in ("c", "whole")
    )
    assert stopped.equals(whole)
    runs = json.loads((tmp_path / "c" / "_adcli.json").read_text())["runs"]
    assert runs[-1]["rows"] == 65 - before


def test_kill_while_the_model_loads(qwen, pictures, tmp_path):
    m = manifest_of(pictures, tmp_path / "m")
    process = adcli("caption", m, "--vlm", qwen, *FLAGS, "--out", tmp_path / "c", wait=False)
    while len(descendants(process.pid)) < 3 and process.poll() is None:  # the guard, and what vLLM starts
        time.sleep(0.05)
    time.sleep(1)
    kill(process)


def test_the_lvlm_method_through_a_server(served, pictures, tmp_path):
    """Yes and no from the tiny model's probabilities: its text is noise, so that rows fail as unparsable."""
    folder = tmp_path / "set"
    for n, place in enumerate(("ok/a.png", "ok/b.png", "test/ok/c.png", "test/ng/d.png")):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_bytes((pictures / f"{n:02d}.png").read_bytes())
    adcli(
        "data",
        "index",
        "folder",
        folder,
        "--train-normal",
        "ok/*.png",
        "--test-normal",
        "test/ok/*.png",
        "--test-anomalous",
        "test/ng/*.png",
        "--out",
        tmp_path / "m",
    )
    process = adcli(
        "score",
        tmp_path / "m",
        "--method",
        "lvlm",
        "--engine",
        "server",
        "--base-url",
        served,
        "--vlm",
        "tiny",
        "--max-tokens",
        8,
        "--out",
        tmp_path / "s",
        wait=False,
    )
    process.communicate()
    rows = read_table(tmp_path / "s", SCORES).to_pylist()
    assert len(rows) == 2 and {r["method"] for r in rows} == {"lvlm/tiny/1-shot+specific"}
    for r in rows:
        assert r["response"] and ((r["parsed"] == "unparsable" and r["error"]) or r["score"] is not None)
