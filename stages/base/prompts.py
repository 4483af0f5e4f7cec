"""Prompts are files: `prompts/<id>.txt` in the package, or any text file of the user's."""

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from stages.base.errors import InputError
from stages.base.texts import is_sound, read_text

FOLDER = Path(__file__).resolve().parents[2] / "prompts"  # beside the code, whatever the working folder holds


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
        InputError: neither exists; names the ids that look alike, or the families of ids. Or the file is not UTF-8
            text, or its name is none.
    """
    path = Path(prompt_id)
    if prompt_id in prompt_ids():
        text = read_text(FOLDER / f"{prompt_id}.txt")
    elif path.suffix == ".txt" and path.is_file():
        if not is_sound(prompt_id):
            raise InputError(
                f"--prompt {path}: tables name the prompt by its path, and this one is not UTF-8: rename the file"
            )
        text = read_text(path)
    else:
        close = get_close_matches(prompt_id, prompt_ids(), 3, 0.4)
        hint = f"did you mean {', '.join(close)}?" if close else f"there are {families()}"
        raise InputError(f"no prompt {prompt_id!r}: {hint} (or give the path of a .txt file)")
    return Prompt(prompt_id, text.strip(), hashlib.sha256(text.strip().encode()).hexdigest()[:32])


@cache
def prompt_ids() -> list[str]:
    """All packaged prompts."""
    return sorted(p.relative_to(FOLDER).with_suffix("").as_posix() for p in FOLDER.rglob("*.txt"))


def families() -> str:
    """'general, judge/... (1), lvlm/... (42)': the packaged prompts by the first part of their ids."""
    counts = Counter(i.partition("/")[0] for i in prompt_ids() if "/" in i)
    named = {i: i for i in prompt_ids() if "/" not in i} | {f: f"{f}/... ({n})" for f, n in counts.items()}
    return ", ".join(named[name] for name in sorted(named))


def fill(prompt: Prompt, **fields: str) -> str:
    """The prompt's text with `{name}` replaced; other braces stay. Raises InputError when a field that
    must be filled does not occur."""
    for name in fields:
        if f"{{{name}}}" not in prompt.text:
            raise InputError(f"prompt {prompt.id}: has no {{{name}}}")
    named = re.compile("{(" + "|".join(map(re.escape, fields)) + ")}")  # at once: a value may hold {name} itself
    return named.sub(lambda field: fields[field[1]], prompt.text)
