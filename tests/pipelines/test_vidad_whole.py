"""VID-AD's pipelines as on the real data: fake trees in the authors' layouts, a server that keeps what it was asked,
and random checkpoints of the three architectures of Table 7 with chat templates of their form.

The scripts are real; their `adcli` hands its arguments to this process, which has imported torch already."""

import base64
import csv
import io
import os
import re
import shutil
import socket
import subprocess
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.artifacts.reader import read_provenance, read_table
from stages.artifacts.tables import CAPTIONS, NEGATIVES
from stages.base.prompts import load_prompt
from tests.pipelines.recorded import ROOT
from tests.tiny import tiny_llava, tiny_mllama, tiny_qwen2_vl
from tests.vlm.test_server_engine import Faulty

pytestmark = pytest.mark.slow

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
STEP = 20  # between the greys of two images, by which the server tells them apart
LAYOUT = {  # file -> its grey in steps; two layouts, as downloads have them
    **{f"Fruits_White_BG/train_normal/{n}.jpg": n for n in (1, 2, 3)},
    "Fruits_White_BG/test/good/4.jpg": 4,
    "Fruits_White_BG/test/Q+T/5.jpg": 5,
    **{f"01_Sticks/White BG/train/{n}.jpg": n for n in (6, 7, 8)},
    "01_Sticks/White BG/test/normal/9.jpg": 9,
    "01_Sticks/White BG/test/single_A/10.jpg": 10,
}
PART = "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}"
PARTS = "{% for part in m['content'] %}" + PART + "{% endfor %}"
BODY = "{% if m['content'] is string %}{{ m['content'] }}{% else %}" + PARTS + "{% endif %}"
ANSWER = "{% if add_generation_prompt %}"
TEMPLATES = {  # of the same form as on the hub: system prompt, roles and marks, and where an answer begins
    "qwen2-vl": "{% for m in messages %}{% if loop.first and m['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ m['role'] }}\n"
    + BODY.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    + f"<|im_end|>\n{{% endfor %}}{ANSWER}<|im_start|>assistant\n{{% endif %}}",
    "llava": "{% for m in messages %}{{ m['role'].upper() }}: "
    + BODY.replace("IMAGE", "<image>\n")
    + f" {{% endfor %}}{ANSWER}ASSISTANT:{{% endif %}}",
    "llama": "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    + BODY.replace("IMAGE", "<|image|>")
    + f"<|eot_id|>{{% endfor %}}{ANSWER}<|start_header_id|>assistant<|end_header_id|>\n\n{{% endif %}}",
}
MAKERS = {"qwen2-vl": tiny_qwen2_vl, "llava": tiny_llava, "llama": tiny_mllama}


CLIENT = r"""#!/usr/bin/env bash
exec 3<>"/dev/tcp/127.0.0.1/$ADCLI_PORT"
{ printf '%s\x1f' "$@"; echo; } >&3
read -r code <&3
exit "$code"
"""


@pytest.fixture
def world(tmp_path, monkeypatch):
    """The project's pipelines, an `adcli` for them, and the tree; also the working directory."""
    shutil.copytree(ROOT / "pipelines", tmp_path / "pipelines")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "adcli").write_text(CLIENT)
    (tmp_path / "bin" / "adcli").chmod(0o755)
    for name, step in LAYOUT.items():
        file = tmp_path / "VID-AD" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((56, 56, 3), step * STEP, np.uint8)).save(file)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(world: Path, script: str, **settings: str) -> None:
    """Run a script, and each `adcli` of it here, one after the other."""
    from adcli.main import run as adcli

    with socket.create_server(("127.0.0.1", 0)) as listening:
        environment = os.environ | {"BIN": str(world / "bin"), "ADCLI_PORT": str(listening.getsockname()[1])}
        environment |= {"JOBS": "1", "VIDAD_ROOT": "VID-AD", "SCENARIOS": "fruits,sticks"} | settings
        script = subprocess.Popen(["bash", f"pipelines/{script}"], env=environment, stdin=subprocess.DEVNULL)
        listening.settimeout(0.2)
        while script.poll() is None:
            with suppress(TimeoutError):
                connection, _ = listening.accept()
                with connection, connection.makefile("rw", newline="\n") as lines:
                    arguments = lines.readline().split("\x1f")[:-1]
                    lines.write(f"{adcli(arguments)}\n")
    assert script.returncode == 0


