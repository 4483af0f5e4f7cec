"""SAGE's equations against numbers computed by hand and against other implementations."""

from itertools import combinations
from math import e, exp, log

import numpy as np
import pytest

from stages.sage.entropy import Pair, edpo_loss, ends_differ_most, entropies, log_softmax, pairs_of


def test_softmax():
    assert log_softmax([0, log(3)]) == pytest.approx([log(0.25), log(0.75)])
    assert log_softmax([1000, 1000 + log(3)]) == pytest.approx([log(0.25), log(0.75)]), "no overflow"
    assert log_softmax([0, 1000])[0] == pytest.approx(-1000), "no logarithm of 0"


def test_entropy_per_answer():
    assert entropies([0, log(3)], "term") == pytest.approx([0.25 * log(4), 0.75 * log(4 / 3)])
    assert entropies([0, log(3)], "surprisal") == entropies([0, log(3)]) == pytest.approx([log(4), log(4 / 3)])
    scores = [5, 4, 2, 1]
    p = np.exp(scores) / np.exp(scores).sum()
    assert entropies(scores, "term") == pytest.approx(-p * np.log(p))
    assert sum(entropies(scores, "term")) == pytest.approx(-(p * np.log(p)).sum()), "Eq. 4's sum is the sum of ours"


def test_surprisals_differ_as_the_scores_do():
    """Marks 5, 3.7, 2.3, 1: gaps 1.3, 1.4, 1.3, and 4 from end to end; terms 0.225, 0.322, 0.149, 0.058."""
    scores = [5, 3.7, 2.3, 1]
    small, large = pairs_of(scores)
    assert small == Pair(0, 1, pytest.approx(1.3)) and large == Pair(0, 3, pytest.approx(4))
    assert entropies(scores, "term") == pytest.approx([0.2254, 0.3223, 0.1488, 0.0581], abs=1e-4)
    small, large = pairs_of(scores, "term")
    assert small == Pair(2, 3, pytest.approx(0.0907, abs=1e-4)) and large == Pair(0, 3, pytest.approx(0.1673, abs=1e-4))
    assert ends_differ_most(scores) and not ends_differ_most(scores, "term"), "0.26 between the second and the last"
    assert not ends_differ_most([4, 5, 2, 1]), "the judge contradicts the ranks"


def test_the_pair_of_the_smallest_difference_is_not_that_of_the_largest():
    # shares 1/2, 1/4, 1/8, 1/8: H = log(2) x (1/2, 1/2, 3/8, 3/8)
    scores = [log(4), log(2), 0, 0]
    assert entropies(scores, "term") == pytest.approx([log(2) / 2, log(2) / 2, 3 * log(2) / 8, 3 * log(2) / 8])
    # shares 0.8, 0.1, 0.06, 0.04: |differences| 0.0518, 0.0615, 0.0400 -> the last two; ends: 0.0497
    shares = [0.8, 0.1, 0.06, 0.04]
    small, large = pairs_of([log(s) for s in shares], "term")
    h = [-s * log(s) for s in shares]
    assert (small.winner, small.loser) == (2, 3) and small.gap == pytest.approx(0.0400496, abs=1e-6)
    assert (large.winner, large.loser) == (0, 3) and large.gap == pytest.approx(h[0] - h[3])
    assert small.gap < large.gap < abs(h[1] - h[2]), "(first, last) is taken, though another pair differs more"


def test_ties_take_the_first_pair_and_identical_scores_have_no_gap():
    assert pairs_of([3, 3, 3, 3]) == [Pair(0, 1, 0.0), Pair(0, 3, 0.0)]
    assert pairs_of([2, 2, 1, 1])[0] == Pair(0, 1, 0.0), "(2, 3) differs as little"
    assert pairs_of([1, 5])[0].winner == 0, "ranks decide who wins, not the judge"
    assert len(pairs_of([5, 1])) == 1, "the smallest and the largest are one pair"
    with pytest.raises(ValueError, match="1 answers"):
        pairs_of([5])


def test_every_adjacent_pair_and_the_ends():
    assert pairs_of([5, 4, 2, 1], which="adjacent") == [
        Pair(0, 1, pytest.approx(1)),
        Pair(1, 2, pytest.approx(2)),
        Pair(2, 3, pytest.approx(1)),
        Pair(0, 3, pytest.approx(4)),
    ]
    assert len(pairs_of([5, 1], which="adjacent")) == 1


