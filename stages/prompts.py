"""Prompts are files: `prompts/<id>.txt` in the package, or any text file of the user's."""

import hashlib
import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path

from stages.errors import InputError


@dataclass(frozen=True)
class Prompt:
    """id: as it stands in the captions table; text: what the engine is asked; fingerprint: of the text."""

    id: str
    text: str
    fingerprint: str


@cache
def load_prompt(prompt_id: str) -> Prompt:
    """Find a prompt by id (`vidad/fruits`) or by the path of a text file.

    Raises:
        InputError: neither exists; names the ids that look alike.
    """
    path = Path(prompt_id)
    if path.suffix == ".txt" and path.is_file():
        text = path.read_text()
    elif prompt_id in prompt_ids():
        text = files("prompts").joinpath(f"{prompt_id}.txt").read_text()
    else:
        close = get_close_matches(prompt_id, prompt_ids(), 3, 0.4)
        hint = f"did you mean {', '.join(close)}?" if close else f"there are {', '.join(prompt_ids())}"
        raise InputError(f"no prompt {prompt_id!r}: {hint} (or give the path of a .txt file)")
    return Prompt(prompt_id, text.strip(), hashlib.sha256(text.strip().encode()).hexdigest()[:32])


@cache
def prompt_ids() -> list[str]:
    """All packaged prompts."""
    root = Path(str(files("prompts")))
    return sorted(p.relative_to(root).with_suffix("").as_posix() for p in root.rglob("*.txt"))


def fill(prompt: Prompt, **fields: str) -> str:
    """The prompt's text with `{name}` replaced; other braces stay. Raises InputError when a field that
    must be filled does not occur."""
    for name in fields:
        if f"{{{name}}}" not in prompt.text:
            raise InputError(f"prompt {prompt.id}: has no {{{name}}}")
    named = re.compile("{(" + "|".join(map(re.escape, fields)) + ")}")       # at once: a value may hold {name} itself
    return named.sub(lambda field: fields[field[1]], prompt.text)
