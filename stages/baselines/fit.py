"""anomalib's models, fitted to the normal images of one task, with bounded memory.

Every training image is also scored as if it had not been there, since thresholds come from these scores: a model that
has seen an image finds it too normal. PaDiM leaves one out exactly, in closed form; PatchCore searches a bank without
the image's own patches; DFM and DFKDE, which have no such short cut, are fitted five more times without a fifth each.
"""

import io
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from math import ceil

from stages.training.prepared import torch

from anomalib.data import InferenceBatch
from anomalib.models.components.sampling import KCenterGreedy
from anomalib.models.image.dfkde.torch_model import DfkdeModel
from anomalib.models.image.dfm.torch_model import DFMModel
from anomalib.models.image.padim.torch_model import PadimModel
from anomalib.models.image.patchcore.torch_model import PatchcoreModel
from torch import Tensor, nn

from stages.base.errors import ImageError
from stages.baselines.backbone import Backbone, OneByOne
from stages.baselines.config import FOLDS, BaselineConfig

RIDGE = 0.01 + 1e-5  # what anomalib adds to a covariance's diagonal
POSITIONS = 256  # covariances that are inverted at a time
FITTED_PART = {"dfm": "pca_model", "dfkde": "classifier"}

Batches = Iterable[Tensor]  # of images (B, 3, S, S), normalised, in order


@dataclass(frozen=True)
class Fitted:
    """predict: images (B, 3, S, S) -> anomalib's raw scores (B,) and maps (B, 1, S, S); left_out: the same for the
    training images of these numbers, by what the other images say."""

    predict: Callable[[Tensor], InferenceBatch]
    left_out: Callable[[Tensor, Sequence[int]], InferenceBatch]


def build(config: BaselineConfig, backbone: Backbone) -> nn.Module:
    """An unfitted model of anomalib, whose backbone takes one image at a time. Draws PaDiM's channels from torch's
    generator."""
    levels, name = list(config.levels), backbone.timm_name
    if config.model == "padim":
        model = PadimModel(name, levels, n_features=backbone.padim_channels(config.channels))
    elif config.model == "patchcore":
        model = PatchcoreModel(levels, name)
    elif config.model == "dfm":
        model = DFMModel(name, levels[0])
    else:
        model = DfkdeModel(name, levels)
    model.feature_extractor = OneByOne(model.feature_extractor)
    return model.eval()


def fit(model: nn.Module, batches: Batches, count: int, config: BaselineConfig) -> Fitted:
    """count: images in `batches`, at most: one that cannot be read is missing there."""
    if config.model == "padim":
        return fit_padim(model, batches)
    if config.model == "patchcore":
        return fit_patchcore(model, batches, ceil(config.patches / count), config.coreset)
    return fit_folds(model, batches, FITTED_PART[config.model])


def fit_padim(model: PadimModel, batches: Batches) -> Fitted:
    """Mean and covariance at each of P positions, from running sums in float64 in place of all embeddings at once.

    Leaving one image out of n scales the covariance by (n - 1) / (n - 2) and takes b d d^T from it, where d is the
    image's difference from the mean of all and b = n / ((n - 1) (n - 2)). With M the scaled covariance plus anomalib's
    ridge and q = d^T M^-1 d, the Sherman-Morrison formula gives the squared Mahalanobis distance to the other images:
    (n / (n - 1))^2 q / (1 - b q).
    """
    n, shift = 0, None
    for images in batches:
        x = _embeddings(model, images)
        if shift is None:  # sums of squares of large means would cancel
            shift = x.mean(1, keepdim=True)
            total, outer = torch.zeros_like(shift[:, 0]), shift.new_zeros(len(x), x.shape[2], x.shape[2])
        x -= shift
        total += x.sum(1)
        outer.baddbmm_(x.mT, x)
        n += x.shape[1]
    outer.baddbmm_(total[:, :, None], total[:, None], alpha=-1 / n).div_(n - 1)
    mean = (shift[:, 0] + total / n).T.contiguous()  # (C, P)
    model.gaussian.mean, model.gaussian.inv_covariance = mean.float(), _inverse(outer).float()
    if n == 2:
        return Fitted(model, _nobody_left)
    generator, b = model.anomaly_map_generator, n / ((n - 1) * (n - 2))

    @cache
    @torch.inference_mode()
    def scaled() -> Tensor:  # only where training images are scored
        return _inverse(outer.mul_((n - 1) / (n - 2)), out=outer)

    def left_out(images: Tensor, numbers: Sequence[int]) -> InferenceBatch:
        embedding = model.generate_embedding(model.feature_extractor(images)).double()
        q = generator.compute_distance(embedding, [mean, scaled()]).square()
        distance = (n / (n - 1) * (q / (1 - b * q).clamp(min=1e-12)).sqrt()).float()
        maps = generator.smooth_anomaly_map(generator.up_sample(distance, images.shape[-2:]))
        return InferenceBatch(pred_score=maps.amax((-2, -1)), anomaly_map=maps)

    return Fitted(model, left_out)


