"""Any OpenAI-compatible server, many requests in flight. Back-off, jitter and Retry-After are the client's.

What is sent: one user message with the images as data URLs (lossless PNG, so that a server sees the very
pixels that another engine would), sampling parameters and the row's seed.
"""

import base64
import io
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice
from typing import TYPE_CHECKING, Any

from stages.base.errors import InputError
from stages.base.texts import escaped, is_sound
from stages.vlm.bounded_http import TooLarge, bounded_client
from stages.vlm.choices import choice_probabilities, first_tokens, spellings
from stages.vlm.engine import Lap, Reply, Request, Sampling
from stages.vlm.models import SHORT_NAMES
from stages.vlm.pixels import PixelLimits
from stages.vlm.prefetch import Ready, RequestPrefetch
from stages.vlm.secrets import Address, Redactor, address_of, redactor, require_sendable

if TYPE_CHECKING:
    from stages.vlm.options import EngineOptions

TOP = 20  # most log-probabilities that the interface gives per token
USUAL_KEY = "OPENAI_API_KEY"  # its variable may be unset: most servers of one's own ask for no key
MOST_TEXT = 2**20  # characters of an answer
ROUNDING = 1e-3  # above 0, of a log-probability
# vLLM's server takes what a request does not say from the checkpoint's generation_config.json
PLAIN = {"repetition_penalty": 1.0, "top_k": 0, "min_p": 0.0}


