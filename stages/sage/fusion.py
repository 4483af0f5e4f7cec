"""What SAGE adds to a vision-language model: differing patches, fusion attention, projection (Eq. 1, 2, 9)."""

from stages.training.prepared import torch

from torch import Tensor, nn
from torch.nn import functional as F

RULES = ("max", "min")


def differing(test: Tensor, reference: Tensor, k: int, rule: str = "max") -> Tensor:
    """Eq. 1: the k patches of the test image that are least similar to the reference image, (min(k, T), C).

    test: (T, C); reference: (R, C): patches after the adapter, where both images and words live. Least similar
    first; of equal ones the first.
    rule: max = least similar to any reference patch, that is the lowest of the highest cosine similarities: a patch
    that nothing in the reference resembles, which is what the text describes and what patch-based detectors score.
    min = Eq. 1 as printed, the lowest of the lowest: it finds patches that are opposed to some one reference patch,
    however well another one matches, and so picks normal patches of a varied object.
    """
    similarity = F.normalize(test.float(), dim=-1) @ F.normalize(reference.float(), dim=-1).T  # (T, R)
    nearest = similarity.amax(1) if rule == "max" else similarity.amin(1)
    return test[nearest.argsort(stable=True)[:k]]  # Eq. 1


class Fusion(nn.Module):
    """Fact vectors and differing patches -> the comparison-enhanced prompt, in the space of word embeddings."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, width)

    @torch.no_grad()
    def start(self, scale: float, generator: torch.Generator) -> None:
        """Initial weights; scale: root mean square of the word embeddings.

        The paper trains all parts at a peak rate of 2e-6, at which a random layer stays random. So values and
        projection start as identity, with the norm's gain at the scale of words: every prompt vector starts as a
        weighted mean of differing patches that the language model can read as it reads patches. Queries and keys start
        as random rotations, as usual; queries divide by `scale`, because word embeddings are small (0.02 or so) and
        all facts would ask the same question.
        """
        width = self.query.in_features
        for layer, gain in ((self.query, 1 / scale), (self.key, 1.0)):
            start = torch.randn(width, width, generator=generator) / width**0.5
            layer.weight.copy_(start * gain)
        for layer in (self.value, self.project):
            layer.weight.copy_(torch.eye(width))
        self.project.bias.zero_()
        self.norm.weight.fill_(scale)
        self.norm.bias.zero_()

    def forward(self, facts: Tensor, patches: Tensor) -> Tensor:
        """facts: (N, C), pooled sentences; patches: (K, C) -> (N, C), one vector per fact sentence."""
        return self.project(self.norm(self.attend(facts, patches)))  # phi_Proj of Eq. 9

    def attend(self, facts: Tensor, patches: Tensor) -> Tensor:
        """Eq. 2, (N, C): facts ask, patches are keys and values.

        Eq. 2 has v_d as keys and v_t as values, K rows against T: the product is not defined unless they are the
        same patches. Of the two, only v_d holds what the comparison found.
        """

        def split(x: Tensor) -> Tensor:  # (n, C) -> (heads, n, C / heads)
            return x.unflatten(-1, (self.heads, -1)).transpose(0, 1)

        mixed = F.scaled_dot_product_attention(
            split(self.query(facts)), split(self.key(patches)), split(self.value(patches))
        )
        return mixed.transpose(0, 1).flatten(1)  # Eq. 2


class ReleasedFusion(nn.Module):
    """What the released code does in its place: torch's multi-head attention with biases, without norm or residual,
    over all patches of the test image. redraw: in every pass the output projection is drawn anew, as there, so that it
    never learns and every pass reads the patches through another random map; False: drawn once, and learned."""

    def __init__(self, width: int, heads: int, redraw: bool) -> None:
        super().__init__()
        self.redraw = redraw
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    @torch.no_grad()
    def start(self, scale: float, generator: torch.Generator) -> None:
        """Initial weights: Xavier-uniform, biases 0. scale: not used."""
        for weight in (self.attention.in_proj_weight, self.attention.out_proj.weight):
            nn.init.xavier_uniform_(weight, generator=generator)
        for bias in (self.attention.in_proj_bias, self.attention.out_proj.bias):
            bias.zero_()

    @torch.no_grad()
    def begin(self) -> None:
        """Before the samples of a pass."""
        if self.redraw:
            nn.init.xavier_uniform_(self.attention.out_proj.weight)
            self.attention.out_proj.bias.zero_()

    def forward(self, facts: Tensor, patches: Tensor) -> Tensor:
        """facts: (N, C), pooled lines; patches: (T, C) -> (N, C), one vector per line."""
        mixed, _ = self.attention(facts[None], patches[None], patches[None], need_weights=False)
        return mixed[0]
