"""The transformers engine on a tiny random Qwen2-VL: batching, seeds, failures."""

import numpy as np
import pytest

from stages.base.errors import InputError
from stages.vlm.engine import Request, Sampling
from stages.vlm.factory import make_engine
from stages.vlm.options import EngineOptions

GREEDY = Sampling(max_tokens=6)
WARM = Sampling(temperature=1.0, top_p=0.95, max_tokens=6)


@pytest.fixture(scope="module")
def requests(tmp_path_factory):
    from PIL import Image

    folder = tmp_path_factory.mktemp("images")
    made = []
    for i, size in enumerate([(60, 60), (120, 60), (60, 100), (200, 150), (64, 64)]):
        path = folder / f"{i}.png"
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (*size, 3), np.uint8)).save(path)
        made.append(Request((i,), "describe" + " the image" * i, (path,), seed=i))
    return made


def texts(qwen, requests, sampling, batch_size):
    engine = make_engine(str(qwen), EngineOptions(batch_size=batch_size, device="cpu"))
    return {
        r.key: (r.text, r.finish_reason, r.prompt_tokens, r.completion_tokens) for r in engine.run(requests, sampling)
    }


def test_a_batch_says_what_single_requests_say(qwen, requests):
    together, alone = texts(qwen, requests, GREEDY, 4), texts(qwen, requests, GREEDY, 1)
    assert together == alone and len(together) == 5
    assert all(reason in ("stop", "length") and n > 10 for _, reason, n, _ in alone.values())


def test_sampling_depends_on_the_rows_seed_alone(qwen, requests):
    together, alone = texts(qwen, requests, WARM, 5), texts(qwen, requests[::-1], WARM, 2)
    assert together == alone
    other = [Request(r.key, r.text, r.images, r.seed + 99) for r in requests]
    assert texts(qwen, other, WARM, 5) != together


def test_the_image_matters(qwen, requests):
    engine = make_engine(str(qwen), EngineOptions(device="cpu"))
    loaded = engine._loaded
    from stages.datasets.images import load_rgb

    def logits(path):
        inputs = loaded._inputs([(Request((0,), "describe", (path,)), [load_rgb(path)])])
        return loaded.model(**inputs).logits[0, -1].detach().numpy()

    assert np.abs(logits(requests[0].images[0]) - logits(requests[4].images[0])).max() > 1e-3


def test_an_unreadable_image_is_a_reply_with_error(qwen, requests, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8 truncated")
    bad = Request(("bad",), "describe", (tmp_path / "bad.jpg",))
    engine = make_engine(str(qwen), EngineOptions(device="cpu"))
    replies = {r.key: r for r in engine.run([requests[0], bad], GREEDY)}
    assert "cannot be decoded" in replies["bad",].error and replies[0,].error is None


def test_the_nucleus_keeps_the_smallest_set_that_reaches_top_p():
    import torch

    from stages.vlm.transformers_engine import RowSampler

    p = torch.tensor([[0.5, 0.3, 0.15, 0.05]])
    drawn = [int(RowSampler([seed], Sampling(1.0, 0.7))(None, p.log()).argmax()) for seed in range(2000)]
    share = np.bincount(drawn, minlength=4) / 2000
    assert share[2] == share[3] == 0  # 0.5 + 0.3 already reaches 0.7
    assert abs(share[0] - 0.5 / 0.8) < 0.04  # renormalised


def test_a_draw_takes_one_random_number_and_looks_at_no_other_row():
    import torch

    from stages.vlm.transformers_engine import RowSampler

    logits = torch.randn(3, 5000, generator=torch.Generator().manual_seed(0)).bfloat16()  # with ties, as models give
    together = RowSampler([7, 8, 9], Sampling(0.9, 0.95))
    drawn = torch.stack([together(None, logits).argmax(-1) for _ in range(40)], dim=1)
    for row, seed in enumerate((7, 8, 9)):
        alone = RowSampler([seed], Sampling(0.9, 0.95))
        assert [int(alone(None, logits[row : row + 1]).argmax()) for _ in range(40)] == drawn[row].tolist()
        after_forty = torch.Generator().manual_seed(seed)
        torch.rand(40, generator=after_forty)
        assert torch.equal(torch.rand(1, generator=alone.generators[0]), torch.rand(1, generator=after_forty))
    assert len(set(drawn[0].tolist())) > 20


@pytest.mark.slow
def test_at_a_whole_nucleus_tokens_are_drawn_as_often_as_they_are_probable():
    import torch

    from stages.vlm.transformers_engine import RowSampler

    p = torch.tensor([[0.1, 0.0, 0.6, 0.3]])
    sampler = RowSampler([3], Sampling(1.0, 1.0))
    share = np.bincount([int(sampler(None, p.log()).argmax()) for _ in range(4000)], minlength=4) / 4000
    assert share[1] == 0 and np.abs(share - p[0].numpy()).max() < 0.03


def test_out_of_memory_halves_the_batch(qwen, requests, monkeypatch):
    import torch

    from stages.vlm.transformers_engine import LoadedModel

    real, sizes = LoadedModel._generate, []

    def limited(self, batch, sampling):
        sizes.append(len(batch))
        if len(batch) > 1:
            raise torch.OutOfMemoryError("more than one does not fit")
        return real(self, batch, sampling)

    monkeypatch.setattr(LoadedModel, "_generate", limited)
    assert len(texts(qwen, requests[:4], GREEDY, 4)) == 4 and sizes == [4, 2, 1, 1, 2, 1, 1]


def test_an_unknown_model_is_one_line(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="did you mean qwen2-vl") as e:
        make_engine("qwen2vl", EngineOptions())
    assert "\n" not in str(e.value)
