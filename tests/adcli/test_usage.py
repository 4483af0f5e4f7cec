"""Wrong uses of every command: one line with what is wrong and what to do, exit code 2, nothing touched."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from adcli.ending import GOES_ON, sentence
from adcli.main import run
from stages.artifacts.maps import to_row
from stages.artifacts.tables import MANIFEST, MAPS, SCORES
from stages.base.errors import InputError
from stages.base.memory import in_megabytes, peak_rss_mb

ROOT = Path(__file__).parents[2]
E = ["evaluate", "s.parquet", "--manifest", "m.parquet", "--out", "e.parquet"]
SCORE = ["score", "m.parquet", "--out", "x", "--method"]
USES = [  # (command line, what its one line says)
    (["capton"], "No such command 'capton'. Did you mean 'caption'? (`adcli --help` lists what there is)"),
    (["--verison"], "No such option: --verison (Possible options: --version) (`adcli --help`"),
    (["caption"], "Missing argument 'manifest' (`adcli caption --help`"),
    (["caption", "m.parquet"], "Missing option '--out' (`adcli caption --help`"),
    (["caption", "m.parquet", "--out", "x", "--promt", "y"], "No such option: --promt (Possible options: --"),
    (["caption", "m.parquet", "more", "--out", "x"], "unexpected extra argument"),
    (["caption", "nowhere", "--out", "x"], "nowhere: no such file or directory (expected a manifest table)"),
    (["caption", "m.parquet", "--out", "x", "--workers", "-1"], "--workers -1: expected 0 or more"),
    (["caption", "m.parquet", "--out", "x", "--samples", "0"], "--samples 0: expected 1 or more"),
    (["caption", "m.parquet", "--out", "x", "--seed", "-1"], "--seed -1: expected 0 or more"),
    (["caption", "m.parquet", "--out", "x", "--max-errors", "-1"], "--max-errors -1: expected 0 or more"),
    (["caption", "m.parquet", "--out", "x", "--retry", "some"], "--retry some: expected possible or all"),
    (["caption", "m.parquet", "--out", "x", "--batch-size", "two"], "'--batch-size'"),
    (["caption", "m.parquet", "--out", "m.parquet"], "--out m.parquet: that is an input (manifest m.parquet)"),
    (["caption", "m.parquet", "--out", "file/x"], "--out file/x: a part of this path is a file, not a folder (file)"),
    (["caption", "folder", "--out", "folder/x"], "--out folder/x: lies in a folder that is read as a whole (manifest"),
    (["caption", "made", "--out", "made/x"], "--out made/x: lies in an input (manifest made), and inputs are never"),
    (["caption", "folder/m.parquet", "--out", "folder"], "--out folder: holds an input (manifest folder/m.parquet)"),
    (["caption", "empty.parquet", "--out", "x"], "empty.parquet: an empty manifest; index the data set again"),
    (["caption", "label2.parquet", "--out", "x"], "label2.parquet: column `label` holds 2; expected 0 (normal), 1"),
    (["rewrite-negatives", "s.parquet", "--manifest", "m.parquet", "--out", "x"], "s.parquet: no column `prompt_id`"),
    (["score"], "Missing option '--method' (`adcli score --help`"),
    ([*SCORE, "knn"], "Invalid value for --method: 'knn' is none of text-knn"),
    ([*SCORE, "visualad"], "Missing option '--checkpoint'"),
    ([*SCORE, "visualad", "--checkpoint", "made", "--workers", "0"], "--workers 0: expected 1 or more"),
    ([*SCORE, "visualad", "--checkpoint", "made", "--maps", "x"], "--maps x: is --out, too; give each a place"),
    ([*SCORE, "visualad", "--checkpoint", "made", "--explain", "x/y"], "--explain x/y: lies in --out x"),
    ([*SCORE, "visualad", "--checkpoint", "made", "--maps", "made/maps"], "--maps made/maps: lies in an input"),
    ([*SCORE, "text-knn", "--captions", "c", "--encoders", "e", "--k", "0"], "--k 0: expected 1 or more"),
    (["data", "index", "foldr"], "No such command 'foldr'. Did you mean 'folder'? (`adcli data index --help`"),
    (["data", "index", "folder", "nowhere", "--out", "x"], "nowhere: no such directory (expected the root of a data"),
    (["data", "index", "folder", "made", "--out", "made", "--overwrite"], "--out made: that is an input (ROOT made)"),
    (
        ["data", "augment", "m.parquet", "--kind", "pad20", "--out", "x", "--images", "file"],
        "--images file: a file, not a folder",
    ),
    (
        ["data", "augment", "m.parquet", "--kind", "pad20", "--out", "x", "--images", "x/pictures"],
        "--images x/pictures: lies in --out x",
    ),
    ([*E, "--resamples", "-4"], "--resamples -4: expected 0 or more"),
    ([*E, "--workers", "-1"], "--workers -1: expected 1 or more"),
    ([*E, "--map", "p.parquet"], "No such option: --map (Possible options: --heatmaps, --maps)"),
    ([*E, "--metrics", "auroc"], "No such option: --metrics"),
    ([*E, "--pro-limit", "2"], "--pro-limit 2.0: expected more than 0, at most 1"),
    ([*E, "--pixel-size", "-1"], "--pixel-size -1: expected 0 or"),
    ([*E, "--report", "folder"], "--report folder: a folder; give the name of a file in it"),
    ([*E, "--report", "file/r.html"], "--report file/r.html: a part of this path is a file, not a folder (file)"),
    ([*E, "--report", "s.parquet"], "--report s.parquet: that is an input (scores s.parquet), and inputs are never"),
    ([*E, "--report", "r.pdf"], "--report r.pdf: expected a name that ends in .html"),
    ([*E, "--report", "thesis.html"], "--report thesis.html: a file that adcli did not write is there"),
    (
        [*E, "--report", "e.parquet/r.html"],
        "--report e.parquet/r.html: lies in --out e.parquet; give each a place of its own",
    ),
    ([*E, "--tables", "e.parquet"], "--tables e.parquet: is --out, too"),
    ([*E, "--tables", "file"], "--tables file: a file, not a folder"),
    ([*E, "--tables", "t", "--heatmaps", "t", "--maps", "p.parquet"], "--heatmaps t: is --tables, too"),
    ([*E, "--thresholds", "e.parquet"], "--out e.parquet: is --thresholds, too"),
    ([*E, "--tables", "made"], "--tables made: lies in an input (maps made)", ["--maps", "made"]),
    ([*E[:5], "file"], "file: a file is there already; give another --out"),
    ([*E, "--heatmaps", "h"], "--heatmaps h: pictures of what --maps holds; give that, too"),
    ([*E[:5], "m.parquet"], "--out m.parquet: that is an input (manifest m.parquet)"),
    (["evaluate", "odd.parquet", *E[2:]], "odd.parquet: column `prediction` holds 3; expected 1 (anomalous), 0 or"),
    (["evaluate", "m.parquet", *E[2:]], "m.parquet: no column `method`; a scores table needs"),
    (["evaluate", "file", *E[2:]], "file: cannot be read as Parquet"),
    (["evaluate", "--questions", "q", "--answers", "a", "--out", "x", "--resamples", "-1"], "--resamples -1: expected"),
    (["ask", "--checkpoint", "made", "--image", "0.png", "--mask", "0.png"], "--mask 0.png: that is an input (image"),
    (["ask", "--checkpoint", "made", "--image", "0.png", "--mask", "folder"], "--mask folder: a folder; give the name"),
    (["models", "--all"], "No such option: --all"),
]


def row(n, **more):
    return {
        "image_id": f"d/{n}",
        "path": f"{n}.png",
        "dataset": "d",
        "category": "c",
        "split": "test",
        "label": n % 2,
        "mask_paths": [],
        "width": 6,
        "height": 4,
    } | more


def write(path, table, rows):
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)


def listing(folder):
    """Path -> digest of a file, None for a folder, of all that lies below."""
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else None
        for p in folder.rglob("*")
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Tables and files to give to commands; `made` is an artifact of adcli as far as its record goes."""
    from PIL import Image

    at = tmp_path_factory.mktemp("usage")
    rows = [row(n) for n in range(4)]
    scores = [{"image_id": f"d/{n}", "method": "x", "score": n / 4} for n in range(4)]
    for n in range(4):
        Image.fromarray(np.full((4, 6, 3), n, np.uint8)).save(at / f"{n}.png")
    for name in ("folder", "made"):
        (at / name).mkdir()
        write(at / name / "m.parquet", MANIFEST, rows)
    (at / "made" / "_adcli.json").write_text(json.dumps({"key": "0", "table": "maps", "stage": "x"}))
    (at / "file").write_text("x")
    (at / "thesis.html").write_text("<!doctype html><title>Mine</title>")
    write(at / "m.parquet", MANIFEST, rows)
    write(at / "empty.parquet", MANIFEST, [])
    write(at / "label2.parquet", MANIFEST, [row(0), row(1, label=2)])
    write(at / "s.parquet", SCORES, scores)
    write(at / "odd.parquet", SCORES, [scores[0] | {"prediction": 3}])
    write(at / "p.parquet", MAPS, [to_row(("d/0", "x"), np.zeros((4, 6)))])
    return at


