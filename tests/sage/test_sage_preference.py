"""What E-DPO's trainer computes, from log-probabilities of two models."""

import math

import numpy as np
import pytest

from stages.sage.entropy import edpo_loss, pairs_of
from tests.sage_world import SCORES, log_probabilities, shaken, trainer_for

pytestmark = pytest.mark.slow

GAPS = [p.gap for p in pairs_of([sum(s) / 3 for s in SCORES])]


@pytest.mark.parametrize("rank", [4, 0])
def test_the_loss_of_edpo(tiles, sfe_models, tmp_path, rank):
    """Without a margin TRL's own DPO loss; with it Eq. 6 and 7, in both forms, from log-probabilities of two models."""
    import torch
    from trl import DPOTrainer

    from stages.sage.checkpoint import load_sage

    sfe_model = load_sage(sfe_models[rank]).model
    plain = trainer_for(tiles, sfe_models[rank], tmp_path, eta=0.0)
    batch = shaken(plain)
    found = float(plain.compute_loss(plain.model, batch).detach())
    stock = {n: t for n, t in batch.items() if n != "margin"}
    plain.precompute_ref_logps = False
    with torch.no_grad():
        expected = float(DPOTrainer._compute_loss(plain, plain.model, stock, False))
    assert found == pytest.approx(expected, abs=1e-6) and abs(found - math.log(2)) > 1e-3

    for form, anchor in (("dpo", 0.0), ("printed", 0.0), ("dpo", 0.5)):
        trainer = trainer_for(tiles, sfe_models[rank], tmp_path, form, 2.0, 0.3, anchor)
        batch = shaken(trainer)
        assert batch["margin"].tolist() == pytest.approx([2 * g for g in GAPS] * 2)
        winners, losers = log_probabilities(trainer.model, batch)
        nll = -sum(winners) / int(batch["completion_mask"].chunk(2)[0].sum())
        if form == "dpo":
            theirs = log_probabilities(sfe_model, batch)
            winners, losers = (
                [0.3 * (own - other) for own, other in zip(a, b, strict=True)]
                for a, b in zip((winners, losers), theirs, strict=True)
            )
        expected = np.mean([edpo_loss(*v) for v in zip(winners, losers, batch["margin"].tolist(), strict=True)])
        found = float(trainer.compute_loss(trainer.model, batch).detach())
        assert found == pytest.approx(expected + anchor * nll, abs=1e-4), "the anchor: mean over the winners' tokens"


@pytest.mark.parametrize("rank", [4, 0])
def test_the_released_mixed_loss(tiles, sfe_models, tmp_path, rank):
    """Two batches: per pair 0.8 -logsig(w - l) + 0.2 [-logsig(w - d) - logsig(d - l)], d over both; 1.0 NLL."""
    from stages.sage.checkpoint import load_sage

    def logsig(x):
        return -math.log1p(math.exp(-x))

    trainer, sfe_model = (
        trainer_for(tiles, sfe_models[rank], tmp_path, "mpo", 0.0, 0.1, 1.0),
        load_sage(sfe_models[rank]).model,
    )
    shaken(trainer)
    trainer.model.train()
    rows, means = list(trainer.train_dataset), []
    for some in (rows[:3], rows[3:]):
        batch = trainer.data_collator(some)
        own, theirs = log_probabilities(trainer.model, batch), log_probabilities(sfe_model, batch)
        won, lost = ([0.1 * (a - b) for a, b in zip(x, y, strict=True)] for x, y in zip(own, theirs, strict=True))
        means.append(np.mean(won + lost))
        d = np.mean(means)
        expected = np.mean(
            [-0.8 * logsig(a - b) - 0.2 * (logsig(a - d) + logsig(d - b)) for a, b in zip(won, lost, strict=True)]
        ) - sum(own[0]) / int(batch["completion_mask"].chunk(2)[0].sum())
        assert float(trainer.compute_loss(trainer.model, batch).detach()) == pytest.approx(expected, abs=1e-4)
    assert abs(d) > 1e-3, "without d it would be another loss"
    trainer._save(str(tmp_path / "state"))
    again = trainer_for(tiles, sfe_models[rank], tmp_path, "mpo", 0.0, 0.1, 1.0)
    again._load_from_checkpoint(str(tmp_path / "state"))
    assert (again.batches, again.mean_reward) == (2, pytest.approx(d, abs=1e-5)), "a killed training goes on with it"
