"""The scripts of pipelines/: every command in them is valid, and failures stop them."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.lvlm_questions import lines
from tests.command_lines import USAGE_ERROR, check
from tests.pipelines.recorded import ASKED, BOTH, MANIFESTS, NEEDED, ROOT, SCRIPTS, SLURM, Run, value

MODELS = {"LLAVA": "/models/my llava", "SAM": "/models/my sam"}
ON_REAL_DATA = {  # script -> settings as for the paper, with blanks in the paths
    "vidad.sh": {
        "VIDAD_ROOT": "/my data/VID AD",
        "VLM": "qwen2-vl",
        "REWRITER": "qwen2-vl",
        "CONDITIONS": "white_bg",
        "ENCODER": "bert-base-uncased",
        "CHECK": "yes",
    },
    "demo.sh": {},
    "vidad_ablations.sh": {"VIDAD_ROOT": "/my data/VID AD", "ASK": "--engine vllm", "ENCODERS": "/models/my_bert"},
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
        "JUDGE": "gpt-4o",
        "JUDGING": "--engine server --base-url http://judge/v1",
        "GPUS": "8",
        "WORKERS": "6",
        "SFE": "--lora-rank 8",
        "EDPO": "--epochs 2",
    },
    "sage_ablations.sh": {
        "TEST_MANIFEST": "a b/mpdd.parquet",
        "TEST_QUESTIONS": "a b/questions.parquet",
        "JUDGE": "gpt-4o",
        "JUDGING": "--engine server --base-url http://judge/v1",
        "ASKING": "--engine vllm",
        "N": "5",
        "GPUS": "2",
        "CHOOSE": "likelihood",
    },
    "sage_demo.sh": {"ASKING": "--engine transformers", "SEED": "1"},
    "vmad.sh": BOTH
    | MODELS
    | {
        "RIAD_ROOT": "/my data/RIAD",
        "LAST_LAYER": "yes",
        "WFDD_ROOT": "/my data/WF DD",
        "GPUS": "8",
        "VMAD_TRAIN": "--epochs 2",
        "VMAD_SCORE": "--batch-size 1",
    },
    "vmad_demo.sh": MODELS | {"VMAD_SCORE": "--batch-size 1", "GPUS": "2"},
    "vmad_ablations.sh": MANIFESTS | MODELS | {"TABLE": "5", "GPUS": "2", "VMAD_SCORE": "--batch-size 1"},
}


@pytest.mark.parametrize("script", ["common.sh", *SCRIPTS, *SLURM])
def test_a_script_is_short_and_bash_can_read_it(script):
    path = ROOT / "pipelines" / script
    assert len(path.read_text().splitlines()) <= 80
    assert subprocess.run(["bash", "-n", path]).returncode == 0
    if script != "common.sh":
        strict = "set -uo pipefail" if script == "slurm/task.sh" else "set -euo pipefail"  # it looks at exit codes
        assert os.access(path, os.X_OK) and f"\n{strict}\n" in path.read_text()


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
        ("sage.sh", BOTH | ASKED, "give JUDGE, with its engine and address in JUDGING"),
        ("sage_ablations.sh", ASKED, "give JUDGE, with its engine and address in JUDGING"),
        ("vmad.sh", {}, "give RIAD_ROOT"),
        ("vmad_ablations.sh", {"VMAD_ON": "m"}, "VMAD_ON and VMAD_TO"),
        ("lvlm.sh", BOTH | {"VLM": "qwen2-vl", "VARIANTS": "zero-shots"}, "zero-shots is unknown"),
        ("lvlm.sh", {"PAPER": "1"}, "give MVTEC_ROOT or VISA_ROOT"),
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


def test_training_images_are_asked_about_once_and_seeds_have_folders_of_their_own(tmp_path):
    run = Run(tmp_path, "lvlm.sh", **BOTH, VLM="qwen2-vl-72b-awq", PAPER="1", SEEDS="0, 7", KINDS="rotate90").done()
    assert run.code == 0, run.output
    root = "runs/lvlm-qwen2-vl-72b-awq-seeds_0-_7"
    asked = [(value(c, "--seed"), c[2], value(c, "--out")) for c in run.of("--method", "lvlm")]
    train = [place for place in asked if place[2].endswith("-train")]
    assert train == [
        (
            "0",
            f"{root}/data/manifest.parquet/{s}/original",
            f"{root}/seed-0/scores.parquet/{s}/original/one-shot-specific-train",
        )
        for s in ("mvtec-ad", "visa")
    ]
    assert all(
        value(c, "--splits") == "train" for c in run.of("--method", "lvlm") if value(c, "--out").endswith("-train")
    )
    first, second = ([(m, o.removeprefix(f"{root}/seed-{n}")) for s, m, o in asked if s == n] for n in "07")
    assert second == [pair for pair in first if not pair[1].endswith("-train")] and len(second) == 7
    assert len({out for _, _, out in asked}) == len(asked)
    assert {value(c, "--images") for c in run.of("augment")} == {
        f"{root}/data/augmented/{s}" for s in ("mvtec-ad", "visa")
    }
    costs = [c[4:] for c in run.of("pipelines.lvlm_questions")]
    assert ["--train" in c for c in costs] == [True, False]
    assert run.commands[-1][2:] == [
        "pipelines.over_seeds",
        f"{root}/seed-0",
        f"{root}/seed-7",
        "--tables",
        f"{root}/tables",
    ]
    before = [c for c in run.commands[: run.commands.index(run.of("pipelines.lvlm_questions")[0])] if "score" in c]
    assert not before, "the number of questions is said first"


def test_the_number_of_questions():
    """6 test images of mvtec-ad asked 1 + 2 + 3 times, 4 training images once; 2 of visa 1 + 2 times, no other way."""
    images = [("mvtec-ad", "test")] * 6 + [("mvtec-ad", "train")] * 4 + [("visa", "test")] * 2
    assert lines(images, 2, 3, True) == [
        "mvtec-ad: 6 test images, each asked about 6 times, 4 training images once",
        "visa: 2 test images, each asked about 3 times, 0 training images once",
        "46 questions in all, 0.1 hours at the paper's 4.74 s; answers that are there are kept",
    ]
    assert lines(images[:6], 0, 0, False)[0] == "mvtec-ad: 6 test images, each asked about 1 times"


@pytest.mark.parametrize("settings", [{}, {"PAPER": "1"}])
def test_real_data_get_the_papers_models_and_each_model_is_loaded_once(settings, tmp_path):
    run = Run(tmp_path, "vidad.sh", VIDAD_ROOT="/d/VID AD", ASK="--engine vllm", MAX_ERRORS="0", **settings).done()
    assert run.code == 0 and not run.of("synth")
    (caption,), (rewrite,) = run.of("caption"), run.of("rewrite-negatives")
    assert value(caption, "--vlm") == value(rewrite, "--rewriter") == "qwen2-vl"
    assert value(caption, "--engine") == value(rewrite, "--engine") == "vllm" and "--keep-unchecked" in rewrite
    for training in run.of("train-encoder"):
        assert (value(training, "--encoder"), value(training, "--precision")) == ("bert-base-uncased", "fp32")
    assert all(value(c, "--max-errors") == "0" for c in (caption, rewrite, *run.of("train-encoder"), *run.of("score")))


def test_prompts_of_ones_own_reach_the_captioner_alone_and_a_folder_of_their_own(tmp_path):
    own = {"CAPTION": "--prompt /d/prompt", "REWRITE": "--keep-unchecked --prompt /d/rewrite.txt"}
    run = Run(tmp_path, "vidad.sh", VIDAD_ROOT="/d/VID-AD", ASK="--engine vllm", **own).done()
    (caption,), (rewrite,) = run.of("caption"), run.of("rewrite-negatives")
    assert (value(caption, "--prompt"), value(rewrite, "--prompt")) == ("/d/prompt", "/d/rewrite.txt")
    assert value(caption, "--engine") == value(rewrite, "--engine") == "vllm"
    assert "-prompt_-d-prompt" in value(caption, "--out")


@pytest.mark.parametrize(("jobs", "threads"), [("1", "unset"), ("2", "1")])
def test_trainings_side_by_side_have_one_thread_each_and_one_alone_has_no_limit(jobs, threads, tmp_path):
    run = Run(tmp_path, "vidad.sh", VIDAD_ROOT="/d/VID-AD", JOBS=jobs).done()
    assert run.code == 0 and len(run.of("train-encoder")) == int(jobs)
    seen = (tmp_path / "log.threads").read_text().split()
    assert seen == [threads] * int(jobs)


def test_table_7_asks_each_model_once_and_trains_other_encoders_on_the_first_ones_captions(tmp_path):
    run = Run(tmp_path, "vidad_ablations.sh", VIDAD_ROOT="/d/VID-AD", VLMS="qwen2-vl,org/llava", ENCODERS="bert").done()
    assert run.code == 0, run.output
    root = "runs/vidad-ablation-VID-AD"
    assert {(value(c, "--vlm"), value(c, "--out").split("/")[2]) for c in run.of("caption")} == {
        ("qwen2-vl", "qwen2-vl"),
        ("org/llava", "org_llava"),
    }
    assert {value(c, "--rewriter") for c in run.of("rewrite-negatives")} == {"qwen2-vl", "org/llava"}
    scored = {value(c, "--name"): (value(c, "--captions"), value(c, "--encoders")) for c in run.of("text-knn")}
    assert list(scored) == ["text-knn/qwen2-vl", "text-knn/org/llava", "text-knn/qwen2-vl/bert"]
    assert scored["text-knn/qwen2-vl/bert"][0] == scored["text-knn/qwen2-vl"][0]
    assert scored["text-knn/qwen2-vl/bert"][1].startswith(f"{root}/qwen2-vl-bert/encoders.parquet")
    assert run.commands[-1][2] == f"{root}/scores.parquet"
    assert len({value(c, "--out") for c in run.of("text-knn")}) == 3


def test_each_model_of_table_7_is_its_own_rewriter_and_embedded_parts_keep_their_rules(tmp_path):
    run = Run(tmp_path, "vidad.sh", VIDAD_ROOT="/d/VID-AD", VLM="llava-1.5-13b").done()
    assert value(run.of("rewrite-negatives")[0], "--rewriter") == "llava-1.5-13b"
    run = Run(tmp_path, "vidad.sh", VIDAD_ROOT="/d/VID-AD", VLM="scene", SCENARIOS="fruits,tapes").done()
    rewrites = run.of("rewrite-negatives")
    assert [value(c, "--rewriter") for c in rewrites] == ["rules"] * 2 and not run.of("--keep-unchecked")


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


def test_sages_judge_is_asked_before_anything_is_trained(tmp_path):
    """With its engine and address, one answer; facts of the images that are asked about alone; GPUS for both stages."""
    run = Run(tmp_path, "sage.sh", **ON_REAL_DATA["sage.sh"]).done()
    assert run.code == 0, run.output
    (trial,), (check_,) = run.of("--limit", "1"), run.of("pipelines.first_row")
    trained = run.of("finetune-mllm")
    order = [run.commands.index(c) for c in (trial, check_, run.of("caption")[0], trained[0])]
    assert order == sorted(order) and check_[-1] == "JUDGE=gpt-4o"
    judged = run.of("--method", "mle")
    assert len(judged) == 3 and all(value(c, "--base-url") == "http://judge/v1" for c in judged)
    assert [value(c, "--nproc_per_node") for c in trained] == ["8", "8"]
    assert all(value(c, "--questions") and value(c, "--workers") == "6" for c in run.of("caption"))
    failed = Run(tmp_path, "sage.sh", FAIL_ON="pipelines.first_row", FAIL_WITH="1", **NEEDED["sage.sh"]).done()
    assert failed.code != 0 and not failed.of("finetune-mllm") and not failed.of("caption")


def test_a_failed_trial_is_said(tmp_path):
    from pipelines.first_row import main
    from stages.artifacts.tables import JUDGEMENTS
    from tests.qa import write

    row = {"question_id": "q", "method": "choice/0", "category": 5, "location": 5, "logic": 5}
    assert main(write(tmp_path / "j.parquet", JUDGEMENTS, [row]), "JUDGE=x") is None
    bad = write(tmp_path / "k.parquet", JUDGEMENTS, [{"question_id": "q", "method": "choice/0", "error": "401"}])
    assert main(bad, "JUDGE=x") == "JUDGE=x: 401; nothing was trained yet"


def test_the_rows_of_sages_table_3_are_chosen_in_one_way(tmp_path):
    run = Run(tmp_path, "sage_ablations.sh", **ON_REAL_DATA["sage_ablations.sh"]).done()
    assert run.code == 0, run.output
    rows = run.of("--method", "sage")
    names = ["baseline", "sft", "fact-hard", "fact-fe", "dpo", "sfe-dpo", "full"]
    assert [value(c, "--name") for c in rows[:7]] == [f"{n}/0-shot" for n in names] and len(rows) == 13
    assert {value(c, "--choose") for c in rows} == {"likelihood"}
    assert {value(c, "--max-errors") for c in rows} == {"0"}, "a model that names no choice is a row, not the end"
    assert [value(c, "--shots") for c in rows[7:]] == ["1"] * 6, "Figure 7 is one-shot"
    assert "--checkpoint" not in rows[0] and value(rows[0], "--base") == "internvl3"
    dpo, sfe_dpo, full = run.of("--method", "sage-edpo")
    assert "--checkpoint" not in dpo and value(dpo, "--eta") == value(sfe_dpo, "--eta") == "0" and "--eta" not in full
    sweeps = [c for c in run.of("--method", "sage-sfe") if any("sentences=" in a or "patches=" in a for a in c)]
    assert len(sweeps) == 6
    (facts,) = run.of("caption")
    assert (value(facts, "--engine"), value(facts, "--samples")) == ("vllm", "5"), "as pipelines/sage.sh wrote them"


def test_no_shards_are_no_work_for_ray():
    command = [sys.executable, "pipelines/on_ray.py", "--shards", "0", "--", "caption", "m.parquet"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "--shards: at least 1" in done.stderr
