"""`kill -9` at random instants of whole stages; the real route through a tiny VLM and a tiny BERT."""

import random
import signal
import time

import pytest

from stages.artifacts.reader import read_table
from stages.artifacts.tables import CAPTIONS, ENCODERS, MANIFEST, METRICS, NEGATIVES, SCORES
from tests import processes
from tests.processes import Started

pytestmark = pytest.mark.slow

KILLS = {"caption": 10, "train-encoder": 5}  # many more: benchmarks.kills, test_crash.py


def adcli(*arguments, codes=(0,)):
    done = processes.adcli(*arguments, "--quiet", models=True)
    assert done.returncode in codes, done.stderr
    return done


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """40 pictures of one scenario under two conditions: two tasks."""
    import pyarrow.parquet as pq

    at = tmp_path_factory.mktemp("scenes")
    adcli(
        "data",
        "synth",
        "vidad",
        "--out",
        at / "s",
        "--size",
        120,
        "--scenarios",
        "fruits",
        "--conditions",
        "white_bg,blurry",
        "--workers",
        1,
    )
    adcli("data", "index", "vidad", at / "s", "--out", at / "whole")
    table = read_table(at / "whole", MANIFEST)
    keep = [int(i.rsplit("/", 1)[1][:3]) < 5 for i in table["image_id"].to_pylist()]
    pq.write_table(table.filter(keep), at / "m.parquet")
    return at


def kill_and_rerun(arguments, out, seed):
    """Kill the command some times at random instants while it works, the same command following each
    time; whenever it got to its end, begin another artifact. Returns an undisturbed artifact and the others."""
    rng = random.Random(seed)
    started = time.monotonic()
    adcli(*arguments, "--out", out / "undisturbed")
    whole = time.monotonic() - started
    artifacts, killed = [out / "0"], 0
    while killed < KILLS[arguments[0]]:
        process = Started(*arguments, "--quiet", "--out", artifacts[-1], models=True)
        time.sleep(rng.uniform(0.2, 1.0) * whole)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        elif process.returncode == 0:
            artifacts.append(out / str(len(artifacts)))
        assert process.wait() in (0, -signal.SIGKILL)
    adcli(*arguments, "--out", artifacts[-1])
    return out / "undisturbed", artifacts


def test_caption_survives_kills(scenes, tmp_path):
    arguments = ["caption", scenes / "m.parquet", "--root", scenes / "s", "--workers", 1]
    undisturbed, artifacts = kill_and_rerun(arguments, tmp_path, 1)
    content = [read_table(a, CAPTIONS).drop_columns(list(CAPTIONS.volatile)) for a in (undisturbed, *artifacts)]
    assert all(table.equals(content[0]) for table in content)


def test_train_encoder_survives_kills(scenes, bert, tmp_path):
    adcli("caption", scenes / "m.parquet", "--root", scenes / "s", "--workers", 1, "--out", tmp_path / "c")
    adcli("rewrite-negatives", tmp_path / "c", "--manifest", scenes / "m.parquet", "--out", tmp_path / "n")
    arguments = [
        "train-encoder",
        tmp_path / "n",
        "--manifest",
        scenes / "m.parquet",
        "--encoder",
        bert,
        "--epochs",
        4,
        "--device",
        "cpu",
    ]
    undisturbed, artifacts = kill_and_rerun(arguments, tmp_path, 2)
    expected = read_table(undisturbed, ENCODERS).drop_columns("seconds")
    assert len(expected) == 2
    for artifact in artifacts:
        assert read_table(artifact, ENCODERS).drop_columns("seconds").equals(expected)
        for path in expected["path"].to_pylist():
            one, other = ((a / path / "model.safetensors").read_bytes() for a in (artifact, undisturbed))
            assert one == other
        assert not list(artifact.rglob(".tmp-*.parquet"))


def test_the_real_route(scenes, qwen, bert, tmp_path):
    """caption and rewrite by a VLM, encoder from a directory. The model is random: its rewrites break the
    constraints, and must fail as rows; training then goes on with the rules' negatives."""
    m, out = scenes / "m.parquet", tmp_path
    vlm = ("--device", "cpu", "--max-tokens", 8, "--max-errors", 0)
    prompt = ("--prompt", "vidad/fruits")  # to the other one this random model answers with blanks
    adcli("caption", m, "--root", scenes / "s", "--vlm", qwen, *prompt, *vlm, "--out", out / "c")
    captions = read_table(out / "c", CAPTIONS).to_pylist()
    assert len(captions) == 50 and all(r["prompt_tokens"] > 50 for r in captions)
    assert len({r["text"] for r in captions}) > 1
    rewrite = ("rewrite-negatives", out / "c", "--manifest", m, "--rewriter", qwen, *vlm, "--out", out / "n")
    done = adcli(*rewrite, codes=(0, 3))
    rows = read_table(out / "n", NEGATIVES).to_pylist()
    failed = [r for r in rows if r["error"]]
    assert len(rows) == 10 and done.returncode == (3 if failed else 0), done.stderr
    assert all(r["attempts"] == 5 and r["negative"] is None for r in failed)
    adcli("caption", m, "--root", scenes / "s", "--workers", 1, "--out", out / "c2")
    adcli("rewrite-negatives", out / "c2", "--manifest", m, "--out", out / "n2")
    adcli(
        "train-encoder",
        out / "n2",
        "--manifest",
        m,
        "--encoder",
        bert,
        "--epochs",
        1,
        "--device",
        "cpu",
        "--out",
        out / "e",
    )
    adcli("score", m, "--method", "text-knn", "--captions", out / "c", "--encoders", out / "e", "--out", out / "s")
    adcli(
        "evaluate",
        out / "s",
        "--manifest",
        m,
        "--root",
        scenes / "s",
        "--out",
        out / "metrics",
        "--report",
        out / "r.html",
    )
    assert read_table(out / "s", SCORES)["error"].null_count == 50
    metrics = read_table(out / "metrics" / "metrics.parquet", METRICS).to_pylist()
    assert any(r["metric"] == "auroc" and r["value"] is not None for r in metrics)
