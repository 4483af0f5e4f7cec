"""What the engines share: answer probabilities, image sizes, decoding ahead. And the table of models."""

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from stages.base.errors import InputError
from stages.vlm.choices import choice_probabilities, first_tokens, spellings
from stages.vlm.engine import Reply, Request, Sampling
from stages.vlm.factory import make_engine
from stages.vlm.models import MODELS
from stages.vlm.options import EngineOptions, engine_parameters
from stages.vlm.pixels import PixelLimits, fit, fitted_size, limits_for
from stages.vlm.prefetch import RequestPrefetch

WORDS = {
    "yes": [1],
    "Yes": [2],
    "YES": [3, 4],
    " yes": [9, 1],
    " Yes": [5],
    " YES": [9, 3, 4],
    "no": [6],
    "No": [7],
    "NO": [7, 8],
    " no": [9, 6],
    " No": [9, 7],
    " NO": [9, 7, 8],
}


def test_first_tokens_and_their_sum():
    tokens = first_tokens(WORDS.__getitem__, ("yes", "no"))
    assert tokens == {"yes": (1, 2, 3, 5), "no": (6, 7)}  # 9, a lone blank, begins both
    p = choice_probabilities({1: math.log(0.2), 5: math.log(0.1), 7: math.log(0.4), 9: math.log(0.3)}, tokens)
    assert p == pytest.approx({"yes": 0.3, "no": 0.4})
    assert spellings("yes") == ("yes", "Yes", "YES", " yes", " Yes", " YES")
    with pytest.raises(InputError, match="cannot be told apart"):
        first_tokens(lambda text: [text.strip()[0].lower() == "x"], ("yes", "no"))


@pytest.mark.parametrize(
    "limits", [PixelLimits(3136, 12544, 28), PixelLimits(768 * 784, 1024 * 784, 28), PixelLimits(65536, 16777216, 32)]
)
def test_sizes_are_those_of_the_models_own_processor(limits):
    from stages.training.torch_setup import prepare_torch

    prepare_torch()
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    rng = np.random.default_rng(0)
    for _ in range(300):
        h, w = (int(v) for v in rng.integers(20, 2000, 2))
        if max(h, w) / min(h, w) < 100:
            assert fitted_size(h, w, limits) == smart_resize(h, w, limits.multiple, limits.least, limits.most)


def test_fitting_is_what_the_models_own_processor_does(qwen):
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(qwen).image_processor
    limits = limits_for(processor)
    for n, size in enumerate([(100, 50), (61, 200), (28, 56), (300, 310)]):
        rgb = np.random.default_rng(n).integers(0, 255, (*size, 3), np.uint8)
        theirs = processor(images=[rgb], return_tensors="pt")
        ours = processor(images=[fit(rgb, limits)], return_tensors="pt")
        assert (ours["image_grid_thw"] == theirs["image_grid_thw"]).all()
        assert (ours["pixel_values"] == theirs["pixel_values"]).all()


def test_fitting():
    from stages.training.torch_setup import prepare_torch

    prepare_torch()
    rgb = np.random.default_rng(0).integers(0, 255, (100, 50, 3), np.uint8)
    assert fit(rgb, PixelLimits()) is rgb
    assert fit(rgb, PixelLimits(most=1250)).shape == (50, 25, 3)
    assert fit(rgb, PixelLimits(least=20000)).shape == (200, 100, 3)
    assert fit(rgb, PixelLimits(multiple=28)).shape == (112, 56, 3)


def test_decoding_ahead_is_bounded_ordered_and_names_what_it_cannot_read(tmp_path, save_image):
    (tmp_path / "1.png").write_text("no image")
    for n in (0, 2, 3, 4, 5):
        save_image(tmp_path / f"{n}.png", n)
    taken = []

    def requests():
        for n in range(6):
            taken.append(n)
            yield Request((n,), "", (tmp_path / "0.png", tmp_path / f"{n}.png"))

    with RequestPrefetch(requests(), PixelLimits(multiple=28), workers=2, ahead=3) as decoded:
        assert taken == [0, 1, 2] and decoded
        request, (reference, image) = next(decoded)
        assert request.key == (0,) and taken == [0, 1, 2, 3]
        assert (reference == image).all() and image.shape == (28, 56, 3)
        bad = next(decoded)
        assert isinstance(bad, Reply) and bad.key == (1,) and "1.png" in bad.error
        assert [request.key[0] for request, _ in decoded] == [2, 3, 4, 5] and not decoded