@dataclass(frozen=True)
class ServerEngine:
    """client: openai.OpenAI. is_vllm: the server says that it is one, and takes vLLM's own parameters. address: as it
    may be shown. redact: takes the key out of all that the server says. tokens: what a choice can begin with, by
    choices; filled on demand from a vLLM server's tokenizer."""

    name: str
    fingerprint: str
    options: "EngineOptions"
    client: Any = field(repr=False)
    is_vllm: bool
    address: str
    redact: Redactor
    ran_on: str = "server"
    caveat: str = "what the server runs, and whether a seed repeats a text, is up to the server"
    tokens: dict = field(default_factory=dict)
    stopped: threading.Event = field(default_factory=threading.Event)
    accepted: threading.Event = field(default_factory=threading.Event)  # the server has answered a request with a text

    @property
    def deterministic(self) -> bool:
        """True for vLLM's own server, which draws by the request's seed; others may leave the seed aside without
        saying so, so that asking them again may help."""
        return self.is_vllm

    def run(self, requests: Iterable[Request], sampling: Sampling) -> Iterator[Reply]:
        """See Engine.run. At most twice `concurrency` requests are decoded or in flight.

        A server that refuses a request (key, rights, model, a redirect) before it has accepted any ends the run, once
        the requests in flight have ended; afterwards it is that request's error.

        Raises:
            InputError: it refused, and accepted none.
        """
        options = self.options
        limits = PixelLimits(options.min_pixels, options.max_pixels)
        self.stopped.clear()
        with RequestPrefetch(requests, limits, options.threads, options.concurrency) as decoded:
            flying: dict[Future, tuple] = {}  # -> key
            refused: list[tuple[tuple, InputError]] = []  # and not known yet whether all are
            lap = Lap()
            try:
                while decoded or flying or refused:
                    for item in islice(decoded, 0 if refused else options.concurrency - len(flying)):
                        if isinstance(item, Reply):
                            yield item
                        else:
                            flying[_on_a_thread(self._ask, item, sampling)] = item[0].key
                    ended = []
                    for future in wait(flying, return_when=FIRST_COMPLETED).done if flying else ():
                        key = flying.pop(future)
                        try:
                            reply = future.result()
                        except InputError as e:
                            refused.append((key, e))
                        else:
                            ended.append(reply)
                    yield from lap.shared(ended)
                    if self.accepted.is_set():
                        yield from (Reply(key, error=f"server: {e}") for key, e in refused)
                        refused.clear()
                    elif refused and not flying:
                        raise refused[0][1]
            finally:
                self.stopped.set()

    def _ask(self, item: Ready, sampling: Sampling) -> Reply:
        """One request to its end. Raises InputError when the server refuses it for a reason that seems to be no matter
        of this request: key, rights, model, a redirect."""
        import openai

        request, images = item
        parts: list[dict] = [{"type": "image_url", "image_url": {"url": data_url(i)}} for i in images]
        message = {"role": "user", "content": [*parts, {"type": "text", "text": request.text}]}
        left = self.options.retries  # shared by the client's own retries and those below
        while not self.stopped.is_set():
            raw = None
            try:
                raw = self.client.with_options(max_retries=left).chat.completions.with_raw_response.create(
                    model=self.name,
                    messages=[message],
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    max_tokens=sampling.max_tokens,
                    seed=request.seed % 2**63,
                    **self._more(request.choices),
                )
                reply = self._reply(request, raw.parse())
                self.accepted.set()
                return reply
            except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as e:
                raise InputError(
                    f"{self.address}: {_said(e, self.redact)} (the key is read from ${self.options.api_key_env})"
                ) from None
            except openai.APIStatusError as e:  # after the client's own retries
                return Reply(request.key, error=f"server: {_said(e, self.redact)}")
            except openai.APIConnectionError as e:
                return Reply(
                    request.key, error=f"server: {one_line(e, self.redact)} ({self.options.retries + 1} tries)"
                )
            except TooLarge as e:
                return Reply(request.key, error=f"server: {e}")
            except InputError:
                raise
            except Exception as e:  # a body that was cut, or is no completion
                left -= raw.retries_taken + 1 if raw else 1
                if left < 0:
                    said = one_line(e, self.redact, 120)
                    return Reply(
                        request.key,
                        error=f"server: an unusable reply ({self.options.retries + 1} tries, the"
                        f" last: {type(e).__name__}: {said})",
                    )
                time.sleep(random.uniform(0.1, 1.0))
        return Reply(request.key, error="interrupted")  # nobody reads it any more

    def _more(self, choices: tuple[str, ...]) -> dict:
        """Log-probabilities of what the choices begin with, and vLLM's own parameters where it is one."""
        body = dict(PLAIN) if self.is_vllm else {}
        if not choices:
            return {"extra_body": body}
        if tokens := self._first_tokens(choices):  # versions that do not know logprob_token_ids give the top ones
            body |= {
                "logprob_token_ids": sorted({t for group in tokens.values() for t in group}),
                "return_tokens_as_token_ids": True,
            }
        return {"logprobs": True, "top_logprobs": TOP, "extra_body": body}

    def _first_tokens(self, choices: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
        """Token ids by choice from the server's own tokenizer; empty where it is no vLLM or has none."""
        if choices not in self.tokens:
            self.tokens[choices] = self._tokenized(choices) if self.is_vllm else {}
        return self.tokens[choices]

    def _tokenized(self, choices: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
        import openai

        root = self.client.with_options(base_url=self.address.rstrip("/").removesuffix("/v1"))

        def encode(text: str) -> list[int]:
            body = {"model": self.name, "prompt": text, "add_special_tokens": False}
            return root.post("/tokenize", cast_to=object, body=body)["tokens"]

        try:
            return first_tokens(encode, choices)
        except (openai.APIStatusError, ValueError, KeyError, TypeError, IndexError):
            return {}  # no tokenizer there: probabilities come from the most probable tokens

    def _reply(self, request: Request, reply: Any) -> Reply:
        answer, usage = reply.choices[0], reply.usage
        content = answer.message.content
        if content is None and answer.message.refusal:
            return Reply(
                request.key, error=f"refused: {one_line(answer.message.refusal, self.redact)}", retry=self._final
            )
        if not isinstance(content, str | None):
            raise TypeError(f"the content is a {type(content).__name__}, not a text")
        text, error = self.redact(content or ""), None
        if len(text) > MOST_TEXT:
            text, error = None, f"server: an answer of {len(text):,} characters; more than {MOST_TEXT:,} are not read"
        elif not is_sound(text):
            text = escaped(text)
            error = f"server: the answer holds half a character, a lone surrogate: {one_line(text, self.redact)}"
        reason = answer.finish_reason
        return Reply(
            request.key,
            text,
            one_line(reason, self.redact, 40) if isinstance(reason, str) else None,
            _count(usage and usage.prompt_tokens),
            _count(usage and usage.completion_tokens),
            self._probabilities(request.choices, answer),
            error,
            self._final if error else None,
        )

    @property
    def _final(self) -> bool | None:
        return False if self.deterministic else None

    def _probabilities(self, choices: tuple[str, ...], answer: Any) -> dict[str, float] | None:
        if not choices or not answer.logprobs or not answer.logprobs.content:
            return None
        first = answer.logprobs.content[0].top_logprobs
        if wrong := [t.logprob for t in first if not t.logprob <= ROUNDING]:
            raise ValueError(f"a log-probability of {wrong[0]}")
        if tokens := self._first_tokens(choices):
            logprobs = {
                int(t.token.removeprefix("token_id:")): t.logprob for t in first if t.token.startswith("token_id:")
            }
            listed = logprobs.keys() & {t for group in tokens.values() for t in group}
            return choice_probabilities(logprobs, tokens) if listed else None
        return probabilities_by_text({t.token: t.logprob for t in first}, choices)


def _on_a_thread(work: Callable, *arguments: Any) -> Future:
    """As an executor's `submit`, on a daemon thread: Ctrl-C must not wait for a server that does not answer."""
    future: Future = Future()

    def body() -> None:
        try:
            future.set_result(work(*arguments))
        except BaseException as e:  # whoever asks for the result gets it
            future.set_exception(e)

    threading.Thread(target=body, daemon=True).start()
    return future


def probabilities_by_text(logprobs: dict[str, float], choices: tuple[str, ...]) -> dict[str, float] | None:
    """Choice -> probability, where the server names tokens by their text. A choice that is not among the
    most probable tokens counts as 0, which it is to within the least of them; None when none is."""
    texts = {c: [s for s in spellings(c) if s in logprobs] for c in choices}
    if not any(texts.values()):
        return None
    numbers = {s: i for i, s in enumerate(logprobs)}
    return choice_probabilities(
        {numbers[s]: p for s, p in logprobs.items()}, {c: [numbers[s] for s in spelled] for c, spelled in texts.items()}
    )


def data_url(rgb: Any) -> str:
    """(H, W, 3) uint8 -> PNG as a data URL."""
    from PIL import Image

    png = io.BytesIO()
    Image.fromarray(rgb).save(png, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"


def open_server(name: str, options: "EngineOptions") -> ServerEngine:
    """Connect and ask which models there are.

    Raises:
        InputError: no address, nothing there that speaks this interface, or it has no such model.
    """
    try:
        import openai
    except ModuleNotFoundError:
        raise InputError("--engine server needs the package openai: pip install 'adcli[server]'") from None
    address, key, redact = credentials(options)
    auth = (address.user or "", address.password or "") if address.user or address.password else None
    client = openai.OpenAI(
        base_url=address.url,
        api_key=key or "none",
        max_retries=options.retries,
        timeout=options.timeout,
        http_client=bounded_client(options.timeout, auth, address.url),
    )
    try:
        served = {m.id: getattr(m, "owned_by", "") for m in client.models.list().data}
    except openai.APIStatusError as e:
        raise InputError(f"{address.url}: {_said(e, redact)} (the key is read from ${options.api_key_env})") from None
    except openai.APIConnectionError as e:
        raise InputError(f"{address.url}: no server answers there ({one_line(e, redact)})") from None
    except InputError:
        raise
    except Exception:  # HTML, a list of something else, an answer without end
        raise InputError(
            f"{address.url}: answers, but not as an OpenAI-compatible server does; does the address end in /v1?"
        ) from None
    name = name if name in served else SHORT_NAMES.get(name, name)
    if name not in served:
        raise InputError(f"{address.url}: has no model {name!r}; {_offer(name, served, redact)}")
    return ServerEngine(name, f"server:{name}", options, client, served[name] == "vllm", address.url, redact)


def credentials(options: "EngineOptions") -> tuple[Address, str, Redactor]:
    """(address, key, what takes both out of texts) as --base-url and --api-key-env say.

    Raises:
        InputError: no address, no variable of that name, or a key that no header can hold.
    """
    if not options.base_url:
        raise InputError("--engine server needs --base-url, such as http://localhost:8000/v1")
    address, variable = address_of(options.base_url), options.api_key_env
    if not re.fullmatch(r"[A-Za-z_]\w*", variable):
        raise InputError(
            "--api-key-env: expected the name of an environment variable, such as OPENAI_API_KEY, and not the key"
        )
    if variable != USUAL_KEY and variable not in os.environ:
        raise InputError(f"--api-key-env {variable}: there is no such environment variable")
    key = require_sendable(os.environ.get(variable, ""), variable)
    return address, key, redactor(key, address.password)


def _offer(name: str, served: dict, redact: Redactor) -> str:
    close = get_close_matches(name, served, 1, 0.6)
    names = [one_line(n, redact, 80) for n in [*close, *(n for n in served if n not in close)]]
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    hint = f"did you mean {names[0]}? It" if close else "it"
    return f"{hint} serves {', '.join(names[:10]) or 'none'}{more}"


def _count(value: Any) -> int | None:
    """A number of tokens, as far as a table can hold it."""
    return value if type(value) is int and 0 <= value < 2**31 else None


def one_line(said: Any, redact: Redactor, most: int = 200) -> str:
    """The first line of what a server said, without its key, half characters and control codes."""
    lines = redact(escaped(str(said))).strip().splitlines() or [""]
    return "".join(c if c.isprintable() else "?" for c in lines[0][:most])


def _said(error: Any, redact: Redactor) -> str:
    """Status and the server's own words, in one line."""
    body = error.body if isinstance(error.body, dict) else {}
    return f"{error.status_code} {one_line(body.get('message') or error.message, redact)}"