def caption_of(step: int) -> str:
    return f"There are {NUMBERS[step]} oranges and two kiwis. The total is {NUMBERS[min(step + 2, 10)]}."


def asked(server: Faulty) -> tuple[Counter, Counter]:
    """((prompt, grey in steps) of captions, prompt of rewrites) and how often each was asked; the server forgets."""
    captions, rewrites = Counter(), Counter()
    for body in server.bodies:
        (message,) = body["messages"]
        *images, text = message["content"]
        if images:
            captions[text["text"], grey(images[0]["image_url"]["url"])] += 1
        else:
            rewrites[text["text"]] += 1
    server.bodies.clear()
    return captions, rewrites


def grey(url: str) -> int:
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
        return round(float(np.asarray(image).mean()) / STEP)


def answer(body: dict, text: str) -> str:
    *images, _ = body["messages"][0]["content"]
    if images:
        return caption_of(grey(images[0]["image_url"]["url"]))
    caption = re.findall(r"There are .*", text)[-1]
    return caption if " three " in caption else caption.replace("oranges", "apples")  # one that contradicts nothing


def expected(steps, scenarios=("fruits", "sticks")) -> Counter:
    prompts = {n: load_prompt(f"vidad/models/{n}").text for n in scenarios}
    return Counter((prompts["fruits" if n < 6 else "sticks"], n) for n in steps)


def rewrites_of(*steps: int) -> Counter:
    prompt = load_prompt("vidad/rewrite").text
    return Counter(prompt.replace("{text}", caption_of(n)) for n in steps)


def test_papers_setting_asks_each_question_once_and_again_what_failed(world, bert):
    server = Faulty(lambda text: "500" if caption_of(7) in text or _is_image(server, 4) else None)
    server.say = answer
    settings = {
        "PAPER": "1",
        "VLM": "tiny",
        "ENCODER": str(bert),
        "ASK": f"--engine server --base-url {server.url} --retries 0 --concurrency 1",
        "TRAIN": "--precision fp32 --epochs 1 --device cpu",
        "RUN": "runs/v",
    }
    run(world, "vidad.sh", **settings)
    captions, rewrites = asked(server)
    assert captions == expected(range(1, 11)), "every image once, with the prompt of its scenario"
    assert rewrites == rewrites_of(1, 2, 3, 6, 7, 8) + rewrites_of(*[7] * 4), "five tries of what failed"
    counts = list(csv.DictReader((world / "runs/v/tables/training-texts.csv").open()))
    found = {(c["category"], c["to train on"], c["of these unchecked"], c["refused"], c["missing"]) for c in counts}
    assert found == {("fruits", "3", "1", "0", "0"), ("sticks", "2", "0", "1", "0")}
    assert "1 images without a score" in (world / "runs/v/tables/tasks.md").read_text()

    server.plan = lambda text: None
    run(world, "vidad.sh", **settings)
    captions, rewrites = asked(server)
    assert captions == expected([4]), "the image that failed, and no other"
    assert rewrites == rewrites_of(7), "what failed, and no other"

    run(world, "vidad.sh", **settings)
    assert asked(server) == (Counter(), Counter())
    lines = list(csv.reader((world / "runs/v/tables/table4.csv").open()))
    assert lines[1][0] == "text-knn, ours, 2 of 10 scenarios" and lines[1][-1].endswith("(1 of 5 conditions)")
    table6 = list(csv.DictReader((world / "runs/v/tables/table6.csv").open()))
    assert [(r["scenario"], r["different captions"]) for r in table6] == [
        ("sticks", "4 of 4 (100 %)"),
        ("fruits", "4 of 4 (100 %)"),
    ]
    server.shutdown()


def _is_image(server: Faulty, step: int) -> bool:
    *images, _ = server.bodies[-1]["messages"][0]["content"]
    return bool(images) and grey(images[0]["image_url"]["url"]) == step


def test_a_rewrite_that_failed_is_asked_alone(world, bert):
    server = Faulty(lambda text: "500" if caption_of(7) in text else None)
    server.say = answer
    settings = {"VLM": "tiny", "ENCODER": str(bert), "RUN": "runs/v", "SCENARIOS": "sticks"}
    settings |= {"ASK": f"--engine server --base-url {server.url} --retries 0 --concurrency 1"}
    settings |= {"TRAIN": "--precision fp32 --epochs 1 --device cpu"}
    run(world, "vidad.sh", **settings)
    asked(server)
    server.plan = lambda text: None
    run(world, "vidad.sh", **settings)
    assert asked(server) == (Counter(), rewrites_of(7))
    server.shutdown()


