"""Completion in the shell, asked as bash asks: its script is sourced, then its function called for words of a line."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from adcli.completion import typed
from adcli.main import COMMANDS
from adcli.score import METHODS

ROOT = Path(__file__).parents[2]
ASK = """
ask() { COMPREPLY=(); _adcli_completion adcli; echo "${COMPREPLY[@]}"; }
eval "$(adcli --show-completion)"
"""


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """run(lines) in a bash that has `adcli` on its path and its script sourced: what it printed."""
    place = tmp_path_factory.mktemp("bin")
    (place / "adcli").write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m adcli "$@"\n')
    (place / "adcli").chmod(0o755)

    def run(lines):
        environment = os.environ | {"PATH": f"{place}:{os.environ['PATH']}", "HOME": str(place)}
        command = ["bash", "--norc", "-c", ASK + lines]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=place)
        assert done.returncode == 0 and not done.stderr, done.stderr
        return done.stdout

    return run


def at_the_end(*words):
    return f"COMP_WORDS=(adcli {shlex.join(words)}); COMP_CWORD={len(words)}; ask"


@pytest.mark.slow
def test_commands_options_and_values(shell):
    cases = {
        ("",): set(COMMANDS),
        ("sc",): {"score"},
        ("data", "index", "mvtec"): {"mvtec-ad", "mvtec-loco"},
        ("data", "index", "folder", "--train"): {"--train-normal"},
        ("caption", "m", "--limit", "3", "--ou"): {"--out"},
        ("caption", "m", "--vlm", "qwen2-"): {"qwen2-vl", "qwen2-vl-72b-awq"},
        ("caption", "photos/"): set(),  # the shell offers files
        ("score", "m", "--method", ""): set(METHODS),
        ("score", "m", "--method", "=", "anomalib/pad"): {"anomalib/padim"},
        ("score", "m", "--method", "lvlm", "--shot"): {"--shots"},
        ("score", "m", "--method", "=", "lvlm", "--shot"): {"--shots"},
        ("score", "m", "--method", "text-knn", "--shot"): set(),
        ("finetune-mllm", "m", "--method", "sage"): {"sage-sfe", "sage-edpo"},
        ("inspect", "--method", "v"): {"visualad", "vmad"},
        ("evaluate", "--questions", "q", "--judg"): {"--judgements"},
        ("train-visualad", "m", "--workers", "2", "--loader"): {"--loader-workers"},  # a former name
        ("scor", "--out", "'it\\"): None,  # nonsense: whatever comes, no traceback
    }
    found = shell("\n".join(at_the_end(*words) for words in cases)).split("\n")
    for (words, wanted), line in zip(cases.items(), found, strict=False):
        assert wanted is None or set(line.split()) == wanted, words


def test_the_method_may_stand_behind_the_cursor(shell):
    line = "COMP_WORDS=(adcli score --sho m --method lvlm --out x); COMP_CWORD=2; ask"
    assert shell(line).split() == ["--shots"]


def test_what_other_shells_give():
    line = {"_TYPER_COMPLETE_ARGS": "adcli score 'my photos' --method lv"}
    assert typed(line) == (["score", "my photos", "--method"], "lv", [])
    assert typed({"_TYPER_COMPLETE_ARGS": "adcli score "}) == (["score"], "", [])
    assert typed({"_TYPER_COMPLETE_ARGS": "adcli score 'my pho"}) == (["score"], "my pho", [])
    assert typed({"COMP_WORDS": "adcli\nscore\n--method\n=\n", "COMP_CWORD": "3"}) == (["score", "--method"], "", [])


@pytest.mark.slow
def test_only_the_first_help_speaks_of_it(shell):
    top, below = shell("adcli --help; echo CUT; adcli caption --help; adcli data --help").split("CUT")
    assert "--install-completion" in top and "completion" not in below


def test_it_is_installed_where_the_shell_starts(shell):
    said = shell("adcli --install-completion; cat $HOME/.bashrc; cat $HOME/.bash_completions/adcli.sh")
    assert "bash completion installed" in said and "source '" in said and "_ADCLI_COMPLETE=complete_bash" in said
