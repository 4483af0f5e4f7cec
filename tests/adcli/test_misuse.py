"""Wrong names, numbers and files of the stages that ask a model: one line before anything is read, fetched or made."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stages.base.config import RunOptions
from stages.base.errors import InputError
from stages.base.prompts import load_prompt
from stages.base.read_json import read_json, read_json_lines
from stages.base.texts import escaped, is_sound, read_text
from stages.captions.caption import CaptionConfig
from stages.captions.caption import run as caption
from stages.captions.negatives import NegativesConfig
from stages.captions.negatives import run as negatives
from stages.lvlm.config import LvlmConfig
from stages.lvlm.score import run as lvlm
from stages.questions.config import JudgeConfig, QuestionsConfig, VlmQaConfig
from stages.questions.judge import run as judge
from stages.questions.make import run as questions
from stages.questions.vlm_qa import run as vlm_qa
from stages.sage.config import EdpoConfig, ScoreSageConfig, SfeConfig
from stages.sage.edpo import run as edpo
from stages.sage.score import run as sage
from stages.sage.sfe import run as sfe
from stages.vlm.factory import check_engine, make_engine
from stages.vlm.options import EngineOptions

ROOT = Path(__file__).parents[2]
NOWHERE = Path("/nonexistent")  # no stage may get as far as reading it
TABLES = {
    "captions": NOWHERE,
    "manifest": NOWHERE,
    "questions": NOWHERE,
    "checkpoint": NOWHERE,
    "judgements": NOWHERE,
    "facts": NOWHERE,
}
STAGES = {
    "caption": (caption, CaptionConfig, ("manifest",), "vlm"),
    "negatives": (negatives, NegativesConfig, ("captions", "manifest"), "rewriter"),
    "lvlm": (lvlm, LvlmConfig, ("manifest",), "vlm"),
    "vlm-qa": (vlm_qa, VlmQaConfig, ("manifest", "questions"), "vlm"),
    "judge": (judge, JudgeConfig, ("manifest", "questions"), "judge"),
    "questions": (questions, QuestionsConfig, ("manifest", "captions"), "vlm"),
    "sfe": (sfe, SfeConfig, ("manifest", "questions", "facts"), "base"),
    "edpo": (edpo, EdpoConfig, ("manifest", "questions", "checkpoint", "judgements", "facts"), "base"),
    "sage": (sage, ScoreSageConfig, ("manifest", "questions", "checkpoint"), "base"),
}
ENGINES = [name for name in STAGES if name not in ("sfe", "edpo", "sage")]


def refused(name, out, **options):
    """What a stage says to these options, its tables being nowhere."""
    run, config, tables, model = STAGES[name]
    with pytest.raises(InputError) as e:
        run(
            config(**{t: TABLES[t] for t in tables} | {"out": out, model: "qwen2-vl"} | options), RunOptions(quiet=True)
        )
    assert not out.exists() and "\n" not in str(e.value)
    return str(e.value)


@pytest.mark.parametrize("name", STAGES)
def test_a_misspelt_model_is_found_before_anything_is_asked(name, tmp_path, monkeypatch):
    """The network is there as far as the libraries know; a question to it would fail, and take its time."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    option = "--" + STAGES[name][3]
    said = refused(name, tmp_path / "out", **{STAGES[name][3]: "qwen2vl"})
    assert said.startswith(f"{option} qwen2vl: did you mean qwen2-vl") and "`adcli models`" in said
    assert refused(name, tmp_path / "out", **{STAGES[name][3]: "xyzzy"}).startswith(f"{option} xyzzy: Expected ")


def test_what_is_no_misspelt_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for name in ("scene", "qwen2-vl", "someone/something", "mine", str(tmp_path / "mine"), "./mine"):
        check_engine(name, EngineOptions())
    for name in ("mein", "a\0b", "x" * 5000, ""):
        with pytest.raises(InputError, match="--vlm"):
            check_engine(name, EngineOptions())


WRONG = {
    "engine": ("vlm", "--engine vlm: expected transformers, vllm, server (did you mean vllm?)"),
    "dtype": ("float15", "--dtype float15: expected auto"),
    "workers": (-1, "--workers -1"),
    "batch_size": (0, "--batch-size 0"),
    "max_tokens": (0, "--max-tokens 0"),
    "timeout": (0.0, "--timeout 0.0"),
    "temperature": (-1.0, "--temperature -1.0"),
    "retries": (-1, "--retries -1"),
    "concurrency": (0, "--concurrency 0"),
    "max_num_seqs": (0, "--max-num-seqs 0"),
    "gpu_memory": (1.5, "--gpu-memory 1.5"),
    "tensor_parallel": (-1, "--tensor-parallel -1"),
    "min_pixels": (-5, "--min-pixels -5"),
    "max_model_len": (-1, "--max-model-len -1"),
}


@pytest.mark.parametrize("option", WRONG)
@pytest.mark.parametrize("name", ENGINES)
def test_wrong_values_are_found_before_anything_is_read(name, option, tmp_path):
    value, said = WRONG[option]
    assert refused(name, tmp_path / "out", **{option: value}).startswith(said)