@pytest.mark.parametrize("use", USES, ids=lambda use: " ".join(use[0])[:60])
def test_a_wrong_use_is_one_line_and_touches_nothing(world, use, monkeypatch, capsys):
    arguments, said, *more = use
    monkeypatch.chdir(world)
    before = listing(world)
    assert run([*arguments, *(more[0] if more else [])]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("adcli: ") and err.count("\n") == 1 and "defect" not in err, err
    assert said in err
    assert listing(world) == before


def test_there_are_enough_of_them():
    assert len(USES) >= 55 and {use[0][0] for use in USES} >= {
        "caption",
        "rewrite-negatives",
        "score",
        "data",
        "evaluate",
        "ask",
        "models",
    }


@pytest.mark.skipif(sys.platform != "linux", reason="places where even root may not write")
def test_what_may_not_be_written_is_said_before_the_work(world, monkeypatch, capsys):
    """Permissions allow root to write there, and the system does not."""
    monkeypatch.chdir(world)
    for flag, path, folder in (
        ("--report", "/sys/r.html", "/sys"),
        ("--report", "/proc/nope/r.html", "/proc"),
        ("--tables", "/proc/nope", "/proc"),
        ("--thresholds", "/sys/x", "/sys"),
    ):
        assert run([*E, flag, path]) == 2
        assert f"{flag} {path}: may not be written ({folder}); give another place" in capsys.readouterr().err
    assert not (world / "e.parquet").exists()


def test_errors_of_libraries_are_one_line():
    for error, said, code in (
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB\nmore"), "a smaller --batch-size", 1),
        (MemoryError(), "out of memory (of this computer): a smaller --batch-size", 1),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "a smaller --batch-size", 1),
        (ModuleNotFoundError("No module named 'vllm'", name="vllm"), "the package vllm is missing", 1),
        (ImportError("cannot import name 'x'", name="stages.y"), "a defect of adcli: ImportError", 1),
        (ValueError("a\nb\x1b[31m"), "a defect of adcli: ValueError: a b\\x1b[31m (--debug shows where)", 1),
        (PermissionError(13, "Permission denied", "m.parquet"), "m.parquet: permission denied; check the path", 2),
        (InputError("x: y"), "x: y", 2),
        (KeyboardInterrupt(), f"interrupted; {GOES_ON}", 130),
    ):
        line, exit_code = sentence(error)
        assert said in line and "\n" not in line and exit_code == code


