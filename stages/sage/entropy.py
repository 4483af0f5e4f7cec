"""Entropies and pairs of ranked answers: what E-DPO learns from (Eq. 4 to Eq. 7). Plain numbers, no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp, log, log1p

READINGS = ("surprisal", "term")  # of Eq. 4
SURPRISAL = READINGS[0]
PAIRS = ("eq5", "adjacent")  # of a question's answers
EQ5 = PAIRS[0]


@dataclass(frozen=True)
class Pair:
    """winner, loser: indices into the ranked answers, from 0, winner < loser; gap: the entropy difference, nats."""

    winner: int
    loser: int
    gap: float


def log_softmax(scores: Sequence[float]) -> list[float]:
    """Scores of one question's answers -> logarithms of shares that sum to 1."""
    top = max(scores)
    total = log(sum(exp(s - top) for s in scores))
    return [s - top - total for s in scores]


def entropies(scores: Sequence[float], reading: str = SURPRISAL) -> list[float]:
    """Eq. 4 per answer, nats, with p = softmax(scores): surprisal, H_i = -log p_i, or term, H_i = -p_i log p_i.

    As printed, the sum over all answers is the same number for every i, and every difference in Eq. 5 would be 0.
    What can differ from answer to answer is the summand, weighted by its share (term) or not (surprisal).

    The surprisal is the default, because what the text says of Eq. 5 is true of it alone: its difference is that of
    the scores, |H_i - H_j| = |S_i - S_j|, so that (first, last) differ most wherever the judge agrees with the ranks,
    and the smallest difference is the subtlest distinction. A term is small for a likely and for an unlikely answer
    alike (marks 5, 4, 2, 1: 0.25, 0.35, 0.12, 0.06 nats, so that the second and the last differ most), and no margin
    of Eq. 6 can exceed 1/e: what is left is nearly plain DPO.
    """
    logs = log_softmax(scores)
    return [-v for v in logs] if reading == SURPRISAL else [-exp(v) * v for v in logs]  # Eq. 4


def pairs_of(scores: Sequence[float], reading: str = SURPRISAL, which: str = EQ5) -> list[Pair]:
    """eq5 = Eq. 5: the adjacent pair of the smallest |H difference| (the first of several), and (first, last), whose
    difference the text calls the largest and takes whatever it is. adjacent = every adjacent pair, and (first, last):
    Eq. 5 leaves some answers out of every pair, or has them only as loser or only as winner, and so moves them one way.

    scores: Eq. 3 of each answer, in the order of the ranks, best first; reading: of Eq. 4. The better rank wins even
    where the judge scored otherwise: ranks are the experts', scores only weigh them. Two answers make one pair, not
    the same one twice. Raises ValueError for fewer than two.
    """
    if len(scores) < 2:
        raise ValueError(f"{len(scores)} answers make no pair")
    h = entropies(scores, reading)
    gaps = [abs(a - b) for a, b in pairwise(h)]
    closest = min(range(len(gaps)), key=lambda i: round(gaps[i], 9))  # Eq. 5; equal marks differ by rounding alone
    among = [closest] if which == EQ5 else range(len(gaps))
    pairs = [Pair(i, i + 1, gaps[i]) for i in among]
    if len(scores) > 2:
        pairs.append(Pair(0, len(scores) - 1, abs(h[0] - h[-1])))
    return pairs


def ends_differ_most(scores: Sequence[float], reading: str = SURPRISAL) -> bool:
    """Whether no two answers differ more than the first and the last, as the text says of Eq. 5 (to 1e-9)."""
    h = entropies(scores, reading)
    return max(h) - min(h) <= abs(h[0] - h[-1]) + 1e-9


def edpo_loss(winner: float, loser: float, margin: float) -> float:
    """Eq. 6 and Eq. 7 for one pair: -log sigmoid(winner - loser - margin).

    winner, loser: log-probability of the answer, as printed; in the DPO form beta times its log-ratio to the
    reference model. margin: eta times the entropy difference. What the trainer computes in batches, for tests.
    """
    d = winner - loser - margin  # Eq. 6
    return log1p(exp(-d)) if d > 0 else log1p(exp(d)) - d  # Eq. 7
