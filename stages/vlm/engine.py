"""What every engine (images + text -> text) takes and gives. One file per engine beside this one."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Sampling:
    """temperature: 0 is greedy; top_p: nucleus mass in (0, 1]; max_tokens: of the answer."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 512


@dataclass(frozen=True)
class Request:
    """One question. `images` come before `text` in a single user message, in this order; the engine
    decodes them. `seed` is the row's own, so that neither batch nor shard changes the answer. `choices`:
    answers such as ('yes', 'no') whose probabilities are wanted beside the text."""

    key: tuple
    text: str
    images: tuple[Path, ...] = ()
    seed: int = 0
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reply:
    """The answer to the request with the same key; `error` instead of `text` when there is none.
    probabilities: choice -> probability that the answer begins with it, 0..1, before temperature and
    top-p; their sum is what the model gives to all choices together, not 1. seconds: see `Lap`. Beside some errors
    `text` holds what was said all the same."""

    key: tuple
    text: str | None = None
    finish_reason: str | None = None  # stop or length
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    probabilities: dict[str, float] | None = None
    error: str | None = None
    retry: bool | None = None  # with `error`: false where the same request would fail in the same way
    seconds: float | None = None

    @property
    def cost(self) -> dict:
        """Of the tables: tokens read and written, and seconds."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "seconds": self.seconds,
        }


class Lap:
    """The time of replies that come together, such as a batch: from the last replies to these, waiting for images
    included, loading the model and writing the last rows left out; divided by their number. Over a whole run the
    seconds are the time that the engine worked, also where it works on many requests at once, so that their mean is
    that of the paper's "each query image took an average of 4.74 seconds"."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def shared(self, replies: Sequence[Reply]) -> Iterator[Reply]:
        """The replies, those with an answer with their `seconds`."""
        answered = sum(r.error is None for r in replies)
        each = (time.monotonic() - self._since) / max(answered, 1)
        for reply in replies:
            yield reply if reply.error else replace(reply, seconds=each)
        if replies:
            self._since = time.monotonic()


class Engine(Protocol):
    """name: for people and provenance; fingerprint: of weights or code, part of the cache key; ran_on:
    device and precision, known once a request has been answered; caveat: what it cannot promise. deterministic: the
    same request gives the same text (but for rare words, where sums round differently), so that asking again for one
    that cannot be used is in vain."""

    name: str
    fingerprint: str
    ran_on: str
    caveat: str
    deterministic: bool

    def run(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Reply]:
        """One reply per request, in any order, as they are ready. Reads ahead by a bounded amount.
        A request that fails (unreadable image, over-long prompt) gives a reply with `error`."""
        ...


def ask(engine: Engine, requests: Iterable[Request], sampling: Sampling, say: Callable[[str], None]) -> Iterator[Reply]:
    """`engine.run`, after one line to the user where the engine has something to say of what it starts on (its
    attribute `plan`, of vLLM: how many of the GPUs). An answer without `seconds` has the time since the last one."""
    if plan := getattr(engine, "plan", ""):
        say(plan)
    lap = Lap()
    for reply in engine.run(requests, sampling):
        (timed,) = lap.shared([reply])
        yield timed if reply.seconds is None else reply


def final(engine: Engine, failed: bool) -> bool | None:
    """For the column `retry` of a row whose text cannot be used: false where another run would give the same text."""
    return False if failed and engine.deterministic else None