def test_debug_shows_where(world, monkeypatch, capsys):
    monkeypatch.chdir(world)
    assert run([*E, "--resamples", "-4", "--debug"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err and err.splitlines()[-1] == "adcli: --resamples -4: expected 0 or more"


# -- processes ------------------------------------------------------------------------------------------------


def child(code, **more):
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        **more,
    )


def test_a_reader_that_goes_is_no_error():
    process = child(
        "import sys, adcli.main, adcli.models; sys.argv = ['adcli', 'models']\n"
        "adcli.models.table = lambda: 'x' * 2**20; adcli.main.main()"
    )
    process.stdout.read(1)
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait() == 141


def test_windows_is_told_of_wsl_before_anything_is_loaded():
    process = child(
        "import sys; sys.modules.update(fcntl=None, resource=None, typer=None)\n"
        "import adcli.main; sys.platform = 'win32'; sys.argv = ['adcli', 'models']; adcli.main.main()"
    )
    out, err = process.communicate()
    assert process.returncode == 2 and out == "" and err.count("\n") == 1 and "install WSL" in err


WAITING = """import sys, time
import adcli.main, adcli.models
def wait():
    try:
        print('ready', flush=True)  # within: the signal may come before the next line runs
        time.sleep(60)
    finally:
        {at_the_end}
adcli.models.table = wait
sys.argv = ['adcli', 'models']
adcli.main.main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_is_one_line(number):
    process = child(WAITING.format(at_the_end="pass"))
    process.stdout.readline()
    process.send_signal(number)
    assert process.communicate()[1] == "adcli: interrupted; the same command starts again\n"
    assert process.returncode == 130


def interrupted_twice(apart, at_the_end):
    """SIGINT, and once the end is being written SIGTERM; apart: s from which on that is a second wish."""
    process = child(f"import adcli.ending; adcli.ending.TOGETHER = {apart}\n" + WAITING.format(at_the_end=at_the_end))
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    return out, err


def test_a_second_ctrl_c_ends_at_once():
    out, err = interrupted_twice(0, "print('writing', flush=True); time.sleep(60); print('done')")
    assert "ended at once" in err and "done" not in out


@pytest.mark.slow
def test_the_same_wish_passed_on_by_another_process_is_no_second_one():
    out, err = interrupted_twice(60, "print('writing', flush=True); time.sleep(2); print('done')")
    assert err == "adcli: interrupted; the same command starts again\n" and out == "done\n"


def test_an_interruption_while_libraries_load_is_one_line():
    process = child(
        "import sys, adcli.main, importlib, time\n"
        "def slow(name): print('loading', flush=True); time.sleep(60)\n"
        "importlib.import_module = slow; sys.argv = ['adcli', 'models']; adcli.main.main()"
    )
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate()[1] == "adcli: interrupted; the same command starts again\n"
    assert process.returncode == 130


def test_peak_memory_is_in_megabytes_on_every_system():
    assert in_megabytes(3 * 2**20, "linux") == 3 * 2**10 and in_megabytes(3 * 2**20, "darwin") == 3
    assert peak_rss_mb() > 20
