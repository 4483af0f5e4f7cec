"""Cache keys hold what was used: no stage's parameters say `auto`. Weights are read from safetensors alone."""

import shutil
from pathlib import Path

import pytest

from stages.artifacts.tables import CAPTIONS
from stages.artifacts.writer import Spec
from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.captions import caption
from stages.lvlm import score as lvlm
from stages.questions import judge, make, vlm_qa
from stages.sage import config as sage_config
from stages.sage import edpo, sfe
from stages.sage import score as sage_score
from stages.training import torch_setup
from stages.visualad import score as visualad_score
from stages.visualad import train as visualad_train
from stages.vlm.options import EngineOptions, engine_parameters
from stages.vmad import score as vmad_score
from stages.vmad import train as vmad_train
from tests.qa import cables, write
from tests.tiny import tiny_clip_vision
from tests.trained_models import look_alikes

QUIET = RunOptions(quiet=True)


class Stopped(Exception):
    """A stage has come to where it opens its artifact, with these parameters."""


def parameters_of(module, config, monkeypatch) -> dict:
    """What the stage would put into its key: it is stopped where it would open its artifact."""

    def stop(*given, **named):
        raise Stopped(next((g.parameters for g in given if isinstance(g, Spec)), None) or given[2])

    name = next(n for n in ("run_training", "scores_and_maps", "Artifact") if hasattr(module, n))
    monkeypatch.setattr(module, name, stop)
    with pytest.raises(Stopped) as stopped:
        module.run(config, QUIET)
    return stopped.value.args[0]


def words_of(value):
    """Every text within a value."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    return (
        [value]
        if isinstance(value, str)
        else [w for v in value for w in words_of(v)]
        if hasattr(value, "__iter__")
        else []
    )


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return tiny_clip_vision(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def models(tmp_path_factory, clip, internvl, llava, sam):
    return look_alikes(tmp_path_factory.mktemp("models"), clip, internvl, llava, sam)


@pytest.fixture
def configs(tmp_path, tiles, clip, models, internvl, llava, sam):
    """Stages with --precision, each with its configuration; all say `auto`, as by default."""
    common = {"manifest": tiles.manifest, "root": tiles.manifest.parent, "out": tmp_path / "out"}
    asked = common | {"questions": tiles.questions, "facts": tiles.facts}
    return {
        "visualad": (
            visualad_train,
            visualad_train.TrainVisualadConfig(**common, backbone=str(clip), size=56, layers="2,4"),
        ),
        "score-visualad": (visualad_score, visualad_score.ScoreVisualadConfig(**common, checkpoint=models["visualad"])),
        "vmad": (
            vmad_train,
            vmad_train.FinetuneVmadConfig(
                **common, questions=tiles.questions, splits="test", tasks="vqa", llava=llava, sam=sam, heads=4
            ),
        ),
        "score-vmad": (vmad_score, vmad_score.ScoreVmadConfig(**common, checkpoint=models["vmad"], max_tokens=8)),
        "sfe": (sfe, sage_config.SfeConfig(**asked, base=str(internvl), heads=4)),
        "edpo": (edpo, sage_config.EdpoConfig(**asked, checkpoint=models["sage"], judgements=tiles.judgements)),
        "score-sage": (sage_score, sage_config.ScoreSageConfig(**asked, checkpoint=models["sage"])),
    }


@pytest.mark.parametrize("stage", ["visualad", "score-visualad", "vmad", "score-vmad", "sfe", "edpo", "score-sage"])
def test_the_precision_in_a_key_is_the_one_that_was_used(stage, configs, monkeypatch):
    module, config = configs[stage]
    if stage == "visualad":  # the tiles have no masks
        monkeypatch.setattr(module, "trainable", lambda images, split, where, quiet: (images, []))
    for has, precision in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch_setup, "has_bf16", lambda device, has=has: has)
        parameters = parameters_of(module, config, monkeypatch)
        assert parameters["precision"] == precision
        assert "auto" not in words_of(parameters)
    assert not config.out.exists()


def test_no_engine_says_auto(qwen, tmp_path, save_image, monkeypatch):
    paths = cables(tmp_path, save_image)
    write(tmp_path / "c.parquet", CAPTIONS, [{"image_id": "d/cable/ref", "prompt_id": "p", "sample": 0, "text": "A."}])
    common = {"manifest": paths["manifest"], "root": tmp_path, "out": tmp_path / "out"}
    asked = common | {"questions": paths["questions"]}
    for module, config in (
        (caption, caption.CaptionConfig(**common, vlm=str(qwen))),
        (lvlm, lvlm.LvlmConfig(**common, vlm=str(qwen))),
        (vlm_qa, vlm_qa.VlmQaConfig(**asked, vlm=str(qwen))),
        (judge, judge.JudgeConfig(**asked, judge=str(qwen))),
        (make, make.QuestionsConfig(**common, splits="train", vlm=str(qwen), captions=tmp_path / "c.parquet")),
    ):
        parameters = parameters_of(module, config, monkeypatch)
        assert parameters["weights"] and "auto" not in words_of(parameters), module


@pytest.mark.parametrize("engine", ["transformers", "vllm", "server"])
def test_what_of_an_engine_is_in_the_key(engine):
    auto, half = (engine_parameters("m", EngineOptions(engine=engine, dtype=d)) for d in ("auto", "float16"))
    assert "auto" not in words_of(auto)
    assert (auto == half) == (engine == "server")


def with_bin(model: Path, folder: Path) -> str:
    """The same checkpoint with its weights in a pickle."""
    import torch
    from safetensors.torch import load_file

    shutil.copytree(model, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return str(folder)


@pytest.mark.slow
def test_no_loader_reads_a_pickle(tmp_path, clip, internvl, llava, sam, qwen):
    import torch

    from stages.sage.checkpoint import load_model as load_sage
    from stages.visualad.backbone import load_backbone
    from stages.vlm.transformers_engine import load_model
    from stages.vmad.build import load_llava, load_sam

    for n, (model, load) in enumerate(
        (
            (clip, load_backbone),
            (internvl, lambda name: load_sage(name, "", "float32")),
            (llava, lambda name: load_llava(name, "", torch.float32)),
            (sam, lambda name: load_sam(name, "", torch.float32)),
            (qwen, lambda name: load_model(name, EngineOptions(device="cpu"))),
        )
    ):
        load(str(model))
        with pytest.raises(InputError, match="safetensors"):
            load(with_bin(Path(model), tmp_path / str(n)))