def test_a_training_caption_that_failed_has_its_own_rewrite_asked_and_no_other(world, bert):
    """And Table 4 has a row of one scenario."""
    server = Faulty(lambda text: "500" if _is_image(server, 7) else None)
    server.say = answer
    settings = {"VLM": "tiny", "ENCODER": str(bert), "RUN": "runs/v", "SCENARIOS": "sticks"}
    settings |= {"ASK": f"--engine server --base-url {server.url} --retries 0 --concurrency 1"}
    settings |= {"TRAIN": "--precision fp32 --epochs 1 --device cpu"}
    run(world, "vidad.sh", **settings)
    assert asked(server) == (expected(range(6, 11)), rewrites_of(6, 8))
    server.plan = lambda text: None
    run(world, "vidad.sh", **settings)
    assert asked(server) == (expected([7]), rewrites_of(7))
    rows = read_table(world / "runs/v/negatives.parquet", NEGATIVES).to_pylist()
    assert sorted(r["text"] for r in rows) == sorted(map(caption_of, (6, 7, 8)))
    line = list(csv.reader((world / "runs/v/tables/table4.csv").open()))[1]
    assert line[0] == "text-knn, ours, 1 of 10 scenarios" and line[-1].endswith("(1 of 5 conditions)")
    assert "-" not in (line[1], line[-1])
    server.shutdown()


def test_ablations_ask_nothing_twice(world, bert):
    server = Faulty(lambda text: None)
    server.say = answer
    settings = {"VLMS": "tiny", "ENCODERS": str(bert), "ENCODER": str(bert), "A": "runs/a"}
    settings |= {"ASK": f"--engine server --base-url {server.url} --retries 0 --concurrency 1"}
    settings |= {"TRAIN": "--precision fp32 --epochs 1 --device cpu", "SCENARIOS": "fruits"}
    run(world, "vidad_ablations.sh", **settings)
    captions, rewrites = asked(server)
    assert captions == expected(range(1, 6)) and rewrites == rewrites_of(1, 2, 3), "the encoder's run has these"
    table7 = (world / "runs/a/tables/table7.csv").read_bytes()
    run(world, "vidad_ablations.sh", **settings)
    assert asked(server) == (Counter(), Counter())
    assert (world / "runs/a/tables/table7.csv").read_bytes() == table7
    server.shutdown()


def test_table_7_with_the_three_architectures_and_their_templates(world, bert):
    for name, make in MAKERS.items():
        (make(world / "models" / name) / "chat_template.jinja").write_text(TEMPLATES[name])
    settings = {
        "VLMS": ",".join(f"models/{n}" for n in MAKERS),
        "ENCODERS": "",
        "ENCODER": str(bert),
        "ASK": "--device cpu --max-tokens 6 --workers 1",
        "TRAIN": "--precision fp32 --epochs 1 --device cpu",
        "A": "runs/a",
    }
    run(world, "vidad_ablations.sh", **settings)
    prompts = set()
    for name in MAKERS:
        at = world / "runs/a" / f"models_{name}"
        rows = read_table(at / "captions.parquet", CAPTIONS).to_pylist()
        assert len(rows) == len(LAYOUT) and sum(r["error"] is None for r in rows) > 5, rows
        prompts.add(tuple(sorted((r["image_id"], r["prompt_id"]) for r in rows)))
        (record,) = read_provenance(at / "negatives.parquet")
        assert record["parameters"]["rewriter"] == f"models/{name}" and record["parameters"]["keep_unchecked"]
        assert len(read_table(at / "negatives.parquet", NEGATIVES)) == 6
    assert len(prompts) == 1, "the same prompts for every model"
    table7 = list(csv.reader((world / "runs/a/tables/table7.csv").open()))
    assert [line[0].partition(",")[0] for line in table7[1:4]] == sorted(f"text-knn/models/{n}" for n in MAKERS)
    assert len(list(csv.DictReader((world / "runs/a/tables/training-texts.csv").open()))) == 6
