"""Eq. 1 to Eq. 5 by hand, one training step against the plain form, checkpoints, determinism."""

import copy
import math
from pathlib import Path

import numpy as np
import pytest

from stages.artifacts.reader import read_table
from stages.artifacts.tables import ENCODERS
from stages.base.config import RunOptions
from stages.text_encoder import train as training
from stages.text_encoder.config import TrainEncoderConfig
from stages.text_encoder.loss import nt_xent
from stages.text_encoder.model import encode, load_encoder, mean_pool
from stages.text_encoder.train import Collator, Pair, contrastive_loss
from tests.encoder_world import make_task

QUIET = RunOptions(quiet=True)


def test_eq1_mean_of_real_tokens_then_norm():
    import torch

    hidden = torch.tensor([[[3.0, 0.0], [0.0, 4.0], [99.0, 99.0]]])
    z = mean_pool(hidden, torch.tensor([[1, 1, 0]]))  # mean (1.5, 2), norm 2.5
    assert torch.allclose(z, torch.tensor([[0.6, 0.8]]))


def test_eq4_eq5_by_hand():
    import torch

    x, y = [1.0, 0.0], [0.0, 1.0]
    anchor, positive, negative = (torch.tensor(v) for v in ([x, y], [x, [0.6, 0.8]], [y, x]))
    a = math.exp(1 / 0.5) / (math.exp(1 / 0.5) + math.exp(0) + math.exp(1 / 0.5))  # negatives: 0, 1
    b = math.exp(0.8 / 0.5) / (math.exp(0.8 / 0.5) + math.exp(1 / 0.5) + math.exp(0))
    expected = -(math.log(a) + math.log(b)) / 2
    assert float(nt_xent(anchor, positive, negative, 0.5)) == pytest.approx(expected, abs=1e-6)


def test_one_training_step_equals_the_plain_equations(bert):
    """One forward for three passes against three lone texts at a time, with the same dropout masks."""
    import torch

    model, tokenizer = load_encoder(str(bert))
    model.train()
    texts = ["three oranges", "two kiwis", "one apple"]
    others = ["two oranges", "one kiwi", "one kiwi"]
    pairs = [Pair(tokenizer(t)["input_ids"], tokenizer(n)["input_ids"]) for t, n in zip(texts, others, strict=True)]
    batch = Collator(tokenizer.pad_token_id)(pairs)
    masks = Masks(model)

    fast, plain = copy.deepcopy(model), copy.deepcopy(model)
    masks.record(fast)
    loss = contrastive_loss(fast, batch, 0.5)
    loss.backward()

    z = []
    for row in range(9):  # rows: anchors, positives, negatives
        masks.replay(plain, row)
        n = int(batch["attention_mask"][row].sum())
        hidden = plain(input_ids=batch["input_ids"][row : row + 1, :n]).last_hidden_state[0]
        h = hidden.sum(0) / n  # Eq. 1
        z.append(h / h.norm())
    anchor, positive, negative = z[:3], z[3:6], z[6:]  # Eq. 2, 3
    expected = 0
    for i in range(3):
        own = torch.exp(anchor[i] @ positive[i] / 0.5)
        total = own + sum(torch.exp(anchor[i] @ negative[j] / 0.5) for j in range(3))  # Eq. 5
        expected = expected - torch.log(own / total) / 3  # Eq. 4
    expected.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-6)
    for (name, p), q in zip(fast.named_parameters(), plain.parameters(), strict=True):
        if p.grad is not None:
            assert torch.allclose(p.grad, q.grad, atol=1e-6), name
    assert not torch.equal(torch.stack(anchor), torch.stack(positive))  # dropout made two views


def test_a_batch_is_anchors_positives_and_negatives():
    batch = Collator(9)([Pair([1, 2, 3], [4]), Pair([5], [6, 7])])
    texts = [[1, 2, 3], [5, 9, 9]]
    assert batch["input_ids"].tolist() == texts + texts + [[4, 9, 9], [6, 7, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]] * 2 + [[1, 0, 0], [1, 1, 0]]


def test_adam_has_the_l2_term_in_its_gradient(bert, tmp_path):
    """The first step by hand: g = gradient + decay * w, then w - rate * g / (|g| + 1e-8), since Adam's two corrected
    moments are g and g * g. (Decoupled decay, or none, moves weights elsewhere.)"""
    import torch

    model, tokenizer = load_encoder(str(bert))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.config.attention_probs_dropout_prob = 0.0
    pairs = [Pair(*tokenizer([t, n])["input_ids"]) for t, n in (("three oranges", "two oranges"), ("red", "green"))]
    config = TrainEncoderConfig(
        negatives=tmp_path,
        manifest=tmp_path,
        out=tmp_path,
        encoder=str(bert),
        epochs=1,
        batch_size=2,
        weight_decay=0.1,
        learning_rate=1e-3,
        max_grad_norm=0,
        precision="fp32",
        device="cpu",
    )
    by_hand = copy.deepcopy(model).train()
    contrastive_loss(by_hand, Collator(tokenizer.pad_token_id)(pairs), config.loss_temperature).backward()
    training.trainer_of(model, tokenizer, pairs, tmp_path / "states", 0, config, []).train()
    moved = 0
    for (name, trained), start in zip(model.named_parameters(), by_hand.parameters(), strict=True):
        if start.grad is None:
            assert torch.equal(trained, start), name
            continue
        g = start.grad + 0.1 * start
        sure = g.abs() > 1e-6  # near 0 the sign is rounding
        assert torch.allclose(trained[sure], (start - 1e-3 * g / (g.abs() + 1e-8))[sure], atol=2e-6), name
        moved += int((start.grad.sign() != g.sign())[sure].sum())
    assert moved > 100, "weights that only the decay moves this way"


