"""A start that is refused says why in one line, exits with 2 and leaves nothing behind."""

import pytest
import typer
from typer.testing import CliRunner

from adcli.options import command
from stages.base.config import RunOptions, flag
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
from stages.visualad.config import ScoreVisualadConfig, TrainVisualadConfig
from stages.visualad.score import run as score_visualad
from stages.visualad.train import run as train_visualad
from stages.vmad.config import FinetuneVmadConfig, ScoreVmadConfig
from stages.vmad.score import run as score_vmad
from stages.vmad.train import run as train_vmad

QUIET = RunOptions(quiet=True)


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
        {"manifest": "{masked}", "splits": "test", "llava": "{llava}", "sam": "{sam}", "heads": 4, "device": "cpu"},
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
    {"loader_workers": -1},
    {"epochs": -2},
    {"learning_rate": -1},
    {"learning_rate": "nan"},
    {"batch_size": 0},
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
        {"splits": "dev"},
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
        {"splits": "dev"},
        {"loss_temperature": 0},
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
        {"questions": "{captions}"},
        {"questions": "{strange}"},
        {"sam": "{llava}"},
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
        {"questions": "{captions}"},
        {"facts": "{asked}"},
        {"base": "{root}/vmad"},
    ),
    "edpo": (
        {"checkpoint": "{root}/nowhere"},
        {"checkpoint": "{root}/vmad"},
        {"checkpoint": "{internvl}"},
        {"judgements": "{captions}"},
        {"beta": 0},
        {"eta": -1},
        {"objective": "ppo"},
        *TRAINING,
    ),
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
        {"max_images": -1},
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
    """The command's outcome."""
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
    return CliRunner().invoke(app, [*words, "--quiet"])


@pytest.mark.parametrize(
    "stage, changes",
    [(s, c) for s, cases in WRONG.items() for c in cases],
    ids=lambda v: v if isinstance(v, str) else ",".join(f"{n}={w}" for n, w in v.items()),
)
def test_it_says_why_and_leaves_nothing_behind(stage, changes, world, tmp_path):
    outcome = started(stage, changes, world, tmp_path)
    assert outcome.exit_code == 2, outcome.output
    assert outcome.output.count("\n") == 1 and outcome.output.startswith("adcli: "), outcome.output
    known = world | {"tmp": tmp_path, "out": tmp_path / "out"}
    said = [w for name, value in changes.items() for w in (flag(name), str(value).format(**known))]
    assert any(word in outcome.output for word in said), outcome.output
    assert not list(tmp_path.iterdir())
