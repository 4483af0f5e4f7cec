"""What `score --method anomalib/...` refuses, in one line and before the output is touched."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.artifacts.tables import MANIFEST
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.baselines import score
from stages.baselines.config import BaselineConfig
from stages.baselines.score import run

ROOT = Path(__file__).parents[2]
QUIET = RunOptions(quiet=True)


def config(tmp_path, model="padim", **more):
    return BaselineConfig(
        **{"manifest": tmp_path / "m.parquet", "out": tmp_path / "out", "method": f"anomalib/{model}"} | more
    )


@pytest.mark.parametrize(
    "model, more, said",
    [
        ("padm", {}, "did you mean anomalib/padim?"),
        ("nothing", {}, "expected anomalib/padim"),
        ("winclip", {}, "needs open_clip's ViT-B-16-plus-240"),
        ("draem", {}, "needs the textures of dtd-r1.0.1.tar.gz"),
        ("efficient_ad", {}, "did you mean anomalib/efficient-ad?"),
        ("efficient-ad", {}, "needs --checkpoint, a directory with pretrained_teacher_small.pth (of anomalib's"),
        (
            "efficient-ad",
            {"checkpoint": Path("nowhere")},
            "--checkpoint nowhere: no pretrained_teacher_small.pth and no",
        ),
        ("efficient-ad", {"layers": "1"}, "takes no backbone; leave out --backbone and --layers"),
        ("padim", {"checkpoint": Path("nowhere")}, "--checkpoint nowhere: means nothing to anomalib/padim"),
        ("reverse-distillation", {}, "no other backbones than resnet18, wide_resnet50_2, resnet34"),
        ("fastflow", {}, "no other backbones than resnet18, wide_resnet50_2; `adcli score --backbone` takes"),
        ("fastflow", {"backbone": "resnet18", "layers": "1,2"}, "--layers 1,2: anomalib's fastflow reads 1,2,3 alone"),
        (
            "stfpm",
            {"features": Path("f")},
            "--features f: anomalib/stfpm is trained on the images themselves; leave it out (it is for padim,",
        ),
        ("padim", {"epochs": 3}, "--epochs 3: means nothing to anomalib/padim"),
        ("stfpm", {"epochs": 0}, "--epochs 0: at least 1"),
        ("padim", {"layers": "3,1"}, "--layers 3,1: expected ascending numbers"),
        ("padim", {"layers": "layer1"}, "--layers layer1: expected ascending numbers"),
        ("dfm", {"layers": "2,3"}, "reads one level"),
        ("padim", {"image_score": "mean"}, "--image-score mean: expected max, top1, anomalib"),
        ("dfkde", {"image_score": "max"}, "draws no map"),
        ("dfkde", {"maps": Path("maps")}, "draws no map"),
        ("patchcore", {"coreset": 0.0}, "--coreset 0.0"),
        ("padim", {"size": 16}, "--size 16: at least 32 px for anomalib/padim"),
        ("efficient-ad", {"size": 128}, "--size 128: at least 256 px for anomalib/efficient-ad"),
    ],
)
def test_settings(model, more, said, tmp_path):
    with pytest.raises(InputError) as e:
        run(config(tmp_path, model, **more), QUIET)
    assert said in str(e.value) and "\n" not in str(e.value) and not (tmp_path / "out").exists()


def test_without_anomalib_one_line_says_what_to_install(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setattr(score, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs the package timm: pip install 'adcli\[baselines\]'"):
        run(config(tmp_path), QUIET)


@pytest.mark.parametrize("model", ["padim", "dfkde"])
def test_help_names_the_model_and_imports_no_torch(model):
    code = (
        f"import sys; sys.argv = ['adcli', 'score', '--method', 'anomalib/{model}', '--help']\n"
        "from adcli.main import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "assert not {'torch', 'timm', 'anomalib', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and "--method anomalib/padim --out" in done.stdout, done.stderr


def backbone_error(name, levels=(1, 2, 3), size=64):
    from stages.baselines.backbone import load_backbone

    with pytest.raises(InputError) as e:
        load_backbone(name, levels, size)
    assert "\n" not in str(e.value)
    return str(e.value)


@pytest.fixture
def timm(monkeypatch):
    from stages.training.torch_setup import prepare_torch

    pytest.importorskip("torch")
    prepare_torch()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return pytest.importorskip("timm")


def test_backbones(timm, tmp_path):
    assert "did you mean resnet18?" in backbone_error("resnet81")
    assert "did you mean lite0?" in backbone_error("lite")
    (tmp_path / "empty").mkdir()
    assert "no config.json" in backbone_error(str(tmp_path / "empty"))
    timm.models.save_for_hf(timm.create_model("test_resnet"), tmp_path / "tiny", safe_serialization=True)
    assert "--layers 1,9: " in (said := backbone_error(str(tmp_path / "tiny"), (1, 9))) and "0 to 4" in said
    timm.models.save_for_hf(timm.create_model("test_resnet"), tmp_path / "other", safe_serialization=True)
    os.truncate(tmp_path / "other" / "model.safetensors", 1000)
    assert "cannot be loaded" in backbone_error(str(tmp_path / "other"))


@pytest.mark.slow
def test_weights_that_cannot_be_fetched_are_one_line_and_leave_the_output_alone(timm, tmp_path):
    if find_spec("anomalib") is None:
        pytest.skip("needs adcli[baselines]")
    row = {
        "image_id": "a",
        "path": "a.png",
        "dataset": "d",
        "category": "c",
        "split": "train",
        "label": 0,
        "mask_paths": [],
    }
    pq.write_table(pa.Table.from_pylist([row], schema=MANIFEST.schema), tmp_path / "m.parquet")
    words = [
        "score",
        tmp_path / "m.parquet",
        "--method",
        "anomalib/padim",
        "--backbone",
        "resnet18",
        "--out",
        tmp_path / "out",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "adcli", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    (line,) = done.stderr.splitlines()
    assert "--backbone resnet18: its weights can be neither found nor fetched" in line and "lite0" in line