def test_pairs_by_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(200):
        scores = rng.integers(3, 16, rng.integers(2, 7)) / 3
        p = np.exp(scores) / np.exp(scores).sum()
        reading = str(rng.choice(["term", "surprisal"]))
        h = -np.log(p) if reading == "surprisal" else -p * np.log(p)
        adjacent = [(i, j) for i, j in combinations(range(len(scores)), 2) if j == i + 1]
        best = min(abs(h[i] - h[j]) for i, j in adjacent)
        found = pairs_of(list(scores), reading)
        assert found[0].gap == pytest.approx(best, abs=1e-12)
        first = next((i, j) for i, j in adjacent if abs(abs(h[i] - h[j]) - best) < 1e-12)
        assert (found[0].winner, found[0].loser) == first
        assert (found[-1].winner, found[-1].loser) == ((0, len(scores) - 1) if len(scores) > 2 else (0, 1))


def test_loss_of_a_pair():
    assert edpo_loss(0, 0, 0) == pytest.approx(log(2))
    assert edpo_loss(-3, -5, 0.5) == pytest.approx(log(1 + exp(-1.5)))
    assert edpo_loss(-5, -3, 1) == pytest.approx(log(1 + e**3))
    assert edpo_loss(-2000, 0, 0) == pytest.approx(2000), "no overflow"


def test_differing_patches():
    import torch

    from stages.sage.fusion import differing

    # cosines to the two reference patches: a (1, 0), b (0.6, 0.8), c (-1, 0), d (0, -1)
    reference = torch.tensor([[2.0, 0], [0, 3]])
    a, b, c, d = [5.0, 0], [3.0, 4], [-1.0, 0], [0.0, -2]
    test = torch.tensor([a, b, c, d])
    # highest: 1, 0.8, 0, 0; lowest: 0, 0.6, -1, -1
    assert differing(test, reference, 2).tolist() == [c, d]
    assert differing(test, reference, 3).tolist() == [c, d, b]
    assert differing(test, reference, 9).tolist() == [c, d, b, a], "fewer than k patches: all"
    assert differing(test, reference, 3, "min").tolist() == [c, d, a], "printed Eq. 1 prefers a to b"


def test_differing_patches_by_brute_force():
    import torch

    from stages.sage.fusion import differing

    generator = torch.Generator().manual_seed(0)
    test, reference = (torch.randn(n, 5, generator=generator) for n in (40, 30))
    for rule, inner in (("max", max), ("min", min)):
        value = [inner(float(torch.cosine_similarity(t, r, dim=0)) for r in reference) for t in test]
        order = sorted(range(40), key=value.__getitem__)[:7]
        assert torch.equal(differing(test, reference, 7, rule), test[order])


def test_fusion_attention_by_hand():
    import torch

    from stages.sage.fusion import Fusion

    fusion = Fusion(2, 1)
    with torch.no_grad():
        fusion.query.weight.copy_(torch.tensor([[2.0, 0], [0, 0]]))  # asks with twice the first coordinate
        fusion.key.weight.copy_(torch.eye(2))
        fusion.value.weight.copy_(torch.tensor([[0.0, 1], [1, 0]]))  # swaps the coordinates
    root = 2**0.5
    patches = torch.tensor([[0.0, 1], [root / 2 * log(3), 5]])  # logits 0 and log 3: weights 1/4 and 3/4
    out = fusion.attend(torch.tensor([[1.0, 7]]), patches)
    assert out[0].tolist() == pytest.approx([0.25 * 1 + 0.75 * 5, 0.75 * root / 2 * log(3)], abs=1e-5)


def test_fusion_attention_is_multi_head_attention():
    import torch

    from stages.sage.fusion import Fusion

    torch.manual_seed(0)
    fusion, torchs = Fusion(12, 3), torch.nn.MultiheadAttention(12, 3, bias=False, batch_first=True)
    with torch.no_grad():
        torchs.in_proj_weight.copy_(torch.cat([fusion.query.weight, fusion.key.weight, fusion.value.weight]))
        torchs.out_proj.weight.copy_(torch.eye(12))
    facts, patches = torch.randn(4, 12), torch.randn(9, 12)
    expected, _ = torchs(facts[None], patches[None], patches[None])
    assert torch.allclose(fusion.attend(facts, patches), expected[0], atol=1e-6)


def test_projection_and_start():
    import torch

    from stages.sage.fusion import Fusion

    fusion = Fusion(2, 1)
    fusion.start(0.5, torch.Generator().manual_seed(0))
    one = torch.tensor([[1.0, 3]])
    # one patch: attention returns it; LayerNorm of (1, 3) is (-1, 1), times the scale of words
    assert fusion(torch.randn(3, 2), one).tolist() == [pytest.approx([-0.5, 0.5], abs=1e-4)] * 3
    with torch.no_grad():
        fusion.project.weight.copy_(torch.tensor([[1.0, 1], [2, 0]]))
        fusion.project.bias.copy_(torch.tensor([10.0, 0]))
    assert fusion(torch.zeros(1, 2), one)[0].tolist() == pytest.approx([10, -1], abs=1e-4)
