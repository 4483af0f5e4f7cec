"""Every setting that decides results has a folder of its own."""

import re
from pathlib import Path

import pytest

from tests.pipelines.recorded import BOTH, MANIFESTS, NEEDED, Run, value


@pytest.mark.slow
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
                {"VLM": "b/q", "ASK": "--dtype float32"},
                {"VLM": "b/q", "REWRITE": "--keep-unchecked"},
                {"VLM": "b/q", "SCENARIOS": "fruits,tapes"},
                {"TRAIN": "--epochs 2"},
            ],
        ),
        (
            "vidad_ablations.sh",
            {"SCENARIOS": "fruits", "VLMS": "q"},
            [{"VIDAD_ROOT": "/d/A"}, {"ASK": "--dtype float32"}, {"TRAIN": "--epochs 2"}, {"SEED": "1"}],
        ),
        ("tiles.sh", {}, [{"VLM": "q"}, {"REWRITER": "q"}, {"ENCODER": "q"}, {"SEED": "1"}, {"TILES": "other"}]),
        (
            "lvlm.sh",
            {"KINDS": ""},
            [
                {"VLM": "q"},
                {"ASK": "--shots 2"},
                {"ASK": "--shots 1"},
                {"SEED": "1"},
                {"SEEDS": "1"},
                {"SIZE": "1"},
                BOTH,
            ],
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
            [
                {"JUDGE": "j"},
                {"ASKING": "--dtype float32"},
                {"TOWERS": "random"},
                {"SFE": "-"},
                {"EDPO": "-"},
                {"SEED": "1"},
            ],
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
                {"TOWERS": "random"},
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
                {"TABLE": "4"},
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
        ("vidad.sh", {"VIDAD_ROOT": "/d/VID AD"}, "runs/vidad-VID_AD"),
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
