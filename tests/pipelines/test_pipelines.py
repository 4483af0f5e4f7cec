"""The scripts of pipelines/: every command in them is valid, failures stop them, settings have folders of their own."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from adcli.main import build

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(p.name for p in (ROOT / "pipelines").glob("*.sh") if p.name != "common.sh")
USAGE_ERROR = typer.BadParameter.__base__  # click's, or that of the click that Typer brings
MODELS = {"LLAVA": "/models/my llava", "SAM": "/models/my sam"}
BOTH = {"MVTEC_ROOT": "/my data/mvtec ad", "VISA_ROOT": "/my data/Vis A"}
MANIFESTS = {"VMAD_ON": "a b/on.parquet", "VMAD_TO": "a b/to.parquet"}
ON_REAL_DATA = {  # script -> settings as for the paper, with blanks in the paths
    "vidad.sh": {
        "VIDAD_ROOT": "/my data/VID AD",
        "VLM": "qwen2-vl",
        "REWRITER": "qwen2-vl",
        "CONDITIONS": "white_bg",
        "ENCODER": "bert-base-uncased",
        "CHECK": "yes",
    },
    "tiles.sh": {"VLM": "qwen2-vl", "SEED": "1"},
    "lvlm.sh": BOTH | {"VLM": "qwen2-vl-72b-awq", "ASK": "--engine vllm --prompt 'my prompt.txt'"},
    "visualad.sh": BOTH | {"BACKBONE": "/models/dino v2", "TRAIN": "--batch-size 4"},
    "visualad_demo.sh": {"TRAIN": "--batch-size 4", "SEED": "1"},
    "visualad_ablations.sh": {"ABLATE_ON": "a b/on.parquet", "ABLATE_TO": "a b/to.parquet"},
    "sage.sh": BOTH
    | {
        "TEST_MANIFEST": "a b/mpdd.parquet",
        "TEST_QUESTIONS": "a b/questions.parquet",
        "ASKING": "--engine vllm",
        "SFE": "--lora-rank 8",
        "EDPO": "--epochs 2",
    },
    "sage_demo.sh": {"ASKING": "--engine transformers", "SEED": "1"},
    "vmad.sh": BOTH
    | MODELS
    | {
        "RIAD_ROOT": "/my data/RIAD",
        "WFDD_ROOT": "/my data/WF DD",
        "GPUS": "8",
        "VMAD_TRAIN": "--epochs 2",
        "VMAD_SCORE": "--batch-size 1",
    },
    "vmad_demo.sh": MODELS | {"VMAD_SCORE": "--batch-size 1", "GPUS": "2"},
    "vmad_ablations.sh": MANIFESTS | MODELS | {"TABLE": "5", "GPUS": "2", "VMAD_SCORE": "--batch-size 1"},
}
NEEDED = {
    "visualad.sh": BOTH,
    "vmad_ablations.sh": MANIFESTS,
    "vmad.sh": {"RIAD_ROOT": "/my data/RIAD"},
    "sage.sh": BOTH | {"TEST_MANIFEST": "mpdd.parquet", "TEST_QUESTIONS": "questions.parquet"},
}
# Writes down its arguments, one command a line; fails as $FAIL_WITH says when its arguments hold $FAIL_ON.
STUB = r"""#!/usr/bin/env bash
printf -v line '%s\x1f' "$@"
printf '%s\n' "$line" >> "$LOG"
if [ -n "${WAIT_ON-}" ] && [[ " $* " == *" $WAIT_ON "* ]]; then echo $$ >> "$LOG.pids"; exec sleep 600; fi
if [ -n "${FAIL_ON-}" ] && [[ " $* " == *" $FAIL_ON "* ]]; then exit "$FAIL_WITH"; fi
"""


class Run:
    """A run of a script in a copy of the project's pipelines, with commands that only write down their arguments."""

    def __init__(self, folder: Path, script: str, **settings: str) -> None:
        shutil.copytree(ROOT / "pipelines", folder / "pipelines", dirs_exist_ok=True)
        (folder / "bin dir").mkdir(exist_ok=True)
        for name in ("adcli", "python"):
            (folder / "bin dir" / name).write_text(STUB.replace('"$@"', f'{name} "$@"', 1))
            (folder / "bin dir" / name).chmod(0o755)
        (folder / "my tiles").mkdir(exist_ok=True)
        self.log = folder / "log"
        self.log.unlink(missing_ok=True)
        environment = {
            "PATH": os.environ["PATH"],
            "BIN": str(folder / "bin dir"),
            "LOG": str(self.log),
            "TILES": "my tiles",
            **settings,
        }
        self.process = subprocess.Popen(
            ["bash", f"pipelines/{script}"],
            cwd=folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def done(self, timeout: float = 120) -> "Run":
        self.output, _ = self.process.communicate(timeout=timeout)
        self.code = self.process.returncode
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.commands = [line.split("\x1f")[:-1] for line in lines]
        return self

    def of(self, *words: str) -> list[list[str]]:
        """The commands that hold these words in this order, one after the other."""
        return [c for c in self.commands if any(tuple(c[i : i + len(words)]) == words for i in range(len(c)))]


def value(arguments: list[str], option: str) -> str:
    return arguments[arguments.index(option) + 1]


@cache
def application(name: str, method: str, questions: bool):
    """adcli with the subcommand's options, which depend on the method or on --questions."""
    more = ["--method", method] if method else []
    return get_command(build([name, *more, *["--questions"] * questions]))


def check(arguments: list[str]) -> None:
    """Raises USAGE_ERROR where adcli would."""
    method = value(arguments, "--method") if "--method" in arguments else ""
    command = application(arguments[0], method, "--questions" in arguments)
    context = command.make_context("adcli", list(arguments))
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)


