"""The command line as people meet it: help, typos, wrong files, Ctrl-C, a full disk."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adcli.data import INDEX
from adcli.finetune_mllm import METHODS as TUNING
from adcli.main import COMMANDS
from adcli.score import METHODS as SCORING
from tests.processes import adcli, called

ROOT = Path(__file__).parents[2]
ADCLI = [sys.executable, "-m", "adcli"]
HEAVY = {"torch", "transformers", "pandas", "pyarrow", "numpy", "PIL", "cv2", "sklearn", "scipy", "matplotlib"}
LEAVES = [
    ["data", "index", "vidad"],
    ["data", "index", "magnetic-tile"],
    ["data", "index", "mvtec-ad"],
    ["data", "index", "visa"],
    ["data", "index", "folder"],
    ["data", "check"],
    ["data", "describe"],
    ["data", "augment"],
    ["data", "questions"],
    ["data", "import-questions"],
    ["data", "import-scores"],
    *(
        ["data", "index", name]
        for name in (
            "mvtec-loco",
            "btad",
            "ksdd2",
            "dagm",
            "dtd-synthetic",
            "wfdd",
            "mpdd",
            "riad",
            "brain-ad",
            "oct17",
            "his",
            "brain-mri",
            "cvc-clinicdb",
            "cvc-colondb",
            "endo",
            "kvasir",
            "meta-json",
        )
    ),
    ["data", "synth", "vidad"],
    ["data", "synth", "surfaces"],
    ["caption"],
    ["rewrite-negatives"],
    ["train-encoder"],
    ["train-visualad"],
    ["finetune-mllm"],
    ["finetune-mllm", "--method", "sage-sfe"],
    ["finetune-mllm", "--method", "sage-edpo"],
    ["finetune-mllm", "--method", "vmad"],
    ["score", "--method", "vmad"],
    ["ask"],
    ["score"],
    ["score", "--method", "visualad"],
    ["score", "--method", "sage"],
    ["score", "--method", "text-knn"],
    ["score", "--method", "lvlm"],
    ["models"],
    ["evaluate"],
    ["score", "--method", "vlm-qa"],
    ["score", "--method", "mle"],
    ["evaluate", "--questions", "runs/qa/questions.parquet"],
]


def test_help_lists_the_stages_and_imports_nothing_heavy():
    done = subprocess.run([*ADCLI, "--help"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and all(name in done.stdout for name in COMMANDS)
    code = (
        "import sys; sys.argv = ['adcli', '--help']\nfrom adcli.main import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        f"assert not {HEAVY} & set(sys.modules), {HEAVY} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def examples(leaf):
    text = called(*leaf, "--help").stdout.replace("\\\n", " ")
    return [shlex.split(e) for e in re.findall(r"Example: adcli (.*)", text)]


@pytest.mark.parametrize("leaf", LEAVES, ids=" ".join)
def test_every_help_has_an_example_of_itself(leaf):
    found = examples(leaf)
    assert found and all(words[0] == leaf[0] and set(leaf) <= set(words) for words in found)


@pytest.mark.slow
def test_the_examples_work_as_they_stand_one_after_the_other(tmp_path):
    order = [
        ["data", "synth", "vidad"],
        ["data", "synth", "surfaces"],
        ["data", "index", "vidad"],
        ["data", "index", "folder"],
        ["data", "check"],
        ["data", "augment"],
        ["caption"],
        ["rewrite-negatives"],
        ["train-encoder"],
        ["score"],
        ["score", "--method", "text-knn"],
        ["score", "--method", "lvlm"],
        ["data", "describe"],
        ["evaluate"],
    ]
    here = tmp_path / "project"  # beside it, where they are there, the photographs that some examples are about
    here.mkdir()
    photographs = ROOT.parent / "shared"
    if photographs.is_dir():
        (tmp_path / "shared").symlink_to(photographs)
    for leaf in order:
        for example in examples(leaf):
            if photographs.is_dir() or not any(word.startswith("../shared") for word in example):
                done = adcli(*example, cwd=here, models=True)
                assert done.returncode == 0, (example, done.stderr)
    assert "fruits" in done.stdout and (here / "runs" / "demo" / "report.html").exists()


def test_no_help_of_a_command_or_method_imports_anything_heavy():
    """One after the other in one process, so that the first that does is named."""
    leaves = [[name] for name in COMMANDS]
    leaves += [["data", "index", name] for name in INDEX]
    leaves += [["data", name] for name in ("index", "check", "augment", "questions", "import-questions", "synth")]
    leaves += [["score", "--method", name] for name in SCORING]
    leaves += [["finetune-mllm", "--method", name] for name in TUNING]
    leaves += [leaf for leaf in LEAVES if leaf not in leaves]
    code = (
        "import sys\nfrom adcli.main import run\n"
        f"for leaf in {leaves}:\n"
        "    assert run([*leaf, '--help']) == 0, leaf\n"
        f"    assert not {HEAVY} & set(sys.modules), (leaf, {HEAVY} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and done.stdout.count("Usage: ") == len(leaves), done.stderr


def one_line(done, *parts, code=2):
    """The error is one line on stderr that names all of `parts`; nothing on stdout."""
    assert done.returncode == code, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("adcli:")]
    assert len(lines) == 1 and "Traceback" not in done.stderr, done.stderr
    for part in parts:
        assert part in lines[0], lines[0]


@pytest.fixture
def photos(tmp_path, save_image):
    for n in range(6):
        save_image(tmp_path / "photos with space" / f"{n}.jpg", n)
    called("data", "index", "folder", tmp_path / "photos with space", "--out", tmp_path / "m", "--quiet")
    return tmp_path


def test_typos(photos):
    done = called("capton")
    assert done.returncode == 2 and "caption" in done.stderr
    done = called("caption", photos / "m", "--out", photos / "c", "--promt", "x")
    assert done.returncode == 2 and "--prompt" in done.stderr


def test_wrong_files_and_names_are_one_line(photos):
    m = photos / "m"
    (photos / "empty").mkdir()
    (photos / "file").write_text("x")
    one_line(called("caption", photos / "nowhere", "--out", photos / "c"), "nowhere", "no such file")
    one_line(called("caption", photos / "empty", "--out", photos / "c"), "holds no Parquet")
    one_line(called("caption", photos / "file", "--out", photos / "c"), "cannot be read as Parquet")
    one_line(called("caption", m, "--out", photos / "file"), "a file is there already")
    one_line(called("caption", m, "--out", photos / "file" / "c"), "file, not a folder")
    one_line(called("caption", m, "--out", photos / "c", "--vlm", "sceen"), "--vlm sceen: did you mean scene?")
    one_line(called("caption", m, "--out", photos / "c", "--prompt", "generl"), "did you mean general")
    one_line(called("caption", m, "--out", photos / "c", "--shard", "4/4"), "--shard 4/4")
    one_line(called("data", "index", "folder", photos / "empty", "--out", photos / "x"), "no images here")
    one_line(called("data", "index", "vidad", photos / "file", "--out", photos / "x"), "not a directory")
    one_line(called("data", "synth", "vidad", "--out", photos / "s", "--size", "9"), "--size 9")


@pytest.mark.slow
def test_tables_that_do_not_belong_together(photos):
    import pyarrow as pa
    import pyarrow.parquet as pq

    m, c = photos / "m", photos / "c"
    assert called("caption", m, "--out", c, "--quiet").returncode == 0
    other = pa.table({"image_id": ["else"], "prompt_id": ["p"], "sample": pa.array([0], pa.int32()), "text": ["t"]})
    pq.write_table(other, photos / "other.parquet")
    one_line(
        called("rewrite-negatives", photos / "other.parquet", "--manifest", m, "--out", photos / "n"),
        "belong to other images",
    )
    pq.write_table(pq.read_table(m).drop_columns(["split"]), photos / "lacks.parquet")
    one_line(called("caption", photos / "lacks.parquet", "--out", photos / "d"), "no column `split`")
    one_line(called("evaluate", c, "--manifest", m, "--out", photos / "e"), "no column `method`")


@pytest.mark.slow
def test_bad_images_fail_as_rows_with_exit_code_3(photos):
    folder = photos / "photos with space"
    whole = (folder / "0.jpg").read_bytes()
    (folder / "0.jpg").write_bytes(whole[: len(whole) // 2])
    done = called("caption", photos / "m", "--out", photos / "c", "--json")
    summary = json.loads(done.stdout)
    assert done.returncode == 3 and (summary["rows"], summary["errors"]) == (6, 1)
    assert "0.jpg" in done.stderr and "cannot be decoded" in done.stderr
    (folder / "0.jpg").write_bytes(whole)
    again = called("caption", photos / "m", "--out", photos / "c", "--json", "--quiet", "--overwrite")
    assert again.returncode == 0 and json.loads(again.stdout)["errors"] == 0


def test_same_command_again_is_up_to_date(photos):
    arguments = ("caption", photos / "m", "--out", photos / "c")
    assert "6 new" in called(*arguments).stderr
    assert "up to date (6 rows)" in called(*arguments).stderr
    one_line(called(*arguments, "--prompt", "magnetic-tile"), "other settings", "--overwrite")


@pytest.mark.slow
def test_a_folder_without_labels_gets_captions_scores_and_a_ranking(photos):
    def stage(*arguments):
        done = adcli(*arguments, "--quiet", models=True)
        assert done.returncode == 0, done.stderr

    m, encoder = photos / "m", photos / "encoder"
    from tests.tiny import tiny_bert

    tiny_bert(encoder)
    stage("caption", m, "--out", photos / "c")
    stage("rewrite-negatives", photos / "c", "--manifest", m, "--out", photos / "n")
    stage("train-encoder", photos / "n", "--manifest", m, "--out", photos / "enc", "--encoder", encoder, "--epochs", 1)
    stage(
        "score",
        m,
        "--method",
        "text-knn",
        "--captions",
        photos / "c",
        "--encoders",
        photos / "enc",
        "--out",
        photos / "s",
    )
    stage("evaluate", photos / "s", "--manifest", m, "--out", photos / "e", "--report", photos / "r.html")
    assert "Pictures, the most unusual first" in (photos / "r.html").read_text()


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done(tmp_path):
    out = tmp_path / "s"
    process = subprocess.Popen(
        [*ADCLI, "data", "synth", "vidad", "--out", str(out), "--size", "200", "--workers", "1"],
        stderr=subprocess.PIPE,
        text=True,  # a minute and more of work
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    while not list(out.rglob("*.jpg")):
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted; the same command goes on" in said
    assert "Traceback" not in said and list(out.rglob("part-*.parquet"))


def test_a_full_disk_is_one_line_and_loses_nothing(photos):
    disk = photos / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("may not mount a small tmpfs here")
    try:
        arguments = ("data", "index", "folder", photos / "photos with space", "--out", disk / "m")
        (disk / "ballast").write_bytes(b"0" * 60_000)
        one_line(called(*arguments), "the disk is full", str(disk))
        (disk / "ballast").unlink()
        done = called(*arguments)
        assert done.returncode == 0 and "6 of 6 rows" in done.stderr
    finally:
        subprocess.run(["umount", disk], check=True)