def _embeddings(model: PadimModel, images: Tensor) -> Tensor:
    """(P, B, C) float64."""
    return model.generate_embedding(model.feature_extractor(images)).flatten(2).permute(2, 0, 1).double()


def _inverse(covariance: Tensor, out: Tensor | None = None) -> Tensor:
    """Of (P, C, C) float64 with anomalib's ridge, a few positions at a time; float32 unless it goes to `out`."""
    out = torch.empty_like(covariance, dtype=torch.float32) if out is None else out
    ridge = RIDGE * torch.eye(covariance.shape[1], dtype=covariance.dtype, device=covariance.device)
    for start in range(0, len(covariance), POSITIONS):
        some = slice(start, start + POSITIONS)
        out[some] = torch.linalg.inv(covariance[some] + ridge)
    return out


def fit_patchcore(model: PatchcoreModel, batches: Batches, per_image: int, coreset: float) -> Fitted:
    """A bank of at most `per_image` random patches of each image, then anomalib's greedy coreset of these.

    The coreset is not chosen anew for each image that is left out; that would cost as much as the fit, each time.
    """
    drawn, owners = [], []
    model.train()  # then it returns embeddings
    for images in batches:
        for embedding in model(images).unflatten(0, (len(images), -1)):
            drawn.append(embedding[torch.randperm(len(embedding))[:per_image]])
            owners.append(torch.full((len(drawn[-1]),), len(owners)))
        model.embedding_store.clear()  # anomalib would keep every patch
    model.eval()
    bank, owner = torch.cat(drawn), torch.cat(owners)
    if coreset < 1:
        with redirect_stderr(io.StringIO()):  # its progress bar
            chosen = KCenterGreedy(bank, max(coreset, 1 / len(bank))).select_coreset_idxs()
        bank, owner = bank[chosen], owner[chosen]
    model.memory_bank = bank

    def left_out(images: Tensor, numbers: Sequence[int]) -> InferenceBatch:
        found = []
        try:
            for image, number in zip(images, numbers, strict=True):
                model.memory_bank = bank[owner != number]
                if not len(model.memory_bank):
                    _nobody_left(images, numbers)
                found.append(model(image[None]))
        finally:
            model.memory_bank = bank
        return InferenceBatch(
            pred_score=torch.cat([f.pred_score for f in found]), anomaly_map=torch.cat([f.anomaly_map for f in found])
        )

    return Fitted(model, left_out)


def fit_folds(model: DFMModel | DfkdeModel, batches: Batches, part: str) -> Fitted:
    """Fit to all images and, for `left_out`, to all but each fifth, drawn at random. part: what a fit changes."""
    model.train()  # then it keeps features
    for images in batches:
        model(images)
    model.eval()
    features = torch.vstack(model.memory_bank)
    fold = torch.randperm(len(features)) % FOLDS

    def fitted(rows: Tensor) -> nn.Module:
        model.memory_bank = [features[rows]]
        model.fit()
        return deepcopy(getattr(model, part))

    whole = fitted(torch.ones_like(fold, dtype=torch.bool))
    parts = [fitted(fold != f) for f in range(FOLDS)]

    def left_out(images: Tensor, numbers: Sequence[int]) -> InferenceBatch:
        found = []
        for image, number in zip(images, numbers, strict=True):
            setattr(model, part, parts[fold[number]])
            found.append(model(image[None]))
        setattr(model, part, whole)
        maps = None if found[0].anomaly_map is None else torch.cat([f.anomaly_map for f in found])
        return InferenceBatch(pred_score=torch.cat([f.pred_score for f in found]), anomaly_map=maps)

    setattr(model, part, whole)
    return Fitted(model, left_out)


def _nobody_left(images: Tensor, numbers: Sequence[int]) -> InferenceBatch:
    raise ImageError("too few other normal training images to compare this one with")
