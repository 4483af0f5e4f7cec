"""Questions to a plain vision-language model: what is asked, both ways of choosing, rows of every kind."""

import base64
import io
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from stages.artifacts.reader import read_provenance, read_table
from stages.artifacts.tables import ANSWERS
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.questions.answering import LETTERS, shown
from stages.questions.config import VlmQaConfig
from stages.questions.table import read_questions
from stages.questions.vlm_qa import method_name, run
from stages.vlm.engine import Request, Sampling
from stages.vlm.factory import make_engine
from tests.qa import RANKED, cables
from tests.vlm.test_server_engine import Faulty

QUIET = RunOptions(quiet=True, max_errors=0)


@pytest.fixture
def config(tmp_path, save_image):
    return VlmQaConfig(
        **cables(tmp_path, save_image),
        out=tmp_path / "a",
        root=tmp_path,
        vlm="tiny",
        engine="server",
        retries=0,
        concurrency=2,
    )


def rows_of(config):
    return {r["question_id"]: r for r in read_table(config.out, ANSWERS).to_pylist()}


def letter_of(text, option):
    """The letter under which the server was shown an option; None where it was not."""
    return next((line[0] for line in text.splitlines() if line[3:] == option), None)


def test_a_letter_means_the_choice_that_it_stood_for(config):
    server = Faulty(lambda text: None)
    server.say = lambda body, text: f"{letter_of(text, RANKED[0]) or 'B'}. Because of the red end."
    config = replace(config, base_url=server.url)
    summary = run(config, QUIET)
    rows = rows_of(config)
    assert summary.errors == 2 and set(rows) == {"r0", "r1", "r2", "r3", "r4", "m", "open", "lonely", "lost"}
    ranked = [rows[f"r{n}"] for n in range(5)]
    assert all((r["choice"], r["correct"], r["parsed"]) == (0, True, "strict") for r in ranked)
    assert len({r["response"][0] for r in ranked}) > 1, "not always A"
    assert (rows["m"]["choice"], rows["m"]["correct"]) == (1, True), "its options keep their order"
    assert rows["open"]["choice"] is None and rows["open"]["correct"] is None and rows["open"]["error"] is None
    assert "no reference image" in rows["lonely"]["error"] and rows["lost"]["error"] == "its image is not there"
    assert {r["method"] for r in rows.values()} == {"vlm-qa/tiny/1-shot"}


def test_what_is_shown(config, tmp_path):
    server = Faulty(lambda text: None)
    run(replace(config, base_url=server.url), QUIET)
    bodies = {b["messages"][0]["content"][-1]["text"]: b for b in server.bodies}
    text, body = next((t, b) for t, b in bodies.items() if "(m)" in t)
    assert text.endswith(
        "Is it cut? (m)\nA. scratch\nB. dent\nC. hole\nBegin with the letter of the best answer, then"
        " explain it in one or two sentences."
    ) and text.startswith("The first image is the reference")
    pixels = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(part["image_url"]["url"].partition(",")[2]))))
        for part in body["messages"][0]["content"][:-1]
    ]
    files = [np.asarray(Image.open(tmp_path / "d" / "cable" / f"{n}.png")) for n in ("ref", "good")]
    assert len(pixels) == 2 and all((a == b).all() for a, b in zip(pixels, files, strict=True)), "the reference first"
    assert "top_logprobs" not in body and next(t for t in bodies if "(open)" in t).endswith("Is it cut? (open)")

    zero = replace(config, base_url=server.url, shots=0, out=tmp_path / "zero")
    server.bodies.clear()
    run(zero, QUIET)
    assert {len(b["messages"][0]["content"]) for b in server.bodies} == {2} and len(server.bodies) == 8
    assert method_name(zero) == "vlm-qa/tiny/0-shot" and "no reference" not in str(rows_of(zero)["lonely"]["error"])