def test_answer_probabilities_are_the_models_own(qwen, tmp_path, save_image):
    import torch

    image = save_image(tmp_path / "a.png", 1)
    request = Request((0,), "any anomaly", (image, image), choices=("yes", "no"))
    engine = make_engine(str(qwen), EngineOptions(device="cpu"))
    for sampling in (Sampling(max_tokens=3), Sampling(1.5, 0.5, 3)):
        (reply,) = engine.run([request], sampling)
        loaded = engine._loaded
        from stages.datasets.images import load_rgb

        rgb = fit(load_rgb(image), loaded.limits)
        with torch.inference_mode():
            logits = loaded.model(**loaded._inputs([(request, [rgb, rgb])])).logits[0, -1]
        p = logits.float().softmax(-1)
        tokens = first_tokens(partial(loaded.tokenizer.encode, add_special_tokens=False), ("yes", "no"))
        assert reply.probabilities == pytest.approx({c: float(p[list(t)].sum()) for c, t in tokens.items()}, abs=1e-6)
        assert 0 < sum(reply.probabilities.values()) < 0.2  # a random model spreads over all tokens


def test_a_prompt_beyond_the_context_is_refused_alone(tiny_context, tmp_path, save_image):
    image = save_image(tmp_path / "a.png", 1)
    requests = [Request((n,), "image " * n, (image,)) for n in (1, 400, 2)]
    engine = make_engine(str(tiny_context), EngineOptions(device="cpu"))
    replies = {r.key[0]: r for r in engine.run(requests, Sampling(max_tokens=4))}
    assert "exceed the model's context of 128" in replies[400].error
    assert replies[1].text is not None and replies[2].text is not None


@pytest.fixture(scope="module")
def tiny_context(qwen, tmp_path_factory):
    """The tiny checkpoint with room for 128 tokens."""
    import json
    import shutil

    folder = tmp_path_factory.mktemp("context") / "qwen"
    shutil.copytree(qwen, folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 128
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_directory_without_a_processor_is_one_line(bert, qwen, tmp_path):
    import shutil

    shutil.copytree(qwen, tmp_path / "qwen")
    for name in ("processor_config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "qwen" / name).unlink()
    engine = make_engine(str(tmp_path / "qwen"), EngineOptions(device="cpu"))
    with pytest.raises(InputError, match="qwen: cannot be loaded as a checkpoint with its processor") as e:
        list(engine.run([Request((0,), "x")], Sampling()))
    assert "\n" not in str(e.value)


@pytest.mark.slow
def test_no_process_outlives_a_kill(tmp_path):
    import os
    import signal
    import subprocess
    import sys
    import time

    code = (
        "import os, subprocess, sys, time\n"
        "from stages.vlm.orphans import descendants, end_children_with_this_process\n"
        "end_children_with_this_process()\n"
        "guard = descendants(os.getpid())\n"
        "child = subprocess.Popen(['sh', '-c', 'sleep 60 & wait'])\n"
        "time.sleep(1.5)\n"
        "print(*(descendants(os.getpid()) - guard), flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path.cwd())},
    )
    pids = [int(p) for p in process.stdout.readline().split()]
    assert len(pids) == 2 and all(Path(f"/proc/{p}").exists() for p in pids)  # the shell and its sleep
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10
    while any(alive(p) for p in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(p) for p in pids)


def alive(pid):
    """Whether a process runs; a zombie that nobody has buried does not."""
    try:
        with Path(f"/proc/{pid}/stat").open() as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_what_decides_the_text_is_in_the_key():
    options = EngineOptions(engine="vllm", quantization="awq", max_pixels=1000, gpu_memory=0.5, concurrency=3)
    assert engine_parameters("qwen2-vl", options) == {
        "engine": "vllm",
        "dtype": "as the checkpoint says",
        "min_pixels": 0,
        "max_pixels": 1000,
        "quantization": "awq",
    }
    assert engine_parameters("scene", options) == {}


def test_engines_that_are_not_there():
    with pytest.raises(InputError, match="--engine vlm: expected transformers, vllm, server"):
        make_engine("qwen2-vl", EngineOptions(engine="vlm"))
    with pytest.raises(InputError, match="needs --base-url"):
        make_engine("qwen2-vl", EngineOptions(engine="server"))


def test_the_table_of_models():
    assert len({m.short for m in MODELS}) == len(MODELS) and all("/" in m.hub_id for m in MODELS)
    by_name = {m.short: m for m in MODELS}
    assert by_name["qwen2-vl"].weights_gib == pytest.approx(8.29e9 * 2 / 2**30)
    assert 38 < by_name["qwen2-vl-72b-awq"].weights_gib < 42
