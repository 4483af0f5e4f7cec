"""What SAGE's released code does when it judges and asks, against its rules by hand, and through a server."""

from dataclasses import replace

import pytest

from stages.artifacts.reader import read_provenance, read_table
from stages.artifacts.tables import ANSWERS, JUDGEMENTS, QUESTIONS
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.questions.answering import by_prefix
from stages.questions.config import JudgeConfig, VlmQaConfig
from stages.questions.judge import run as judge
from stages.questions.mle import parse_released
from stages.questions.vlm_qa import run as ask
from tests.qa import cables, question, write
from tests.vlm.test_server_engine import Faulty

QUIET = RunOptions(quiet=True, max_errors=0)


def saying(reply):
    """A server that always says the same."""
    server = Faulty(lambda text: None)
    server.say = lambda body, text: reply
    return server


@pytest.mark.parametrize(
    ("reply", "marks"),
    [
        ("- Accuracy: 5\n- Localization: 4\n- Logic: 3\n- Average: 4.00", (5, 4, 3)),
        ("accuracy: 1\nAccuracy: 2\nlogic: 9", (2, 0, 9)),  # a later line wins; no range; what is missing is 0
        ("Accuracy: 4/5\n**Accuracy:** 5\nlogic: four", (0, 0, 0)),  # no numbers behind one colon
        ("Accuracy: 5 Localization: 5 Logic: 5", (0, 0, 0)),
        ("Accuracy: 4: 5\nLocalization accuracy: 3", (3, 0, 0)),  # three parts; `accuracy` is looked for first
        ("Average logic: 2.5\nAverage: 1", (0, 0, 2.5)),
        ("", (0, 0, 0)),
    ],
)
def test_marks_as_the_released_code_reads_them(reply, marks):
    assert tuple(parse_released(reply).values()) == marks


@pytest.mark.parametrize(
    ("reply", "right", "how"),
    [
        ("True, it is cut.", True, "prefix"),
        ("  yes", True, "prefix"),
        ("Yesterday it was whole.", True, "prefix"),
        ("False. It is whole.", False, "prefix"),
        ("Nothing is to be seen.", False, "prefix"),
        ("The answer is true.", False, "assumed"),
        ("I cannot tell.", False, "assumed"),
    ],
)
def test_true_only_by_its_first_letters(reply, right, how):
    for choices in (("True", "False"), ("False", "True")):
        place, found = by_prefix(reply, choices)
        assert (choices[place] == "True", found) == (right, how)


@pytest.mark.slow
def test_a_judge_in_the_released_form(tmp_path, save_image, capfd):
    """Text alone, four examples before the case, temperature 0.2, one try; two of three marks are missing."""
    server = saying("- Accuracy: 4\n- Average: 1.33")
    given = {"judge": "tiny", "engine": "server", "base_url": server.url, "retries": 0, "root": tmp_path}
    config = JudgeConfig(**cables(tmp_path, save_image), out=tmp_path / "j", form="released", **given)
    judge(config, RunOptions(max_errors=0))
    row = next(r for r in read_table(config.out, JUDGEMENTS).to_pylist() if r["question_id"] == "r0")
    assert (row["category"], row["location"], row["logic"], row["error"]) == (4, 0, 0, None)
    assert "54 marks are 0: the replies lack them" in capfd.readouterr().err, "two of each of 27 choices"
    body = server.bodies[0]
    content = body["messages"][0]["content"]
    text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
    assert "image_url" not in str(content) and body["temperature"] == 0.2 and len(server.bodies) == 27
    assert text.count("\nScores:") == 5 and text.rstrip().endswith("Scores:")
    assert text.count("- Average: 5.00") == 3 and "- Average: 3.67" in text
    assert read_provenance(config.out)[0]["parameters"]["form"] == "released"
    half = saying("Accuracy: 4.5")
    judge(replace(config, base_url=half.url, out=tmp_path / "half"), QUIET)
    row = next(r for r in read_table(tmp_path / "half", JUDGEMENTS).to_pylist() if r["question_id"] == "r0")
    assert row["error"] == "a mark of 4.5, no whole number" and row["category"] is None
    for more, said in (
        ({"judge": "words"}, "of a model's replies"),
        ({"form": "loose"}, "expected strict or released"),
    ):
        with pytest.raises(InputError, match=f"--form .*{said}"):
            judge(replace(config, out=tmp_path / "x", **more), QUIET)


def test_questions_with_the_released_suffix(tmp_path, save_image):
    made = cables(tmp_path, save_image)
    closed = {"choices": ["True", "False"], "answer": "False", "ranked": False}
    asked = [question("t", **closed), question("r")]
    questions = write(tmp_path / "tf.parquet", QUESTIONS, asked)
    server = saying("It is whole.")
    given = {"vlm": "tiny", "engine": "server", "base_url": server.url, "retries": 0, "root": tmp_path, "shots": 0}
    config = VlmQaConfig(manifest=made["manifest"], questions=questions, out=tmp_path / "a", choose="prefix", **given)
    ask(config, QUIET)
    rows = {r["question_id"]: r for r in read_table(config.out, ANSWERS).to_pylist()}
    assert (rows["t"]["choice"], rows["t"]["correct"], rows["t"]["parsed"]) == (1, True, "assumed")
    assert rows["t"]["response"] == "It is whole." and rows["t"]["method"] == "vlm-qa/tiny/0-shot+prefix"
    assert "--choose prefix asks for True or False" in rows["r"]["error"]
    (body,) = server.bodies
    assert body["messages"][0]["content"][-1]["text"].endswith(
        "Is it cut? (t) Answer with True or False and provide a reason."
    )
