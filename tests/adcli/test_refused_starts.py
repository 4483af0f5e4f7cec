"""A start that is refused says why in one line, exits with 2 and leaves nothing behind."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from adcli.options import command
from stages.artifacts.scores_and_maps import check_outputs, scores_and_maps
from stages.artifacts.tables import ANSWERS, CAPTIONS, MANIFEST, QUESTIONS
from stages.base.config import RunOptions, flag
from stages.base.errors import InputError
from stages.captions.caption import CaptionConfig
from stages.captions.caption import run as caption
from stages.datasets.augment import AugmentConfig
from stages.datasets.augment import run as augment
from stages.lvlm.config import LvlmConfig
from stages.lvlm.score import run as lvlm
from stages.questions.config import JudgeConfig, QuestionsConfig, VlmQaConfig
from stages.questions.judge import run as judge
from stages.questions.make import run as make_questions
from stages.questions.vlm_qa import run as vlm_qa
from stages.sage.config import EdpoConfig, ScoreSageConfig, SfeConfig
from stages.sage.edpo import run as edpo
from stages.sage.score import run as score_sage
from stages.sage.sfe import run as sfe
from stages.training.saved_models import check_chat_template, check_model
from stages.visualad.score import ScoreVisualadConfig
from stages.visualad.score import run as score_visualad
from stages.visualad.train import TrainVisualadConfig
from stages.visualad.train import run as train_visualad
from stages.vmad.score import ScoreVmadConfig
from stages.vmad.score import run as score_vmad
from stages.vmad.train import FinetuneVmadConfig
from stages.vmad.train import run as train_vmad
from tests.qa import cables, question, write
from tests.tiny import tiny_clip_vision
from tests.trained_models import look_alikes

QUIET = RunOptions(quiet=True)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return tiny_clip_vision(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def world(tmp_path_factory, clip, internvl, llava, sam, qwen):
    """Every input that a stage could ask for: paths by name."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("world")

    def save(path, n):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(n).integers(0, 255, (40, 60, 3), np.uint8)).save(path)

    paths = cables(folder, save)
    Image.fromarray(np.eye(40, 60, dtype=np.uint8) * 255).save(folder / "mask.png")
    rows = [
        {
            "image_id": f"d/cable/{n}",
            "path": f"d/cable/{n}.png",
            "dataset": "d",
            "category": "cable",
            "split": "test" if n != "ref" else "train",
            "label": int(n == "bad"),
            "mask_paths": ["mask.png"] if n == "bad" else [],
        }
        for n in ("ref", "bad", "good")
    ]
    write(folder / "masked.parquet", MANIFEST, rows)
    write(
        folder / "captions.parquet",
        CAPTIONS,
        [{"image_id": r["image_id"], "prompt_id": "p", "sample": 0, "text": "A cable."} for r in rows],
    )
    write(folder / "answers.parquet", ANSWERS, [{"question_id": "r0", "method": "m", "response": "Cut."}])
    write(folder / "asked.parquet", QUESTIONS, [question("r0")])
    (folder / "file").write_text("")
    (folder / "empty").mkdir()
    for name, source, gone in (
        ("bin-clip", clip, "model.safetensors"),
        ("no-config", clip, "config.json"),
        ("no-processor", clip, "preprocessor_config.json"),
        ("no-template", qwen, "chat_template.jinja"),
    ):
        shutil.copytree(source, folder / name)
        (folder / name / gone).unlink()
    cut = shutil.copytree(clip, folder / "cut") / "model.safetensors"
    cut.write_bytes(cut.read_bytes()[:-10])
    look_alikes(folder, clip, internvl, llava, sam)
    (folder / "prompt.txt").write_text("Write about {object}.")
    return paths | {
        "root": folder,
        "masked": folder / "masked.parquet",
        "captions": folder / "captions.parquet",
        "clip": clip,
        "internvl": internvl,
        "llava": llava,
        "sam": sam,
        "qwen": qwen,
        "answers": folder / "answers.parquet",
        "asked": folder / "asked.parquet",
    }


