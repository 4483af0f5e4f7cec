"""Probabilities of a closed list of answers (yes, no) from the distribution of the first answer token."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from stages.base.errors import InputError


def spellings(choice: str) -> tuple[str, ...]:
    """'yes' -> yes, Yes, YES, and each after a blank: how a model may begin this answer."""
    words = dict.fromkeys((choice.lower(), choice.capitalize(), choice.upper()))
    return (*words, *(f" {w}" for w in words))


def first_tokens(encode: Callable[[str], Sequence[int]], choices: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Choice -> the token ids with which it can begin. A token that begins several choices (a lone blank)
    tells nothing and is left out.

    encode: text -> token ids, without special tokens.

    Raises:
        InputError: some choice has no token of its own.
    """
    found = {c: {encode(s)[0] for s in spellings(c)} for c in choices}
    shared = {t for t, n in Counter(t for tokens in found.values() for t in tokens).items() if n > 1}
    own = {c: tuple(sorted(tokens - shared)) for c, tokens in found.items()}
    for choice, tokens in own.items():
        if not tokens:
            raise InputError(
                f"the answers {', '.join(choices)} cannot be told apart by their first token with"
                f" this tokenizer ({choice!r} has none of its own)"
            )
    return own


def choice_probabilities(logprobs: Mapping[int, float], tokens: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Choice -> sum of the probabilities of its first tokens. logprobs: token id -> log-probability, nats;
    a token that is not listed counts as 0."""
    return {c: sum(math.exp(logprobs[t]) for t in ids if t in logprobs) for c, ids in tokens.items()}
