"""What E-DPO optimises: TRL's DPO with a margin per pair, with an anchor, or InternVL's mixed preference loss."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.training.prepared import torch

from datasets import Dataset
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from trl import DPOConfig, DPOTrainer

from stages.sage.data import PromptEncoder, SageSample
from stages.sage.train import sharded_in_float32
from stages.training import distributed
from stages.training.trainer import TrainableOnlyCheckpoints

REWARDS = "rewards.json"  # of a saved state


@dataclass(frozen=True)
class Objective:
    """form: dpo, printed or mpo, see `EdpoTrainer`; sft_weight: of the winner's negative log-likelihood, mean over the
    tokens of a micro-batch, beside it."""

    form: str = "dpo"
    beta: float = 0.1
    sft_weight: float = 0.0

    @property
    def losses(self) -> tuple[list[str], list[float]]:
        """TRL's loss_type and loss_weights."""
        if self.form == "mpo":
            return ["sigmoid", "bco_pair", "sft"], [0.8, 0.2, self.sft_weight]
        return (["sigmoid", "sft"], [1.0, self.sft_weight]) if self.sft_weight else (["sigmoid"], [1.0])


class EdpoTrainer(TrainableOnlyCheckpoints, DPOTrainer):
    """DPO with a margin per pair.

    dpo (default): d = beta [log-ratio of the winner - log-ratio of the loser] - eta dH, log-ratios to the SFE
    model. Eq. 6 as printed has no pi_ref, but the text says that pi_ref stabilises training by KL regularisation; the
    log-ratios of DPO are how a reference enters a Bradley-Terry term with just that effect. printed = Eq. 6 to the
    letter: log-probabilities themselves and no beta.

    A margin m is nothing but a reference that finds the winner exp(m / beta) times as likely: so the reference's
    log-probabilities are shifted, and loss and metrics stay TRL's.

    mpo: what the released code runs under the name of E-DPO, InternVL's mixed preference optimisation. With w and l
    beta times the log-ratios of winner and loser, per pair 0.8 (-logsig(w - l)) + 0.2 (-logsig(w - d) -logsig(d - l)),
    d the mean over all batches so far, this one included, of the mean of a batch's w and l; and the anchor, there of
    weight 1. TRL's bco_pair has no d, so that it, too, is put into the reference.
    """

    def __init__(self, objective: Objective, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.objective = objective
        self.precompute_ref_logps = True  # TRL's loss then takes the reference from the batch: from us
        self.batches, self.mean_reward = 0, 0.0

    def _compute_loss(self, model, inputs, return_outputs=False):
        inputs = dict(inputs)
        margin = inputs.pop("margin")
        if self.objective.form == "printed":
            winner, loser = torch.zeros_like(margin), torch.zeros_like(margin)
        else:
            winner, loser = self.compute_ref_log_probs(self.ref_model or self.model, inputs)
        inputs |= {"ref_chosen_logps": winner + margin / self.beta, "ref_rejected_logps": loser}
        if self.objective.form == "mpo":
            model = self._centred(model, inputs)
        return super()._compute_loss(model, inputs, return_outputs)

    def _centred(self, model: nn.Module, inputs: dict) -> Callable:
        """The model, which after its forward pass puts d into the reference that TRL reads next."""

        def forward(**given: Any) -> Any:
            outputs = model(**given)
            sums = outputs.log_probs[:, -(inputs["completion_mask"].size(1) - 1) :].detach().sum(1)
            reference = torch.cat([inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]])
            reward = self.accelerator.reduce((self.beta * (sums - reference)).mean(), "mean")
            if self.model.training:
                self.batches += 1
                self.mean_reward += (float(reward) - self.mean_reward) / self.batches
            for name in ("ref_chosen_logps", "ref_rejected_logps"):
                inputs[name] = inputs[name] + self.mean_reward / self.beta
            return outputs

        return forward

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        super()._save(output_dir, state_dict)
        (Path(output_dir) / REWARDS).write_text(json.dumps([self.batches, self.mean_reward]))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.batches, self.mean_reward = json.loads((Path(resume_from_checkpoint) / REWARDS).read_text())

    def _send_telemetry(self):
        """TRL reports each training to its makers; a training here tells nobody."""

    def create_model_card(self, *args, **keywords):
        """Saved states are taken away at the end; they need no card."""


def edpo_trainer(
    model: nn.Module,
    reference: nn.Module | None,
    encoder: PromptEncoder,
    samples: Sequence[SageSample],
    pairs: Sequence[tuple[int, str, str, float]],
    objective: Objective,
    keywords: dict,
) -> EdpoTrainer:
    """pairs: (index of the sample, winner, loser, margin). reference: the frozen SFE model; None with LoRA, where TRL
    keeps a frozen copy of the SFE adapter, image adapter included, beside the one that is trained."""

    def collate(rows: list[dict]) -> dict:
        some = [samples[r["sample"]] for r in rows]
        inputs = encoder.batch(some, [[r["winner"] for r in rows], [r["loser"] for r in rows]])
        return inputs | {"margin": torch.tensor([r["margin"] for r in rows])}

    data = Dataset.from_list(
        [  # TRL knows by the column `images` that there is nothing to tokenise
            {"images": [str(i.file) for i in samples[n].shown], "sample": n, "winner": w, "loser": other, "margin": m}
            for n, w, other, m in pairs
        ]
    )
    kinds, weights = objective.losses
    beta = 1.0 if objective.form == "printed" else objective.beta
    arguments = DPOConfig(**keywords, beta=beta, max_length=None, loss_type=kinds, loss_weights=weights)
    whole = reference.state_dict() if reference is not None and distributed.rank() == 0 else {}
    trainer = EdpoTrainer(
        objective,
        model=model,
        ref_model=reference,
        args=sharded_in_float32(arguments),
        train_dataset=data,
        processing_class=encoder.processor,
        data_collator=collate,
    )
    if reference is not None and trainer.is_fsdp_enabled:  # TRL shards what each process has: zeros but on the first
        once = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        set_model_state_dict(trainer.ref_model, whole, options=once)
    return trainer