# stage -> (what runs it, its configuration, options of a start that would go well: {name} is a path of the world)
STAGES = {
    "visualad": (
        train_visualad,
        TrainVisualadConfig,
        {"manifest": "{masked}", "backbone": "{clip}", "size": 56, "layers": "2,4", "device": "cpu"},
    ),
    "score-visualad": (score_visualad, ScoreVisualadConfig, {"manifest": "{masked}", "checkpoint": "{root}/visualad"}),
    "vmad": (
        train_vmad,
        FinetuneVmadConfig,
        {"manifest": "{masked}", "split": "test", "llava": "{llava}", "sam": "{sam}", "heads": 4, "device": "cpu"},
    ),
    "score-vmad": (score_vmad, ScoreVmadConfig, {"manifest": "{masked}", "checkpoint": "{root}/vmad"}),
    "sfe": (
        sfe,
        SfeConfig,
        {"manifest": "{masked}", "questions": "{asked}", "fusion": "none", "base": "{internvl}", "device": "cpu"},
    ),
    "edpo": (
        edpo,
        EdpoConfig,
        {"manifest": "{masked}", "questions": "{asked}", "judgements": "{answers}", "checkpoint": "{root}/sage"},
    ),
    "score-sage": (
        score_sage,
        ScoreSageConfig,
        {"manifest": "{masked}", "questions": "{asked}", "checkpoint": "{root}/sage"},
    ),
    "lvlm": (lvlm, LvlmConfig, {"manifest": "{manifest}", "vlm": "{qwen}", "device": "cpu"}),
    "vlm-qa": (vlm_qa, VlmQaConfig, {"manifest": "{manifest}", "questions": "{questions}", "vlm": "{qwen}"}),
    "judge": (judge, JudgeConfig, {"manifest": "{manifest}", "questions": "{questions}", "judge": "{qwen}"}),
    "questions": (make_questions, QuestionsConfig, {"manifest": "{masked}", "vlm": "{qwen}", "captions": "{captions}"}),
    "augment": (augment, AugmentConfig, {"manifest": "{masked}", "kind": "pad20", "images": "{tmp}/images"}),
    "caption": (caption, CaptionConfig, {"manifest": "{manifest}", "vlm": "{qwen}"}),
}
TRAINING = (
    {"epochs": -2},
    {"learning_rate": -1},
    {"learning_rate": "nan"},
    {"batch_size": 0},
    {"workers": -1},
    {"save_steps": 0},
    {"device": "gpu"},
    {"device": "cuda:77"},
    {"precision": "fp8"},
)
SCORING = (
    {"batch_size": 0},
    {"device": "gpu"},
    {"precision": "fp8"},
    {"checkpoint": "{root}/nowhere"},
    {"checkpoint": "{root}/file"},
    {"checkpoint": "{root}/empty"},
    {"splits": "dev"},
)
ENGINE = ({"device": "gpu"}, {"engine": "vlm"})
WRONG = {
    "visualad": (
        *TRAINING,
        {"backbone": "{root}/nowhere"},
        {"backbone": "{root}/file"},
        {"backbone": "{root}/empty"},
        {"backbone": "{root}/bin-clip"},
        {"backbone": "{root}/no-config"},
        {"backbone": "{root}/no-processor"},
        {"backbone": "{root}/cut"},
        {"backbone": "{qwen}"},
        {"layers": "2,9"},
        {"layers": "0,1"},
        {"layers": "a"},
        {"variant": "text"},
        {"position": "3d"},
        {"size": 57},
        {"anchors": 0},
        {"split": "dev"},
    ),
    "score-visualad": (
        *SCORING,
        {"sigma": -1},
        {"workers": 0},
        {"maps": "{out}"},
        {"maps": "{out}/maps"},
        {"maps": "{root}/file"},
        {"explain": "{root}/file"},
        {"backbone": "{root}/cut"},
    ),
    "vmad": (
        *TRAINING,
        {"micro_batch": 0},
        {"micro_batch": 3},
        {"memory": 0},
        {"clip": 0},
        {"weight_mask": -1},
        {"dropout": 1},
        {"rank": 0},
        {"alpha": -1},
        {"projector": "conv"},
        {"rho": 3},
        {"levels": 40},
        {"heads": 5},
        {"tasks": "drawing"},
        {"max_length": -1},
        {"max_length": 10**6},
        {"llava": "{root}/nowhere"},
        {"llava": "{clip}"},
        {"sam": "{root}/nowhere"},
        {"sam": "{clip}"},
        {"merged": "{out}/merged"},
        {"merged": "{root}"},
    ),
    "score-vmad": (
        *SCORING,
        {"max_tokens": 0},
        {"workers": 0},
        {"query": "why"},
        {"maps": "{out}"},
        {"llava": "{root}/empty"},
        {"sam": "{root}/bin-clip"},
    ),
    "sfe": (
        *TRAINING,
        {"warmup": -1},
        {"schedule": "step"},
        {"clip": -1},
        {"weight_decay": -1},
        {"shots": 2},
        {"fusion": "sum"},
        {"fusion": "attention"},
        {"tiles": -1},
        {"base": "{root}/nowhere"},
        {"base": "{clip}"},
        {"base": "{root}/no-template"},
        {"deepspeed": "{root}/nowhere"},
        {"fsdp": "full_shard"},
        {"merged": "{out}"},
        {"merged": "{root}"},
        {"fusion": "attention", "facts": "{captions}", "heads": 7},
    ),
    "edpo": ({"checkpoint": "{root}/nowhere"}, {"beta": 0}, {"eta": -1}, {"objective": "ppo"}, *TRAINING),
    "score-sage": (*SCORING[:-1], {"max_tokens": 0}, {"choose": "guess"}, {"shots": 2}),
    "lvlm": (
        *ENGINE,
        {"shots": 5},
        {"prompt": "short"},
        {"reference": "last"},
        {"splits": "dev"},
        {"vlm": "{root}/nowhere"},
        {"vlm": "{root}/empty"},
        {"vlm": "{root}/no-template"},
    ),
    "vlm-qa": (
        *ENGINE,
        {"shots": 2},
        {"choose": "guess"},
        {"vlm": "{root}/nowhere"},
        {"vlm": "{root}/no-template"},
        {"manifest": "{captions}"},
    ),
    "judge": (*ENGINE, {"tries": 0}, {"judge": "scene"}, {"judge": "{root}/nowhere"}, {"judge": "{root}/no-template"}),
    "questions": (
        *ENGINE,
        {"images": -1},
        {"reference": "last"},
        {"splits": "dev"},
        {"prompt": "{root}/prompt.txt"},
        {"prompt": "nowhere"},
        {"vlm": "{root}/nowhere"},
        {"vlm": "{root}/no-template"},
    ),
    "augment": (
        {"kind": "flip"},
        {"images": "{root}/file"},
        {"images": "{root}/file/below"},
        {"workers": -1},
        {"images": "{out}"},
    ),
    "caption": (*ENGINE, {"samples": 0}, {"vlm": "{root}/nowhere"}, {"vlm": "{root}/no-template"}),
}


