"""Models and checkpoints that a command names are looked at before torch is loaded."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stages.base.errors import InputError
from stages.training.saved_models import check_chat_template, check_model


@pytest.mark.slow
def test_a_wrong_place_is_said_before_torch_is_loaded(world, tmp_path):
    """In a process of its own, since this one has loaded it."""
    words = {
        "train-visualad": ["--backbone"],
        "score --method visualad": ["--checkpoint"],
        "finetune-mllm --method vmad": ["--llava", "--sam"],
        "score --method vmad": ["--checkpoint"],
        "finetune-mllm --method sage-sfe": ["--base"],
        "finetune-mllm --method sage-edpo": ["--checkpoint"],
        "score --method sage": ["--checkpoint"],
        "score --method lvlm": ["--vlm"],
        "score --method vlm-qa": ["--vlm"],
        "score --method mle": ["--judge"],
        "caption": ["--vlm"],
    }
    more = {"questions": world["questions"], "judgements": world["answers"]}
    needed = {
        "finetune-mllm --method sage-sfe": ["questions"],
        "finetune-mllm --method sage-edpo": ["questions", "judgements"],
        "score --method sage": ["questions"],
        "score --method vlm-qa": ["questions"],
        "score --method mle": ["questions"],
    }
    runs = [
        [
            *name.split(),
            str(world["masked" if "mle" not in name and "qa" not in name else "manifest"]),
            option,
            "./nowhere",
            "--out",
            str(tmp_path / "out"),
            "--root",
            str(world["root"]),
            *(w for n in needed.get(name, ()) for w in (f"--{n}", str(more[n]))),
        ]
        for name, options in words.items()
        for option in options
    ]
    code = (
        "import sys, json\nfrom typer.testing import CliRunner\nfrom adcli.main import build\n"
        "for words in json.load(sys.stdin):\n"
        "    found = CliRunner().invoke(build(words), words)\n"
        "    print(found.exit_code, found.output.strip(), 'torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(runs),
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    lines = done.stdout.splitlines()
    assert len(lines) == len(runs), done.stdout + done.stderr
    for line, words in zip(lines, runs, strict=True):
        assert line.startswith("2 adcli: ") and line.endswith(" False") and "nowhere" in line, (words, line)
    assert not (tmp_path / "out").exists()


def test_models_that_are_not_whole(world, tmp_path):
    for name, said in (
        ("cut", "not a whole safetensors file"),
        ("no-config", "holds no config.json"),
        ("bin-clip", r"holds no \*.safetensors"),
    ):
        with pytest.raises(InputError, match=said):
            check_model(str(world["root"] / name), "--backbone")
    shards = shutil.copytree(world["clip"], tmp_path / "shards")
    (shards / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-2.safetensors"}}')
    with pytest.raises(InputError, match="model-2.safetensors is missing, which model.safetensors.index.json names"):
        check_model(str(shards), "--backbone")
    check_model("openai/clip-vit-large-patch14-336", "--backbone")
    check_chat_template("owner/model", "--vlm")
    with pytest.raises(InputError, match="--vlm .*has no chat template"):
        check_chat_template(str(world["root"] / "no-template"), "--vlm")
