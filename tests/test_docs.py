"""Pages link to files that exist and show commands that the program takes; README leads to every page of docs/."""

import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
from typer.main import get_command

from adcli.finetune_mllm import METHODS as TRAININGS
from adcli.main import COMMANDS, build
from adcli.score import METHODS
from tests.command_lines import USAGE_ERROR, adcli_of, check, fenced, lines_of, shown, words_of

ROOT = Path(__file__).parents[1]
MANUAL = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [*MANUAL, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
OTHERS = {"--help", "--nproc_per_node", "--logdir"}  # of every command; of torchrun and tensorboard
OTHERS |= {"--input_dir", "--output_dir"}  # of transformers' script that converts InternVL
OTHERS |= {"--array", "--mem", "--constraint", "--me", "--shards", "--gpus"}  # of Slurm; of pipelines/on_ray.py


def links(page: Path) -> set[Path]:
    """Files that a page links to, without addresses and places within a page."""
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    return {(page.parent / t).resolve() for t in targets if not re.match(r"\w+:", t)}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    assert not [target for target in links(page) if not target.exists()]


def test_readme_leads_to_every_page():
    missing = sorted(p.name for p in (ROOT / "docs").glob("*.md") if p not in links(ROOT / "README.md"))
    assert not missing, f"README.md does not link to {missing}"


def test_readme_is_read_to_the_end():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 100


@pytest.mark.parametrize("page", MANUAL, ids=lambda p: p.name)
def test_every_command_of_a_page_is_valid(page):
    for words in lines_of(page):
        arguments = adcli_of(words)
        if arguments is None or "--help" in arguments:
            continue
        try:
            check(arguments)
        except USAGE_ERROR as error:
            pytest.fail(f"{page.name}: adcli {' '.join(arguments)}: {error.format_message()}")


def test_every_command_of_readme_is_run_by_the_checks():
    """In their order, long ones replaced, each with its reason; no replacement is left over."""
    listed = subprocess.run([sys.executable, ".ci/readme", "--list"], cwd=ROOT, capture_output=True, text=True)
    assert listed.returncode == 0, listed.stderr
    lines = [line.removeprefix("readme: ") for line in listed.stdout.splitlines() if line.startswith("readme: ")]
    assert [words_of(line) for line in lines] == lines_of(ROOT / "README.md")
    assert "instead: make -n test" in listed.stdout and "weights are not here" in listed.stdout


def test_a_command_that_is_not_valid_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nadcli caption --typo\n```\n\n<!--\n```\nadcli later\n```\n-->\n```\n$ adcli caption m.parquet \\\n"
        "  --typo 1  # wrong\nIt's no command\ntorchrun --nproc_per_node 2 -m adcli ask\n```\n"
    )
    found = [adcli_of(words) for words in lines_of(page)]
    assert found == [["caption", "m.parquet", "--typo", "1"], ["ask"]]
    for arguments in found:
        with pytest.raises(USAGE_ERROR):
            check(arguments)


@cache
def every_option() -> set[str]:
    """The long options of adcli itself and of all commands, whatever the method."""
    words = [[name] for name in COMMANDS if name not in ("score", "finetune-mllm", "data")]
    words += [["evaluate", "--questions"]]
    words += [["score", "--method", m] for m in METHODS] + [["finetune-mllm", "--method", m] for m in TRAININGS]
    words += [["data", *leaf] for leaf in leaves(get_command(build(["data"])).commands["data"])]
    found = {option for parameter in get_command(build([])).params for option in parameter.opts}
    for line in words:
        command = get_command(build(line))
        for name in line[: 1 if line[0] != "data" else len(line)]:
            command = command.commands[name]
        found |= {option for parameter in command.params for option in parameter.opts}
    return found


def leaves(group) -> list[list[str]]:
    """The words after a group's name of every command below it."""
    found = []
    for name, command in group.commands.items():
        below = leaves(command) if hasattr(command, "commands") else [[]]
        found += [[name, *words] for words in below]
    return found


@pytest.mark.parametrize("page", MANUAL, ids=lambda p: p.name)
def test_every_option_of_a_page_is_some_command_s(page):
    """In the text, too, where no whole command stands."""
    text = shown(page)
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z_0-9-]*[a-z0-9]", text))
    assert not named - every_option() - OTHERS


@pytest.mark.parametrize("page", [*MANUAL, ROOT / "CONTRIBUTING.md"], ids=lambda p: p.name)
def test_every_file_that_a_page_names_is_there(page):
    """Paths of this project in backticks, but for those with placeholders."""
    paths = re.findall(r"`((?:adcli|stages|prompts|pipelines|benchmarks|tests|docs)/[\w./-]*)`", page.read_text())
    assert not [path for path in paths if not (ROOT / path).exists()]


@pytest.mark.parametrize("page", [*MANUAL, ROOT / "CONTRIBUTING.md"], ids=lambda p: p.name)
def test_every_extra_that_a_page_names_is_there(page):
    """pip itself only warns of those that are not."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = [
        e.strip() for group in re.findall(r"(?:adcli|\.)\[([\w, -]+)\]", page.read_text()) for e in group.split(",")
    ]
    assert not set(named) - set(extras)


@pytest.mark.parametrize("page", [*MANUAL, ROOT / "CONTRIBUTING.md"], ids=lambda p: p.name)
def test_every_target_that_a_page_names_is_there(page):
    listed = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True).stdout
    targets = {line.split()[0] for line in listed.splitlines() if line.strip()}
    named = re.findall(r"^make ([a-z-]+)", fenced(page), re.M) + re.findall(r"`make ([a-z-]+)", shown(page))
    assert not set(named) - targets
