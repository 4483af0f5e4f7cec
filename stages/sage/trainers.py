"""Trainers: transformers' own for SFE, TRL's DPOTrainer with a margin for E-DPO."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import Trainer, TrainingArguments
from trl import DPOConfig, DPOTrainer

from stages.base.errors import InputError
from stages.sage.data import IGNORED, Encoder, Sample
from stages.sage.training import TrainingOptions
from stages.training.trainer import TrainableOnlyCheckpoints, one_gpu, run_trainer


def on_one_gpu(arguments: TrainingArguments) -> TrainingArguments:
    """One GPU for each process. With shards and bf16 gradients are summed, and losses and log-probabilities handed on,
    in float32: accelerate's own policy rounds them to bf16, by as much as pairs of answers differ."""
    if arguments.fsdp and arguments.bf16:
        arguments.fsdp_plugin_args["mixed_precision_policy"] = MixedPrecisionPolicy(torch.bfloat16, torch.float32)
    return one_gpu(arguments)


class SfeTrainer(TrainableOnlyCheckpoints, Trainer):
    """Eq. 8 is the model's own loss."""


def sfe_trainer(
    model: Any, encoder: Encoder, samples: Sequence[Sample], answers: Sequence[str], keywords: dict
) -> SfeTrainer:
    """keywords: see `training.arguments`."""

    def collate(rows: list[tuple[Sample, str]]) -> dict:
        some, said = zip(*rows, strict=True)
        inputs = encoder.batch(some, [said])
        learned = inputs.pop("completion_mask").bool()
        return inputs | {"labels": inputs["input_ids"].masked_fill(~learned, IGNORED)}

    arguments = on_one_gpu(TrainingArguments(**keywords))
    data = list(zip(samples, answers, strict=True))
    return SfeTrainer(model=model, args=arguments, train_dataset=data, data_collator=collate)


class EdpoTrainer(TrainableOnlyCheckpoints, DPOTrainer):
    """DPO with a margin per pair.

    DPO form (default): d = beta [log-ratio of the winner - log-ratio of the loser] - eta dH, log-ratios to the SFE
    model. Eq. 6 as printed has no pi_ref, but the text says that pi_ref stabilises training by KL regularisation; the
    log-ratios of DPO are how a reference enters a Bradley-Terry term with just that effect. printed = Eq. 6 to the
    letter: log-probabilities themselves and no beta.

    A margin m is nothing but a reference that finds the winner exp(m / beta) times as likely: so the reference's
    log-probabilities are shifted, and loss and metrics stay TRL's.
    """

    def __init__(self, printed: bool, **keywords: Any) -> None:
        super().__init__(**keywords)
        self.printed = printed
        self.precompute_ref_logps = True  # TRL's loss then takes the reference from the batch: from us

    def _compute_loss(self, model, inputs, return_outputs=False):
        inputs = dict(inputs)
        margin = inputs.pop("margin")
        if self.printed:
            winner, loser = torch.zeros_like(margin), torch.zeros_like(margin)
        else:
            winner, loser = self.compute_ref_log_probs(self.ref_model or self.model, inputs)
        inputs |= {"ref_chosen_logps": winner + margin / self.beta, "ref_rejected_logps": loser}
        return super()._compute_loss(model, inputs, return_outputs)

    def _send_telemetry(self):
        """TRL reports each training to its makers; a training here tells nobody."""

    def create_model_card(self, *args, **keywords):
        """Saved states are taken away at the end; they need no card."""


def edpo_trainer(
    model: Any,
    reference: Any,
    encoder: Encoder,
    samples: Sequence[Sample],
    pairs: Sequence[tuple[int, str, str, float]],
    beta: float,
    printed: bool,
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
    arguments = on_one_gpu(DPOConfig(**keywords, beta=1.0 if printed else beta, max_length=None))
    return EdpoTrainer(
        printed,
        model=model,
        ref_model=reference,
        args=arguments,
        train_dataset=data,
        processing_class=encoder.processor,
        data_collator=collate,
    )


def fit(trainer: Trainer, saved: Path | None, say: Callable[[str], None], config: TrainingOptions) -> dict:
    """Train, from a saved state if there is one; the state dict at the end, whole where the model is sharded.

    Raises:
        InputError: --fsdp where accelerate does not shard (CPUs): it would train whole copies and say nothing.
    """
    if config.fsdp and not trainer.is_fsdp_enabled:
        raise InputError(f"--fsdp: nothing is sharded on --device {trainer.args.device.type}; leave it out there")
    run_trainer(trainer, saved, say, config.out, config.warmup)
    return trainer.accelerator.get_state_dict(trainer.model_wrapped)
