"""What --help shows, and in which order; former names of options."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from adcli import __version__
from adcli.evaluate import in_one_folder
from adcli.help import parts
from adcli.main import build, run
from adcli.options import command
from stages.base.config import RunOptions, argument, check_numbers, option
from stages.base.errors import InputError
from stages.evaluate.config import EvaluateConfig, EvaluateQaConfig


def shown(*arguments, columns="80"):
    done = CliRunner().invoke(build([*arguments]), [*arguments, "--help"], env={"COLUMNS": columns})
    assert done.exit_code == 0, done.output
    return done.output


def headings(text):
    return [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]


def test_what_everybody_needs_comes_first():
    text = shown("caption")
    assert headings(text) == [
        "What you need:",
        "Settings:",
        "Engine, where a model is asked:",
        "Transformers (--engine transformers):",
        "vLLM (--engine vllm):",
        "Server (--engine server):",
        "This run:",
    ]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    assert " caption [OPTIONS]" in lines[0] and lines[1].startswith("Describe every image")
    assert lines[3] == "Example: adcli caption runs/demo/manifest.parquet --out runs/demo/captions.parquet"
    assert lines[4] == "What you need:"
    needed = text[text.index("What you need:") : text.index("Settings:")]
    assert all(name in needed for name in ("manifest", "--out", "--vlm", "--prompt"))
    assert "--timeout" not in needed and "--shard" not in needed
    assert "--timeout" in text[text.index("Server (") : text.index("This run:")]
    assert text.index("--vlm scene segments") < text.index("Settings:"), "the rest of the text, before the details"


@pytest.mark.parametrize("words", [("score", "--method", "lvlm"), ("evaluate",), ("data", "index", "folder")])
def test_every_option_stands_once(words):
    lines = shown(*words).splitlines()
    names = [line.split()[0] for line in lines if line.startswith("  --")]
    assert len(names) == len(set(names)) and {"--out", "--debug", "--help"} <= set(names)


def test_parts_of_a_help_text():
    assert parts("One.\n\nMore.\n\n\b\nExample: a \\\n  b\n\n\b\nExample: c") == (
        "One.",
        "Example: a \\\n  b",
        ["More.", "Example: c"],
    )


@dataclass(frozen=True, kw_only=True)
class Config:
    table: Path = argument("input")
    max_images: int = option("so many", 0, was="images")


def test_a_former_name_says_what_the_option_is_called_now(capsys):
    app = typer.Typer(rich_markup_mode=None)
    command(app, "stage", Config, lambda config, options: pytest.fail("was run"), "Do.\n\nExample: x")
    app.callback()(lambda: None)
    for words in (["--images", "3"], ["--images=3"]):
        done = CliRunner().invoke(app, ["stage", "t", *words])
        assert done.exit_code == 2 and "No such option: --images; it is called --max-images now" in done.output


def test_the_version(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"adcli {__version__}\n"


def test_evaluate_writes_into_one_folder(tmp_path):
    r, paths = tmp_path / "r", {"scores": Path("s"), "manifest": Path("m")}
    config = in_one_folder(EvaluateConfig(**paths, out=r, report=Path("mine.html")))
    assert (config.out, config.report) == (r / "metrics.parquet", Path("mine.html"))
    assert (config.tables, config.thresholds) == (r / "tables", r / "thresholds.parquet")
    assert config.heatmaps is None, "there are no maps"
    assert in_one_folder(EvaluateConfig(**paths, out=r, maps=Path("p"))).heatmaps == r / "heatmaps"
    answers = in_one_folder(EvaluateQaConfig(questions=Path("q"), answers=Path("a"), out=r))
    assert (answers.out, answers.report, answers.tables) == (r / "metrics.parquet", r / "report.html", r / "tables")


def test_a_table_of_metrics_is_no_such_folder(tmp_path):
    for name in ("x.parquet", "old"):
        config = EvaluateConfig(scores=Path("s"), manifest=Path("m"), out=tmp_path / name)
        (tmp_path / "old").mkdir(exist_ok=True)
        (tmp_path / "old" / "_adcli.json").write_text("{}")
        assert in_one_folder(config) == config


@pytest.mark.parametrize(
    ("field", "default", "value", "said"),
    [
        ("batch_size", 8, 0, "--batch-size 0: expected 1 or more"),
        ("learning_rate", 0.1, 0.0, "--learning-rate 0.0: expected a number above 0"),
        ("learning_rate", 0.1, float("nan"), "--learning-rate nan: expected a number above 0"),
        ("seed", 0, -1, "--seed -1: expected 0 or more"),
        ("temperature", 0.5, float("inf"), "--temperature inf: expected 0 or more"),
        ("workers", 4, 0, "--workers 0: expected 1 or more"),
        ("workers", 0, -1, "--workers -1: expected 0 or more"),
    ],
)
def test_a_number_has_one_bound_by_its_name(field, default, value, said):
    config = dataclass(frozen=True)(
        type("C", (), {"__annotations__": {field: type(default)}, field: option("", default)})
    )
    check_numbers(config(default))
    with pytest.raises(InputError) as e:
        check_numbers(config(value))
    assert str(e.value) == said


def test_rows_to_try_again():
    with pytest.raises(InputError, match="--retry some: expected possible or all"):
        check_numbers(RunOptions(retry="some"))