def test_more_wrong_values(tmp_path):
    for value in (2.0, 0.0, -0.5, float("nan")):
        assert "--top-p" in refused("caption", tmp_path / "out", top_p=value)
    assert "--temperature nan" in refused("caption", tmp_path / "out", temperature=float("nan"))
    said = refused("caption", tmp_path / "out", min_pixels=9, max_pixels=4)
    assert said.startswith("--min-pixels 9: more than --max-pixels 4")
    assert "--samples 0" in refused("caption", tmp_path / "out", samples=0)
    assert "--engine vlm" in refused("caption", tmp_path / "out", vlm="scene", engine="vlm"), "although nobody uses it"
    assert "--tries 0" in refused("judge", tmp_path / "out", tries=0)
    assert "--batch-size 0" in refused("sage", tmp_path / "out", batch_size=0)


@pytest.mark.parametrize(("device", "said"), [("gpu", "expected auto, cpu, cuda"), ("cuda:7", "--device cuda:7")])
def test_a_device_that_is_not_there_is_found_before_the_folder_is_made(device, said, qwen):
    with pytest.raises(InputError, match=said):
        make_engine(str(qwen), EngineOptions(device=device))


LATIN = "Größe".encode("latin1")


def test_files_in_another_encoding_are_one_line(tmp_path):
    """A prompt, questions as JSON and as JSON lines; with a byte order mark they are read."""
    for name, content, seems in (
        ("p.txt", b"look at " + LATIN, "Latin-1"),
        ("u.txt", "look".encode("utf-16"), "UTF-16"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}: not UTF-8 text .*perhaps {seems}: save it as UTF-8") as e:
            load_prompt(str(tmp_path / name))
        assert "iconv" in str(e.value) and "\n" not in str(e.value)
    (tmp_path / "q.json").write_bytes(b'["' + LATIN + b'"]')
    for read in (read_json, lambda file: list(read_json_lines(file))):
        with pytest.raises(InputError, match="q.json: not UTF-8 text .invalid start byte at byte 4"):
            read(tmp_path / "q.json")
    (tmp_path / "bom.txt").write_text("look", encoding="utf-8-sig")
    assert load_prompt(str(tmp_path / "bom.txt")).text == "look"
    with pytest.raises(InputError, match="cannot be read"):
        read_text(tmp_path)


def test_a_prompt_whose_file_name_is_no_text(tmp_path):
    name = os.fsencode(tmp_path) + b"/\xff.txt"
    Path(os.fsdecode(name)).write_text("look")
    with pytest.raises(InputError, match="rename"):
        load_prompt(os.fsdecode(name))


def test_half_characters():
    assert is_sound("aä\U0001f600\0") and not is_sound("a\ud800") and escaped("a\udcffä") == "a\\udcffä"


def test_a_prompt_without_a_near_match_names_the_families():
    with pytest.raises(InputError) as e:
        load_prompt("zzzzzz")
    said = str(e.value)
    assert "there are general, judge/... (2), lvlm/... (" in said and "vidad/... (21)" in said and len(said) < 200
    with pytest.raises(InputError, match="did you mean vidad/fruits"):
        load_prompt("vidad/fruit")


@pytest.mark.slow
def test_a_folder_with_stages_and_prompts_of_its_own(tmp_path, save_image):
    """`python -m adcli` there uses neither; nor do the processes that it starts."""
    here = tmp_path / "here"
    for n in range(3):
        save_image(here / "pictures" / f"{n}.png", n)
    for place in ("stages.py", "typer.py", "pandas.py", "prompts/__init__.py"):
        (here / place).parent.mkdir(exist_ok=True)
        (here / place).write_text("raise SystemExit('the module of the folder')\n")
    (here / "prompts" / "general.txt").write_text("not this one")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def adcli(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "adcli", *arguments],
            cwd=here,
            env=environment,
            timeout=120,
            capture_output=True,
            text=True,
        )

    code = (
        "import sys; from importlib.util import module_from_spec, spec_from_file_location as at\n"
        f"for name, file in (('stages', 'stages/__init__.py'), ('stages.base.prompts', 'stages/base/prompts.py')):\n"
        f"    spec = at(name, {str(ROOT)!r} + '/' + file, submodule_search_locations=[{str(ROOT / 'stages')!r}])\n"
        "    sys.modules[name] = module_from_spec(spec)\n"
        "    spec.loader.exec_module(sys.modules[name])\n"
        "print(sys.modules['stages.base.prompts'].load_prompt('general').fingerprint)\n"
    )
    made = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True)
    assert made.stdout.strip() == load_prompt("general").fingerprint, "also where its folder comes first"

    made = adcli("data", "index", "folder", "pictures", "--out", "m")
    assert made.returncode == 0, made.stderr
    made = adcli("caption", "m", "--out", "c", "--prompt", "general", "--workers", "2")
    assert made.returncode == 0, made.stderr
    assert load_prompt("general").fingerprint in (here / "c" / "_adcli.json").read_text()
