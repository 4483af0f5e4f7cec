"""How many of the GPUs that are there one model is put on."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from stages.base.errors import InputError
from stages.vlm import gpus
from stages.vlm.engine import Reply, Request, Sampling, ask
from stages.vlm.options import EngineOptions
from stages.vlm.vllm_engine import VllmEngine

AWQ = "Qwen/Qwen2-VL-72B-Instruct-AWQ"  # 1.2 x (70.2e9 x 4.25 + 3.2e9 x 16) / 8 bytes = 48.8 GiB


THERE = [
    ([79.1], 1),
    ([39.4, 39.4], 2),
    ([79.1, 79.1], 1),
    ([24.0] * 3, None),
    ([24.0] * 4, 4),
    ([24.0], None),
    ([139.0, 24.0, 24.0, 24.0], 4),
    ([25.0] * 3, 2),
]


@pytest.mark.parametrize(("there", "number"), THERE)
def test_the_papers_model_takes_the_fewest_gpus_that_hold_it(there, number):
    assert gpus.needed_gib(AWQ) == pytest.approx(1.2 * (70.2e9 * 4.25 + 3.2e9 * 16) / 8 / 2**30)
    if number is None:
        with pytest.raises(InputError, match=rf"needs about 49 GiB of GPU memory, and .* {len(there)} GPUs? of 24 GiB"):
            gpus.choose(AWQ, there)
    else:
        assert gpus.choose(AWQ, there)[0] == number


def test_the_line_names_memory_gpus_and_what_would_use_the_others():
    assert gpus.choose(AWQ, [79.1])[1] == f"{AWQ} needs about 49 GiB: on 1 of 1 GPU of 79 GiB"
    two = "on 1 of 2 GPUs of 79 GiB; --shard 0/2 to 1/2 would use all"
    assert gpus.choose(AWQ, [79.1, 79.1])[1].endswith(two)
    assert gpus.choose(AWQ, []) == (1, f"no GPU here: {AWQ} runs on the CPU")


def test_other_models_are_weighed_by_their_files_or_refused(tmp_path):
    for n in range(2):
        with (tmp_path / f"model-{n}.safetensors").open("wb") as file:
            file.truncate(5 * 2**30)  # a hole: no disk is taken
    assert gpus.needed_gib(str(tmp_path)) == pytest.approx(12)
    assert gpus.choose(str(tmp_path), [10.0, 10.0])[0] == 2
    with pytest.raises(InputError, match="--tensor-parallel 0: how much memory some/one needs is not known"):
        gpus.needed_gib("some/one")


def test_vllm_gets_the_number_and_the_user_the_line(monkeypatch):
    """vLLM stands in as a module that knows its platform and records how it is called; four GPUs of 24 GiB."""
    import torch

    asked, said = [], []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    memory = SimpleNamespace(is_cpu=lambda: False, get_device_total_memory=lambda n: 24 * 2**30)
    for name, holds in (("vllm", {"LLM": lambda **more: asked.append(more)}), ("vllm.platforms", {})):
        module = ModuleType(name)
        vars(module).update(holds | {"current_platform": memory})
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("stages.vlm.vllm_engine.end_children_with_this_process", lambda: None)
    monkeypatch.setattr("stages.vlm.vllm_engine._dtype", lambda *_: "float16")
    for given, number in ((0, 4), (2, 2)):
        engine = VllmEngine(AWQ, "f", EngineOptions(engine="vllm", tensor_parallel=given))
        monkeypatch.setattr(VllmEngine, "run", lambda self, requests, sampling: (Reply(r.key) for r in requests))
        assert [r.key for r in ask(engine, [Request((1,), "?")], Sampling(), said.append)] == [(1,)]
        vars(engine)["_limits"] = SimpleNamespace(multiple=1)
        assert engine._llm is None and asked[-1]["tensor_parallel_size"] == number
    assert said == [f"{AWQ} needs about 49 GiB: on 4 of 4 GPUs of 24 GiB"], "a number that was given needs no line"
