"""A linear probe: how well can a straight line through the features tell anomalous cells from normal ones?"""

from pathlib import Path

from stages.training.prepared import torch

from torch import Tensor
from torch.nn import functional


def probed(features: Tensor, shares: Tensor, inside: Tensor, others: Tensor, decay: float = 1e-3) -> Tensor:
    """Logits of the cells of `others`, (n, h, w), by logistic regression on features (n, h, w, C) of the cells that
    lie `inside`; shares: how much of each cell is anomalous, 0..1; decay: of the squared weights."""
    x, y = features[inside], shares[inside]
    mean, deviation = x.mean(0), x.std(0) + 1e-6
    x = (x - mean) / deviation
    line = torch.zeros(x.shape[1] + 1, requires_grad=True)
    optimiser = torch.optim.LBFGS([line], max_iter=40, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        found = functional.binary_cross_entropy_with_logits(x @ line[1:] + line[0], y)
        found = found + decay * line[1:].square().sum()
        found.backward()
        return found

    optimiser.step(loss)
    with torch.no_grad():
        return (others - mean) / deviation @ line[1:] + line[0]


def compare(found: dict[str, Tensor], shares: Tensor, inside: Tensor, n: int, held_out: int, report: Path) -> None:
    """Print and write what the probe reaches on each tower's features (images, h, w, C): trained on the first n images,
    tested on those from `held_out` on."""
    lines = ["linear probes, pixel AUROC on the held-out images, mean within images:"]
    for name, values in found.items():
        scores = probed(values[:n], shares[:n], inside[:n], values[held_out:])
        lines.append(f"  {name}: {auroc(scores, shares[held_out:], inside[held_out:])}")
    print(*lines, sep="\n")
    report.write_text("\n".join(lines) + "\n")


def auroc(scores: Tensor, shares: Tensor, inside: Tensor) -> str:
    """Over the pixels of all images, each with its cell's score, and the mean over images that have both kinds."""
    each = [area(s[i], w[i]) for s, w, i in zip(scores, shares, inside, strict=True) if 0 < w[i].sum() < i.sum()]
    return f"{area(scores[inside], shares[inside]):.3f}, {sum(each) / max(len(each), 1):.3f}"


def area(scores: Tensor, shares: Tensor) -> float:
    """Area under the ROC curve of cells of which a share is positive, the rest negative. Both (n,)."""
    from sklearn.metrics import roc_auc_score

    kinds = torch.ones_like(scores), torch.zeros_like(scores)
    weights = shares.double()
    return float(roc_auc_score(torch.cat(kinds), scores.repeat(2), sample_weight=torch.cat([weights, 1 - weights])))
