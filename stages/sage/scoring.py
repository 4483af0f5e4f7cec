"""Replies and likelihoods of a trained SAGE."""

from collections.abc import Sequence

import torch
from transformers import GenerationConfig

from stages.sage.checkpoint import Loaded
from stages.sage.data import Encoder, Sample
from stages.sage.model import core_of, embedded


class Answering:
    """A model on its device, with what turns samples into its inputs."""

    def __init__(self, loaded: Loaded, device: str, max_tokens: int) -> None:
        self.model = loaded.model.to(device)
        self.settings, self.device, self.max_tokens = loaded.settings, device, max_tokens
        self.encoder = Encoder(loaded.processor, loaded.settings)
        self.context = self.model.config.get_text_config().max_position_embeddings
        old, tokenizer = self.model.generation_config, loaded.processor.tokenizer
        self.model.generation_config = GenerationConfig(  # without the checkpoint's own sampling defaults
            eos_token_id=old.eos_token_id or tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
        )

    def room(self, sample: Sample, choices: Sequence[str] | None) -> int:
        """Tokens of the context that are left beside the prompt and its longest answer; below 0 it does not fit.
        choices: the answers, or None for a reply of up to max_tokens."""
        longest = max(len(self.encoder.answer(sample, c)) for c in choices) if choices else self.max_tokens
        return self.context - self.encoder.length(sample) - longest

    @torch.inference_mode()
    def replies(self, samples: Sequence[Sample]) -> list[str]:
        """What the model says, greedy. Raises ImageError."""
        inputs = self._inputs(samples, ((),), left=True)
        inputs.pop("completion_mask")
        ready = embedded(core_of(self.model), inputs, self.settings)
        said = self.model.generate(
            inputs_embeds=ready["inputs_embeds"],
            attention_mask=ready["attention_mask"],
            max_new_tokens=self.max_tokens,
            do_sample=False,
        )
        return [t.strip() for t in self.encoder.processor.tokenizer.batch_decode(said, skip_special_tokens=True)]

    @torch.inference_mode()
    def likelihoods(self, sample: Sample, choices: Sequence[str]) -> tuple[list[float], list[int]]:
        """(exp of the mean log-probability of each choice's tokens, the end of the turn included; their numbers).
        Raises ImageError."""
        sums, lengths = self.log_probabilities([sample], [[c] for c in choices])
        return (sums / lengths).exp().tolist(), lengths.tolist()

    @torch.inference_mode()
    def log_probabilities(
        self, samples: Sequence[Sample], answers: Sequence[Sequence[str]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(sum of the log-probabilities of an answer's tokens, their number), both (S,), in the order of
        `Encoder.batch`."""
        inputs = self._inputs(samples, answers)
        mask, ids = inputs.pop("completion_mask")[:, 1:], inputs["input_ids"][:, 1:]
        logits = self.model(**inputs, use_cache=False).logits[:, :-1]
        found = logits.float().log_softmax(-1).gather(-1, ids[..., None])[..., 0]
        return (found * mask).sum(1), mask.sum(1)

    def _inputs(self, samples: Sequence[Sample], answers: Sequence[Sequence[str]], left: bool = False) -> dict:
        return {n: t.to(self.device) for n, t in self.encoder.batch(samples, answers, left).items()}