@pytest.mark.parametrize("script", ["common.sh", *SCRIPTS])
def test_a_script_is_short_and_bash_can_read_it(script):
    path = ROOT / "pipelines" / script
    assert len(path.read_text().splitlines()) <= 80
    assert subprocess.run(["bash", "-n", path]).returncode == 0
    if script != "common.sh":
        assert os.access(path, os.X_OK) and "\nset -euo pipefail\n" in path.read_text()


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_prints_the_head_comment_and_every_setting(script):
    path = ROOT / "pipelines" / script
    done = subprocess.run(["bash", f"pipelines/{script}", "--help"], cwd=ROOT, capture_output=True, text=True)
    head = re.match(r"#!.*\n((?:#.*\n)+)", path.read_text())[1]
    assert done.returncode == 0 and done.stdout.startswith(re.sub(r"^# ?", "", head, flags=re.M))
    for name in re.findall(r'^: "\$\{(\w+):?=', path.read_text(), re.M):
        assert re.search(rf"^  {name}=.*  # .+$", done.stdout, re.M), name
    wrong = subprocess.run(["bash", f"pipelines/{script}", "--seed"], cwd=ROOT, capture_output=True, text=True)
    assert wrong.returncode == 2 and "--help lists them" in wrong.stderr


@pytest.mark.parametrize("real", [False, True], ids=["defaults", "real"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_every_command_of_a_script_is_valid(script, real, tmp_path):
    run = Run(tmp_path, script, **(ON_REAL_DATA[script] if real else NEEDED.get(script, {}))).done()
    assert run.code == 0, run.output
    assert "evaluate" in run.commands[-1] or ON_REAL_DATA[script].get("CHECK")
    for program, *arguments in run.commands:
        if arguments[:2] == ["-m", "torch.distributed.run"]:
            assert arguments[4:6] == ["-m", "adcli"]
            program, arguments = "adcli", arguments[6:]
        if program == "python":
            assert (ROOT / f"{arguments[1].replace('.', '/')}.py").exists(), arguments
            continue
        try:
            check(arguments)
        except USAGE_ERROR as error:
            pytest.fail(f"adcli {' '.join(arguments)}: {error.format_message()}")


def test_a_command_that_is_not_valid_is_found():
    check(["caption", "manifest.parquet", "--vlm", "scene", "--out", "captions.parquet"])
    for wrong in (
        ["caption", "m.parquet", "--out", "c", "--typo", "1"],
        ["data", "index", "visa", "--out", "m"],
        ["score", "m.parquet", "--method", "visualad", "--checkpoint", "c"],
    ):
        with pytest.raises(USAGE_ERROR):
            check(wrong)


@pytest.mark.parametrize("script", SCRIPTS)
def test_failed_rows_do_not_stop_a_script_and_any_other_failure_does(script, tmp_path):
    settings = NEEDED.get(script, {})
    whole = Run(tmp_path, script, **settings).done()
    failed_rows = Run(tmp_path, script, FAIL_ON="score", FAIL_WITH="3", **settings).done()
    assert failed_rows.code == 0 and len(failed_rows.commands) == len(whole.commands)
    stopped = Run(tmp_path, script, FAIL_ON="score", FAIL_WITH="1", **settings).done()
    assert stopped.code != 0 and not stopped.of("--tables") and "report:" not in stopped.output
    assert len(stopped.commands) < len(whole.commands)


@pytest.mark.parametrize(
    ("script", "settings", "message"),
    [
        ("visualad.sh", {"VISA_ROOT": "/v"}, "give MVTEC_ROOT and VISA_ROOT"),
        ("sage.sh", BOTH, "give TEST_MANIFEST and TEST_QUESTIONS"),
        ("vmad.sh", {}, "give RIAD_ROOT"),
        ("vmad_ablations.sh", {"VMAD_ON": "m"}, "VMAD_ON and VMAD_TO"),
        ("lvlm.sh", BOTH | {"VLM": "qwen2-vl", "VARIANTS": "zero-shots"}, "zero-shots is unknown"),
        *((f"{name}_demo.sh", {"TILES": "nowhere"}, "no images: give TILES=") for name in ("visualad", "sage", "vmad")),
    ],
)
def test_what_is_missing_is_said(script, settings, message, tmp_path):
    run = Run(tmp_path, script, **settings).done()
    assert run.code == 2 and message in run.output


def test_a_scenario_is_scored_while_the_next_ones_are_made(tmp_path):
    """Each scenario's stages come in their order, every training in its shares, and a table after each scenario."""
    run = Run(tmp_path, "vidad.sh", SCENARIOS="fruits, tapes,ropes", CONDITIONS="white_bg,blurry", JOBS="3").done()
    runs = "runs/vidad-white_bg-blurry"
    for scenario in ("fruits", "tapes", "ropes"):
        steps = [c for c in run.commands if any(a.endswith(scenario) or a == scenario for a in c)]
        names = ["synth", "index", "caption", "rewrite-negatives", *["train-encoder"] * 3, "score"]
        assert [next(w for w in c if w in names) for c in steps] == names
        assert sorted(value(c, "--shard") for c in steps if "train-encoder" in c) == ["0/3", "1/3", "2/3"]
        assert all(value(c, "--conditions") == "white_bg,blurry" for c in steps[:2])
    assert len(run.of("--partial")) == 3 and value(run.commands[-1], "--tables") == f"{runs}/tables"
    assert f"report: {runs}/report.html" in run.output


@pytest.mark.parametrize("stage", ["caption", "train-encoder", "score"])
def test_a_stage_that_fails_beside_others_fails_the_script(stage, tmp_path):
    run = Run(tmp_path, "vidad.sh", SCENARIOS="fruits,tapes,ropes", FAIL_ON=stage, FAIL_WITH="1").done()
    assert run.code != 0 and not run.of("--tables")
    assert len(run.of(stage)) <= 2  # the shares of one training; no other scenario


@pytest.mark.parametrize("stage", ["synth", "train-encoder", "text-knn"])
def test_ctrl_c_stops_every_stage(stage, tmp_path):
    run = Run(tmp_path, "vidad.sh", SCENARIOS="fruits,tapes", WAIT_ON=stage)
    pids = tmp_path / "log.pids"
    while not pids.exists() or len(pids.read_text().split()) < (2 if stage == "train-encoder" else 1):
        assert run.process.poll() is None
        time.sleep(0.02)
    os.killpg(run.process.pid, signal.SIGINT)
    try:  # the output ends when the last process has
        assert run.done(timeout=20).code != 0 and not run.of("--tables")
    finally:
        for pid in filter(lambda pid: Path(f"/proc/{pid}").exists(), pids.read_text().split()):
            os.kill(int(pid), signal.SIGKILL)


@pytest.mark.parametrize(
    ("script", "settings", "other"),
    [
        (
            "vidad.sh",
            {"SCENARIOS": "fruits"},
            [
                {"VLM": "q"},
                {"REWRITER": "q"},
                {"ENCODER": "q"},
                {"SEED": "1"},
                {"SIZE": "1"},
                {"SEED": "7"},
                {"SIZE": "7"},
                {"CONDITIONS": "white_bg"},
                {"VIDAD_ROOT": "/d/A B/"},
                {"VIDAD_ROOT": "/d/A"},
                {"VLM": "a/q"},
                {"VLM": "b/q"},
            ],
        ),
        ("tiles.sh", {}, [{"VLM": "q"}, {"REWRITER": "q"}, {"ENCODER": "q"}, {"SEED": "1"}, {"TILES": "other"}]),
        (
            "lvlm.sh",
            {"KINDS": ""},
            [{"VLM": "q"}, {"ASK": "--shots 2"}, {"ASK": "--shots 1"}, {"SEED": "1"}, {"SIZE": "1"}, BOTH],
        ),
        ("visualad.sh", BOTH, [{"BACKBONE": "b"}, {"TRAIN": "--anchors 2"}, {"SEED": "1"}]),
        ("visualad_demo.sh", {}, [{"SMALL": "--layers 1"}, {"TRAIN": "--anchors 2"}, {"SEED": "1"}]),
        (
            "visualad_ablations.sh",
            {"ABLATE": "--anchors=1"},
            [{"ABLATE_ON": "a"}, {"ABLATE_TO": "a"}, {"TRAIN": "--epochs 2"}, {"SEED": "1"}],
        ),
        (
            "sage.sh",
            NEEDED["sage.sh"],
            [
                {"BASE": "b"},
                {"JUDGE": "j"},
                {"ASKING": "--dtype float32"},
                {"N": "3"},
                {"SFE": "--epochs 2"},
                {"EDPO": "--epochs 2"},
                {"SEED": "1"},
                {"TEST_QUESTIONS": "q"},
            ],
        ),
        (
            "sage_demo.sh",
            {},
            [{"JUDGE": "j"}, {"ASKING": "--dtype float32"}, {"SFE": "-"}, {"EDPO": "-"}, {"SEED": "1"}],
        ),
        (
            "vmad.sh",
            NEEDED["vmad.sh"],
            [
                {"LLAVA": "b"},
                {"SAM": "b"},
                {"VMAD_TRAIN": "--epochs 2"},
                {"RIAD_TEXTS": ""},
                {"VMAD_SCORE": "--max-tokens 9"},
                {"SEED": "1"},
            ],
        ),
        (
            "vmad_demo.sh",
            {},
            [
                {"LLAVA": "b"},
                {"SAM": "b"},
                {"VMAD_SMALL": "--epochs 1"},
                {"VMAD_TRAIN": "--epochs 2"},
                {"VMAD_SCORE": "--max-tokens 9"},
                {"SEED": "1"},
            ],
        ),
        (
            "vmad_ablations.sh",
            MANIFESTS,
            [
                {"LLAVA": "b"},
                {"SAM": "b"},
                {"VMAD_ON": "c"},
                {"VMAD_TO": "c"},
                {"VMAD_TRAIN": "--epochs 2"},
                {"TABLE": "5"},
                {"SEED": "1"},
            ],
        ),
    ],
)
def test_every_setting_that_decides_results_has_a_folder_of_its_own(script, settings, other, tmp_path):
    def report(changed):
        run = Run(tmp_path, script, **settings | changed).done()
        assert run.code == 0, run.output
        return value(run.of("--report")[-1], "--report")

    reports = [report(changed) for changed in ({}, *other)]
    assert len(set(reports)) == len(reports), reports
    assert all(re.fullmatch(r"runs/[\w./-]+/report.html", r) for r in reports), reports


@pytest.mark.parametrize(
    ("script", "settings", "folder"),
    [
        ("vidad.sh", {}, "runs/vidad"),
        ("tiles.sh", {"TILES": "/d/magnetic-tile"}, "runs/tiles"),
        ("lvlm.sh", {"TILES": "/d/magnetic-tile"}, "runs/lvlm-demo"),
        ("lvlm.sh", BOTH, "runs/lvlm"),
        ("lvlm.sh", BOTH | {"VLM": "qwen2-vl-72b-awq"}, "runs/lvlm-qwen2-vl-72b-awq"),
        ("visualad.sh", BOTH, "runs/visualad-clip-vit-large-patch14-336"),
        ("vmad.sh", {"RIAD_ROOT": "/d/RIAD"}, "runs/vmad-llava-1.5-7b-hf"),
        ("vidad.sh", {"RUN": "my runs/a b"}, "my runs/a b"),
    ],
)
def test_the_folders_of_the_defaults(script, settings, folder, tmp_path):
    run = Run(tmp_path, script, **settings).done()
    assert value(run.of("--report")[-1], "--report") == f"{folder}/report.html"


def test_long_options_make_a_folder_name_that_file_systems_take(tmp_path):
    names = set()
    for last in ("1", "2"):
        options = " ".join(f"--option-{i} {i}" for i in range(40)) + f" --last {last}"
        run = Run(tmp_path, "visualad.sh", **BOTH, TRAIN=options).done()
        names.add(Path(value(run.of("--report")[0], "--report")).parent.name)
    assert len(names) == 2 and all(len(n) < 200 for n in names)


@pytest.mark.parametrize(
    ("target", "settings", "script"),
    [
        ("reproduce-vidad", (), "vidad.sh"),
        ("reproduce-vidad-check", (), "vidad.sh"),
        ("reproduce-tiles", (), "tiles.sh"),
        ("reproduce-lvlm", (), "lvlm.sh"),
        ("ablate-visualad", (), "visualad_ablations.sh"),
        ("reproduce-visualad", (), "visualad_demo.sh"),
        ("reproduce-visualad", ("VISA_ROOT=/a b",), "visualad.sh"),
        ("reproduce-sage", (), "sage_demo.sh"),
        ("reproduce-sage", ("MVTEC_ROOT=/a b",), "sage.sh"),
        ("reproduce-vmad", (), "vmad_demo.sh"),
        ("reproduce-vmad", ("RIAD_ROOT=/a b",), "vmad.sh"),
        ("ablate-vmad", (), "vmad_ablations.sh"),
        ("ablate-vmad-projectors", (), "vmad_ablations.sh"),
    ],
)
def test_a_target_calls_its_script(target, settings, script):
    done = subprocess.run(["make", "-n", target, "BIN=elsewhere", *settings], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and f"pipelines/{script} " in done.stdout and "pip install" not in done.stdout


def test_make_hands_its_settings_to_the_script(tmp_path):
    Run(tmp_path, "vidad.sh").done()  # for the folder with the commands
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "log").unlink()
    done = subprocess.run(
        ["make", "reproduce-vidad", "VIDAD_ROOT=/my data/VID AD", "SCENARIOS=fruits", f"BIN={tmp_path}/bin dir"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "LOG": str(tmp_path / "log")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    first = (tmp_path / "log").read_text().splitlines()[0].split("\x1f")
    assert first[1:5] == ["data", "index", "vidad", "/my data/VID AD"]
    assert value(first, "--out") == "runs/vidad-VID_AD/manifest.parquet/fruits"


def test_the_makefile_is_short_and_lists_its_targets():
    assert len((ROOT / "Makefile").read_text().splitlines()) <= 60
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True)
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.strip()]
    phony = re.search(r"^\.PHONY:((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text(), re.M)[1].replace("\\", "").split()
    assert done.returncode == 0 and sorted(listed) == sorted(phony)


def test_the_control_shuffles_what_is_known_of_training_images_alone():
    from pipelines.controls.shuffled_masks import SHUFFLED, shuffled

    rows = [
        {
            "image_id": str(i),
            "path": f"{i}.png",
            "split": "train" if i < 20 else "test",
            "label": i % 2,
            "defect": f"d{i}",
            "mask_paths": [f"m{i}"],
        }
        for i in range(25)
    ]
    new = shuffled(rows)
    assert new[20:] == rows[20:] and [r["path"] for r in new] == [r["path"] for r in rows]
    known = [tuple(str(r[k]) for k in SHUFFLED) for r in rows[:20]]
    dealt = [tuple(str(r[k]) for k in SHUFFLED) for r in new[:20]]
    assert sorted(dealt) == sorted(known) and dealt != known


def test_demo_models_and_controls_need_no_tests():
    code = (
        "import sys, pkgutil, importlib, pipelines\n"
        "for m in pkgutil.walk_packages(pipelines.__path__, 'pipelines.'): importlib.import_module(m.name)\n"
        "assert not [n for n in sys.modules if n.split('.')[0] in ('tests', 'benchmarks')]\n"
        "assert 'torch' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