def test_likelihood_from_a_server(config):
    server = Faulty(lambda text: None)
    server.top = (("The", -0.1), (" B", -1.0), ("A", -2.0), ("C", -2.5), ("b", -3.0))
    config = replace(config, base_url=server.url, choose="likelihood")
    run(config, QUIET)
    rows = rows_of(config)
    for q in read_questions(config.questions).rows:
        if q.ranked and q.question_id != "lonely":
            assert rows[q.question_id]["choice"] == shown(q, 0)[1][LETTERS.index("B")]
    assert rows["m"]["response"] is None and rows["m"]["parsed"] is None and rows["m"]["correct"] is True
    assert "--choose generate" in rows["open"]["error"] and {b["max_tokens"] for b in server.bodies} == {1}
    server.top = (("The", -0.1),)
    other = replace(config, out=config.out.parent / "none", name="x")
    run(other, QUIET)
    assert "no probability to any of A, B, C" in rows_of(other)["m"]["error"]


def test_likelihood_of_a_real_model_is_its_most_probable_letter(config, qwen):
    local = {"vlm": str(qwen), "engine": "transformers", "device": "cpu", "dtype": "float32", "choose": "likelihood"}
    config = replace(config, **local, shots=0)
    run(config, QUIET)
    rows = rows_of(config)
    questions = {q.question_id: q for q in read_questions(config.questions).rows}
    engine = make_engine(str(qwen), config)
    from stages.base.prompts import fill, load_prompt

    for name in ("r0", "r1", "lonely", "m"):
        q = questions[name]
        text, order = shown(q, 0)
        image = config.root / f"{q.image_id}.png"
        asked = Request(
            (name,), fill(load_prompt("sage/zero-shot"), question=text), (image,), 0, tuple(LETTERS[: len(order)])
        )
        (reply,) = engine.run([asked], Sampling(max_tokens=1))
        best = max(reply.probabilities, key=reply.probabilities.get)
        assert rows[name]["choice"] == order[LETTERS.index(best)], name
    assert Counter(bool(r["error"]) for r in rows.values()) == {False: 7, True: 2}
    assert method_name(config) == f"vlm-qa/{qwen.name}/0-shot+likelihood"


def test_a_model_that_babbles_gives_error_rows_with_its_words(config, qwen):
    config = replace(config, vlm=str(qwen), engine="transformers", device="cpu", dtype="float32", max_tokens=6)
    summary = run(config, QUIET)
    rows = rows_of(config)
    assert rows["r0"]["parsed"] == "unparsable" and rows["r0"]["response"] and rows["r0"]["correct"] is None
    assert "names none of the options (unparsable)" in rows["r0"]["error"] and rows["open"]["error"] is None
    assert summary.errors == 8
    assert rows["r0"]["retry"] is False and rows["open"]["retry"] is None, "a greedy reply comes again"
    (record,) = read_provenance(config.out)
    assert record["parameters"]["sampling"] == [0.0, 1.0, 6] and record["stage"] == "score"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"shots": 2}, "--shots 2: expected 0 or 1"),
        ({"choose": "best"}, "--choose best"),
        ({"vlm": "scene"}, "scene desc"),
        ({"engine": "transformers", "vlm": "qwen2-vll"}, "did you mean qwen2-vl"),
        ({"base_url": ""}, "--base-url"),
    ],
)
def test_wrong_options(config, wrong, message):
    with pytest.raises(InputError, match=message):
        run(replace(config, **wrong), QUIET)
    assert not config.out.exists()


def test_another_seed_shows_another_order_and_is_another_artifact(config):
    server = Faulty(lambda text: None)
    server.say = lambda body, text: "A"
    first = replace(config, base_url=server.url)
    run(first, QUIET)
    with pytest.raises(InputError, match="seed was 0, now 1"):
        run(replace(first, seed=1), QUIET)
    second = replace(first, seed=1, out=config.out.parent / "second")
    run(second, QUIET)
    a, b = ([rows_of(c)[f"r{n}"]["choice"] for n in range(5)] for c in (first, second))
    assert a != b
