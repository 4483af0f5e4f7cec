"""Entropies and pairs of ranked answers: what E-DPO learns from (Eq. 4 to Eq. 7). Plain numbers, no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp, log, log1p


@dataclass(frozen=True)
class Pair:
    """winner, loser: indices into the ranked answers, from 0, winner < loser; gap: the entropy difference, nats."""

    winner: int
    loser: int
    gap: float


def softmax(scores: Sequence[float]) -> list[float]:
    """Scores of one question's answers -> shares that sum to 1."""
    top = max(scores)
    parts = [exp(s - top) for s in scores]
    return [p / sum(parts) for p in parts]


def entropies(scores: Sequence[float]) -> list[float]:
    """Eq. 4 per answer, nats: H_i = -p_i log p_i with p = softmax(scores).

    As printed, the sum over all answers is the same number for every i, and every difference in Eq. 5 would be 0.
    The summand is what can differ from answer to answer, so that is H_i here.
    """
    return [-p * log(p) if p > 0 else 0.0 for p in softmax(scores)]  # Eq. 4


def pairs_of(scores: Sequence[float]) -> list[Pair]:
    """Eq. 5: the adjacent pair of the smallest |H difference| (the first of several), and (first, last), whose
    difference the text calls the largest and takes whatever it is.

    scores: Eq. 3 of each answer, in the order of the ranks, best first. The better rank wins even where the judge
    scored otherwise: ranks are the experts', scores only weigh them. Two answers make one pair, not the same one
    twice. Raises ValueError for fewer than two.
    """
    if len(scores) < 2:
        raise ValueError(f"{len(scores)} answers make no pair")
    h = entropies(scores)
    gaps = [abs(a - b) for a, b in pairwise(h)]
    closest = min(range(len(gaps)), key=gaps.__getitem__)  # Eq. 5
    pairs = [Pair(closest, closest + 1, gaps[closest])]
    if len(scores) > 2:
        pairs.append(Pair(0, len(scores) - 1, abs(h[0] - h[-1])))
    return pairs


def edpo_loss(winner: float, loser: float, margin: float) -> float:
    """Eq. 6 and Eq. 7 for one pair: -log sigmoid(winner - loser - margin).

    winner, loser: log-probability of the answer, as printed; in the DPO form beta times its log-ratio to the
    reference model. margin: eta times the entropy difference. What the trainer computes in batches, for tests.
    """
    d = winner - loser - margin  # Eq. 6
    return log1p(exp(-d)) if d > 0 else log1p(exp(d)) - d  # Eq. 7