def started(stage, changes, world, tmp_path):
    """(the command's outcome, its --out)."""
    run, config, good = STAGES[stage]
    known = world | {"tmp": tmp_path, "out": tmp_path / "out"}
    values = {"out": "{out}"} | ({"root": "{root}"} if "root" in config.__dataclass_fields__ else {}) | good | changes
    words = []
    for name, value in values.items():
        text = value.format(**known) if isinstance(value, str) else str(value)
        positional = config.__dataclass_fields__[name].metadata.get("positional")
        words += [text] if positional else [f"--{name.replace('_', '-')}={text}"]
    app = typer.Typer()
    command(app, stage, config, run, "")
    return CliRunner().invoke(app, [*words, "--quiet"]), tmp_path / "out"


@pytest.mark.parametrize(
    "stage, changes",
    [(s, c) for s, cases in WRONG.items() for c in cases],
    ids=lambda v: v if isinstance(v, str) else ",".join(f"{n}={w}" for n, w in v.items()),
)
def test_it_says_why_and_leaves_nothing_behind(stage, changes, world, tmp_path):
    outcome, out = started(stage, changes, world, tmp_path)
    assert outcome.exit_code == 2, outcome.output
    assert outcome.output.count("\n") == 1 and outcome.output.startswith("adcli: "), outcome.output
    known = world | {"tmp": tmp_path, "out": tmp_path / "out"}
    said = [w for name, value in changes.items() for w in (flag(name), str(value).format(**known))]
    assert any(word in outcome.output for word in said), outcome.output
    assert not list(tmp_path.iterdir())


def test_an_output_that_lies_in_another(tmp_path):
    (tmp_path / "file").write_text("")
    for maps, said in (
        (tmp_path / "out", "lies in --out"),
        (tmp_path / "out" / "maps", "lies in --out"),
        (tmp_path, "--out in it"),
        (tmp_path / "file", "a file, not a folder"),
        (tmp_path / "file" / "below", "is a file"),
    ):
        with pytest.raises(InputError, match=said):
            check_outputs(tmp_path / "out", {"--maps": maps})
    check_outputs(tmp_path / "out", {"--maps": tmp_path / "new" / "maps", "--explain": None})
    with pytest.raises(InputError, match="--explain .*lies in --maps"):
        check_outputs(tmp_path / "out", {"--maps": tmp_path / "m", "--explain": tmp_path / "m" / "e"})


def test_scores_and_maps_are_both_refused_before_either_is_touched(tmp_path):
    def write_both(scores, maps, n):
        scores_and_maps(
            tmp_path / scores,
            tmp_path / maps,
            {"n": n},
            {},
            [("i", "m")],
            QUIET,
            1,
            lambda todo, artifact: [((i, m), {"score": 1.0}, np.zeros((2, 2))) for i, m in todo],
        )

    write_both("s", "m", 1)
    for scores, maps, untouched in (("new", "m", "new"), ("s", "new", "new")):
        with pytest.raises(InputError, match="was made with other settings"):
            write_both(scores, maps, 2)
        assert not (tmp_path / untouched).exists()
    write_both("s", "m", 1)


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