def test_the_defaults_are_the_papers(tmp_path):
    """Section 5.1."""
    config = TrainEncoderConfig(negatives=tmp_path, manifest=tmp_path, out=tmp_path)
    assert (config.learning_rate, config.weight_decay, config.epochs) == (2e-5, 1e-5, 20)
    assert (config.batch_size, config.loss_temperature, config.max_grad_norm) == (16, 0.5, 1.0)


class Masks:
    """Dropout with masks that are drawn once for a whole batch and can be replayed row by row."""

    def __init__(self, model):
        self.drawn = []

    def record(self, model):
        import torch

        drawn = self.drawn

        class Recording(torch.nn.Module):
            def forward(self, x):
                keep = (torch.rand_like(x) > 0.1).float() / 0.9
                drawn.append(keep)
                return x * keep

        self._replace(model, lambda: Recording())

    def replay(self, model, row):
        import torch

        queue = iter(self.drawn)

        class Replaying(torch.nn.Module):
            def forward(self, x):
                return x * next(queue)[row : row + 1, : x.shape[1]]

        self._replace(model, lambda: Replaying())

    @staticmethod
    def _replace(model, make):
        """Hidden dropout; attention dropout is off, since its fused kernel draws inside."""
        model.config._attn_implementation = "eager"
        replacement = make()
        for module in list(model.modules()):
            for name, child in list(module.named_children()):
                if type(child).__name__ in ("Dropout", "Recording", "Replaying"):
                    inside_attention = type(module).__name__.endswith("SelfAttention")
                    setattr(
                        module,
                        name,
                        child.__class__(0.0)
                        if inside_attention and type(child).__name__ == "Dropout"
                        else child
                        if inside_attention
                        else replacement,
                    )
            if hasattr(module, "dropout_prob"):
                module.dropout_prob = 0.0


def train(tmp_path, bert, name, **more):
    config = TrainEncoderConfig(
        **make_task(tmp_path),
        out=tmp_path / name,
        encoder=str(bert),
        epochs=3,
        batch_size=4,
        precision="fp32",
        device="cpu",
        **more,
    )
    training.run(config, QUIET)
    return tmp_path / name / training.FOLDER / "d" / "c" / "a"


@pytest.mark.slow
def test_training_is_deterministic_and_seeded(tmp_path, bert):
    from safetensors.torch import load_file

    a, b, c = (
        load_file(train(tmp_path, bert, n, seed=s) / "model.safetensors") for n, s in (("a", 0), ("b", 0), ("c", 1))
    )
    before = load_file(bert / "model.safetensors")
    assert all((a[k] == b[k]).all() for k in a)
    assert any((a[k] != c[k]).any() for k in a) and any((a[k] != before[k]).any() for k in a)


@pytest.mark.slow
def test_the_checkpoint_opens_in_sentence_transformers(tmp_path, bert):
    folder = train(tmp_path, bert, "enc")
    from sentence_transformers import SentenceTransformer

    texts = ["three oranges , two kiwis", "one apple", "red"]
    model, tokenizer = load_encoder(str(folder))
    theirs = SentenceTransformer(str(folder), device="cpu").encode(texts)
    assert np.abs(encode(model, tokenizer, texts) - theirs).max() < 1e-5


@pytest.mark.slow
def test_a_task_without_negatives_is_a_row_with_error(tmp_path, bert):
    import pyarrow.parquet as pq

    paths = make_task(tmp_path, tasks=(("d", "c", "a"), ("d", "c", "b")))
    table = pq.read_table(paths["negatives"])
    keep = [not i.startswith("1/") for i in table["image_id"].to_pylist()]
    pq.write_table(table.filter(keep), paths["negatives"])
    config = TrainEncoderConfig(**paths, out=tmp_path / "e", encoder=str(bert), epochs=1, device="cpu")
    summary = training.run(config, QUIET)
    assert summary.errors == 1 and summary.rows == 2
    assert "no caption with a valid contradiction" in summary.first_errors[0]
    rows = read_table(tmp_path / "e", ENCODERS).to_pylist()
    assert [(r["condition"], r["retry"]) for r in rows] == [("a", None), ("b", False)], "the same inputs fail again"


def test_the_packaged_encoder_is_pretrained():
    model, tokenizer = load_encoder("minilm")
    z = encode(model, tokenizer, ["a scratch", "a scrape", "the weather tomorrow"])
    assert z[0] @ z[1] > 0.5 > z[0] @ z[2]


def test_other_weights_are_another_fingerprint(tmp_path, bert):
    import shutil

    from stages.training.weights import checkpoint_fingerprint

    copy_ = Path(shutil.copytree(bert, tmp_path / "copy"))
    assert checkpoint_fingerprint(str(copy_)) == checkpoint_fingerprint(str(bert))
    weights = bytearray((copy_ / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy_ / "model.safetensors").write_bytes(weights)
    assert checkpoint_fingerprint(str(copy_)) != checkpoint_fingerprint(str(bert))
